//! `/v2/metadefs/namespaces/{namespace}/tags` and each of them.

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::wire::metadef as wire;
use crate::api::{AppState, body};
use crate::domain::metadef::{Page, tag_name, tags};
use crate::domain::query::pairs;
use crate::identity::Caller;

/// Says whether new tags are added to those that are there or take their place.
const APPEND: &str = "x-openstack-append";
/// What OpenStack's services take for a yes, in any case of letters. Everything else is a no.
const YES: [&str; 6] = ["1", "t", "true", "on", "y", "yes"];

/// `GET .../tags`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let page = Page::parse(&pairs(&raw.unwrap_or_default())?)?;
    let names = state.services.metadef_tags(&caller, &namespace, &page).await?;
    Ok(Json(json!({"tags": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()})))
}

/// `POST .../tags`.
pub(in crate::api) async fn create_many(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let append = append(request.headers());
    let names = tags(&body::json(request, state.settings.body_idle_timeout).await?)?;
    state.services.create_metadef_tags(&caller, &namespace, &names, append).await?;
    let created: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    Ok((StatusCode::CREATED, Json(json!({"tags": created}))))
}

fn append(headers: &HeaderMap) -> bool {
    let word = headers.get(APPEND).and_then(|value| value.to_str().ok()).unwrap_or_default().trim();
    YES.iter().any(|yes| word.eq_ignore_ascii_case(yes))
}

/// `DELETE .../tags`.
pub(in crate::api) async fn delete_all(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(namespace): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_metadef_tags(&caller, &namespace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET .../tags/{name}`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(wire::named(&state.services.metadef_tag(&caller, &namespace, &name).await?)))
}

/// `POST .../tags/{name}`.
pub(in crate::api) async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Problem> {
    body::none(&request)?;
    let name = tag_name(&json!({"name": name}))?;
    let created = state.services.create_metadef_tag(&caller, &namespace, &name).await?;
    Ok((StatusCode::CREATED, Json(wire::named(&created))))
}

/// `PUT .../tags/{name}`.
pub(in crate::api) async fn rename(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let next = tag_name(&body::json(request, state.settings.body_idle_timeout).await?)?;
    Ok(Json(wire::named(&state.services.rename_metadef_tag(&caller, &namespace, &name, &next).await?)))
}

/// `DELETE .../tags/{name}`.
pub(in crate::api) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((namespace, name)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_metadef_tag(&caller, &namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
