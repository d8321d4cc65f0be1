//! Connections: accept, bound, serve, stop.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::middleware::route_version;
use super::wire_guard::{Guarded, Watch};
use super::{AppState, Settings, router};

/// Most headers of one request.
const HEADERS_MAX: usize = 128;
/// hyper's smallest buffer for a head.
const HEADER_BYTES_MIN: usize = 8192;
/// Pause after a failure to accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop` rings; returns a tracker of those still open. Each finishes the
/// request it is at, then closes.
pub async fn serve(listener: TcpListener, state: AppState, stop: CancellationToken) -> TaskTracker {
    let connections = TaskTracker::new();
    let settings = Arc::clone(&state.settings);
    let router = router(state);
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
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (router, settings, stop) = (router.clone(), Arc::clone(&settings), stop.clone());
        connections.spawn(async move {
            connection(socket, router, &settings, &stop).await;
            drop(permit);
        });
    }
    connections.close();
    connections
}

async fn connection(socket: TcpStream, router: Router, settings: &Settings, stop: &CancellationToken) {
    // Answers are small or streamed in large frames: waiting to fill packets only delays them.
    let _ = socket.set_nodelay(true);
    let watch = Watch::new();
    let guarded = Guarded::new(socket, Arc::clone(&watch), settings.header_bytes_max.max(HEADER_BYTES_MIN));
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        if let Some(suspicion) = watch.verdict() {
            request.extensions_mut().insert(suspicion);
        }
        route_version(&mut request);
        let (router, watch) = (router.clone(), Arc::clone(&watch));
        async move {
            let response: Result<_, Infallible> = router.oneshot(request).await;
            watch.exchange_over();
            response
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_headers(HEADERS_MAX)
        // Bounds the head, and with it the frames of a body.
        .max_buf_size(settings.header_bytes_max.max(HEADER_BYTES_MIN))
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
