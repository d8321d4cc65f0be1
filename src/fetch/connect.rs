//! Connections: resolve, filter, and connect to the very address that was looked at. A name is never resolved between the
//! look and the connection, so that a server of names that changes its mind gains nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, select_ok};
use http_body_util::Empty;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderValue;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::proxy::{Proxies, Proxy};
use super::target::{Host, Scheme, Target};
use super::{Config, Error, Rules};
use crate::tls::{self, Trust};

/// Largest head of an answer, in bytes; also the largest piece of a body.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Largest answer of a proxy to CONNECT, in bytes, and most headers in it.
const TUNNEL_HEAD_BYTES_MAX: usize = 8 * 1024;
const TUNNEL_HEADERS_MAX: usize = 64;
/// Most addresses of a name that are tried, and how long one has before the next is tried beside it (RFC 8305).
const ADDRESSES_MAX: usize = 8;
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Asks for the addresses of a name.
pub(super) type Lookup = Arc<dyn Fn(&str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Asks the system.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        let name = name.to_owned();
        Box::pin(async move { Ok(lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    })
}

/// How the first line of a request is written.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// With the path: to the server itself, or through a tunnel.
    Origin,
    /// With the whole URL: to a proxy, who perhaps wants to know who asks.
    Absolute(Option<HeaderValue>),
}

/// An open connection. Dropped, it is closed.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Empty<Bytes>>,
    pub(super) form: Form,
    _driver: AbortOnDropHandle<()>,
}

/// Makes connections.
pub(super) struct Connector {
    pub(super) rules: Rules,
    pub(super) lookup: Lookup,
    /// Without authorities on the machine there is no https; http goes on.
    tls: Option<TlsConnector>,
    proxies: Proxies,
    timeout: Duration,
}

impl Connector {
    /// # Errors
    /// Everything that is wrong with the section, a sentence each.
    pub(super) fn new(config: &Config, lookup: Lookup) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let rules = Rules::new(config).map_err(|found| problems.extend(found)).ok();
        let proxies =
            Proxies::new(config, |name| std::env::var(name).ok()).map_err(|found| problems.extend(found)).ok();
        let trust = config.cafile.as_deref().map_or(Trust::System, Trust::Authorities);
        let tls = tls::client(trust).map(|tls| TlsConnector::from(Arc::new(tls)));
        if let (Err(problem), Some(_)) = (&tls, &config.cafile) {
            problems.push(format!("fetch.cafile {problem}"));
        }
        match (rules, proxies) {
            (Some(rules), Some(proxies)) if problems.is_empty() => Ok(Self {
                rules,
                lookup,
                tls: tls.ok(),
                proxies,
                timeout: Duration::from_secs(config.connect_timeout_s),
            }),
            _ => Err(problems),
        }
    }

    /// Connects for `target`. A `trusted` one, which the operator named and no user, may have any address.
    ///
    /// # Errors
    /// [`Error::Refused`] by the rules, [`Error::Unavailable`].
    pub(super) async fn connect(&self, target: &Target, trusted: bool) -> Result<Connection, Error> {
        let connecting = async {
            match self.proxies.of(target).filter(|_| !trusted) {
                None => self.direct(target, trusted).await,
                Some(proxy) => self.through(proxy, target).await,
            }
        };
        tokio::time::timeout(self.timeout, connecting).await.map_err(|_| unreachable(target))?
    }

    /// Whether a proxy finds out where `target` is.
    pub(super) fn is_proxied(&self, target: &Target) -> bool {
        self.proxies.of(target).is_some()
    }

    /// The addresses of `target` that may be connected to, in the order in which to try them.
    ///
    /// # Errors
    /// [`Error::Refused`] when there are only others, [`Error::Unavailable`] when there are none.
    pub(super) async fn addresses(&self, target: &Target, trusted: bool) -> Result<Vec<IpAddr>, Error> {
        let addresses = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => match (self.lookup)(name).await {
                Ok(addresses) if !addresses.is_empty() => addresses,
                _ => return Err(Error::Unavailable(format!("The name {name} has no address."))),
            },
        };
        if trusted {
            return Ok(addresses);
        }
        self.rules.permitted(&target.host, &addresses).map_err(Error::Refused)
    }

    async fn direct(&self, target: &Target, trusted: bool) -> Result<Connection, Error> {
        let addresses = self.addresses(target, trusted).await?;
        let stream = dial(&addresses, target.port).await.map_err(|e| {
            tracing::debug!(%target, "not connected: {e}");
            unreachable(target)
        })?;
        match target.scheme {
            Scheme::Http => speak(stream, target, Form::Origin).await,
            Scheme::Https => self.secure(stream, target).await,
        }
    }

    async fn through(&self, proxy: &Proxy, target: &Target) -> Result<Connection, Error> {
        // The proxy resolves names, as this machine may not be able to. Those that are known here are looked at nevertheless.
        if let Err(refused @ Error::Refused(_)) = self.addresses(target, false).await {
            return Err(refused);
        }
        let failed = |e: io::Error| {
            tracing::warn!("the proxy {}:{} cannot be asked: {e}", proxy.host, proxy.port);
            Error::Unavailable("The proxy for downloads cannot be asked.".into())
        };
        let addresses = match &proxy.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => (self.lookup)(name).await.map_err(failed)?,
        };
        let mut stream = dial(&addresses, proxy.port).await.map_err(failed)?;
        match target.scheme {
            Scheme::Http => speak(stream, target, Form::Absolute(proxy.authorization.clone())).await,
            Scheme::Https => {
                tunnel(&mut stream, target, proxy.authorization.as_ref()).await?;
                self.secure(stream, target).await
            }
        }
    }

    async fn secure(&self, stream: TcpStream, target: &Target) -> Result<Connection, Error> {
        let tls = self.tls.as_ref().ok_or_else(|| {
            Error::Unavailable(
                "There is no https: this system has no certificates of authorities (fetch.cafile).".into(),
            )
        })?;
        let name = match &target.host {
            Host::Address(address) => ServerName::from(*address),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|_| Error::Refused(format!("No certificate can be made out to {name}.")))?,
        };
        let stream = tls.connect(name, stream).await.map_err(|e| {
            let text = format!("TLS with {} failed: {e}.", target.host);
            let cause = e.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
            match cause {
                Some(rustls::Error::InvalidCertificate(_)) => Error::Unusable(text),
                _ => Error::Unavailable(text),
            }
        })?;
        speak(stream, target, Form::Origin).await
    }
}

