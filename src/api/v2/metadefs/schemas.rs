//! `/v2/schemas/metadefs`: made of the tables that requests are checked against.

use axum::Json;
use axum::extract::{Path, Request};
use serde_json::{Map, Value, json};

use crate::api::body;
use crate::api::error::{Problem, no_route};
use crate::domain::metadef::shape::{ASSOCIATION, Kind, Member, NAMESPACE, OBJECT, PROPERTY, Shape, TAG, TYPES};

/// `GET /v2/schemas/metadefs/{name}`.
pub(in crate::api) async fn show(Path(name): Path<String>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let shape = |shape: &Shape| Some(with_definitions(schema(shape), shape, false));
    let pages = |name: &str, shape: &Shape| {
        let items = json!({"type": "array", "items": schema(shape)});
        Some(with_definitions(collection(name, &items), shape, false))
    };
    let schema = match name.as_str() {
        "namespace" => shape(&NAMESPACE),
        "namespaces" => pages("namespaces", &NAMESPACE),
        "object" => shape(&OBJECT),
        "objects" => pages("objects", &OBJECT),
        "property" => {
            let mut one = schema(&PROPERTY);
            // On its own a property brings its name; elsewhere it has one.
            if let Some(required) = one["required"].as_array_mut() {
                required.push(json!("name"));
            }
            Some(with_definitions(one, &PROPERTY, true))
        }
        "properties" => {
            let map = json!({"type": "object", "additionalProperties": schema(&PROPERTY)});
            Some(with_definitions(collection("properties", &map), &PROPERTY, true))
        }
        "resource_type" => shape(&ASSOCIATION),
        "resource_types" => pages("resource_type_associations", &ASSOCIATION),
        "tag" => shape(&TAG),
        "tags" => pages("tags", &TAG),
        _ => None,
    };
    schema.map(Json).ok_or_else(|| no_route(request.method()))
}

fn schema(shape: &Shape) -> Value {
    json!({
        "name": shape.name,
        "properties": properties(shape),
        "additionalProperties": false,
        "required": shape.required,
    })
}

fn collection(name: &str, items: &Value) -> Value {
    json!({
        "name": name,
        "properties": {name: items, "first": {"type": "string"}, "next": {"type": "string"}, "schema": {"type": "string"}},
        "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}],
    })
}

/// Adds the definitions that the members of the shape refer to, if any.
fn with_definitions(mut schema: Value, shape: &Shape, alone: bool) -> Value {
    let mut strings = json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true});
    let refers = |kind: Kind| matches!(kind, Kind::Properties | Kind::UniqueTexts);
    if !shape.members.iter().any(|member| refers(member.kind)) {
        return schema;
    }
    if alone {
        strings["minItems"] = json!(1);
    }
    let mut definitions = json!({
        "positiveInteger": {"type": "integer", "minimum": 0},
        "positiveIntegerDefault0": {"allOf": [{"$ref": "#/definitions/positiveInteger"}, {"default": 0}]},
        "stringArray": strings,
    });
    if !alone {
        let property = json!({"type": "object", "required": PROPERTY.required, "properties": properties(&PROPERTY)});
        definitions["property"] = json!({"type": "object", "additionalProperties": property});
    }
    schema["definitions"] = definitions;
    schema
}

fn properties(shape: &Shape) -> Map<String, Value> {
    let describe = |member: &Member| {
        let mut schema = kind(member.kind);
        if !member.about.is_empty() {
            schema["description"] = json!(member.about);
        }
        if member.kind.is_read_only() {
            schema["readOnly"] = json!(true);
        }
        (member.name.to_owned(), schema)
    };
    shape.members.iter().map(describe).collect()
}

/// Type and limits, as JSON schema says them.
fn kind(kind: Kind) -> Value {
    match kind {
        Kind::Name(chars_max) | Kind::Line(chars_max) | Kind::Text(Some(chars_max)) => {
            json!({"type": "string", "maxLength": chars_max})
        }
        Kind::Text(None) | Kind::Path => json!({"type": "string"}),
        Kind::OneOf(names) => json!({"type": "string", "enum": names}),
        Kind::Type => {
            let names: Vec<Value> = TYPES.iter().map(|name| json!(name)).chain([Value::Null]).collect();
            json!({"type": "string", "enum": names})
        }
        Kind::Boolean => json!({"type": "boolean"}),
        Kind::BooleanOrFalse => json!({"type": "boolean", "default": false}),
        Kind::Number => json!({"type": "number"}),
        Kind::Natural => json!({"$ref": "#/definitions/positiveInteger"}),
        Kind::NaturalOrZero => json!({"$ref": "#/definitions/positiveIntegerDefault0"}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::UniqueTexts => json!({"$ref": "#/definitions/stringArray"}),
        Kind::Pattern => json!({"type": "string", "format": "regex"}),
        Kind::List => json!({"type": "array"}),
        Kind::Anything => json!({}),
        Kind::Object(shape) => json!({"type": "object", "properties": properties(shape)}),
        Kind::Objects(shape) => json!({"type": "array", "items": {"type": "object", "properties": outline(shape)}}),
        Kind::Properties => json!({"$ref": "#/definitions/property"}),
        Kind::Moment => json!({"type": "string", "format": "date-time"}),
    }
}

/// What a client may write of a shape within another, without limits: they are checked all the same.
fn outline(shape: &Shape) -> Map<String, Value> {
    let bare = |mut schema: Value| {
        if let Some(members) = schema.as_object_mut() {
            members.remove("maxLength");
        }
        schema
    };
    let written = shape.members.iter().filter(|member| !member.kind.is_read_only());
    written.map(|member| (member.name.to_owned(), bare(kind(member.kind)))).collect()
}
