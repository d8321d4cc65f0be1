//! TLS of the API's own address: its certificate, which can change while connections go on, and the handshake.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire_guard::Refusal;

/// How the first record of a TLS connection begins.
const HANDSHAKE: u8 = 0x16;
/// Most bytes of a request in plain HTTP that are taken in before it is refused.
const PLAIN_BYTES_MAX: usize = 16 * 1024;

/// A certificate with its chain and its key, from two files that may be replaced.
pub struct Certificate {
    files: Files,
    in_use: Arc<InUse>,
    /// What was found in the files last, whether it could be used or not.
    seen: Mutex<Result<Contents, String>>,
    acceptor: TlsAcceptor,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

/// Bytes of certificate and key.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The pair for the next handshake.
struct InUse(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for InUse {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InUse")
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.files.certificate.display())
    }
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence that names the option.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, String> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let contents = files.read()?;
        let in_use = Arc::new(InUse(RwLock::new(files.pair(&contents)?)));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be used: {e}"))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&in_use) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { files, in_use, seen: Mutex::new(Ok(contents)), acceptor })
    }

    /// Takes up what is in the files now, for connections that begin from now on. What cannot be used is said in the log
    /// once, and changes nothing. Reads files: may block.
    pub fn reload(&self) {
        let found = self.files.read();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if found == *seen {
            return;
        }
        match found.as_ref().map_err(Clone::clone).and_then(|contents| self.files.pair(contents)) {
            Ok(pair) => {
                *self.in_use.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
                tracing::info!(file = %self.files.certificate.display(), "a new certificate is in use");
            }
            // Perhaps one of the two is still to come.
            Err(problem) => tracing::error!("{problem}; the certificate in use stays"),
        }
        *seen = found;
    }

    /// When the server's own certificate ends, in Unix time.
    pub(super) fn ends_at(&self) -> Option<f64> {
        let pair = Arc::clone(&self.in_use.0.read().unwrap_or_else(PoisonError::into_inner));
        let certificate = X509::from_der(pair.end_entity_cert().ok()?).ok()?;
        let since = Asn1Time::from_unix(0).ok()?.diff(certificate.not_after()).ok()?;
        Some(f64::from(since.days) * 86_400.0 + f64::from(since.secs))
    }

    /// Begins a connection. `None`: it has come to nothing; whoever speaks plain HTTP has been told.
    pub(super) async fn handshake(&self, mut socket: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut first = [0];
        if socket.peek(&mut first).await.ok()? == 1 && first[0] != HANDSHAKE {
            // What has not been read would reset the connection before the answer has arrived.
            let _ = socket.read(&mut vec![0; PLAIN_BYTES_MAX]).await;
            let refusal = Refusal::bad_request("This address speaks TLS; use https:// instead of http://.");
            let _ = socket.write_all(&refusal.answer()).await;
            let _ = socket.shutdown().await;
            return None;
        }
        match self.acceptor.accept(socket).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                // The client's doing in most cases, and scanners do little else.
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let read = |option: &str, path: &Path| {
            std::fs::read(path).map_err(|e| format!("server.{option} {} cannot be read: {e}", path.display()))
        };
        Ok(Contents {
            certificate: read("tls_certificate_file", &self.certificate)?,
            key: read("tls_key_file", &self.key)?,
        })
    }

    fn pair(&self, contents: &Contents) -> Result<Arc<CertifiedKey>, String> {
        let certificate = format!("server.tls_certificate_file {}", self.certificate.display());
        let key = format!("server.tls_key_file {}", self.key.display());
        let chain = CertificateDer::pem_slice_iter(&contents.certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| format!("{certificate} is not PEM: {e}"))?;
        if chain.is_empty() {
            return Err(format!(
                "{certificate} holds no certificate: -----BEGIN CERTIFICATE----- is expected, the server's own first"
            ));
        }
        let private = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| {
            format!("{key} holds no private key: PKCS#8, PKCS#1 or SEC1 in PEM is expected, not encrypted")
        })?;
        match CertifiedKey::from_der(chain, private, &ring::default_provider()) {
            Ok(pair) => Ok(Arc::new(pair)),
            Err(rustls::Error::InconsistentKeys(_)) => {
                Err(format!("{key} is not the key of {certificate}: give both of one pair"))
            }
            Err(error) => Err(format!("{key} and {certificate} cannot be used: {error}")),
        }
    }
}
