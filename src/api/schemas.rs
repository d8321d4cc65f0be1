//! JSON schemas of images, which python-glanceclient reads before it does anything. Made from the table
//! below and the configured formats.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::AppState;
use crate::domain::image::Visibility;
use crate::domain::status::Status;

/// A member of an image: name, JSON type, whether it may be null, whether the service alone sets it.
const MEMBERS: [(&str, &str, bool, bool); 24] = [
    ("id", "string", false, false),
    ("name", "string", true, false),
    ("status", "string", false, true),
    ("visibility", "string", false, false),
    ("protected", "boolean", false, false),
    ("os_hidden", "boolean", false, false),
    ("checksum", "string", true, true),
    ("os_hash_algo", "string", true, true),
    ("os_hash_value", "string", true, true),
    ("owner", "string", true, false),
    ("size", "integer", true, true),
    ("virtual_size", "integer", true, true),
    ("container_format", "string", true, false),
    ("disk_format", "string", true, false),
    ("created_at", "string", false, true),
    ("updated_at", "string", false, true),
    ("tags", "array", false, false),
    ("direct_url", "string", false, true),
    ("min_ram", "integer", false, false),
    ("min_disk", "integer", false, false),
    ("self", "string", false, true),
    ("file", "string", false, true),
    ("stores", "string", false, true),
    ("schema", "string", false, true),
];

/// `GET /v2/schemas/image`.
pub(super) async fn image(State(state): State<AppState>) -> Json<Value> {
    Json(image_schema(&state))
}

/// `GET /v2/schemas/images`.
pub(super) async fn images(State(state): State<AppState>) -> Json<Value> {
    let mut item = image_schema(&state);
    if let Some(item) = item.as_object_mut() {
        item.remove("links");
    }
    Json(json!({
        "name": "images",
        "properties": {
            "images": {"type": "array", "items": item},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}],
    }))
}

fn image_schema(state: &AppState) -> Value {
    let formats = &state.services.settings().formats;
    let mut properties = Map::new();
    for (name, kind, nullable, read_only) in MEMBERS {
        let mut member = json!({"type": if nullable { json!(["null", kind]) } else { json!(kind) }});
        if read_only {
            member["readOnly"] = json!(true);
        }
        match name {
            "status" => member["enum"] = json!(Status::ALL.map(Status::as_str)),
            "visibility" => member["enum"] = json!(Visibility::ALL.map(Visibility::as_str)),
            "disk_format" => member["enum"] = with_null(&formats.disk),
            "container_format" => member["enum"] = with_null(&formats.container),
            "tags" => member["items"] = json!({"type": "string", "maxLength": 255}),
            "name" | "owner" => member["maxLength"] = json!(255),
            _ => {}
        }
        properties.insert(name.into(), member);
    }
    json!({
        "name": "image",
        "properties": properties,
        "additionalProperties": {"type": "string"},
        "links": [{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"}],
    })
}

fn with_null(names: &[String]) -> Value {
    std::iter::once(Value::Null).chain(names.iter().map(|name| json!(name))).collect()
}
