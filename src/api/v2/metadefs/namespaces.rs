//! `/v2/metadefs/namespaces` and `/v2/metadefs/namespaces/{namespace}`.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::api::body::{JsonBody, NoBody};
use crate::api::error::Problem;
use crate::api::page::link;
use crate::api::versions::base_url;
use crate::api::wire::metadef as wire;
use crate::api::{App, By};
use crate::domain::metadef::{Definition, NamespaceQuery, resource_type};
use crate::domain::query::pairs;

/// The list.
const PATH: &str = "/v2/metadefs/namespaces";

/// `GET /v2/metadefs/namespaces`.
pub(in crate::api) async fn list(
    app: App,
    caller: By,
    RawQuery(raw): RawQuery,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let pairs = pairs(&raw.unwrap_or_default())?;
    let query = NamespaceQuery::parse(&pairs, app.services.settings().page_sizes)?;
    let page = app.services.list_metadef_namespaces(&caller, &query).await?;
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
    app: App,
    caller: By,
    headers: HeaderMap,
    JsonBody(document): JsonBody,
) -> Result<Response, Problem> {
    let base = base_url(&app, &headers);
    let definition = Definition::parse(&document, &caller.project_id)?;
    let namespace = app.services.create_metadef_namespace(&caller, &definition).await?;
    let location = format!("{base}{}", wire::namespace_path(&namespace.attributes.name));
    let created = wire::created_namespace(&namespace, &definition.content);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(created)).into_response())
}

/// `GET /v2/metadefs/namespaces/{namespace}`.
pub(in crate::api) async fn show(
    app: App,
    caller: By,
    Path(name): Path<String>,
    RawQuery(raw): RawQuery,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let pairs = pairs(&raw.unwrap_or_default())?;
    let (namespace, parts) = app.services.show_metadef_namespace(&caller, &name, resource_type(&pairs)?).await?;
    Ok(Json(wire::whole_namespace(&namespace, &parts)))
}

/// `PUT /v2/metadefs/namespaces/{namespace}`.
pub(in crate::api) async fn replace(
    app: App,
    caller: By,
    Path(name): Path<String>,
    JsonBody(document): JsonBody,
) -> Result<Json<Value>, Problem> {
    // What the namespace holds is checked and left as it is: clients send back all that they were shown.
    let Definition { attributes, .. } = Definition::parse(&document, &caller.project_id)?;
    let namespace = app.services.replace_metadef_namespace(&caller, &name, &attributes).await?;
    Ok(Json(wire::namespace(&namespace)))
}

/// `DELETE /v2/metadefs/namespaces/{namespace}`.
pub(in crate::api) async fn delete(
    app: App,
    caller: By,
    Path(name): Path<String>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.delete_metadef_namespace(&caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
