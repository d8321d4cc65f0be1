//! Between the socket and hyper: every request head is read here first, whole, before hyper sees a byte of
//! it.
//!
//! hyper settles for one reading of a head that has two (both `Content-Length` and `Transfer-Encoding`,
//! several lengths): that is how requests are smuggled past a proxy, so such a request is refused and its
//! connection closed. Heads that are malformed or too large are refused here, too, because hyper would
//! answer them without a sentence and without a request id.
//!
//! To know where a head begins, the guard counts the bytes of each body. A chunked body it does not follow:
//! the connection is closed after it ([`Watch::last_exchange`]).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::observe::REQUEST_ID;

/// Most headers of one request; hyper is told the same.
pub(super) const HEADERS_MAX: usize = 128;
/// Bytes asked of the socket at once while a head is read.
const HEAD_READ_BYTES: usize = 4096;

/// What the guard and the service of one connection tell each other.
#[derive(Default)]
pub(super) struct Watch {
    /// Requests that hyper has and has not finished answering.
    in_flight: AtomicUsize,
    last: AtomicBool,
}

impl Watch {
    /// A request has reached the service; dropped when its answer has been handed to hyper.
    pub(super) fn exchange(self: &Arc<Self>) -> Exchange {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        Exchange(Arc::clone(self))
    }

    /// Whether nothing may follow the request that has just arrived.
    pub(super) fn last_exchange(&self) -> bool {
        self.last.load(Ordering::Acquire)
    }
}

/// A request that is being answered.
pub(super) struct Exchange(Arc<Watch>);

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A socket under guard.
pub(super) struct Guarded<S> {
    socket: S,
    watch: Arc<Watch>,
    head_bytes_max: usize,
    /// Bytes that have come in and that hyper has not seen.
    held: Vec<u8>,
    state: State,
}

/// What comes next from the socket.
enum State {
    /// A request head.
    Head,
    /// So many bytes that hyper may have: the rest of a head, and its body.
    Pass(u64),
    /// Whatever comes.
    PassAll,
    /// Nothing any more: the answer to send before the connection is closed, and how much has been sent.
    Refused(Vec<u8>, usize),
}

/// Why a request is refused before anybody has read it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    sentence: String,
}

impl Refusal {
    pub(super) fn bad_request(sentence: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, sentence: sentence.into() }
    }

    pub(super) fn too_many(sentence: impl Into<String>) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, sentence: sentence.into() }
    }

    fn too_large(sentence: impl Into<String>) -> Self {
        Self { status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, sentence: sentence.into() }
    }

    /// The answer as it goes over the wire.
    pub(super) fn answer(&self) -> Vec<u8> {
        let code = self.status.to_string();
        let body = format!("{code}\n\n{}\n\n   ", self.sentence);
        let id = format!("req-{}", Uuid::new_v4());
        let retry = if self.status == StatusCode::TOO_MANY_REQUESTS { "retry-after: 5\r\n" } else { "" };
        tracing::info!(target: "rockpool::request", request_id = id, status = self.status.as_u16(), reason = self.sentence, "request refused unread");
        format!(
            "HTTP/1.1 {code}\r\ncontent-type: text/plain; charset=UTF-8\r\n{REQUEST_ID}: {id}\r\n{retry}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// What follows a head.
#[derive(Debug, PartialEq, Eq)]
enum Body {
    Sized(u64),
    Chunked,
}

/// Length of the first head in `bytes`, the empty line that ends it included. A line may end without a
/// carriage return: hyper reads it so.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
    let mut line_start = start;
    loop {
        let end = line_start + bytes[line_start..].iter().position(|byte| *byte == b'\n')?;
        if matches!(&bytes[line_start..end], b"" | b"\r") {
            return Some(end + 1);
        }
        line_start = end + 1;
    }
}

/// Reads a whole head as hyper will, and more strictly.
fn inspect(head: &[u8]) -> Result<Body, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(Refusal::bad_request("The request head is incomplete.")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::too_large(format!("The request has more than {HEADERS_MAX} headers.")));
        }
        Err(error) => return Err(Refusal::bad_request(format!("The request head is malformed: {error}."))),
    }
    let target = request.path.unwrap_or_default();
    if Method::from_bytes(request.method.unwrap_or_default().as_bytes()).is_err() || target.parse::<Uri>().is_err() {
        return Err(Refusal::bad_request("The request line is malformed."));
    }
    let (mut length, mut chunked) = (None, false);
    for header in request.headers.iter() {
        if HeaderName::from_bytes(header.name.as_bytes()).is_err() || HeaderValue::from_bytes(header.value).is_err() {
            return Err(Refusal::bad_request(format!(
                "The header {} has characters that no header may have.",
                header.name
            )));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            if length.is_some() {
                return Err(Refusal::bad_request("The request has more than one Content-Length; send one."));
            }
            length = Some(content_length(header.value)?);
        }
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !header.value.eq_ignore_ascii_case(b"chunked") || request.version != Some(1) {
                return Err(Refusal::bad_request("The one Transfer-Encoding of a request is chunked, in HTTP/1.1."));
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => {
            Err(Refusal::bad_request("The request has both Content-Length and Transfer-Encoding; send one of them."))
        }
        (None, true) => Ok(Body::Chunked),
        (length, false) => Ok(Body::Sized(length.unwrap_or(0))),
    }
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refusal::bad_request("The Content-Length must be a whole number of bytes."))
}

