//! Refusals and failures in HTTP: one map from meaning to status, one place that writes bodies.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::domain::Refusal;
use crate::service::Error;

/// Seconds after which a client may ask again what could not be done now.
const RETRY_AFTER_S: u64 = 5;

/// A refusal or failure on its way out. [`render`] writes its body, as the client accepts it.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    status: StatusCode,
    /// For the client.
    text: String,
    /// For the log, where it is not the client's business.
    internal: Option<String>,
    /// Seconds after which the client may ask again.
    retry_after_s: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        let retry_after_s = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER_S);
        Self { status, text: text.into(), internal: None, retry_after_s }
    }

    pub(super) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    /// Says when the client may ask again, in whole seconds, of which there is at least one.
    pub(super) fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after_s = Some((pause.as_secs() + u64::from(pause.subsec_nanos() > 0)).max(1));
        self
    }

    fn internal(status: StatusCode, text: &str, internal: String) -> Self {
        Self { internal: Some(internal), ..Self::new(status, text) }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid(text) | Error::ClientGone(text) => Self::new(StatusCode::BAD_REQUEST, text),
            Error::Forbidden(text) => Self::new(StatusCode::FORBIDDEN, text),
            Error::NotFound(text) => Self::new(StatusCode::NOT_FOUND, text),
            Error::TooSlow(text) => Self::new(StatusCode::REQUEST_TIMEOUT, text),
            Error::Conflict(text) => Self::new(StatusCode::CONFLICT, text),
            Error::Gone(text) => Self::new(StatusCode::GONE, text),
            Error::TooLarge(text) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            Error::Unsupported(text) => Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text),
            Error::Busy(text) => Self::new(StatusCode::SERVICE_UNAVAILABLE, text),
            Error::Unavailable(text) => Self::internal(
                StatusCode::SERVICE_UNAVAILABLE,
                "The service cannot do this at present: something it depends on does not answer. Try again later.",
                text,
            ),
            Error::Internal(text) => Self::internal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The server has either erred or is incapable of performing the requested operation.",
                text,
            ),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Error::from(refusal).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after_s {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Nothing is at this path.
pub(super) async fn not_found(method: Method) -> Problem {
    no_route(&method)
}

/// There is no such resource.
pub(super) fn missing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "The resource could not be found.")
}

/// The refusal of a method where it leads nowhere: the reference tells apart those that it knows.
pub(super) fn no_route(method: &Method) -> Problem {
    match method.as_str() {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" => missing(),
        _ => Problem::new(
            StatusCode::NOT_IMPLEMENTED,
            format!("The method {method} is no method of this service; known: GET, POST, PUT, PATCH, DELETE."),
        ),
    }
}

/// Middleware: writes the body of every refusal in the form that the client accepts, and logs each
/// failure of ours once.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let form = Form::of(request.headers().get(ACCEPT));
    let response = next.run(request).await;
    let Some(problem) = response.extensions().get::<Problem>().cloned() else { return response };
    if let Some(internal) = &problem.internal {
        if problem.status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::warn!(error = %internal, "a request could not be served");
        } else {
            tracing::error!(error = %internal, "a request failed");
        }
    }
    let (mut parts, _) = response.into_parts();
    let (content_type, body) = form.write(problem.status, &problem.text);
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, if method == Method::HEAD { Body::empty() } else { Body::from(body) })
}

/// Form of an error body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Html,
    Json,
}

impl Form {
    /// What the reference (webob) makes of an Accept header: nothing means text, anything means HTML.
    fn of(accept: Option<&HeaderValue>) -> Self {
        match accept.map(HeaderValue::as_bytes) {
            None => Self::Text,
            Some(value) => {
                let accept = String::from_utf8_lossy(value);
                if accept.contains("application/json") {
                    Self::Json
                } else if accept.contains("text/html") || accept.contains("*/*") {
                    Self::Html
                } else {
                    Self::Text
                }
            }
        }
    }

    fn write(self, status: StatusCode, text: &str) -> (&'static str, String) {
        let title = title(status);
        let code = format!("{} {title}", status.as_u16());
        match self {
            Self::Text => ("text/plain; charset=UTF-8", format!("{code}\n\n{text}\n\n   ")),
            Self::Html => {
                let text = escape(text);
                let page = format!(
                    "<html>\n <head>\n  <title>{code}</title>\n </head>\n <body>\n  <h1>{code}</h1>\n  {text}<br /><br />\n\n\n\n </body>\n</html>"
                );
                ("text/html; charset=UTF-8", page)
            }
            Self::Json => (
                "application/json",
                json!({"message": format!("{text}<br /><br />\n\n\n"), "code": code, "title": title}).to_string(),
            ),
        }
    }
}

/// The names of statuses that clients of the reference see.
fn title(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => "Request Entity Too Large",
        StatusCode::RANGE_NOT_SATISFIABLE => "Requested Range Not Satisfiable",
        other => other.canonical_reason().unwrap_or("Error"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#x27;")
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};

    use super::{Form, Problem};
    use crate::service::Error;

    #[test]
    fn one_status_per_meaning() {
        let status = |error: Error| Problem::from(error).status.as_u16();
        let text = String::new;
        assert_eq!(status(Error::Invalid(text())), 400);
        assert_eq!(status(Error::Forbidden(text())), 403);
        assert_eq!(status(Error::NotFound(text())), 404);
        assert_eq!(status(Error::TooSlow(text())), 408);
        assert_eq!(status(Error::Conflict(text())), 409);
        assert_eq!(status(Error::Gone(text())), 410);
        assert_eq!(status(Error::TooLarge(text())), 413);
        assert_eq!(status(Error::Unsupported(text())), 415);
        assert_eq!(status(Error::Busy(text())), 503);
        assert_eq!(status(Error::Unavailable(text())), 503);
        assert_eq!(status(Error::Internal(text())), 500);
    }

    #[test]
    fn what_is_internal_stays_internal() {
        for error in [Error::Unavailable("mon 10.0.0.1".into()), Error::Internal("pool images".into())] {
            let problem = Problem::from(error);
            assert!(!problem.text.contains("10.0.0.1") && !problem.text.contains("images"));
            assert!(problem.internal.is_some());
        }
    }

    #[test]
    fn the_body_follows_accept() {
        let form = |accept: &'static str| Form::of(Some(&HeaderValue::from_static(accept)));
        assert_eq!(Form::of(None), Form::Text);
        assert_eq!(form("*/*"), Form::Html);
        assert_eq!(form("application/json"), Form::Json);
        assert_eq!(form("text/plain"), Form::Text);
        let (_, page) = Form::Html.write(StatusCode::BAD_REQUEST, "<script>");
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }
}
