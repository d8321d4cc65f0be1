//! `GET /metrics`, for Prometheus. It needs no token, and asks nobody: it is answered while Ceph or Postgres are not.

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::AppState;
use super::error::Problem;
use crate::service::Error;
use crate::telemetry::Snapshot;

/// Prometheus' text format, which every scraper reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn show(State(state): State<AppState>) -> Result<impl IntoResponse, Problem> {
    state.services.measure();
    if let Some(ends_at) = state.settings.certificate.as_ref().and_then(|certificate| certificate.ends_at()) {
        let mut snapshot = Snapshot::new();
        let help = "When the certificate of the API's address ends, in Unix time";
        snapshot.add("rockpool_tls_certificate_end_timestamp_seconds", help, [], [([], ends_at)]);
        state.telemetry.gathered("certificate", snapshot);
    }
    let text = state.telemetry.render().map_err(Error::Internal)?;
    Ok(([(CONTENT_TYPE, TEXT_FORMAT)], text))
}
