//! `/v2/metadefs/namespaces/{namespace}/properties` and each of them.

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{AppState, body};
use crate::domain::metadef::{Property, resource_type};
use crate::domain::query::pairs;
use crate::identity::Caller;

/// `GET .../properties`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let properties = state.services.metadef_properties(&caller, &namespace).await?;
    let properties: Map<String, Value> =
        properties.iter().map(|property| (property.name.clone(), wire::property(property))).collect();
    Ok(Json(json!({"properties": properties})))
}

/// `POST .../properties`.
pub(in crate::api) async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let property = Property::parse(&body::json(request, state.settings.body_idle_timeout).await?)?;
    state.services.create_metadef_property(&caller, &namespace, &property).await?;
    Ok((StatusCode::CREATED, Json(wire::property(&property))))
}

/// `DELETE .../properties`.
pub(in crate::api) async fn delete_all(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_metadef_properties(&caller, &namespace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET .../properties/{name}`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let pairs = pairs(&raw.unwrap_or_default())?;
    let property = state.services.metadef_property(&caller, &namespace, &name, resource_type(&pairs)?).await?;
    Ok(Json(wire::property(&property)))
}

/// `PUT .../properties/{name}`.
pub(in crate::api) async fn replace(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let property = Property::parse(&body::json(request, state.settings.body_idle_timeout).await?)?;
    state.services.replace_metadef_property(&caller, &namespace, &name, &property).await?;
    Ok(Json(wire::property(&property)))
}

/// `DELETE .../properties/{name}`.
pub(in crate::api) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_metadef_property(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
