//! `/v2/metadefs/namespaces` and `/v2/metadefs/namespaces/{namespace}`.

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::page::link;
use crate::api::versions::base_url;
use crate::api::wire::metadef as wire;
use crate::api::{AppState, body};
use crate::domain::metadef::{Definition, NamespaceQuery, resource_type};
use crate::domain::query::pairs;
use crate::identity::Caller;

/// The list.
const PATH: &str = "/v2/metadefs/namespaces";

/// `GET /v2/metadefs/namespaces`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let pairs = pairs(&raw.unwrap_or_default())?;
    let query = NamespaceQuery::parse(&pairs, state.services.settings().page_sizes)?;
    let page = state.services.list_metadef_namespaces(&caller, &query).await?;
    let mut document = json!({
        "namespaces": page.namespaces.iter().map(wire::namespace).collect::<Vec<_>>(),
        "first": link(PATH, &pairs, None),
        "schema": "/v2/schemas/metadefs/namespaces",
    });
    if let Some(last) = page.namespaces.last().filter(|_| page.more) {
        document["next"] = json!(link(PATH, &pairs, Some(&last.attributes.name)));
    }
    Ok(Json(document))
}

/// `POST /v2/metadefs/namespaces`.
pub(in crate::api) async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let base = base_url(&state, request.headers());
    let document = body::json(request, state.settings.body_idle_timeout).await?;
    let definition = Definition::parse(&document, &caller.project_id)?;
    let namespace = state.services.create_metadef_namespace(&caller, &definition).await?;
    let location = format!("{base}{}", wire::namespace_path(&namespace.attributes.name));
    let created = wire::created_namespace(&namespace, &definition.content);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(created)).into_response())
}

/// `GET /v2/metadefs/namespaces/{namespace}`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let pairs = pairs(&raw.unwrap_or_default())?;
    let (namespace, parts) = state.services.show_metadef_namespace(&caller, &name, resource_type(&pairs)?).await?;
    Ok(Json(wire::whole_namespace(&namespace, &parts)))
}

/// `PUT /v2/metadefs/namespaces/{namespace}`.
pub(in crate::api) async fn replace(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let document = body::json(request, state.settings.body_idle_timeout).await?;
    // What the namespace holds is checked and left as it is: clients send back all that they were shown.
    let Definition { attributes, .. } = Definition::parse(&document, &caller.project_id)?;
    let namespace = state.services.replace_metadef_namespace(&caller, &name, &attributes).await?;
    Ok(Json(wire::namespace(&namespace)))
}

/// `DELETE /v2/metadefs/namespaces/{namespace}`.
pub(in crate::api) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_metadef_namespace(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
