//! `/v2/images/{id}/tags/{tag}`.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;

use crate::api::error::Problem;
use crate::api::{AppState, body};
use crate::identity::Caller;

/// `PUT /v2/images/{id}/tags/{tag}`.
pub(in crate::api) async fn add(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((id, tag)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.add_tag(&caller, &id, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v2/images/{id}/tags/{tag}`.
pub(in crate::api) async fn remove(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((id, tag)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.remove_tag(&caller, &id, &tag).await?;
    Ok(StatusCode::NO_CONTENT)
}
