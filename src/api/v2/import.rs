//! `/v2/images/{id}/import`.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;

use super::data::text;
use crate::api::error::Problem;
use crate::api::{AppState, body};
use crate::identity::Caller;

/// `POST /v2/images/{id}/import`.
pub(in crate::api) async fn import(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let store = text(request.headers(), "x-image-meta-store")?.map(str::to_owned);
    let token = text(request.headers(), "x-auth-token")?.unwrap_or_default().trim().to_owned();
    let expected = "The request body must be a JSON object with the 'method' of the import.";
    let document = body::object(request, state.settings.body_idle_timeout, expected).await?;
    state.services.import(&caller, &token, &id, &document, store.as_deref()).await?;
    Ok(StatusCode::ACCEPTED)
}
