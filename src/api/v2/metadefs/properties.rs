//! `/v2/metadefs/namespaces/{namespace}/properties` and each of them.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use crate::api::body::{JsonBody, NoBody};
use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{App, By};
use crate::domain::metadef::{Property, resource_type};
use crate::domain::query::pairs;

/// `GET .../properties`.
pub(in crate::api) async fn list(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let properties = app.services.metadef_properties(&caller, &namespace).await?;
    let properties: Map<String, Value> =
        properties.iter().map(|property| (property.name.clone(), wire::property(property))).collect();
    Ok(Json(json!({"properties": properties})))
}

/// `POST .../properties`.
pub(in crate::api) async fn create(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    JsonBody(document): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let property = Property::parse(&document)?;
    app.services.create_metadef_property(&caller, &namespace, &property).await?;
    Ok((StatusCode::CREATED, Json(wire::property(&property))))
}

/// `DELETE .../properties`.
pub(in crate::api) async fn delete_all(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.delete_metadef_properties(&caller, &namespace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET .../properties/{name}`.
pub(in crate::api) async fn show(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let pairs = pairs(&raw.unwrap_or_default())?;
    let property = app.services.metadef_property(&caller, &namespace, &name, resource_type(&pairs)?).await?;
    Ok(Json(wire::property(&property)))
}

/// `PUT .../properties/{name}`.
pub(in crate::api) async fn replace(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    JsonBody(document): JsonBody,
) -> Result<Json<Value>, Problem> {
    let property = Property::parse(&document)?;
    app.services.replace_metadef_property(&caller, &namespace, &name, &property).await?;
    Ok(Json(wire::property(&property)))
}

/// `DELETE .../properties/{name}`.
pub(in crate::api) async fn delete(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.delete_metadef_property(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
