//! An image as clients see it (`image-api.md` 3.1).

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use super::{
    Member, View, boolean, integer, integer_or_null, member, read_only, some, text, text_or_null, uuid, write,
};
use crate::api::Settings;
use crate::domain::content::Content;
use crate::domain::image::{Image, Location, Visibility, timestamp};
use crate::domain::limits::TEXT_CHARS_MAX;
use crate::domain::status::Status;

/// Read-only property of an image that is queued again because an upload failed.
const UPLOAD_FAILURE: &str = "os_glance_upload_failure";
/// The task that imports an image, for as long as it does.
const IMPORT_TASK: &str = "os_glance_import_task";
/// Stores that an image is on its way to, and those that it could not be brought to, with commas: Nova waits by them.
const IMPORTING_TO_STORES: &str = "os_glance_importing_to_stores";
const FAILED_IMPORT: &str = "os_glance_failed_import";
/// States in the schema, in the reference's order. No image here is `killed` or `pending_delete`.
const STATES: [&str; 9] =
    ["queued", "saving", "active", "killed", "deleted", "uploading", "importing", "pending_delete", "deactivated"];

/// What every image has, in the order of the schema.
pub(in crate::api) const MEMBERS: [Member<Image>; 25] = [
    member("id", "Identifier of the image.", uuid, |image, _| some(image.id.to_string())),
    member("name", "What people call it.", text_or_null::<TEXT_CHARS_MAX>, |image, _| some(&image.attributes.name)),
    read_only("status", "State of the image.", status_names, |image, _| some(image.status.as_str())),
    member("visibility", "Who may see it besides its owner.", visibility_names, |image, _| {
        some(image.attributes.visibility.as_str())
    }),
    member("protected", "Whether deletion is refused.", boolean, |image, _| some(image.attributes.protected)),
    member("os_hidden", "Whether it stays out of default lists.", boolean, |image, _| some(image.attributes.hidden)),
    read_only("checksum", "MD5 of the data, in hex.", text_or_null::<32>, |image, _| {
        some(content(image, |content| content.checksum.as_deref()))
    }),
    read_only("os_hash_algo", "Algorithm of os_hash_value.", text_or_null::<64>, |image, _| {
        some(content(image, |content| content.os_hash_algo.as_deref()))
    }),
    read_only("os_hash_value", "Hash of the data by os_hash_algo, in hex.", text_or_null::<128>, |image, _| {
        some(content(image, |content| content.os_hash_value.as_deref()))
    }),
    member("owner", "Project that owns it.", text_or_null::<TEXT_CHARS_MAX>, |image, _| some(&image.attributes.owner)),
    read_only("size", "Size of the data, in bytes.", integer_or_null, |image, _| {
        some(content(image, |content| Some(content.size_bytes)))
    }),
    read_only("virtual_size", "Size of the disk within the data, in bytes.", integer_or_null, |image, _| {
        some(content(image, |content| content.virtual_size_bytes))
    }),
    member(
        "container_format",
        "Format of what is around the disk.",
        |settings| one_of_or_null(&settings.formats.container),
        |image, _| some(&image.attributes.container_format),
    ),
    member(
        "disk_format",
        "Format of the disk.",
        |settings| one_of_or_null(&settings.formats.disk),
        |image, _| some(&image.attributes.disk_format),
    ),
    read_only("created_at", "When the image was made.", text, |image, _| some(timestamp(image.created_at))),
    read_only("updated_at", "When the image last changed.", text, |image, _| some(timestamp(image.updated_at))),
    member(
        "tags",
        "Labels.",
        |_| json!({"type": "array", "items": {"type": "string", "maxLength": TEXT_CHARS_MAX}}),
        |image, _| some(&image.attributes.tags),
    ),
    read_only("direct_url", "Where the data is, for those who clone it.", text, |image, view| {
        let shown = view.settings.show_image_direct_url && locatable(image, view);
        best(image, view.settings).filter(|_| shown).map(|best| json!(best.url))
    }),
    member("min_ram", "Least memory to boot it with, in MiB.", integer, |image, _| some(image.attributes.min_ram_mib)),
    member("min_disk", "Smallest disk to boot it from, in GiB.", integer, |image, _| {
        some(image.attributes.min_disk_gib)
    }),
    read_only("self", "URL of the image.", text, |image, _| some(format!("/v2/images/{}", image.id))),
    read_only("file", "URL of the data.", text, |image, _| some(format!("/v2/images/{}/file", image.id))),
    read_only("stores", "Names of the stores that have the data, with commas.", text, |image, view| {
        let shown = image.locations.iter().filter(|_| locatable(image, view));
        let stores: Vec<&str> = shown.map(|location| location.store.as_str()).collect();
        (!stores.is_empty()).then(|| json!(stores.join(",")))
    }),
    read_only("schema", "URL of this schema.", text, |_, _| some("/v2/schemas/image")),
    member("locations", "Where the data is.", locations_schema, |image, view| {
        if !view.settings.show_multiple_locations {
            return None;
        }
        let shown = image.locations.iter().filter(|_| locatable(image, view));
        Some(shown.map(location).collect())
    }),
];

