//! `/v2/metadefs/namespaces/{namespace}/tags` and each of them.

use axum::Json;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::body::{JsonBody, NoBody};
use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{App, By};
use crate::domain::metadef::{Page, tag_name, tags};
use crate::domain::query::pairs;

/// Says whether new tags are added to those that are there or take their place.
const APPEND: &str = "x-openstack-append";
/// What OpenStack's services take for a yes, in any case of letters. Everything else is a no.
const YES: [&str; 6] = ["1", "t", "true", "on", "y", "yes"];

/// `GET .../tags`.
pub(in crate::api) async fn list(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    RawQuery(raw): RawQuery,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    let page = Page::parse(&pairs(&raw.unwrap_or_default())?)?;
    let names = app.services.metadef_tags(&caller, &namespace, &page).await?;
    Ok(Json(json!({"tags": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()})))
}

/// `POST .../tags`.
pub(in crate::api) async fn create_many(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    JsonBody(document): JsonBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let append = append(&headers);
    let names = tags(&document)?;
    app.services.create_metadef_tags(&caller, &namespace, &names, append).await?;
    let created: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    Ok((StatusCode::CREATED, Json(json!({"tags": created}))))
}

fn append(headers: &HeaderMap) -> bool {
    let word = headers.get(APPEND).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    YES.iter().any(|yes| word.eq_ignore_ascii_case(yes))
}

/// `DELETE .../tags`.
pub(in crate::api) async fn delete_all(
    app: App,
    caller: By,
    Path(namespace): Path<String>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.delete_metadef_tags(&caller, &namespace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET .../tags/{name}`.
pub(in crate::api) async fn show(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    _: NoBody,
) -> Result<Json<Value>, Problem> {
    Ok(Json(wire::named(&app.services.metadef_tag(&caller, &namespace, &name).await?)))
}

/// `POST .../tags/{name}`.
pub(in crate::api) async fn create(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    _: NoBody,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let name = tag_name(&json!({"name": name}))?;
    let created = app.services.create_metadef_tag(&caller, &namespace, &name).await?;
    Ok((StatusCode::CREATED, Json(wire::named(&created))))
}

/// `PUT .../tags/{name}`.
pub(in crate::api) async fn rename(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    JsonBody(document): JsonBody,
) -> Result<Json<Value>, Problem> {
    let next = tag_name(&document)?;
    Ok(Json(wire::named(&app.services.rename_metadef_tag(&caller, &namespace, &name, &next).await?)))
}

/// `DELETE .../tags/{name}`.
pub(in crate::api) async fn delete(
    app: App,
    caller: By,
    Path((namespace, name)): Path<(String, String)>,
    _: NoBody,
) -> Result<StatusCode, Problem> {
    app.services.delete_metadef_tag(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
