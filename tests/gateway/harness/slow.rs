//! Transfers that a test holds in its hand: it says when which bytes go.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::gateway::{Gateway, Token};

/// Longest wait for a socket: a test that hangs is a failure.
const TIMEOUT: Duration = Duration::from_secs(60);

fn connect(gateway: &Gateway) -> TcpStream {
    let socket = TcpStream::connect(&gateway.address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    socket.set_write_timeout(Some(TIMEOUT)).unwrap();
    socket
}

/// An upload, byte by byte as the test likes.
pub(crate) struct SlowUpload {
    socket: TcpStream,
    chunked: bool,
}

impl SlowUpload {
    /// Sends the head, as project `p-demo`; without a length the body will be chunked.
    pub(crate) fn begin(gateway: &Gateway, id: &str, length: Option<usize>) -> Self {
        Self::begin_as(gateway, Token::Demo.text(), id, length)
    }

    /// As [`Self::begin`], as whoever has this token.
    pub(crate) fn begin_as(gateway: &Gateway, token: &str, id: &str, length: Option<usize>) -> Self {
        Self::begin_at(gateway, token, &format!("/v2/images/{id}/file"), length)
    }

    /// As [`Self::begin`], for data that is to be imported.
    pub(crate) fn begin_stage(gateway: &Gateway, id: &str, length: Option<usize>) -> Self {
        Self::begin_at(gateway, Token::Demo.text(), &format!("/v2/images/{id}/stage"), length)
    }

    fn begin_at(gateway: &Gateway, token: &str, path: &str, length: Option<usize>) -> Self {
        let mut socket = connect(gateway);
        let framing = length
            .map_or_else(|| "transfer-encoding: chunked".to_owned(), |length| format!("content-length: {length}"));
        write!(
            socket,
            "PUT {path} HTTP/1.1\r\nhost: {}\r\nx-auth-token: {token}\r\ncontent-type: application/octet-stream\r\n{framing}\r\n\r\n",
            gateway.address
        )
        .unwrap();
        Self { socket, chunked: length.is_none() }
    }

    /// Sends some bytes; `false` when the gateway does not take them any more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        let mut all = || -> std::io::Result<()> {
            if self.chunked {
                write!(self.socket, "{:x}\r\n", bytes.len())?;
            }
            self.socket.write_all(bytes)?;
            if self.chunked {
                self.socket.write_all(b"\r\n")?;
            }
            Ok(())
        };
        all().is_ok()
    }

    /// Ends the body, and waits for the answer: its status, or `None` for a connection that ends without.
    pub(crate) fn finish(mut self) -> Option<u16> {
        if self.chunked {
            let _ = self.socket.write_all(b"0\r\n\r\n");
        }
        self.answer()
    }

    /// Waits for the answer, whatever has been sent.
    pub(crate) fn answer(&mut self) -> Option<u16> {
        head(&mut self.socket).map(|(status, _)| status)
    }
}

/// A download by project `p-demo`, read as slowly as the test likes.
pub(crate) struct SlowDownload {
    socket: TcpStream,
    /// Status of the answer.
    pub(crate) status: u16,
    early: Vec<u8>,
}

impl SlowDownload {
    /// Sends the request and reads the head of the answer.
    pub(crate) fn begin(gateway: &Gateway, id: &str) -> Self {
        let mut socket = connect(gateway);
        write!(
            socket,
            "GET /v2/images/{id}/file HTTP/1.1\r\nhost: {}\r\nx-auth-token: {}\r\nconnection: close\r\n\r\n",
            gateway.address,
            Token::Demo.text()
        )
        .unwrap();
        let (status, early) = head(&mut socket).unwrap();
        Self { socket, status, early }
    }

    /// The next bytes; fewer when the connection ends before.
    pub(crate) fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.early);
        self.early = bytes.split_off(bytes.len().min(length));
        let mut buffer = vec![0; 64 * 1024];
        while bytes.len() < length {
            let wanted = buffer.len().min(length - bytes.len());
            match self.socket.read(&mut buffer[..wanted]) {
                Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
                Ok(_) | Err(_) => break,
            }
        }
        bytes
    }
}

/// Reads the head of an answer: its status, and what came of the body.
fn head(socket: &mut TcpStream) -> Option<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let status = std::str::from_utf8(&bytes[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
            return Some((status, bytes.split_off(end + 4)));
        }
        match socket.read(&mut buffer) {
            Ok(read) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            Ok(_) | Err(_) => return None,
        }
    }
}
