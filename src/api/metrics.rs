//! `GET /metrics`, for Prometheus. It needs no token, and asks nobody: it is answered while Ceph or Postgres are not.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::AppState;
use super::error::Problem;
use crate::service::Error;

/// Prometheus' text format, which every scraper reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn show(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    state.services.measure();
    let text = state.telemetry.render().map_err(Error::Internal)?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text))
}
