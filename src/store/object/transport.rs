//! HTTP for OpenDAL: the client that the rest of the daemon has, with ring, and bounded in time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::{self, Method, Request, Response, StatusCode};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use tokio::sync::mpsc;

use crate::telemetry::StoreMeter;
use crate::tls::{self, Trust};

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections that stay open unused, and for how long: shorter than what servers allow.
const IDLE_CONNECTIONS_MAX: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Times that a request is sent at most, if repeating it does no harm, and the first pause between two of them.
const ATTEMPTS_MAX: u32 = 3;
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// What a connection must manage at least: sending a body may take longer than an answer by its length over this.
const SEND_BYTES_PER_S_MIN: u64 = 1 << 20;

/// A client with a pool of connections.
#[derive(Clone)]
pub(super) struct Transport {
    client: legacy::Client<HttpsConnector<HttpConnector>, Outgoing>,
    timeout: Duration,
    meter: StoreMeter,
}

impl Transport {
    /// # Errors
    /// Why there can be no TLS.
    pub(super) fn new(
        trust: Trust<'_>,
        (connect, timeout): (Duration, Duration),
        meter: &StoreMeter,
    ) -> Result<Self, String> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        let tls = tls::client(trust)?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        Ok(Self { client, timeout, meter: meter.clone() })
    }

    /// Sends a request and waits for the head of the answer. Counted as an operation of its own, whatever becomes of it.
    async fn send_once(&self, parts: http::request::Parts, body: Buffer) -> Result<Response<Incoming>, Error> {
        let (start, method) = (Instant::now(), parts.method.clone());
        let sending = Duration::from_secs(body.len() as u64 / SEND_BYTES_PER_S_MIN);
        let answer = self.client.request(Request::from_parts(parts, Outgoing(body)));
        let (outcome, failure) = match tokio::time::timeout(self.timeout + sending, answer).await {
            Ok(Ok(response)) => {
                let status = response.status();
                let failure =
                    (status.is_client_error() || status.is_server_error()).then(|| status.as_str().to_owned());
                (Ok(response), failure)
            }
            Ok(Err(error)) => {
                (Err(temporary(format!("cannot be reached: {}", chain(&error)))), Some("disconnected".to_owned()))
            }
            Err(_) => {
                let text = format!("does not answer within {} s", self.timeout.as_secs());
                (Err(temporary(text)), Some("timed_out".to_owned()))
            }
        };
        self.meter.operation(method.as_str(), start.elapsed(), failure.as_deref());
        outcome
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>, Error> {
        let (parts, body) = request.into_parts();
        let repeatable = parts.method != Method::POST;
        let is_head = parts.method == Method::HEAD;
        let mut pause = RETRY_PAUSE;
        let mut attempt = 1;
        let response = loop {
            let answer = self.send_once(parts.clone(), body.clone()).await;
            let passing = answer.as_ref().map_or(true, |response| is_passing(response.status()));
            if !passing || !repeatable || attempt >= ATTEMPTS_MAX {
                break answer?;
            }
            tokio::time::sleep(pause).await;
            attempt += 1;
            pause *= 2;
        };
        let (parts, body) = response.into_parts();
        let length = if is_head { None } else { body.size_hint().exact() };
        Ok(Response::from_parts(parts, HttpBody::new(incoming(body, self.timeout), length)))
    }
}

/// Whether another attempt may get another answer.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED || status == StatusCode::TOO_MANY_REQUESTS
}

fn temporary(text: String) -> Error {
    Error::new(ErrorKind::Unexpected, text).set_temporary()
}

/// The bytes of an answer as they come.
fn incoming(
    mut body: Incoming,
    timeout: Duration,
) -> impl futures_util::Stream<Item = Result<Buffer, Error>> + Send + Sync + Unpin {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let frame = match tokio::time::timeout(timeout, body.frame()).await {
                Ok(Some(Ok(frame))) => frame.into_data().map(Buffer::from).map_err(|_| ()),
                Ok(Some(Err(error))) => {
                    let _ = sender.send(Err(temporary(format!("broke off its answer: {}", chain(&error))))).await;
                    return;
                }
                Ok(None) => return,
                Err(_) => {
                    let _ = sender.send(Err(temporary(format!("sent nothing for {} s", timeout.as_secs())))).await;
                    return;
                }
            };
            // Trailers are of no interest; a reader that has gone is no failure.
            if let Ok(data) = frame
                && sender.send(Ok(data)).await.is_err()
            {
                return;
            }
        }
    });
    stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// A body whose length is known.
struct Outgoing(Buffer);

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// An error with what is behind it: the client's own text says "client error (Connect)" and no more.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
