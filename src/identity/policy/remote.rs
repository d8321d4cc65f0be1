//! Checks that another server decides: `http://host/path/%(attribute)s`. Off unless the operator names the servers.
//!
//! The server gets a POST with rule, target and credentials, as from `oslo.policy`, and allows by answering `True`. No
//! token is among the credentials. Whatever else happens, the check has no answer, and then nothing is allowed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, USER_AGENT};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::check::Question;
use super::fact::Unanswerable;
use super::file::Config;
use crate::identity::http::Http;
use crate::tls;

/// Most questions at once.
const QUESTIONS_MAX: usize = 64;
/// Largest answer, in bytes: it is one word.
const ANSWER_BYTES_MAX: usize = 1024;
/// How long a server that has failed is not asked again: a page of images must not wait for it once per image.
const REST: Duration = Duration::from_secs(1);

/// What servers have said, by URL.
pub(super) type Answers = BTreeMap<String, Result<bool, Unanswerable>>;

/// How a question is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ContentType {
    /// A form whose three fields are JSON.
    #[serde(rename = "application/x-www-form-urlencoded")]
    Form,
    /// One JSON object.
    #[serde(rename = "application/json")]
    Json,
}

/// The servers that may be asked.
#[derive(Debug)]
pub(super) struct Remote {
    /// None where no server is allowed.
    http: Option<Http>,
    content_type: ContentType,
    timeout: Duration,
    places: Semaphore,
    /// Until when servers that failed are left alone.
    resting: Mutex<BTreeMap<String, Instant>>,
}

impl Remote {
    /// # Errors
    /// Why there can be no TLS.
    pub(super) fn new(config: &Config) -> Result<Self, Vec<String>> {
        let timeout = Duration::from_secs(config.remote_timeout_s);
        let http = if config.remote_checks_allowed_hosts.is_empty() {
            None
        } else {
            let trust = config.remote_cafile.as_deref().map_or(tls::Trust::System, tls::Trust::Authorities);
            let tls = tls::client(trust).map_err(|problem| vec![format!("policy.remote_cafile {problem}")])?;
            Some(Http::new(timeout, tls))
        };
        let places = Semaphore::new(QUESTIONS_MAX);
        Ok(Self { http, content_type: config.remote_content_type, timeout, places, resting: Mutex::default() })
    }

    /// Asks the server of `url` whether `rule` allows what is in question.
    pub(super) async fn ask(&self, url: &str, rule: &str, question: &Question<'_>) -> Result<bool, Unanswerable> {
        let server = url.split('/').nth(2).unwrap_or_default();
        if self.rests(server) {
            return Err(Unanswerable);
        }
        let failure = match tokio::time::timeout(self.timeout, self.ask_once(url, rule, question)).await {
            Ok(Ok(allowed)) => return Ok(allowed),
            Ok(Err(failure)) => failure,
            Err(_) => format!("does not answer within {} s", self.timeout.as_secs()),
        };
        tracing::warn!(rule, "the policy server {server} {failure}; what it should decide is denied");
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).insert(server.to_owned(), Instant::now() + REST);
        Err(Unanswerable)
    }

    async fn ask_once(&self, url: &str, rule: &str, question: &Question<'_>) -> Result<bool, String> {
        let http = self.http.as_ref().ok_or("may not be asked (policy.remote_checks_allowed_hosts)")?;
        let _place = self.places.acquire().await.map_err(|closed| closed.to_string())?;
        let (target, credentials) = (question.target.json(question.credentials), question.credentials.json());
        let (content_type, body) = match self.content_type {
            ContentType::Form => {
                let fields = [("rule", json!(rule)), ("target", target.into()), ("credentials", credentials.into())];
                let fields = fields.map(|(name, value)| (name, value.to_string()));
                let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                ("application/x-www-form-urlencoded", form)
            }
            ContentType::Json => {
                ("application/json", json!({"rule": rule, "target": target, "credentials": credentials}).to_string())
            }
        };
        let request = Request::post(url)
            .header(CONTENT_TYPE, content_type)
            .header(USER_AGENT, concat!("rockpool/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(Bytes::from(body)))
            .map_err(|e| format!("cannot be asked: {e}"))?;
        let answer = http.ask(request, ANSWER_BYTES_MAX).await?;
        if !answer.status().is_success() {
            return Err(format!("answers {}", answer.status()));
        }
        Ok(matches!(answer.body().as_ref(), b"True" | b"\"True\""))
    }

    fn rests(&self, server: &str) -> bool {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner);
        resting.get(server).is_some_and(|until| Instant::now() < *until)
    }
}
