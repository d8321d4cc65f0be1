//! JSON schemas, which python-glanceclient reads before it does anything. Made from the tables that the
//! documents themselves are written from.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Map, Value, json};

use super::error::Problem;
use super::wire::{self, Member, image, member, task};
use super::{AppState, Settings, body};

/// `GET /v2/schemas/image`.
pub(super) async fn image(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(image_schema(&state.settings)))
}

/// `GET /v2/schemas/images`.
pub(super) async fn images(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(images_schema(&state.settings)))
}

/// `GET /v2/schemas/member`.
pub(super) async fn member(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(schema("member", &member::MEMBERS, &state.settings)))
}

/// `GET /v2/schemas/members`.
pub(super) async fn members(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(collection("members", &schema("member", &member::MEMBERS, &state.settings))))
}

/// `GET /v2/schemas/task`.
pub(super) async fn task(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(schema("task", &task::MEMBERS, &state.settings)))
}

/// `GET /v2/schemas/tasks`.
pub(super) async fn tasks(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(tasks_schema(&state.settings)))
}

fn tasks_schema(settings: &Settings) -> Value {
    collection("tasks", &schema("task", task::listed(), settings))
}

/// What `/openapi.json` says of documents, by the names of their schemas.
pub(super) fn documents(settings: &Settings) -> Map<String, Value> {
    let member = schema("member", &member::MEMBERS, settings);
    let named = [
        ("image", image_schema(settings)),
        ("images", images_schema(settings)),
        ("members", collection("members", &member)),
        ("member", member),
        ("task", schema("task", &task::MEMBERS, settings)),
        ("tasks", tasks_schema(settings)),
    ];
    named.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

/// The schema of documents that have the members of a table, and no others.
fn schema<'m, T: 'm>(name: &str, table: impl IntoIterator<Item = &'m Member<T>>, settings: &Settings) -> Value {
    json!({"name": name, "properties": wire::properties(table, settings)})
}

/// The schema of a collection that is not read in pages, or does not say so.
fn collection(name: &str, item: &Value) -> Value {
    json!({
        "name": name,
        "properties": {name: {"type": "array", "items": item}, "schema": {"type": "string"}},
        "links": [{"rel": "describedby", "href": "{schema}"}],
    })
}

fn image_schema(settings: &Settings) -> Value {
    let custom = &settings.formats.properties;
    let mut properties = wire::properties(&image::MEMBERS, settings);
    properties.extend(custom.shown().map(|(name, shown)| (name.to_owned(), shown.clone())));
    let mut schema = Map::new();
    schema.insert("name".into(), json!("image"));
    schema.insert("properties".into(), Value::Object(properties));
    schema.insert("additionalProperties".into(), json!({"type": "string"}));
    if !custom.required().is_empty() {
        schema.insert("required".into(), json!(custom.required()));
    }
    schema.insert("links".into(), json!([{"rel": "self", "href": "{self}"}, {"rel": "enclosure", "href": "{file}"}, {"rel": "describedby", "href": "{schema}"}]));
    Value::Object(schema)
}

fn images_schema(settings: &Settings) -> Value {
    json!({
        "name": "images",
        "properties": {
            "images": {"type": "array", "items": image_schema(settings)},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "links": [{"rel": "first", "href": "{first}"}, {"rel": "next", "href": "{next}"}, {"rel": "describedby", "href": "{schema}"}],
    })
}
