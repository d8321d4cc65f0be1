//! Connections: accept, bound, serve, stop.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::middleware::route_version;
use super::wire_guard::{Exchange, Guarded, HEADERS_MAX, Watch};
use super::{AppState, Settings, metrics_router, proxy, router};
use crate::telemetry::Telemetry;

/// Pause after a failure to accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` rings; returns a tracker of those still open. Each finishes the
/// request it is at, then closes.
pub async fn serve(listener: TcpListener, state: AppState, stop: CancellationToken) -> TaskTracker {
    let (settings, telemetry) = (Arc::clone(&state.settings), Arc::clone(&state.telemetry));
    accept(listener, router(state), settings, telemetry, stop).await
}

/// The same for `/metrics` at an address of its own.
pub async fn serve_metrics(listener: TcpListener, state: AppState, stop: CancellationToken) -> TaskTracker {
    let (settings, telemetry) = (Arc::clone(&state.settings), Arc::clone(&state.telemetry));
    accept(listener, metrics_router(state), settings, telemetry, stop).await
}

async fn accept(
    listener: TcpListener,
    router: Router,
    settings: Arc<Settings>,
    telemetry: Arc<Telemetry>,
    stop: CancellationToken,
) -> TaskTracker {
    let connections = TaskTracker::new();
    let permits = Arc::new(Semaphore::new(settings.connections_max));
    loop {
        // A connection beyond the limit waits in the kernel's queue.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (socket, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, settings, stop) = (router.clone(), Arc::clone(&settings), stop.clone());
        let counted = telemetry.connection();
        connections.spawn(async move {
            connection(socket, peer.ip(), router, &settings, &stop).await;
            drop((permit, counted));
        });
    }
    connections.close();
    connections
}

async fn connection(socket: TcpStream, peer: IpAddr, router: Router, settings: &Settings, stop: &CancellationToken) {
    // Answers are small or streamed in large frames: waiting to fill packets only delays them.
    let _ = socket.set_nodelay(true);
    let watch = Arc::new(Watch::default());
    let guarded = Guarded::new(socket, Arc::clone(&watch), settings.header_bytes_max);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        proxy::admit(&mut request, peer, &settings.trusted_proxies);
        route_version(&mut request);
        let (router, exchange, last) = (router.clone(), watch.exchange(), watch.last_exchange());
        async move {
            let response: Result<_, Infallible> = router.oneshot(request).await;
            let mut response = response.map(|response| response.map(|body| Answering { body, _exchange: exchange }));
            if let Ok(response) = &mut response
                && last
            {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(HEADERS_MAX)
        .keep_alive(true);
    let connection = builder.serve_connection(TokioIo::new(guarded), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        // The client's doing, and visible in the request's own line where there was one.
        tracing::debug!(%error, "a connection ended early");
    }
}

/// The body of an answer, which ends the exchange when it has been handed over.
struct Answering {
    body: Body,
    _exchange: Exchange,
}

impl HttpBody for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
