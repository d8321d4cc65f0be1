//! Between the socket and hyper, for the two things that hyper does not tell.
//!
//! * A request with both `Content-Length` and `Transfer-Encoding`, or with lengths that differ, is how
//!   requests are smuggled past a proxy. hyper settles for one of them; we refuse the request, for which
//!   its head has to be seen as it came.
//! * Answers that hyper gives by itself (unreadable head, head too large) have no body and no request id;
//!   here they get both.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use uuid::Uuid;

use super::observe::REQUEST_ID;

/// Why the framing of a request is not to be trusted; a request extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspicion(pub(super) &'static str);

const BOTH: &str = "The request has both Content-Length and Transfer-Encoding; send one of them.";
const SEVERAL_LENGTHS: &str = "The request has more than one Content-Length; send one.";

/// What the guard and the service of one connection tell each other.
#[derive(Default)]
pub(super) struct Watch {
    /// The next bytes that come in begin a request.
    head_follows: AtomicBool,
    suspicion: Mutex<Option<Suspicion>>,
}

impl Watch {
    /// For a new connection.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { head_follows: AtomicBool::new(true), suspicion: Mutex::new(None) })
    }

    /// The verdict on the request that has just arrived.
    pub(super) fn verdict(&self) -> Option<Suspicion> {
        *self.lock()
    }

    /// The exchange is over, another request may come on the same connection.
    pub(super) fn exchange_over(&self) {
        *self.lock() = None;
        self.head_follows.store(true, Ordering::Release);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Suspicion>> {
        self.suspicion.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket under guard.
pub(super) struct Guarded<S> {
    socket: S,
    watch: Arc<Watch>,
    head: Vec<u8>,
    head_bytes_max: usize,
    /// An answer of our own that replaces hyper's, and how much of it has been sent.
    replacement: Option<(Vec<u8>, usize)>,
}

impl<S> Guarded<S> {
    pub(super) fn new(socket: S, watch: Arc<Watch>, head_bytes_max: usize) -> Self {
        Self { socket, watch, head: Vec::new(), head_bytes_max, replacement: None }
    }

    /// Looks at bytes as they come in, as long as they belong to a head.
    fn inspect(&mut self, bytes: &[u8]) {
        if !self.watch.head_follows.load(Ordering::Acquire) {
            return;
        }
        let room = self.head_bytes_max.saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let end = self.head.windows(4).position(|window| window == b"\r\n\r\n");
        if end.is_some() || self.head.len() >= self.head_bytes_max {
            *self.watch.lock() = suspicion(&self.head[..end.unwrap_or(self.head.len())]);
            self.watch.head_follows.store(false, Ordering::Release);
            self.head = Vec::new();
        }
    }
}

/// What is wrong with a head's framing.
fn suspicion(head: &[u8]) -> Option<Suspicion> {
    let (mut lengths, mut encodings) = (0, 0);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii();
        lengths += usize::from(name.eq_ignore_ascii_case(b"content-length"));
        encodings += usize::from(name.eq_ignore_ascii_case(b"transfer-encoding"));
    }
    match (lengths, encodings) {
        (1.., 1..) => Some(Suspicion(BOTH)),
        (2.., 0) => Some(Suspicion(SEVERAL_LENGTHS)),
        _ => None,
    }
}

/// An answer with body and request id for one that hyper made without.
fn complete(answer: &[u8], suspicion: Option<Suspicion>) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(answer).ok()?;
    let status = text.strip_prefix("HTTP/1.1 4")?.get(..2)?;
    if text.to_ascii_lowercase().contains(REQUEST_ID) {
        return None;
    }
    let (code, sentence) = match status {
        "31" => ("431 Request Header Fields Too Large", "The request head is too large."),
        "14" => ("414 URI Too Long", "The request's URI is too long."),
        _ => ("400 Bad Request", suspicion.map_or("The request head is malformed.", |Suspicion(sentence)| sentence)),
    };
    let body = format!("{code}\n\n{sentence}\n\n   ");
    let id = Uuid::new_v4();
    tracing::info!(target: "rockpool::request", request_id = format!("req-{id}"), status = code, reason = sentence, "request refused before it could be read");
    Some(
        format!(
            "HTTP/1.1 {code}\r\ncontent-type: text/plain; charset=UTF-8\r\n{REQUEST_ID}: req-{id}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        self.inspect(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replacement.is_none() && bytes.starts_with(b"HTTP/1.1 4") {
            let verdict = self.watch.verdict();
            self.replacement = complete(bytes, verdict).map(|answer| (answer, 0));
        }
        let this = &mut *self;
        let Some((answer, sent)) = &mut this.replacement else {
            return Pin::new(&mut this.socket).poll_write(context, bytes);
        };
        while *sent < answer.len() {
            match ready!(Pin::new(&mut this.socket).poll_write(context, &answer[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => *sent += written,
            }
        }
        this.replacement = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Answers that hyper makes by itself are a single slice.
        match slices {
            [only] => self.poll_write(context, only),
            several => Pin::new(&mut self.socket).poll_write_vectored(context, several),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::{complete, suspicion};

    #[test]
    fn contradictory_framing_is_seen() {
        let verdict = |head: &str| suspicion(head.as_bytes()).map(|s| s.0);
        assert!(verdict("PUT / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked").unwrap().contains("both"));
        assert!(verdict("PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\ncontent-LENGTH: 5").unwrap().contains("both"));
        assert!(verdict("PUT / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6").unwrap().contains("more than one"));
        assert!(verdict("PUT / HTTP/1.1\r\nContent-Length : 5\r\nTransfer-Encoding: chunked").is_some());
        assert!(verdict("PUT / HTTP/1.1\r\nContent-Length: 5\r\nX: Transfer-Encoding").is_none());
        assert!(verdict("GET /content-length:/transfer-encoding: HTTP/1.1").is_none());
    }

    #[test]
    fn bare_answers_get_a_sentence_and_an_id() {
        let answer = String::from_utf8(
            complete(b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n", None).unwrap(),
        )
        .unwrap();
        assert!(answer.contains("x-openstack-request-id: req-") && answer.contains("head is too large"));
        assert!(complete(b"HTTP/1.1 400 Bad Request\r\nx-openstack-request-id: req-1\r\n\r\n", None).is_none());
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n", None).is_none());
    }
}