/// Writes an image. Its additional properties are members like any other.
pub(in crate::api) fn image(image: &Image, settings: &Settings, admin: bool) -> Value {
    let mut object = Map::new();
    for (name, value) in &image.attributes.properties {
        let null = value.is_empty() && settings.formats.properties.is_nullable(name);
        object.insert(name.clone(), if null { Value::Null } else { json!(value) });
    }
    // In the names that the service keeps for itself. It is no member of the table, because the schema is Glance's.
    if let Some(failure) = &image.upload_failure {
        object.insert(UPLOAD_FAILURE.into(), json!(failure));
    }
    let import = &image.import;
    object.extend(import.task.map(|task| (IMPORT_TASK.into(), json!(task.to_string()))));
    for (name, stores) in [(IMPORTING_TO_STORES, &import.to), (FAILED_IMPORT, &import.failed)] {
        object.extend(stores.as_ref().map(|stores| (name.into(), json!(stores.join(",")))));
    }
    write(&MEMBERS, image, &View { settings, admin }, &mut object);
    Value::Object(object)
}

fn content<'i, V>(image: &'i Image, of: impl FnOnce(&'i Content) -> Option<V>) -> Option<V> {
    image.content.as_ref().and_then(of)
}

/// Whoever knows where the data of a deactivated image is could clone it all the same, and data that has not been
/// verified yet is nobody's to use.
fn locatable(image: &Image, view: &View<'_>) -> bool {
    image.status == Status::Active || view.admin
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

fn status_names(_: &Settings) -> Value {
    json!({"type": "string", "enum": STATES})
}

fn visibility_names(_: &Settings) -> Value {
    json!({"type": "string", "enum": Visibility::ALL.map(Visibility::as_str)})
}

fn one_of_or_null(names: &[String]) -> Value {
    let names: Vec<Option<&str>> = std::iter::once(None).chain(names.iter().map(|name| Some(name.as_str()))).collect();
    json!({"type": ["null", "string"], "enum": names})
}

fn locations_schema(_: &Settings) -> Value {
    json!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "url": {"type": "string", "maxLength": TEXT_CHARS_MAX},
                "metadata": {"type": "object"},
                "validation_data": {
                    "description": "What the data must be: for a queued image it becomes so, for others it must be so already.",
                    "type": "object",
                    "writeOnly": true,
                    "additionalProperties": false,
                    "properties": {
                        "checksum": {"type": "string", "minLength": 32, "maxLength": 32},
                        "os_hash_algo": {"type": "string", "maxLength": 64},
                        "os_hash_value": {"type": "string", "maxLength": 128},
                    },
                    "required": ["os_hash_algo", "os_hash_value"],
                },
            },
            "required": ["url", "metadata"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::{STATES, Status};

    #[test]
    fn the_schema_knows_every_state() {
        assert!(Status::ALL.iter().all(|status| STATES.contains(&status.as_str())));
    }
}
