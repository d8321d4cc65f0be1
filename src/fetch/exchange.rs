//! One request and the head of its answer, over as many redirects as are allowed. Every hop is checked like the first.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::header::{
    ACCEPT, ACCEPT_ENCODING, HOST, HeaderMap, HeaderValue, IF_RANGE, LOCATION, PROXY_AUTHORIZATION, RANGE, USER_AGENT,
};
use hyper::{Request, StatusCode};

use super::answer::{Validator, retry_after, unasked_encoding};
use super::connect::{Connection, Connector, Form};
use super::target::{Scheme, Target};
use super::{Config, Error};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Question {
    /// The bytes that are wanted; `None`: all.
    pub(super) range: Option<Range<u64>>,
    /// State of the data that the range is of.
    pub(super) validator: Option<Validator>,
    /// Further headers; they are sent to no other server than the first.
    pub(super) headers: HeaderMap,
    /// Whether the operator named the server, and no user: it may then have any address, and redirects nowhere.
    pub(super) trusted: bool,
}

/// An answer whose body has not been read.
pub(super) struct Answer {
    /// Who gave it, after all redirects.
    pub(super) target: Target,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    connection: Connection,
    idle_timeout: Duration,
}

impl Answer {
    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the connection breaks, or nothing comes for too long.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = tokio::time::timeout(self.idle_timeout, self.body.frame()).await;
            match frame.map_err(|_| silent(&self.target, self.idle_timeout))? {
                None => return Ok(None),
                // Trailers are nothing to us.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => {}
                },
                Some(Err(e)) => {
                    tracing::debug!(target = %self.target, "the connection broke: {e}");
                    return Err(Error::Unavailable(format!("The server {} broke off its answer.", self.target.host)));
                }
            }
        }
    }

    /// The connection, for another request, if the server leaves it open. The body must have been read.
    pub(super) async fn into_connection(mut self) -> Option<Connection> {
        drop(self.body);
        let ready = tokio::time::timeout(self.idle_timeout, self.connection.sender.ready()).await;
        matches!(ready, Ok(Ok(()))).then_some(self.connection)
    }

    /// What an answer without data means.
    pub(super) fn failure(&self) -> Error {
        let text = format!("The server {} answers {}.", self.target.host, self.status);
        let passing = self.status.is_server_error()
            || matches!(self.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        match retry_after(&self.headers) {
            Some(pause) if passing => Error::Busy(text, pause),
            _ if passing => Error::Unavailable(text),
            _ => Error::Unusable(text),
        }
    }
}

/// Asks servers.
pub(super) struct Client {
    pub(super) connector: Connector,
    idle_timeout: Duration,
    redirects_max: u32,
    allow_https_to_http: bool,
}

impl Client {
    pub(super) fn new(config: &Config, connector: Connector) -> Self {
        Self {
            connector,
            idle_timeout: Duration::from_secs(config.idle_timeout_s),
            redirects_max: config.redirects_max,
            allow_https_to_http: config.allow_https_to_http,
        }
    }

    /// Asks `target`, over `open` if there is an open connection to it, and follows redirects.
    ///
    /// # Errors
    /// [`Error`]; an answer of any status that is no redirect is none.
    pub(super) async fn ask(
        &self,
        target: &Target,
        question: &Question,
        open: Option<Connection>,
    ) -> Result<Answer, Error> {
        // A server may close a connection at any time between two requests: that says nothing about it.
        if let Some(connection) = open
            && let Ok(answer) = self.once(target, question, connection).await
            && !answer.status.is_redirection()
        {
            return decoded(answer);
        }
        let mut target = target.clone();
        for _ in 0..=self.redirects_max {
            let connection = self.connector.connect(&target, question.trusted).await?;
            let answer = self.once(&target, question, connection).await?;
            if !answer.status.is_redirection() {
                return decoded(answer);
            }
            target = self.next_hop(&answer, question.trusted)?;
        }
        Err(Error::Unusable(format!("The server {} redirects more than {} times.", target.host, self.redirects_max)))
    }

