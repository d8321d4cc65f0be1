//! A connection on which a test writes whatever bytes it likes.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::http::Answer;

/// Longest wait for a byte: a test that hangs is a failure.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long nothing must come for nothing more to be expected.
const PAUSE: Duration = Duration::from_millis(500);

/// A bare TCP connection to a gateway.
pub(crate) struct Wire(BufReader<TcpStream>);

impl Wire {
    pub(crate) fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Writes bytes. That the other side has closed shows in the answer, not here.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.get_mut().write_all(bytes.as_ref());
    }

    /// Whether the other side still took a byte.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// All answers that come without being asked for again, until the other side closes or pauses.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.0.get_ref().set_read_timeout(Some(PAUSE)).unwrap();
        while self.0.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
            self.0.get_ref().set_read_timeout(Some(TIMEOUT)).unwrap();
            answers.extend(self.try_answer());
            self.0.get_ref().set_read_timeout(Some(PAUSE)).unwrap();
        }
        answers
    }

    /// The next answer; `None` when the other side has closed instead. Panics on half an answer.
    #[track_caller]
    pub(crate) fn try_answer(&mut self) -> Option<Answer> {
        let mut answer = self.try_head()?;
        self.body(&mut answer);
        Some(answer)
    }

    /// The next answer to a HEAD: it has no body, whatever its headers say.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Answer {
        self.try_head().expect("the connection was closed without an answer")
    }

    fn try_head(&mut self) -> Option<Answer> {
        let first = self.line()?;
        let status = first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {first:?}"));
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line().expect("the head is cut off");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no header: {line:?}"));
            headers
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value.trim()).unwrap());
        }
        Some(Answer { status, headers, body: Vec::new() })
    }

    fn body(&mut self, answer: &mut Answer) {
        let Answer { headers, body, .. } = answer;
        if headers.get("transfer-encoding").is_some_and(|v| v == "chunked") {
            loop {
                let size = usize::from_str_radix(&self.line().expect("a chunk is missing"), 16).unwrap();
                let from = body.len();
                body.resize(from + size, 0);
                self.0.read_exact(&mut body[from..]).expect("a chunk is cut off");
                self.line();
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = headers.get("content-length") {
            body.resize(length.to_str().unwrap().parse().unwrap(), 0);
            self.0.read_exact(body).expect("the body is cut off");
        }
    }

    /// The next answer, which must come.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer().expect("the connection was closed without an answer")
    }

    /// Waits until the other side closes; fails if it says another thing before.
    #[track_caller]
    pub(crate) fn expect_closed(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => assert!(rest.is_empty(), "unexpected: {}", String::from_utf8_lossy(&rest)),
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(String::from_utf8(line).unwrap().trim_end().to_owned()),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => None,
            Err(e) => panic!("no answer: {e}"),
        }
    }
}
