//! `/v2/metadefs/namespaces/{namespace}/objects` and each of them.

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{AppState, body};
use crate::domain::metadef::{Object, check_objects};
use crate::domain::query::pairs;
use crate::identity::Caller;

/// `GET .../objects`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    check_objects(&pairs(&raw.unwrap_or_default())?)?;
    let objects = state.services.metadef_objects(&caller, &namespace).await?;
    let objects: Vec<Value> = objects.iter().map(|object| wire::object(&namespace, object)).collect();
    // Without a slash in front, as the reference has it.
    Ok(Json(json!({"objects": objects, "schema": "v2/schemas/metadefs/objects"})))
}

/// `POST .../objects`.
pub(in crate::api) async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let object = Object::parse(&body::json(request, state.settings.body_idle_timeout).await?)?;
    let created = state.services.create_metadef_object(&caller, &namespace, &object).await?;
    Ok((StatusCode::CREATED, Json(wire::written_object(&namespace, &created))))
}

/// `DELETE .../objects`.
pub(in crate::api) async fn delete_all(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_metadef_objects(&caller, &namespace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET .../objects/{name}`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let object = state.services.metadef_object(&caller, &namespace, &name).await?;
    Ok(Json(wire::object(&namespace, &object)))
}

/// `PUT .../objects/{name}`.
pub(in crate::api) async fn replace(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let object = Object::parse(&body::json(request, state.settings.body_idle_timeout).await?)?;
    let replaced = state.services.replace_metadef_object(&caller, &namespace, &name, &object).await?;
    Ok(Json(wire::written_object(&namespace, &replaced)))
}

/// `DELETE .../objects/{name}`.
pub(in crate::api) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_metadef_object(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
