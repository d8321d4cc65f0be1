//! Request bodies, bounded in size and in time.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value};

use super::error::Problem;
use super::{AppState, json};
use crate::domain::limits::JSON_BODY_BYTES_MAX;
use crate::service::{BodyError, ByteStream};

/// How much of an unwanted body is taken in after the answer, and for how long: a client that is still
/// sending reads no answer before it has got rid of its bytes.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// The body as a stream that fails when no frame comes for `idle`.
pub(super) fn stream(body: Body, idle: Duration) -> ByteStream {
    let frames = body.into_data_stream();
    let frames = stream::unfold(Some(frames), move |frames| async move {
        let mut frames = frames?;
        match tokio::time::timeout(idle, frames.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(frames))),
            Ok(Some(Err(error))) => Some((Err(BodyError::Broken(describe(&error))), None)),
            Ok(None) => None,
            Err(_) => Some((Err(BodyError::Stalled(idle.as_secs())), None)),
        }
    });
    Box::pin(frames.fuse())
}

/// What is left of a body that somebody else reads.
pub(super) struct Rest(Shared);

type Shared = Arc<Mutex<Option<BodyDataStream>>>;

/// Splits a body into one to read and a handle to what was not read.
pub(super) fn recoverable(body: Body) -> (Body, Rest) {
    let shared: Shared = Arc::new(Mutex::new(Some(body.into_data_stream())));
    let reader = Arc::clone(&shared);
    let frames = stream::poll_fn(move |context| match reader.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        Some(stream) => stream.poll_next_unpin(context),
        None => Poll::Ready(None),
    });
    (Body::from_stream(frames), Rest(shared))
}

impl Rest {
    /// Lets the client finish sending, within bounds, so that it can read the answer.
    pub(super) fn drain(self) {
        let Some(mut frames) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        tokio::spawn(async move {
            let all = async {
                let mut taken = 0;
                while let Some(Ok(frame)) = frames.next().await {
                    taken += frame.len();
                    if taken > DRAIN_BYTES_MAX {
                        break;
                    }
                }
            };
            let _ = tokio::time::timeout(DRAIN_TIME_MAX, all).await;
        });
    }
}

/// The body as JSON.
///
/// # Errors
/// 400 for anything that is not JSON, 413 for too much of it, 408 for a client that stalls.
pub(super) async fn json(request: Request, idle: Duration) -> Result<Value, Problem> {
    let mut bytes = BytesMut::new();
    let mut frames = stream(request.into_body(), idle);
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|error| match error {
            BodyError::Broken(why) => Problem::bad_request(format!("The request body is incomplete: {why}.")),
            stalled @ BodyError::Stalled(_) => {
                Problem::new(StatusCode::REQUEST_TIMEOUT, format!("The request body did not arrive: {stalled}."))
            }
        })?;
        bytes.extend_from_slice(&frame);
        if bytes.len() > JSON_BODY_BYTES_MAX {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("The request body is larger than {JSON_BODY_BYTES_MAX} bytes."),
            ));
        }
    }
    if bytes.is_empty() {
        return Err(Problem::bad_request("A JSON request body is required."));
    }
    json::parse(&bytes).map_err(|error| Problem::bad_request(format!("Malformed JSON in request body: {error}.")))
}

/// The body as a JSON object.
///
/// # Errors
/// As [`json`]; 400 with `otherwise` for JSON that is no object.
pub(super) async fn object(request: Request, idle: Duration, otherwise: &str) -> Result<Map<String, Value>, Problem> {
    match json(request, idle).await? {
        Value::Object(members) => Ok(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Problem::bad_request(otherwise))
        }
    }
}

/// Refuses a body on a request that takes none.
///
/// # Errors
/// 400.
pub(super) fn none(request: &Request) -> Result<(), Problem> {
    if axum::body::HttpBody::is_end_stream(request.body()) {
        return Ok(());
    }
    Err(Problem::bad_request("A body is not expected with this request."))
}

/// A request without a body, as a handler's last argument.
pub(super) struct NoBody;

impl FromRequest<AppState> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Problem> {
        none(&request).map(|()| Self)
    }
}

/// The JSON body of a request, as a handler's last argument.
pub(super) struct JsonBody(pub(super) Value);

impl FromRequest<AppState> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Problem> {
        json(request, state.settings.body_idle_timeout).await.map(Self)
    }
}

/// The message of a body error with its cause.
fn describe(error: &axum::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
