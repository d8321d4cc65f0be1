//! `/v2/metadefs/namespaces/{namespace}/objects` and each of them.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::body::{JsonBody, NoBody};
use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{App, By};
use crate::domain::metadef::{Object, check_objects};
use crate::domain::query::pairs;

/// `GET .../objects`.
pub(in crate::api) async fn list(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    RawQuery(raw): RawQuery,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    check_objects(&pairs(&raw.unwrap_or_default())?)?;
    let objects = app.services.metadef_objects(&caller, &namespace).await?;
    let objects: Vec<Value> = objects.iter().map(|object| wire::object(&namespace, object)).collect();
    // Without a slash in front, as the reference has it.
    Ok(Json(json!({"objects": objects, "schema": "v2/schemas/metadefs/objects"})))
}

/// `POST .../objects`.
pub(in crate::api) async fn create(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    JsonBody(document): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let object = Object::parse(&document)?;
    let created = app.services.create_metadef_object(&caller, &namespace, &object).await?;
    Ok((StatusCode::CREATED, Json(wire::written_object(&namespace, &created))))
}

/// `DELETE .../objects`.
pub(in crate::api) async fn delete_all(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.delete_metadef_objects(&caller, &namespace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET .../objects/{name}`.
pub(in crate::api) async fn show(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let object = app.services.metadef_object(&caller, &namespace, &name).await?;
    Ok(Json(wire::object(&namespace, &object)))
}

/// `PUT .../objects/{name}`.
pub(in crate::api) async fn replace(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    JsonBody(document): JsonBody,
) -> Result<Json<Value>, Problem> {
    let object = Object::parse(&document)?;
    let replaced = app.services.replace_metadef_object(&caller, &namespace, &name, &object).await?;
    Ok(Json(wire::written_object(&namespace, &replaced)))
}

/// `DELETE .../objects/{name}`.
pub(in crate::api) async fn delete(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.delete_metadef_object(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
