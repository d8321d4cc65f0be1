//! `[catalog]`: how to reach Postgres.

use std::path::PathBuf;
use std::time::Duration;

use rustls::ClientConfig;
use serde::Deserialize;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::Error;
use crate::tls::{self, Trust};

/// How connections show in `pg_stat_activity`.
const APPLICATION: &str = "rockpool";
/// Postgres' own.
const DEFAULT_PORT: u16 = 5432;
/// Longest pause between two statements of a transaction. Ours follow each other at once.
const IDLE_IN_TRANSACTION_MS: u64 = 2500;

/// Whether and how the connection to Postgres is encrypted; as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Never.
    Disable,
    /// Always, without looking at the certificate: keeps out listeners, not impostors.
    Require,
    /// Always, with a certificate that `tls_ca_file` (or the system's roots) signs for the host.
    VerifyFull,
}

/// `[catalog]` of the configuration.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `postgres://user@host[:port][,host2[:port]]/database`. With several hosts the one that
    /// accepts writes is used, also after a failover.
    pub url: String,
    /// Password, if it is not in the URL.
    #[serde(default)]
    pub password: Option<String>,
    /// File that holds the password and nothing else.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Encryption.
    #[serde(default = "default_tls")]
    pub tls: Tls,
    /// PEM file of the authorities that may sign the server's certificate.
    #[serde(default)]
    pub tls_ca_file: Option<PathBuf>,
    /// Most connections of this gateway.
    #[serde(default = "default_pool_size")]
    pub pool_size: usize,
    /// Longest wait for a new connection, in seconds.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: u64,
    /// Longest wait for a free connection, in seconds.
    #[serde(default = "default_acquire_timeout_s")]
    pub acquire_timeout_s: u64,
    /// Longest time for one statement, in seconds.
    #[serde(default = "default_statement_timeout_s")]
    pub statement_timeout_s: u64,
    /// How long events stay in the outbox, in days.
    #[serde(default = "default_event_retention_days")]
    pub event_retention_days: u32,
}

fn default_tls() -> Tls {
    Tls::Disable
}
fn default_pool_size() -> usize {
    16
}
fn default_connect_timeout_s() -> u64 {
    5
}
fn default_acquire_timeout_s() -> u64 {
    5
}
fn default_statement_timeout_s() -> u64 {
    30
}
fn default_event_retention_days() -> u32 {
    7
}

impl Config {
    /// Everything that is wrong with this section, in sentences; reads the files it names.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) = self.postgres() {
            problems.push(error.to_string());
        }
        if let Err(error) = self.rustls() {
            problems.push(error.to_string());
        }
        if self.password.is_some() && self.password_file.is_some() {
            problems.push("catalog: password and password_file exclude each other".into());
        }
        for (name, value) in [
            ("pool_size", self.pool_size as u64),
            ("connect_timeout_s", self.connect_timeout_s),
            ("acquire_timeout_s", self.acquire_timeout_s),
            ("statement_timeout_s", self.statement_timeout_s),
        ] {
            if value == 0 {
                problems.push(format!("catalog.{name} must be at least 1"));
            }
        }
        problems
    }

    /// The client configuration, password included.
    pub(super) fn postgres(&self) -> Result<tokio_postgres::Config, Error> {
        // The parser's own message does not repeat the text, which may hold a password.
        let mut config: tokio_postgres::Config = self.url.parse().map_err(|e: tokio_postgres::Error| {
            Error::Config(format!("catalog.url cannot be read: {e}; it looks like postgres://user@host:5432/database"))
        })?;
        if config.get_hosts().is_empty() || config.get_dbname().is_none() || config.get_user().is_none() {
            return Err(Error::Config(
                "catalog.url needs a user, a host and a database: postgres://user@host:5432/database".into(),
            ));
        }
        if let Some(password) = &self.password {
            config.password(password);
        }
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path)
                .map_err(|e| Error::Config(format!("catalog.password_file {} cannot be read: {e}", path.display())))?;
            config.password(text.trim_end_matches(['\r', '\n']));
        }
        let timeout_ms = self.statement_timeout_s.saturating_mul(1000);
        config
            .application_name(APPLICATION)
            .connect_timeout(Duration::from_secs(self.connect_timeout_s))
            .tcp_user_timeout(Duration::from_secs(self.statement_timeout_s))
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            // A gateway that freezes in a transaction must not keep its locks until its leases have run out.
            .options(format!(
                "-c statement_timeout={timeout_ms} -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS} -c timezone=UTC"
            ))
            .ssl_mode(match self.tls {
                Tls::Disable => SslMode::Disable,
                Tls::Require | Tls::VerifyFull => SslMode::Require,
            });
        Ok(config)
    }

    /// A configuration for each host, in order.
    pub(super) fn hosts(&self) -> Result<Vec<tokio_postgres::Config>, Error> {
        let all = self.postgres()?;
        let ports = all.get_ports();
        let one = |n: usize, host: &Host| {
            let mut config = tokio_postgres::Config::new();
            match host {
                Host::Tcp(name) => config.host(name),
                Host::Unix(path) => config.host_path(path),
            };
            // As in libpq: one port serves all hosts, or each has its own.
            config.port(ports.get(n).or_else(|| ports.first()).copied().unwrap_or(DEFAULT_PORT));
            if let Some(address) = all.get_hostaddrs().get(n) {
                config.hostaddr(*address);
            }
            config.user(all.get_user().unwrap_or_default()).dbname(all.get_dbname().unwrap_or_default());
            if let Some(password) = all.get_password() {
                config.password(password);
            }
            config.options(all.get_options().unwrap_or_default()).application_name(APPLICATION);
            config.ssl_mode(all.get_ssl_mode()).target_session_attrs(all.get_target_session_attrs());
            if let Some(timeout) = all.get_tcp_user_timeout() {
                config.tcp_user_timeout(*timeout);
            }
            config
        };
        Ok(all.get_hosts().iter().enumerate().map(|(n, host)| one(n, host)).collect())
    }

    /// The TLS configuration; `None` without TLS.
    pub(super) fn rustls(&self) -> Result<Option<ClientConfig>, Error> {
        let trust = match (self.tls, &self.tls_ca_file) {
            (Tls::Disable, _) => return Ok(None),
            (Tls::Require, _) => Trust::Anybody,
            (Tls::VerifyFull, None) => Trust::System,
            (Tls::VerifyFull, Some(file)) => Trust::Authorities(file),
        };
        tls::client(trust).map(Some).map_err(|e| Error::Config(format!("catalog.tls_ca_file {e}")))
    }
}
