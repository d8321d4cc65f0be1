//! Version discovery (`image-api.md` 1). Clients look for an id in the list before they use a call, so it
//! has what a Glance with several stores and without an image cache has.

use axum::extract::{OriginalUri, State};
use axum::http::header::{ACCEPT, HOST, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, http};
use serde_json::{Value, json};

use super::proxy::FORWARDED_PROTO;
use super::{AppState, error};

/// Newest first. 2.14, 2.16 and 2.18 stand for the calls of the cache, which is not here.
const VERSIONS: [&str; 16] = [
    "v2.17", "v2.15", "v2.13", "v2.12", "v2.11", "v2.10", "v2.9", "v2.8", "v2.7", "v2.6", "v2.5", "v2.4", "v2.3",
    "v2.2", "v2.1", "v2.0",
];
/// Media type that selects a version for a path without one.
const MEDIA_TYPE_PREFIX: &str = "application/vnd.openstack.images-";

/// `GET /versions`.
pub(super) async fn list(State(state): State<AppState>, headers: HeaderMap) -> Json<Value> {
    Json(document(&base_url(&state, &headers)))
}

/// `/`, and every path that names no version we know: 300 with the list.
pub(super) async fn choices(
    State(state): State<AppState>,
    OriginalUri(uri): OriginalUri,
    method: Method,
    headers: HeaderMap,
) -> Response {
    if uri.path().starts_with("/v2/") {
        return error::no_route(&method).into_response();
    }
    (StatusCode::MULTIPLE_CHOICES, Json(document(&base_url(&state, &headers)))).into_response()
}

/// `/v2`, as the reference answers it.
pub(super) async fn bare() -> (StatusCode, [(http::HeaderName, &'static str); 1]) {
    (StatusCode::FOUND, [(LOCATION, "/v2/")])
}

fn document(base: &str) -> Value {
    let versions: Vec<Value> = VERSIONS
        .iter()
        .enumerate()
        .map(|(n, id)| json!({"id": id, "status": if n == 0 { "CURRENT" } else { "SUPPORTED" }, "links": [{"rel": "self", "href": format!("{base}/v2/")}]}))
        .collect();
    json!({"versions": versions})
}

/// The URL that the client reached us by, unless the operator has set one.
pub(super) fn base_url(state: &AppState, headers: &HeaderMap) -> String {
    match &state.settings.public_endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None => {
            let host = headers
                .get(HOST)
                .and_then(|host| host.to_str().ok())
                .filter(|host| host.parse::<http::uri::Authority>().is_ok());
            // A trusted proxy may have taken the request over TLS.
            let scheme = headers.get(FORWARDED_PROTO).and_then(|scheme| scheme.to_str().ok()).unwrap_or("http");
            format!("{scheme}://{}", host.unwrap_or("localhost"))
        }
    }
}

/// The path as the router knows it, when the client wrote it with a minor version or none, or with more
/// slashes than needed, as happens where the catalogue's endpoint ends in one.
pub(super) fn unversioned(path: &str, headers: &HeaderMap) -> Option<String> {
    let trimmed = path.trim_start_matches('/');
    let known = match trimmed.split_once('/') {
        Some((first, rest)) if first == "v2" || VERSIONS.contains(&first) => {
            format!("/v2/{}", rest.trim_start_matches('/'))
        }
        _ if VERSIONS.contains(&trimmed) => "/v2/".to_owned(),
        _ => {
            let accepted = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()?.strip_prefix(MEDIA_TYPE_PREFIX));
            let named = !trimmed.is_empty() && trimmed != "v2";
            let version = if named && accepted.is_some_and(|id| VERSIONS.contains(&id)) { "/v2" } else { "" };
            format!("{version}/{trimmed}")
        }
    };
    (known != path).then_some(known)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::unversioned;

    #[test]
    fn minor_versions_share_one_router() {
        let plain = HeaderMap::new();
        assert_eq!(unversioned("/v2.9/images", &plain).as_deref(), Some("/v2/images"));
        assert_eq!(unversioned("/v2/images", &plain), None);
        assert_eq!(unversioned("/v2.99/images", &plain), None);
        assert_eq!(unversioned("/", &plain), None);
        assert_eq!(unversioned("/v2", &plain), None);
        assert_eq!(unversioned("/v2/", &plain), None);
        assert_eq!(unversioned("/v2.9", &plain).as_deref(), Some("/v2/"));
        assert_eq!(unversioned("//v2//images/x", &plain).as_deref(), Some("/v2/images/x"));
        assert_eq!(unversioned("//versions", &plain).as_deref(), Some("/versions"));
        let mut vendor = HeaderMap::new();
        vendor.insert("accept", "application/vnd.openstack.images-v2.1".parse().unwrap());
        assert_eq!(unversioned("/images/x", &vendor).as_deref(), Some("/v2/images/x"));
        assert_eq!(unversioned("/images", &vendor).as_deref(), Some("/v2/images"));
        assert_eq!(unversioned("/v2/images", &vendor), None);
    }
}
