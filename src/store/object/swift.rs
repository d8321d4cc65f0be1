//! Tokens for Swift. OpenDAL sends the one that it was given at its start; this transport puts in one that is valid.

use bytes::Bytes;
use hyper::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::config::SwiftConfig;
use super::transport::Transport;
use crate::secret::Secret;

const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// A transport that authenticates.
pub(super) struct Authenticated {
    inner: HttpTransporter,
    config: SwiftConfig,
    key: Secret,
    token: Mutex<Option<HeaderValue>>,
}

impl Authenticated {
    pub(super) fn new(transport: Transport, config: &SwiftConfig, key: Secret) -> Self {
        Self { inner: HttpTransporter::new(transport), config: config.clone(), key, token: Mutex::new(None) }
    }

    /// The token in use; a new one if that is `old`.
    async fn token(&self, old: Option<&HeaderValue>) -> Result<HeaderValue, Error> {
        let mut token = self.token.lock().await;
        if let Some(known) = token.as_ref().filter(|known| Some(*known) != old) {
            return Ok(known.clone());
        }
        let mut fresh = self.authenticate().await?;
        fresh.set_sensitive(true);
        *token = Some(fresh.clone());
        Ok(fresh)
    }

    async fn authenticate(&self) -> Result<HeaderValue, Error> {
        let (config, url) = (&self.config, self.config.auth_url.trim_end_matches('/'));
        let (request, header) = match &config.project_name {
            Some(project) => {
                let base = if url.ends_with("/v3") { url.to_owned() } else { format!("{url}/v3") };
                let user = json!({
                    "name": config.user,
                    "domain": {"name": config.user_domain_name},
                    "password": self.key.expose(),
                });
                let body: Value = json!({"auth": {
                    "identity": {"methods": ["password"], "password": {"user": user}},
                    "scope": {"project": {"name": project, "domain": {"name": config.project_domain_name}}},
                }});
                let body = Bytes::from(body.to_string());
                let request = Request::post(format!("{base}/auth/tokens"))
                    .header(CONTENT_TYPE, "application/json")
                    .header(CONTENT_LENGTH, body.len())
                    .body(Buffer::from(body));
                (request, SUBJECT_TOKEN)
            }
            None => {
                let request = Request::get(url)
                    .header("x-auth-user", config.user.as_str())
                    .header("x-auth-key", self.key.expose())
                    .body(Buffer::new());
                (request, AUTH_TOKEN)
            }
        };
        let request = request.map_err(|e| denied(format!("a token cannot be asked for: {e}")))?;
        let answer = self.inner.send(request).await?;
        match answer.headers().get(header) {
            Some(token) if answer.status().is_success() => Ok(token.clone()),
            Some(_) | None => Err(denied(format!(
                "auth_url answers {} to the question for a token of {}",
                answer.status(),
                config.user
            ))),
        }
    }
}

fn denied(text: String) -> Error {
    Error::new(ErrorKind::PermissionDenied, text)
}

impl HttpTransport for Authenticated {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>, Error> {
        let (mut parts, body) = request.into_parts();
        let token = self.token(None).await?;
        parts.headers.insert(AUTH_TOKEN, token.clone());
        let answer = self.inner.fetch(Request::from_parts(parts.clone(), body.clone())).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        // Expired, or revoked.
        parts.headers.insert(AUTH_TOKEN, self.token(Some(&token)).await?);
        self.inner.fetch(Request::from_parts(parts, body)).await
    }
}