    /// Where a redirect leads, if that is allowed.
    fn next_hop(&self, answer: &Answer, trusted: bool) -> Result<Target, Error> {
        let from = &answer.target;
        let known = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let location = answer.headers.get(LOCATION).filter(|_| known).and_then(|location| location.to_str().ok());
        let Some(location) = location else { return Err(answer.failure()) };
        if trusted {
            return Err(Error::Refused(format!(
                "The server {} redirects to another place, which is not followed.",
                from.host
            )));
        }
        let to = self.connector.rules.check(&from.join(location)).map_err(|refusal| {
            Error::Refused(format!("The server {} redirects to a place that is not allowed: {refusal}", from.host))
        })?;
        if from.scheme == Scheme::Https && to.scheme == Scheme::Http && !self.allow_https_to_http {
            return Err(Error::Refused(format!("The server {} redirects from https to http.", from.host)));
        }
        Ok(to)
    }

    async fn once(&self, target: &Target, question: &Question, mut connection: Connection) -> Result<Answer, Error> {
        let request = request(target, question, &connection.form)?;
        let sending = connection.sender.send_request(request);
        let response = tokio::time::timeout(self.idle_timeout, sending)
            .await
            .map_err(|_| silent(target, self.idle_timeout))?
            .map_err(|e| {
                tracing::debug!(%target, "no answer: {e}");
                let host = &target.host;
                if e.is_parse() {
                    Error::Unusable(format!(
                        "The server {host} gives an answer that is not HTTP, or whose head is too large."
                    ))
                } else {
                    Error::Unavailable(format!("The server {host} gives no answer."))
                }
            })?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            target: target.clone(),
            status: head.status,
            headers: head.headers,
            body,
            connection,
            idle_timeout: self.idle_timeout,
        })
    }
}

fn silent(target: &Target, timeout: Duration) -> Error {
    Error::Unavailable(format!("The server {} was silent for {} s.", target.host, timeout.as_secs()))
}

/// Refuses data that is packed on the way: nobody asked for that, and nobody will unpack it.
fn decoded(answer: Answer) -> Result<Answer, Error> {
    match unasked_encoding(&answer.headers, &answer.target) {
        Some(encoding) if answer.status.is_success() => {
            let encoding: String = encoding.chars().filter(|c| !c.is_control()).take(32).collect();
            Err(Error::Unusable(format!(
                "The server {} sends the data with Content-Encoding {encoding}, which it was asked not to do.",
                answer.target.host
            )))
        }
        _ => Ok(answer),
    }
}

fn request(target: &Target, question: &Question, form: &Form) -> Result<Request<Empty<Bytes>>, Error> {
    let uri = match form {
        Form::Origin => target.path_and_query().to_owned(),
        Form::Absolute(_) => format!("{target}{}", target.path_and_query()),
    };
    let unusable = |_| Error::Unusable("The URL cannot be asked for.".into());
    let mut request = Request::get(uri).body(Empty::new()).map_err(unusable)?;
    let headers = request.headers_mut();
    headers.extend(question.headers.clone());
    let host = HeaderValue::from_str(&target.host_header());
    headers.insert(HOST, host.map_err(|_| Error::Unusable("The URL has a host that cannot be asked.".into()))?);
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("rockpool/", env!("CARGO_PKG_VERSION"))));
    if let Some(range) = &question.range
        && let Ok(value) = HeaderValue::from_str(&format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))
    {
        headers.insert(RANGE, value);
        if let Some(tag) = question.validator.as_ref().and_then(Validator::if_range) {
            headers.insert(IF_RANGE, tag.clone());
        }
    }
    if let Form::Absolute(Some(authorization)) = form {
        headers.insert(PROXY_AUTHORIZATION, authorization.clone());
    }
    Ok(request)
}
