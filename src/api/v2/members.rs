//! `/v2/images/{id}/members` and `/v2/images/{id}/members/{member}`.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::wire::member::membership as wire;
use crate::api::{AppState, body};
use crate::identity::Caller;

/// `GET /v2/images/{id}/members`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let members = state.services.members(&caller, &id).await?;
    let members: Vec<Value> = members.iter().map(|member| wire(member, &state.settings)).collect();
    Ok(Json(json!({"members": members, "schema": "/v2/schemas/members"})))
}

/// `POST /v2/images/{id}/members`: 200, not 201, as clients expect.
pub(in crate::api) async fn add(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let expected = "Expected a member in the form: {\"member\": \"project_id\"}";
    let body = body::object(request, state.settings.body_idle_timeout, expected).await?;
    let member = state.services.add_member(&caller, &id, &body).await?;
    Ok(Json(wire(&member, &state.settings)))
}

/// `GET /v2/images/{id}/members/{member}`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((id, project)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let member = state.services.member(&caller, &id, &project).await?;
    Ok(Json(wire(&member, &state.settings)))
}

/// `PUT /v2/images/{id}/members/{member}`.
pub(in crate::api) async fn update(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((id, project)): Path<(String, String)>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let expected = "Expected a status in the form: {\"status\": \"accepted\"}";
    let body = body::object(request, state.settings.body_idle_timeout, expected).await?;
    let member = state.services.set_member_status(&caller, &id, &project, &body).await?;
    Ok(Json(wire(&member, &state.settings)))
}

/// `DELETE /v2/images/{id}/members/{member}`.
pub(in crate::api) async fn remove(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((id, project)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.remove_member(&caller, &id, &project).await?;
    Ok(StatusCode::NO_CONTENT)
}
