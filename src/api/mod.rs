//! The Image API over HTTP: the only place that knows paths, headers and status codes.

mod body;
pub mod cors;
mod error;
pub mod flood;
mod health;
mod json;
mod metrics;
mod middleware;
mod observe;
mod openapi;
mod page;
mod proxy;
mod routes;
mod schemas;
mod server;
mod tls;
mod v2;
mod versions;
mod wire;
mod wire_guard;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Extension, Router};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;

use self::routes::{Routes, delete, get, post, put};
use crate::domain::image::Formats;
use crate::identity::{Caller, Identity, Policy};
use crate::service::Services;
use crate::telemetry::Telemetry;

pub use server::{serve, serve_metrics};
pub use tls::Certificate;

/// What the API needs to know of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Base URL that clients reach this service by; without it, the one that they used.
    pub public_endpoint: Option<String>,
    /// Which web pages may call the API from a browser.
    pub cors: cors::Config,
    /// Networks of the proxies in front whose word about their clients is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether images show `direct_url`, which Nova and Cinder clone from.
    pub show_image_direct_url: bool,
    /// Whether images show `locations`.
    pub show_multiple_locations: bool,
    /// Weights of the stores: `direct_url` is in the heaviest one.
    pub store_weights: BTreeMap<String, i64>,
    /// What images may be, as their schema says it.
    pub formats: Formats,
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
    /// Certificate of the API's address; without, it speaks plain HTTP.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether `/metrics` is served beside the Image API.
    pub metrics: bool,
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
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
    /// What each address and project has taken.
    pub flood: Arc<flood::Flood>,
}

/// What a handler is given of them, and of who asks.
type App = State<AppState>;
type By = Extension<Caller>;

/// The whole Image API on one screen. Every path is under `/v2`, and every caller is known.
fn v2_routes() -> Routes {
    use v2::metadefs::{namespaces, objects, properties, resource_types, tags};
    Routes::default()
        .route("/", get(versions::bare))
        .route("/images", get(v2::images::list).post(v2::images::create))
        .route("/images/{id}", get(v2::images::show).patch(v2::images::update).delete(v2::images::delete))
        .route("/images/{id}/file", put(v2::data::upload).get(v2::data::download))
        .route("/images/{id}/stage", put(v2::data::stage))
        .route("/images/{id}/import", post(v2::import::import))
        .route("/images/{id}/members", get(v2::members::list).post(v2::members::add))
        .route(
            "/images/{id}/members/{member}",
            get(v2::members::show).put(v2::members::update).delete(v2::members::remove),
        )
        .route("/images/{id}/tags/{tag}", put(v2::tags::add).delete(v2::tags::remove))
        .route("/images/{id}/actions/deactivate", post(v2::actions::deactivate))
        .route("/images/{id}/actions/reactivate", post(v2::actions::reactivate))
        .route("/images/{id}/tasks", get(v2::tasks::of_image).or_missing())
        .route("/tasks", get(v2::tasks::list).post(v2::tasks::create))
        .route("/tasks/{id}", get(v2::tasks::show).delete(v2::tasks::delete))
        .route("/cache", get(v2::cache::list).delete(v2::cache::clear))
        .route("/cache/{id}", put(v2::cache::queue).delete(v2::cache::evict))
        .route("/cache/nodes/{id}", get(v2::cache::nodes))
        .route("/cache/clean", post(v2::cache::clean))
        .route("/cache/prune", post(v2::cache::prune))
        .route("/info/import", get(v2::info::import))
        .route("/images/{id}/locations", get(v2::locations::list).post(v2::locations::add).naming("POST"))
        .route("/stores/{store}/{image}", delete(v2::stores::delete))
        .route("/info/stores", get(v2::stores::info))
        .route("/info/stores/detail", get(v2::stores::detail))
        .route("/info/usage", get(v2::usage::show).or_missing())
        .route("/schemas/image", get(schemas::image))
        .route("/schemas/images", get(schemas::images))
        .route("/schemas/member", get(schemas::member))
        .route("/schemas/members", get(schemas::members))
        .route("/schemas/task", get(schemas::task))
        .route("/schemas/tasks", get(schemas::tasks))
        .route("/metadefs/resource_types", get(resource_types::list))
        .route("/metadefs/namespaces", get(namespaces::list).post(namespaces::create))
        .route(
            "/metadefs/namespaces/{namespace}",
            get(namespaces::show).put(namespaces::replace).delete(namespaces::delete),
        )
        .route("/metadefs/namespaces/{namespace}/resource_types", get(resource_types::show).post(resource_types::add))
        .route("/metadefs/namespaces/{namespace}/resource_types/{name}", delete(resource_types::remove))
        .route(
            "/metadefs/namespaces/{namespace}/properties",
            get(properties::list).post(properties::create).delete(properties::delete_all),
        )
        .route(
            "/metadefs/namespaces/{namespace}/properties/{name}",
            get(properties::show).put(properties::replace).delete(properties::delete),
        )
        .route(
            "/metadefs/namespaces/{namespace}/objects",
            get(objects::list).post(objects::create).delete(objects::delete_all),
        )
        .route(
            "/metadefs/namespaces/{namespace}/objects/{name}",
            get(objects::show).put(objects::replace).delete(objects::delete),
        )
        .route(
            "/metadefs/namespaces/{namespace}/tags",
            get(tags::list).post(tags::create_many).delete(tags::delete_all),
        )
        .route(
            "/metadefs/namespaces/{namespace}/tags/{name}",
            get(tags::show).post(tags::create).put(tags::rename).delete(tags::delete),
        )
        .route("/schemas/metadefs/{name}", get(v2::metadefs::schemas::show))
}

