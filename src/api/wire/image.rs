//! An image as clients see it (`image-api.md` 3.1).

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use crate::api::Settings;
use crate::domain::image::{Image, Location, is_null, timestamp};
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
    // Whoever knows where the data of a deactivated image is could clone it all the same, and data that has not been
    // verified yet is nobody's to use.
    let locatable = image.status == Status::Active || admin;
    if settings.show_image_direct_url
        && locatable
        && let Some(best) = best(image, settings)
    {
        object.insert("direct_url".into(), json!(best.url));
    }
    if settings.show_multiple_locations {
        let locations: Vec<Value> = if locatable { image.locations.iter().map(location).collect() } else { Vec::new() };
        object.insert("locations".into(), json!(locations));
    }
    if !image.locations.is_empty() {
        let stores: Vec<&str> = image.locations.iter().map(|location| location.store.as_str()).collect();
        object.insert("stores".into(), json!(stores.join(",")));
    }
    Value::Object(object)
}

/// The location in the store of the largest weight, the first of several.
fn best<'i>(image: &'i Image, settings: &Settings) -> Option<&'i Location> {
    let weight = |location: &Location| settings.store_weights.get(&location.store).copied().unwrap_or(0);
    image.locations.iter().min_by_key(|location| Reverse(weight(location)))
}

/// Writes a location. The name of its store is part of its metadata.
pub(in crate::api) fn location(location: &Location) -> Value {
    let mut metadata = location.metadata.clone();
    metadata.insert("store".into(), json!(location.store));
    json!({"url": location.url, "metadata": metadata})
}
