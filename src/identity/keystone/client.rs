//! HTTP towards Keystone: bounded in time, in size and in number.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Config;
use crate::identity::http::Http;
use crate::secret::Secret;
use crate::tls;

/// Largest answer, in bytes. A token with the catalog of a large site has some 100 KiB.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most requests at once. Keystone has far fewer workers; more would only queue there.
const REQUESTS_MAX: usize = 64;
/// First pause before another attempt; each further one is twice as long.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Header of our request id, by which Keystone's log can be searched.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// Why Keystone cannot be asked. The text is for the log: hosts, no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Keystone {0}")]
pub(super) struct Failure(pub(super) String);

/// One question.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// The whole URL.
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Option<&'a Secret>,
    /// Id of the request on whose behalf it is asked.
    pub(super) request_id: Option<&'a str>,
}

impl<'a> Question<'a> {
    pub(super) fn get(url: String, request_id: Option<&'a str>) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: None, request_id }
    }

    /// Adds a header that no log shows.
    pub(super) fn secret_header(mut self, name: &'static str, value: &str) -> Result<Self, Failure> {
        let mut value =
            HeaderValue::from_str(value).map_err(|_| Failure("gave a token that no header can carry".into()))?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }
}

/// What Keystone says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The body, if it is what it must be.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        // The text of the error may quote the body; its place is enough.
        serde_json::from_slice(&self.body).map_err(|e| {
            Failure(format!(
                "gave an answer that is not what the Identity API says (line {}, column {})",
                e.line(),
                e.column()
            ))
        })
    }
}

/// A client with a pool of connections.
pub(super) struct Client {
    http: Http,
    places: Semaphore,
    timeout: Duration,
    retries: u32,
}

impl Client {
    /// # Errors
    /// Why there can be no TLS.
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let tls = if config.auth_url.starts_with("https:") {
            tls::client(config.trust()).map_err(|problem| format!("cafile {problem}"))?
        } else {
            tls::client(tls::Trust::Anybody)?
        };
        Ok(Self {
            http: Http::new(Duration::from_secs(config.http_connect_timeout_s), tls),
            places: Semaphore::new(REQUESTS_MAX),
            timeout: Duration::from_secs(config.http_request_timeout_s),
            retries: config.http_request_max_retries,
        })
    }

    /// Asks, and asks again where that may help. Answers below 500 are returned, whatever they say.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Answer, Failure> {
        let end = Instant::now() + self.timeout;
        let late = || Failure(format!("does not answer within {} s", self.timeout.as_secs()));
        // Whoever waits longer than that for the others would have no time left to ask.
        let _place = tokio::time::timeout(self.timeout / 2, self.places.acquire())
            .await
            .map_err(|_| Failure(format!("has {REQUESTS_MAX} questions to answer already")))?
            .map_err(|_| late())?;
        let mut pause = RETRY_PAUSE;
        let mut attempt = 0;
        loop {
            let failure = match tokio::time::timeout_at(end, self.ask_once(question)).await {
                Ok(Ok(answer)) if !is_passing(answer.status) => return Ok(answer),
                Ok(Ok(answer)) => Failure(format!("answers {} to {}", answer.status, question.url)),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(late()),
            };
            if attempt >= self.retries || Instant::now() + pause >= end {
                return Err(failure);
            }
            tracing::debug!(%failure, attempt, "Keystone is asked again");
            tokio::time::sleep(pause).await;
            attempt += 1;
            pause *= 2;
        }
    }

    async fn ask_once(&self, question: &Question<'_>) -> Result<Answer, Failure> {
        let body = question.body.map(|body| Bytes::copy_from_slice(body.expose().as_bytes())).unwrap_or_default();
        let mut request = Request::builder()
            .method(&question.method)
            .uri(&question.url)
            .body(Full::new(body))
            .map_err(|e| Failure(format!("cannot be asked: {e}")))?;
        let headers = request.headers_mut();
        headers.extend(question.headers.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("rockpool/", env!("CARGO_PKG_VERSION"))));
        if question.body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(id) = question.request_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(REQUEST_ID, id);
        }
        let (parts, body) = self.http.ask(request, ANSWER_BYTES_MAX).await.map_err(Failure)?.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }
}

/// Whether another attempt may get another answer.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}