/// What is beside the Image API, for everybody.
fn open_routes(metrics: bool) -> Routes {
    let routes = Routes::default()
        .route("/versions", get(versions::list).head(versions::list).post(versions::list))
        .route("/versions/", get(versions::list).head(versions::list).post(versions::list))
        .route("/healthcheck", get(health::healthcheck).head(health::healthcheck_head))
        .route("/livez", get(health::livez).head(health::livez))
        .route("/readyz", get(health::readyz).head(health::readyz));
    if metrics { routes.route("/metrics", get(metrics::show)) } else { routes }
}

/// What is served at the address of `metrics.listen`.
fn metrics_router(state: AppState) -> Router {
    let (metrics, _) = Routes::default().route("/metrics", get(metrics::show)).into_parts();
    metrics
        .fallback(error::not_found)
        .layer(from_fn(error::render))
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}

/// Everything that is served.
pub fn router(state: AppState) -> Router {
    let authenticate = from_fn_with_state(state.clone(), middleware::authenticate);
    let (v2, v2_paths) = v2_routes().into_parts();
    let v2 = v2
        .fallback(error::not_found)
        .layer(from_fn(middleware::check_path))
        .layer(from_fn_with_state(state.clone(), flood::limit_project))
        .layer(authenticate.clone())
        .layer(from_fn_with_state(state.clone(), flood::limit_address))
        .layer(from_fn_with_state(state.clone(), middleware::refuse_while_draining));
    let cors = state.settings.cors.layer();
    let (open, mut open_paths) = open_routes(state.settings.metrics).into_parts();
    let (description, path) = Routes::default().route("/openapi.json", get(openapi::show)).into_parts();
    open_paths.extend(path);
    let document = openapi::Document::of(&v2_paths, &open_paths, &state.settings);
    open.merge(description.layer(Extension(document)))
        .nest("/v2", v2)
        .route("/v2/", axum::routing::any(error::not_found).layer(authenticate))
        .fallback(versions::choices)
        .layer(from_fn(middleware::answer_options))
        .layer(from_fn(middleware::check_headers))
        .layer(from_fn(middleware::take_in_rest))
        .layer(from_fn(error::render))
        .layer(option_layer(cors))
        .layer(from_fn_with_state(state.clone(), observe::observe))
        .with_state(state)
}
