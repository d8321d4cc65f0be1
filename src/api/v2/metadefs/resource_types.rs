//! `/v2/metadefs/resource_types`, and `/v2/metadefs/namespaces/{namespace}/resource_types`.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{AppState, body};
use crate::domain::metadef::Association;
use crate::identity::Caller;

/// `GET /v2/metadefs/resource_types`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let types = state.services.metadef_resource_types(&caller).await?;
    Ok(Json(json!({"resource_types": types.iter().map(wire::named).collect::<Vec<_>>()})))
}

/// `GET .../resource_types`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let associations = state.services.metadef_associations(&caller, &namespace).await?;
    let associations: Vec<Value> = associations.iter().map(wire::dated_association).collect();
    Ok(Json(json!({"resource_type_associations": associations})))
}

/// `POST .../resource_types`.
pub(in crate::api) async fn add(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let association = Association::parse(&body::json(request, state.settings.body_idle_timeout).await?)?;
    let added = state.services.add_metadef_association(&caller, &namespace, &association).await?;
    Ok((StatusCode::CREATED, Json(wire::dated_association(&added))))
}

/// `DELETE .../resource_types/{name}`.
pub(in crate::api) async fn remove(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.remove_metadef_association(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