/// The same words for a closed port, a filtered one and a host that is down: whoever may name a server shall not learn
/// what is around us.
fn unreachable(target: &Target) -> Error {
    Error::Unavailable(format!("The server {} cannot be reached.", target.host))
}

/// Connects to the first address that answers.
async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let attempts = addresses.iter().take(ADDRESSES_MAX).zip(0..).map(|(address, place)| {
        let address = SocketAddr::new(*address, port);
        Box::pin(async move {
            tokio::time::sleep(NEXT_ADDRESS_AFTER * place).await;
            TcpStream::connect(address).await
        })
    });
    let attempts: Vec<_> = attempts.collect();
    if attempts.is_empty() {
        return Err(io::Error::other("it has no address"));
    }
    let (stream, _) = select_ok(attempts).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Asks a proxy to pass everything on.
async fn tunnel(stream: &mut TcpStream, target: &Target, authorization: Option<&HeaderValue>) -> Result<(), Error> {
    let failed = |what: String| {
        tracing::warn!("a proxy makes no way to {target}: {what}");
        Error::Unavailable(format!("The proxy for downloads makes no way to {}: {what}.", target.host))
    };
    let broken = |e: io::Error| failed(e.to_string());
    let place = target.authority();
    let mut head = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n").into_bytes();
    if let Some(authorization) = authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(authorization.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await.map_err(broken)?;
    let mut answer = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut answer).await.map_err(broken)? == 0 || answer.len() > TUNNEL_HEAD_BYTES_MAX {
            return Err(failed("it gives no answer that can be read".into()));
        }
        let mut headers = [httparse::EMPTY_HEADER; TUNNEL_HEADERS_MAX];
        let mut parsed = httparse::Response::new(&mut headers);
        match parsed.parse(&answer) {
            Ok(httparse::Status::Partial) => {}
            // In TLS the client speaks first: what follows the head already is not the server's.
            Ok(httparse::Status::Complete(length)) => match parsed.code {
                Some(200..=299) if length == answer.len() => return Ok(()),
                code => return Err(failed(format!("it answers {}", code.unwrap_or_default()))),
            },
            Err(_) => return Err(failed("it gives no answer that can be read".into())),
        }
    }
}

async fn speak<S>(stream: S, target: &Target, form: Form) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| unreachable(target))?;
    let driver = tokio::spawn(async move {
        // Whoever waits for an answer is told.
        let _ = connection.await;
    });
    Ok(Connection { sender, form, _driver: AbortOnDropHandle::new(driver) })
}
