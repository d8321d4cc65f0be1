//! One line in the log for every request, written when its last byte has been sent, its request id, and what is counted.

use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tracing::Instrument as _;
use uuid::Uuid;

use super::AppState;
use super::flood::Place;
use super::proxy::ClientAddress;
use crate::identity::Caller;
use crate::telemetry::{self, Direction, Running, Telemetry};

/// Header that carries the request id out, and the global one in.
pub(super) const REQUEST_ID: &str = "x-openstack-request-id";
/// Status in the log of a request whose client did not wait for an answer (nginx's convention).
const CLIENT_GONE: u16 = 499;

/// Longest part of an inbound request id that is logged.
const GLOBAL_ID_CHARS_MAX: usize = 64;
/// What requests for paths that there are not, and by methods that nobody knows, count as.
const UNKNOWN: &str = "other";

/// Collects what the log line says; the line is written when the last holder lets go of it.
#[derive(Clone)]
pub(super) struct RequestLog(Arc<Line>);

struct Line {
    span: tracing::Span,
    request_id: String,
    start: Instant,
    client: String,
    method: String,
    path: String,
    global_request_id: Option<String>,
    status: AtomicU16,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// User and project.
    caller: OnceLock<(String, String)>,
    /// Place among the transfers of its project.
    place: OnceLock<Place<String>>,
    telemetry: Arc<Telemetry>,
    /// Template of the path, and the method, as they are counted.
    route: Option<MatchedPath>,
    counted_method: &'static str,
    _running: Running,
}

impl RequestLog {
    /// Notes who asked.
    pub(super) fn caller(&self, caller: &Caller) {
        let _ = self.0.caller.set((caller.user_id.clone(), caller.project_id.clone()));
    }

    /// The id that the answer carries.
    pub(super) fn own_request_id(&self) -> &str {
        &self.0.request_id
    }

    /// Keeps a place until the request has been answered.
    pub(super) fn hold(&self, place: Place<String>) {
        let _ = self.0.place.set(place);
    }

    /// The id by which other services should log what they do for this request: that of the request which
    /// began it all, if there is one.
    pub(super) fn request_id(&self) -> &str {
        self.0.global_request_id.as_deref().unwrap_or(&self.0.request_id)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let (status, time) = (self.status.load(Ordering::Relaxed), self.start.elapsed());
        let route = self.route.as_ref().map_or(UNKNOWN, MatchedPath::as_str);
        self.telemetry.request(route, self.counted_method, status, time);
        let (user, project) = self.caller.get().map_or(("-", "-"), |(user, project)| (user, project));
        self.span.in_scope(|| {
            tracing::info!(
                target: "rockpool::request",
                client = %self.client,
                method = %self.method,
                path = %self.path,
                status,
                user,
                project,
                bytes_in = self.bytes_in.load(Ordering::Relaxed),
                bytes_out = self.bytes_out.load(Ordering::Relaxed),
                duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
                global_request_id = self.global_request_id.as_deref().unwrap_or("-"),
                "request"
            );
        });
    }
}

/// A method as it is counted: what clients make up is none.
fn counted(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or(UNKNOWN)
}

/// Middleware: outermost, so that every answer has a request id and every request its line.
pub(super) async fn observe(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let request_id = format!("req-{}", Uuid::new_v4());
    let span = tracing::info_span!("request", request_id);
    let global_request_id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .map(|id| id.chars().take(GLOBAL_ID_CHARS_MAX).collect());
    let log = RequestLog(Arc::new(Line {
        span: span.clone(),
        request_id: request_id.clone(),
        start: Instant::now(),
        client: request.extensions().get().map_or_else(|| "-".into(), |ClientAddress(address)| address.to_string()),
        method: request.method().to_string(),
        // Without the query: it may be long, and holds what people search for.
        path: request.uri().path().to_owned(),
        global_request_id,
        status: AtomicU16::new(CLIENT_GONE),
        bytes_in: AtomicU64::new(0),
        bytes_out: AtomicU64::new(0),
        caller: OnceLock::new(),
        place: OnceLock::new(),
        route: request.extensions().get().cloned(),
        counted_method: counted(request.method()),
        _running: state.telemetry.request_running(),
        telemetry: state.telemetry,
    }));
    request.extensions_mut().insert(log.clone());
    let request = request.map(|body| Counted::new(body, &log, Direction::In).into_body());
    let response = next.run(request).instrument(span).await;
    log.0.status.store(response.status().as_u16(), Ordering::Relaxed);
    let mut response = response.map(|body| Counted::new(body, &log, Direction::Out).into_body());
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// A body that counts its bytes.
struct Counted {
    body: Body,
    log: RequestLog,
    direction: Direction,
    bytes: telemetry::Bytes,
}

impl Counted {
    fn new(body: Body, log: &RequestLog, direction: Direction) -> Self {
        Self { body, log: log.clone(), direction, bytes: log.0.telemetry.body_bytes(direction) }
    }

    fn into_body(self) -> Body {
        // An empty body keeps its known length.
        Body::new(self.map_err(axum::Error::new))
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            let line = &self.log.0;
            let counter = match self.direction {
                Direction::In => &line.bytes_in,
                Direction::Out => &line.bytes_out,
            };
            counter.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.bytes.add(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
