//! An image as clients see it (`image-api.md` 3.1).

use serde_json::{Map, Value, json};

use crate::api::Settings;
use crate::domain::image::{Image, is_null, timestamp};
use crate::domain::status::Status;

/// Writes an image. Its additional properties are members like any other.
pub(in crate::api) fn image(image: &Image, settings: &Settings, admin: bool) -> Value {
    let a = &image.attributes;
    let content = image.content.as_ref();
    let id = image.id.to_string();
    let mut object = Map::new();
    for (name, value) in &a.properties {
        object.insert(name.clone(), if is_null(name, value) { Value::Null } else { json!(value) });
    }
    let base = json!({
        "name": a.name,
        "disk_format": a.disk_format,
        "container_format": a.container_format,
        "visibility": a.visibility.as_str(),
        "size": content.map(|c| c.size_bytes),
        "virtual_size": content.and_then(|c| c.virtual_size_bytes),
        "status": image.status.as_str(),
        "checksum": content.and_then(|c| c.checksum.as_deref()),
        "protected": a.protected,
        "min_ram": a.min_ram_mib,
        "min_disk": a.min_disk_gib,
        "owner": a.owner,
        "os_hidden": a.hidden,
        "os_hash_algo": content.and_then(|c| c.os_hash_algo.as_deref()),
        "os_hash_value": content.and_then(|c| c.os_hash_value.as_deref()),
        "id": id,
        "created_at": timestamp(image.created_at),
        "updated_at": timestamp(image.updated_at),
        "tags": a.tags,
        "self": format!("/v2/images/{id}"),
        "file": format!("/v2/images/{id}/file"),
        "schema": "/v2/schemas/image",
    });
    if let Value::Object(base) = base {
        object.extend(base);
    }
    // Whoever knows where the data of a deactivated image is could clone it all the same.
    let locatable = image.status != Status::Deactivated || admin;
    if settings.show_image_direct_url
        && locatable
        && let Some(first) = image.locations.first()
    {
        object.insert("direct_url".into(), json!(first.url));
    }
    if settings.show_multiple_locations {
        let locations: Vec<Value> = if locatable {
            image.locations.iter().map(|l| json!({"url": l.url, "metadata": {"store": l.store}})).collect()
        } else {
            Vec::new()
        };
        object.insert("locations".into(), json!(locations));
    }
    if !image.locations.is_empty() {
        let stores: Vec<&str> = image.locations.iter().map(|location| location.store.as_str()).collect();
        object.insert("stores".into(), json!(stores.join(",")));
    }
    Value::Object(object)
}
