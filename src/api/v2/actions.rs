//! `/v2/images/{id}/actions/...`.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;

use crate::api::error::Problem;
use crate::api::{AppState, body};
use crate::identity::Caller;

/// `POST /v2/images/{id}/actions/deactivate`.
pub(in crate::api) async fn deactivate(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.deactivate(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v2/images/{id}/actions/reactivate`.
pub(in crate::api) async fn reactivate(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.reactivate(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
