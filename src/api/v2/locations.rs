//! `/v2/images/{id}/locations`.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::Value;

use crate::api::error::Problem;
use crate::api::wire::image::location;
use crate::api::{AppState, body};
use crate::domain::location::Registration;
use crate::identity::Caller;

/// `POST /v2/images/{id}/locations`.
pub(in crate::api) async fn add(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let document = body::json(request, state.settings.body_idle_timeout).await?;
    let registration = Registration::parse(&document)?;
    state.services.add_location(&caller, &id, &registration).await?;
    Ok(StatusCode::ACCEPTED)
}

/// `GET /v2/images/{id}/locations`: a list without a wrapper.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Vec<Value>>, Problem> {
    body::none(&request)?;
    let locations = state.services.locations(&caller, &id).await?;
    Ok(Json(locations.iter().map(location).collect()))
}
