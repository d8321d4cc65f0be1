//! For load balancers, monitors and kubelets. None of these needs a token.

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::AppState;
use crate::service::{Check, Health};

/// `GET /healthcheck`, byte for byte as oslo.middleware's: says that the process serves HTTP and that
/// nobody has disabled it by file, not that anything behind it works.
pub(super) async fn healthcheck(State(state): State<AppState>, headers: HeaderMap) -> Response {
    let (status, reason) = healthcheck_state(&state).await;
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("text/plain");
    let (content_type, body) = if accept.contains("application/json") {
        (
            "application/json",
            format!("{{\n    \"detailed\": false,\n    \"reasons\": [\n        \"{reason}\"\n    ]\n}}"),
        )
    } else if accept.contains("text/html") {
        (
            "text/html; charset=UTF-8",
            format!(
                "<HTML>\n<HEAD><TITLE>Healthcheck Status</TITLE></HEAD>\n<BODY>\n\n<H2>Result of 1 checks:</H2>\n<TABLE bgcolor=\"#ffffff\" border=\"1\">\n<TBODY>\n<TR>\n\n<TH>\nReason\n</TH>\n</TR>\n<TR>\n\n    <TD>{reason}</TD>\n\n</TR>\n</TBODY>\n</TABLE>\n<HR></HR>\n\n</BODY>\n</HTML>"
            ),
        )
    } else {
        ("text/plain; charset=UTF-8", reason.to_owned())
    };
    (status, [(CONTENT_TYPE, content_type)], body).into_response()
}

/// `HEAD /healthcheck`: 204 instead of 200.
pub(super) async fn healthcheck_head(State(state): State<AppState>) -> StatusCode {
    match healthcheck_state(&state).await {
        (StatusCode::OK, _) => StatusCode::NO_CONTENT,
        (other, _) => other,
    }
}

async fn healthcheck_state(state: &AppState) -> (StatusCode, &'static str) {
    match &state.settings.healthcheck_disable_path {
        Some(path) if tokio::fs::try_exists(path).await.unwrap_or(false) => {
            (StatusCode::SERVICE_UNAVAILABLE, "DISABLED BY FILE")
        }
        Some(_) | None => (StatusCode::OK, "OK"),
    }
}

/// `GET /livez`: the process answers.
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: Postgres and a store answer, and the daemon is not about to stop. `?verbose` tells
/// the state of every one, and of Keystone.
pub(super) async fn readyz(State(state): State<AppState>, RawQuery(query): RawQuery) -> Response {
    let health = state.services.health().await;
    let draining = state.draining.is_cancelled();
    let status = if health.is_good() && !draining { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|name| name == "verbose" || name.starts_with("verbose=")));
    if verbose {
        return (status, Json(verbose_body(&state, &health, draining))).into_response();
    }
    let text = match status {
        StatusCode::OK => "ok\n",
        _ if draining => "draining\n",
        _ => "not ready\n",
    };
    (status, text).into_response()
}

fn verbose_body(state: &AppState, health: &Health, draining: bool) -> Value {
    let check = |check: &Check| {
        let mut entry = json!({
            "name": check.name,
            "state": match check.problem {
                None => "ok",
                Some(_) if check.required => "failed",
                Some(_) => "degraded",
            },
            "latency_ms": check.latency.as_secs_f64() * 1000.0,
        });
        if let Some(problem) = &check.problem {
            entry["problem"] = json!(problem);
        }
        if let Some((used, available)) = check.usage_bytes {
            entry["used_bytes"] = json!(used);
            entry["available_bytes"] = json!(available);
        }
        entry
    };
    json!({
        "ready": health.is_good() && !draining,
        "draining": draining,
        "version": env!("CARGO_PKG_VERSION"),
        "transfers_running": state.services.transfers().running(),
        "checks": health.checks.iter().map(check).collect::<Vec<_>>(),
    })
}
