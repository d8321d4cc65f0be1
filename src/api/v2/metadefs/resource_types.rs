//! `/v2/metadefs/resource_types`, and `/v2/metadefs/namespaces/{namespace}/resource_types`.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api::body::{JsonBody, NoBody};
use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{App, By};
use crate::domain::metadef::Association;

/// `GET /v2/metadefs/resource_types`.
pub(in crate::api) async fn list(app: App, caller: By, _: NoBody) -> Result<Json<Value>, Problem> {
    let types = app.services.metadef_resource_types(&caller).await?;
    Ok(Json(json!({"resource_types": types.iter().map(wire::named).collect::<Vec<_>>()})))
}

/// `GET .../resource_types`.
pub(in crate::api) async fn show(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let associations = app.services.metadef_associations(&caller, &namespace).await?;
    let associations: Vec<Value> = associations.iter().map(wire::dated_association).collect();
    Ok(Json(json!({"resource_type_associations": associations})))
}

/// `POST .../resource_types`.
pub(in crate::api) async fn add(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    JsonBody(document): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let association = Association::parse(&document)?;
    let added = app.services.add_metadef_association(&caller, &namespace, &association).await?;
    Ok((StatusCode::CREATED, Json(wire::dated_association(&added))))
}

/// `DELETE .../resource_types/{name}`.
pub(in crate::api) async fn remove(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.remove_metadef_association(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
