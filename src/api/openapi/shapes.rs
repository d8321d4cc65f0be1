//! The JSON that operations take and give. What clients can ask the schema of is made from the same tables.

use serde_json::{Map, Value, json};

use crate::api::wire::{self, image};
use crate::api::{Settings, schemas};
use crate::domain::limits::TEXT_CHARS_MAX;
use crate::domain::member::MemberStatus;

/// Everything that operations refer to, by name.
pub(super) fn components(settings: &Settings) -> Map<String, Value> {
    let mut components = schemas::documents(settings);
    let text = || json!({"type": "string"});
    let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required});
    for (name, shape) in [
        ("any", json!({"type": "object"})),
        ("new-image", new_image(settings)),
        (
            "patch",
            patch(
                &json!({"op": {"enum": ["add", "replace", "remove"]}, "path": pointer(), "value": {}}),
                &["op", "path"],
            ),
        ),
        ("old-patch", patch(&json!({"add": pointer(), "replace": pointer(), "remove": pointer(), "value": {}}), &[])),
        (
            "new-member",
            object(json!({"member": {"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX}}), &["member"]),
        ),
        (
            "member-status",
            object(json!({"status": {"enum": MemberStatus::ALL.map(MemberStatus::as_str)}}), &["status"]),
        ),
        (
            "new-location",
            object(
                json!({"url": text(), "validation_data": {"type": "object", "properties": {"os_hash_algo": text(), "os_hash_value": text()}}}),
                &["url"],
            ),
        ),
        (
            "locations",
            json!({"type": "array", "items": object(json!({"url": text(), "metadata": {"type": "object"}}), &["url", "metadata"])}),
        ),
        (
            "import",
            object(
                json!({
                    "method": object(
                        json!({"name": text(), "uri": text(), "glance_region": text(), "glance_image_id": text(), "glance_service_interface": text()}),
                        &["name"],
                    ),
                    "stores": {"type": "array", "items": text()},
                    "all_stores": {"type": "boolean"},
                    "all_stores_must_succeed": {"type": "boolean"},
                }),
                &["method"],
            ),
        ),
        (
            "new-task",
            object(
                json!({
                    "type": {"enum": ["import"]},
                    "input": object(
                        json!({"import_from": text(), "import_from_format": text(), "image_properties": {"type": "object"}}),
                        &["import_from", "import_from_format", "image_properties"],
                    ),
                }),
                &["type", "input"],
            ),
        ),
        (
            "stores",
            object(json!({"stores": {"type": "array", "items": object(json!({"id": text()}), &["id"])}}), &["stores"]),
        ),
        (
            "usage",
            object(
                json!({"usage": {"type": "object", "additionalProperties": {"type": "object", "properties": {"usage": {"type": "integer"}, "limit": {"type": "integer"}}}}}),
                &["usage"],
            ),
        ),
        (
            "versions",
            object(
                json!({"versions": {"type": "array", "items": object(json!({"id": text(), "status": text(), "links": {"type": "array"}}), &["id", "status", "links"])}}),
                &["versions"],
            ),
        ),
        (
            "namespace",
            object(
                json!({"namespace": name(), "display_name": name(), "description": text(), "visibility": {"enum": ["public", "private"]}, "protected": {"type": "boolean"}, "owner": text(), "resource_type_associations": {"type": "array"}, "properties": {"type": "object"}, "objects": {"type": "array"}, "tags": {"type": "array"}}),
                &["namespace"],
            ),
        ),
        ("resource-type", object(json!({"name": name(), "prefix": name(), "properties_target": name()}), &["name"])),
        (
            "property",
            object(
                json!({"name": name(), "title": text(), "type": {"enum": ["array", "boolean", "integer", "number", "object", "string"]}, "description": text()}),
                &["name", "title", "type"],
            ),
        ),
        (
            "object",
            object(
                json!({"name": name(), "description": text(), "required": {"type": "array"}, "properties": {"type": "object"}}),
                &["name"],
            ),
        ),
        ("tag", object(json!({"name": name()}), &["name"])),
        (
            "tags",
            object(json!({"tags": {"type": "array", "items": object(json!({"name": name()}), &["name"])}}), &["tags"]),
        ),
        ("refusal", object(json!({"message": text(), "code": text(), "title": text()}), &["message", "code", "title"])),
    ] {
        components.insert(name.into(), shape);
    }
    components
}

/// What a client may say of a new image.
fn new_image(settings: &Settings) -> Value {
    let mut properties = wire::properties(&image::MEMBERS, settings);
    properties.retain(|name, schema| schema.get("readOnly").is_none() && name != "locations");
    properties.extend(settings.formats.properties.shown().map(|(name, shown)| (name.to_owned(), shown.clone())));
    let required = settings.formats.properties.required();
    json!({"type": "object", "properties": properties, "additionalProperties": {"type": "string"}, "required": required})
}

fn patch(operation: &Value, required: &[&str]) -> Value {
    json!({"type": "array", "items": {"type": "object", "properties": operation, "required": required, "additionalProperties": false}})
}

/// A JSON pointer to a member of an image.
fn pointer() -> Value {
    json!({"type": "string", "pattern": "^/[^/]+$"})
}

/// Name of a definition.
fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 80})
}
