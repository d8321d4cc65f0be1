//! Questions over HTTP to servers that decide who may do what: bounded in time and in size.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{Request, Response};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Largest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Connections that stay open unused, and for how long: shorter than what servers allow.
const IDLE_CONNECTIONS_MAX: usize = 8;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A client with a pool of connections. It follows no redirects.
#[derive(Debug, Clone)]
pub(super) struct Http(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    pub(super) fn new(connect_timeout: Duration, tls: rustls::ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        Self(
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
                .http1_max_buf_size(HEAD_BYTES_MAX)
                .build(connector),
        )
    }

    /// Asks once. The time that this may take is for the caller to limit.
    ///
    /// # Errors
    /// What the server does instead of answering, to follow its name in a sentence.
    pub(super) async fn ask(
        &self,
        request: Request<Full<Bytes>>,
        answer_bytes_max: usize,
    ) -> Result<Response<Bytes>, String> {
        let response = self.0.request(request).await.map_err(|e| format!("cannot be reached: {}", chain(&e)))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, answer_bytes_max).collect().await.map_err(|e| {
            if e.is::<LengthLimitError>() {
                format!("gave an answer of more than {answer_bytes_max} bytes")
            } else {
                format!("broke off its answer: {}", chain(&*e))
            }
        })?;
        Ok(Response::from_parts(parts, body.to_bytes()))
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
