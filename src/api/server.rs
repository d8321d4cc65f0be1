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
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::flood::Flood;
use super::middleware::route_version;
use super::wire_guard::{Exchange, Guarded, HEADERS_MAX, Refusal, Watch};
use super::{AppState, Certificate, Settings, metrics_router, proxy, router};
use crate::telemetry::Telemetry;

/// Pause after a failure to accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for the request of a connection that is one too many, and how much of it is read.
const REFUSED_WAIT: Duration = Duration::from_millis(500);
const HEAD_BYTES: usize = 4096;

/// Accepts connections until `stop` rings; returns a tracker of those still open. Each finishes the
/// request it is at, then closes.
pub async fn serve(listener: TcpListener, state: AppState, stop: CancellationToken) -> TaskTracker {
    let certificate = state.settings.certificate.clone();
    accept(Listening::new(listener, certificate, &state), router(state), stop).await
}

/// The same for `/metrics` at an address of its own, in plain HTTP.
pub async fn serve_metrics(listener: TcpListener, state: AppState, stop: CancellationToken) -> TaskTracker {
    accept(Listening::new(listener, None, &state), metrics_router(state), stop).await
}

/// An address, and how it is served.
struct Listening {
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    settings: Arc<Settings>,
    telemetry: Arc<Telemetry>,
    flood: Arc<Flood>,
}

impl Listening {
    fn new(listener: TcpListener, certificate: Option<Arc<Certificate>>, state: &AppState) -> Self {
        Self {
            listener,
            certificate,
            settings: Arc::clone(&state.settings),
            telemetry: Arc::clone(&state.telemetry),
            flood: Arc::clone(&state.flood),
        }
    }
}

async fn accept(listening: Listening, router: Router, stop: CancellationToken) -> TaskTracker {
    let Listening { listener, certificate, settings, telemetry, flood } = listening;
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
        let (router, certificate, settings, stop) =
            (router.clone(), certificate.clone(), Arc::clone(&settings), stop.clone());
        let counted = telemetry.connection();
        let place = flood.connection(peer.ip(), &settings.trusted_proxies);
        connections.spawn(async move {
            // Answers are small or streamed in large frames: waiting to fill packets only delays them.
            let _ = socket.set_nodelay(true);
            if place.is_none() {
                return refuse(socket, certificate.is_some()).await;
            }
            let client = Client { address: peer.ip(), secure: certificate.is_some() };
            match certificate {
                None => connection(socket, client, router, &settings, &stop).await,
                Some(certificate) => {
                    let begun = tokio::select! {
                        () = stop.cancelled() => None,
                        // Slow clients have as long as for a request head.
                        begun = tokio::time::timeout(settings.header_timeout, certificate.handshake(socket)) => begun.ok().flatten(),
                    };
                    if let Some(stream) = begun {
                        connection(stream, client, router, &settings, &stop).await;
                    }
                }
            }
            drop((permit, counted, place));
        });
    }
    connections.close();
    connections
}

/// Tells a client that it has too many connections, if it does not take a handshake to tell it.
async fn refuse(mut socket: TcpStream, secure: bool) {
    if !secure {
        // What has not been read would reset the connection before the answer has arrived.
        let _ = tokio::time::timeout(REFUSED_WAIT, socket.read(&mut [0; HEAD_BYTES])).await;
        let refusal = Refusal::too_many("Too many connections are open from your address; close some.");
        let _ = socket.write_all(&refusal.answer()).await;
    }
    let _ = socket.shutdown().await;
}

/// The other end of a connection.
#[derive(Clone, Copy)]
struct Client {
    address: IpAddr,
    /// Whether it speaks TLS.
    secure: bool,
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send>(
    socket: S,
    client: Client,
    router: Router,
    settings: &Settings,
    stop: &CancellationToken,
) {
    let watch = Arc::new(Watch::default());
    let guarded = Guarded::new(socket, Arc::clone(&watch), settings.header_bytes_max);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut request = request.map(Body::new);
        proxy::admit(&mut request, client.address, &settings.trusted_proxies, client.secure);
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
