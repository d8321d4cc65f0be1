//! A client of the Image API.

use std::io::Read;
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::{HeaderMap, Method, Request};
use ureq::{Agent, SendBody};

/// Longest wait for any answer: a test that hangs is a failure.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Largest body that a test reads.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Fails unless the status is the expected one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

/// Sends requests with one token, or none.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(url: &str, token: Option<&str>) -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).max_redirects(0).build();
        Self { agent: config.into(), url: url.to_owned(), token: token.map(str::to_owned) }
    }

    /// Any request; `None` if the connection breaks.
    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: SendBody<'_>,
    ) -> Option<Answer> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("x-auth-token", token);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = self.agent.run(request.body(body).unwrap()).ok()?;
        let (parts, mut body) = answer.into_parts();
        let body = body.with_config().limit(BODY_BYTES_MAX).read_to_vec().ok()?;
        Some(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    /// Any request that must be answered.
    #[track_caller]
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: SendBody<'_>) -> Answer {
        self.try_send(method, path, headers, body).unwrap_or_else(|| panic!("{method} {path}: no answer"))
    }

    pub(crate) fn try_get(&self, path: &str) -> Option<Answer> {
        self.try_send("GET", path, &[], SendBody::none())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], SendBody::none())
    }

    #[track_caller]
    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, SendBody::none())
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], SendBody::none())
    }

    /// Any request without a body.
    #[track_caller]
    pub(crate) fn call(&self, method: &str, path: &str) -> Answer {
        // Said so, or else this library sends an empty chunked body with some methods.
        self.send(method, path, &[("content-length", "0")], SendBody::none())
    }

    /// Any request with this text as a JSON body.
    #[track_caller]
    pub(crate) fn send_json(&self, method: &str, path: &str, text: &str) -> Answer {
        self.send(method, path, &[("content-type", "application/json")], SendBody::from_reader(&mut text.as_bytes()))
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send_json("POST", path, &body.to_string())
    }

    #[track_caller]
    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        self.send_json("PUT", path, &body.to_string())
    }

    /// As `post`, in the company of a service's token.
    #[track_caller]
    pub(crate) fn post_for_user(&self, path: &str, body: &Value, service_token: &str) -> Answer {
        let text = body.to_string();
        let headers = [("content-type", "application/json"), ("x-service-token", service_token)];
        self.send("POST", path, &headers, SendBody::from_reader(&mut text.as_bytes()))
    }

    #[track_caller]
    pub(crate) fn patch(&self, path: &str, operations: &Value) -> Answer {
        let text = operations.to_string();
        let media_type = ("content-type", "application/openstack-images-v2.1-json-patch");
        self.send("PATCH", path, &[media_type], SendBody::from_reader(&mut text.as_bytes()))
    }

    /// Makes a queued raw image and returns its id.
    #[track_caller]
    pub(crate) fn create(&self, name: &str) -> String {
        let image = self
            .post("/v2/images", &json!({"name": name, "disk_format": "raw", "container_format": "bare"}))
            .expect(201)
            .json();
        image["id"].as_str().unwrap().to_owned()
    }

    /// Uploads bytes with their length.
    #[track_caller]
    pub(crate) fn upload(&self, id: &str, bytes: &[u8]) -> Answer {
        let length = bytes.len().to_string();
        self.upload_with(id, &[("content-length", &length)], bytes)
    }

    /// Uploads a stream; without a content-length among `headers` it is chunked.
    #[track_caller]
    pub(crate) fn upload_with(&self, id: &str, headers: &[(&str, &str)], mut bytes: impl Read) -> Answer {
        let mut all = vec![("content-type", "application/octet-stream")];
        all.extend_from_slice(headers);
        self.send("PUT", &format!("/v2/images/{id}/file"), &all, SendBody::from_reader(&mut bytes))
    }

    /// Stages bytes for an import.
    #[track_caller]
    pub(crate) fn stage(&self, id: &str, mut bytes: &[u8]) -> Answer {
        let length = bytes.len().to_string();
        let headers = [("content-type", "application/octet-stream"), ("content-length", &length)];
        self.send("PUT", &format!("/v2/images/{id}/stage"), &headers, SendBody::from_reader(&mut bytes))
    }

    /// Makes an active image of these bytes and returns its id.
    #[track_caller]
    pub(crate) fn active(&self, name: &str, bytes: &[u8]) -> String {
        let id = self.create(name);
        self.upload(&id, bytes).expect(204);
        id
    }

    #[track_caller]
    pub(crate) fn show(&self, id: &str) -> Value {
        self.get(&format!("/v2/images/{id}")).expect(200).json()
    }
}
