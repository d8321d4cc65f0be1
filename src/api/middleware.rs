//! What happens to every request before its handler.

use axum::body::HttpBody as _;
use axum::extract::{OriginalUri, Request, State};
use axum::http::header::{ALLOW, CONNECTION, WWW_AUTHENTICATE};
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::AppState;
use super::body;
use super::error::{self, Problem};
use super::observe::RequestLog;
use super::versions;
use crate::identity::{Caller, Tokens, Unidentified};
use crate::service::Error;

/// Headers that mean one thing: given twice, they contradict each other sooner or later.
const SINGLE_HEADERS: [&str; 9] = [
    "x-auth-token",
    "x-service-token",
    "content-type",
    "content-length",
    "range",
    "x-openstack-image-size",
    "x-image-meta-store",
    "x-openstack-request-id",
    "host",
];
/// Longest inbound request id (`max_request_id_length`).
const REQUEST_ID_BYTES_MAX: usize = 64;
/// The text of the reference (keystonemiddleware through webob).
const UNAUTHORIZED: &str = "This server could not verify that you are authorized to access the document you requested. Either you supplied the wrong \
    credentials (e.g., bad password), or your browser does not understand how to supply the credentials required.";

/// Refuses new work while the daemon drains; whoever watches its health is still answered.
pub(super) async fn refuse_while_draining(State(state): State<AppState>, request: Request, next: Next) -> Response {
    if !state.draining.is_cancelled() {
        return next.run(request).await;
    }
    let mut response =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "This gateway is being stopped; try again, at another one.")
            .into_response();
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Refuses paths that name nothing: what is not UTF-8, and, as the reference does, what has a slash within a
/// segment.
pub(super) async fn check_path(request: Request, next: Next) -> Result<Response, Problem> {
    let path = request.uri().path();
    if path.contains('%') {
        if percent_decode_str(path).decode_utf8().is_err() {
            return Err(Problem::bad_request("The path is not valid UTF-8 after percent-decoding."));
        }
        if path.to_ascii_lowercase().contains("%2f") {
            return Err(error::not_found(request.method().clone()).await);
        }
    }
    Ok(next.run(request).await)
}

/// Refuses requests whose headers contradict themselves.
pub(super) async fn check_headers(request: Request, next: Next) -> Result<Response, Problem> {
    for name in SINGLE_HEADERS {
        if request.headers().get_all(name).iter().nth(1).is_some() {
            return Err(Problem::bad_request(format!("The header {name} is given more than once; give it once.")));
        }
    }
    if request.headers().get("x-openstack-request-id").is_some_and(|id| id.len() > REQUEST_ID_BYTES_MAX) {
        return Err(Problem::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            format!("The header X-OpenStack-Request-ID is longer than {REQUEST_ID_BYTES_MAX} characters."),
        ));
    }
    Ok(next.run(request).await)
}

/// Answers every OPTIONS with 200, as the reference does, whose CORS filter stands before all else.
pub(super) async fn answer_options(request: Request, next: Next) -> Response {
    let options = request.method() == Method::OPTIONS;
    let response = next.run(request).await;
    if !options || response.status().is_success() {
        return response;
    }
    let mut answer = StatusCode::OK.into_response();
    answer.headers_mut().extend(response.headers().get(ALLOW).map(|allow| (ALLOW, allow.clone())));
    answer
}

/// Takes in what an early answer left of the body: a client that is still sending would not read the answer.
pub(super) async fn take_in_rest(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let (body, rest) = body::recoverable(body);
    let response = next.run(Request::from_parts(parts, body)).await;
    rest.drain();
    response
}

/// `/v2.N/...` is `/v2/...`, and a path without version takes it from `Accept`. Done before routing.
pub(super) fn route_version(request: &mut Request) {
    let Some(path) = versions::unversioned(request.uri().path(), request.headers()) else { return };
    let rewritten = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    if let Ok(uri) = rewritten.parse::<Uri>() {
        *request.uri_mut() = uri;
    }
}

/// Finds out who is asking. Handlers take the [`crate::identity::Caller`] from the request's extensions:
/// nothing under `/v2` is reached without one.
pub(super) async fn authenticate(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let identified = match identify(&state, request.headers(), request.method(), request.extensions()).await {
        Ok(mut caller) => {
            caller.admin = state.policy.is_admin(&caller).await;
            caller
        }
        Err(Unidentified::Invalid) => {
            let mut response = Problem::new(StatusCode::UNAUTHORIZED, UNAUTHORIZED).into_response();
            if let Ok(challenge) = HeaderValue::from_str(state.identity.challenge()) {
                response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            return response;
        }
        Err(Unidentified::Forbidden(why)) => return Problem::new(StatusCode::FORBIDDEN, why).into_response(),
        Err(Unidentified::Unavailable(why)) => return Problem::from(Error::from(why)).into_response(),
    };
    if let Some(log) = request.extensions().get::<RequestLog>() {
        log.caller(&identified);
    }
    request.extensions_mut().insert(identified);
    next.run(request).await
}

async fn identify(
    state: &AppState,
    headers: &HeaderMap,
    method: &Method,
    extensions: &Extensions,
) -> Result<Caller, Unidentified> {
    let service = match headers.get("x-service-token") {
        None => None,
        Some(_) => Some(token(headers, "x-service-token").ok_or(Unidentified::Invalid)?),
    };
    let tokens = Tokens {
        user: token(headers, "x-auth-token").ok_or(Unidentified::Invalid)?,
        service,
        method: method.as_str(),
        // The request's own path has lost its `/v2` to the router.
        path: extensions.get::<OriginalUri>().map_or("", |uri| uri.path()),
        request_id: extensions.get::<RequestLog>().map(RequestLog::request_id),
    };
    let caller = state.identity.identify(tokens).await?;
    let own = extensions.get::<RequestLog>().map(|log| log.own_request_id().to_owned());
    Ok(Caller { request_id: tokens.request_id.map(str::to_owned), own_request_id: own, ..caller })
}

/// A token, without white space around it. Within one there is none, and nothing that cannot be seen.
fn token<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let token = headers.get(name)?.to_str().ok()?.trim();
    (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then_some(token)
}
