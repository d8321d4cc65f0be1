//! The Image API over HTTP: the only place that knows paths, headers and status codes.

mod body;
mod error;
mod health;
mod middleware;
mod observe;
mod schemas;
mod server;
mod v2;
mod versions;
mod wire;
mod wire_guard;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, put};
use tokio_util::sync::CancellationToken;

use crate::identity::{Identity, Policy};
use crate::service::Services;

pub use server::serve;

/// What the API needs to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Base URL that clients reach this service by; without it, the one that they used.
    pub public_endpoint: Option<String>,
    /// Whether images show `direct_url`, which Nova and Cinder clone from.
    pub show_image_direct_url: bool,
    /// Whether images show `locations`.
    pub show_multiple_locations: bool,
    /// Longest pause between two frames of a body.
    pub body_idle_timeout: Duration,
    /// Longest time for a whole request head.
    pub header_timeout: Duration,
    /// Largest request head, in bytes.
    pub header_bytes_max: usize,
    /// Most open connections.
    pub connections_max: usize,
    /// While this file exists, `/healthcheck` says 503.
    pub healthcheck_disable_path: Option<PathBuf>,
}

/// What every handler can reach.
#[derive(Clone)]
pub struct AppState {
    /// The use-cases.
    pub services: Arc<Services>,
    /// Tokens.
    pub identity: Arc<Identity>,
    /// The rules in force.
    pub policy: Arc<Policy>,
    /// Settings.
    pub settings: Arc<Settings>,
    /// Rings when the daemon is about to stop: `/readyz` says so.
    pub draining: CancellationToken,
}

/// The whole API on one screen.
pub fn router(state: AppState) -> Router {
    let v2 = Router::new()
        .route("/", get(versions::bare))
        .route("/images", get(v2::images::list).post(v2::images::create))
        .route("/images/{id}", get(v2::images::show).patch(v2::images::update).delete(v2::images::delete))
        .route("/images/{id}/file", put(v2::data::upload).get(v2::data::download))
        .route("/schemas/image", get(schemas::image))
        .route("/schemas/images", get(schemas::images))
        .fallback(error::not_found)
        .layer(from_fn_with_state(state.clone(), middleware::authenticate))
        .layer(from_fn_with_state(state.clone(), middleware::refuse_while_draining));
    Router::new()
        .nest("/v2", v2)
        .route("/v2/", get(error::not_found).layer(from_fn_with_state(state.clone(), middleware::authenticate)))
        .route("/versions", get(versions::list).post(versions::list))
        .route("/versions/", get(versions::list))
        .route("/healthcheck", get(health::healthcheck).head(health::healthcheck_head))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .fallback(versions::choices)
        .layer(from_fn(middleware::check_headers))
        .layer(from_fn(middleware::take_in_rest))
        .layer(from_fn(error::render))
        .layer(from_fn(observe::observe))
        .with_state(state)
}