impl<S> Guarded<S> {
    pub(super) fn new(socket: S, watch: Arc<Watch>, head_bytes_max: usize) -> Self {
        Self { socket, watch, head_bytes_max, held: Vec::new(), state: State::Head }
    }

    /// Decides on the head at the beginning of what is held. `false`: more bytes are needed.
    fn decide(&mut self) -> bool {
        let refusal = match head_length(&self.held) {
            Some(length) if length <= self.head_bytes_max => match inspect(&self.held[..length]) {
                Ok(Body::Sized(body)) => {
                    self.state = State::Pass((length as u64).saturating_add(body));
                    return true;
                }
                Ok(Body::Chunked) => {
                    self.watch.last.store(true, Ordering::Release);
                    self.state = State::PassAll;
                    return true;
                }
                Err(refusal) => refusal,
            },
            None if self.held.len() <= self.head_bytes_max => return false,
            _ => Refusal::too_large(format!("The request head is larger than {} bytes.", self.head_bytes_max)),
        };
        self.held = Vec::new();
        self.state = State::Refused(refusal.answer(), 0);
        true
    }

    /// Hands over held bytes, `most` at most; returns how many.
    fn hand_over(&mut self, buffer: &mut ReadBuf<'_>, most: u64) -> usize {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let count = self.held.len().min(buffer.remaining()).min(most);
        buffer.put_slice(&self.held[..count]);
        self.held.drain(..count);
        count
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Takes bytes of a head from the socket. `Ok(false)`: there are none any more.
    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut chunk = [0; HEAD_READ_BYTES];
        let mut buffer = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.socket).poll_read(context, &mut buffer))?;
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(!buffer.filled().is_empty()))
    }

    /// Reads at most `most` bytes from the socket; returns how many.
    fn poll_direct(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>, most: u64) -> Poll<io::Result<u64>> {
        let before = buffer.filled().len();
        match usize::try_from(most) {
            // Only what may be the beginning of another head must not slip through.
            Ok(most) if most < buffer.remaining() => {
                let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
                ready!(Pin::new(&mut self.socket).poll_read(context, &mut part))?;
                let count = part.filled().len();
                buffer.advance(count);
            }
            Ok(_) | Err(_) => ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?,
        }
        Poll::Ready(Ok((buffer.filled().len() - before) as u64))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match this.state {
                State::Head => {
                    if !this.decide() && !ready!(this.poll_hold(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                State::Pass(0) => this.state = State::Head,
                State::Pass(left) => {
                    let count = match this.hand_over(buffer, left) as u64 {
                        0 => ready!(this.poll_direct(context, buffer, left))?,
                        count => count,
                    };
                    this.state = State::Pass(left - count);
                    return Poll::Ready(Ok(()));
                }
                State::PassAll => {
                    if this.hand_over(buffer, u64::MAX) > 0 {
                        return Poll::Ready(Ok(()));
                    }
                    return Pin::new(&mut this.socket).poll_read(context, buffer);
                }
                // hyper takes the end of the stream for a client that left, and would drop what it is
                // answering. It comes back here when that has been answered.
                State::Refused(..) if this.watch.in_flight.load(Ordering::Acquire) > 0 => return Poll::Pending,
                State::Refused(..) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let State::Refused(answer, sent) = &mut this.state {
            while *sent < answer.len() {
                match ready!(Pin::new(&mut this.socket).poll_write(context, &answer[*sent..]))? {
                    0 => break,
                    written => *sent += written,
                }
            }
        }
        Pin::new(&mut this.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{Body, head_length, inspect};

    fn refused(head: &str) -> String {
        inspect(head.as_bytes()).unwrap_err().sentence
    }

    #[test]
    fn one_way_to_frame_a_request() {
        let body = |head: &str| inspect(head.as_bytes()).unwrap();
        assert_eq!(body("GET /livez HTTP/1.1\r\nhost: a\r\n\r\n"), Body::Sized(0));
        assert_eq!(body("PUT /x HTTP/1.1\r\ncontent-length: 5\r\n\r\n"), Body::Sized(5));
        assert_eq!(body("PUT /x HTTP/1.1\nTransfer-Encoding: Chunked\n\n"), Body::Chunked);
    }

    #[test]
    fn two_ways_are_refused() {
        for head in [
            "PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\ntransfer-encoding: chunked\ncontent-LENGTH: 5\n\n",
        ] {
            assert!(refused(head).contains("both"), "{head}");
        }
        assert!(refused("PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n").contains("more than one"));
        for head in [
            "PUT / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "PUT / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "PUT / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
            "GET\r\n\r\n",
        ] {
            refused(head);
        }
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
        assert_eq!(head_length(b"\r\nGET / HTTP/1.1\n\nrest"), Some(18));
        assert_eq!(head_length(b"GET / HTTP/1.1\r\nhost: a\r\n"), None);
        assert_eq!(head_length(b"\r\n\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_head_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[A-Za-z/ :\r\n0-9.]{0,200}") {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                if let Some(length) = head_length(bytes) {
                    assert!(length <= bytes.len());
                    let _ = inspect(&bytes[..length]);
                }
            }
        }
    }
}
