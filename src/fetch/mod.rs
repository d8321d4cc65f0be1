//! What this service gets from elsewhere by itself: data at an address that somebody gives it, and nothing that the
//! operator does not allow.
//!
//! ```text
//!   URL ──> rules ──> resolve, filter, connect ──> TLS for the name ──> GET bytes=0-8M ──┬──> redirect: from the start
//!                                                                                        ├──> 206: segments side by side
//!                                                                                        └──> 200: as it comes
//! ```

mod address;
mod answer;
mod body;
mod config;
mod connect;
mod exchange;
mod in_place;
mod proxy;
mod region;
mod rules;
mod target;
#[cfg(test)]
mod tests;
mod verify;

pub use body::Body;
pub use config::Config;
pub use in_place::InPlace;
pub use region::Remote;
pub use rules::Rules;
pub use target::{Host, Scheme, Target, URL_BYTES_MAX};

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::StatusCode;

use crate::domain::Refusal;
use answer::{ContentRange, Validator, content_length};
use body::{Pace, Ranges, Tries};
use connect::{Connector, Lookup};
use exchange::{Answer, Client, Question};

/// Why nothing was got. The texts are for whoever wanted it: they name hosts, and no path, query or secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The operator does not allow it.
    #[error("{0}")]
    Refused(String),
    /// The server does not have it, or what it says cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// The server cannot be asked at present, or broke off, more often than is borne with.
    #[error("{0}")]
    Unavailable(String),
    /// The server asks to be left alone for a while.
    #[error("{0}")]
    Busy(String, Duration),
    /// The server is too slow.
    #[error("{0}")]
    TooSlow(String),
    /// It is more than may be got.
    #[error("{0}")]
    TooLarge(String),
}

impl Error {
    /// Whether another try may have another end.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Busy(..))
    }
}

/// Data on its way.
pub struct Fetched {
    /// Its length, if the server says.
    pub size_bytes: Option<u64>,
    /// The data. It ends with an error unless all of it has come.
    pub body: Body,
}

/// Gets data from elsewhere; one per process.
pub struct Fetcher {
    config: Config,
    client: Arc<Client>,
}

impl Fetcher {
    /// Prepares everything; asks nobody yet.
    ///
    /// # Errors
    /// Everything that is wrong with the section, a sentence each; reads the files it names.
    pub fn new(config: &Config) -> Result<Self, Vec<String>> {
        Self::with_lookup(config, connect::system_lookup())
    }

    fn with_lookup(config: &Config, lookup: Lookup) -> Result<Self, Vec<String>> {
        let mut problems = config.problems();
        match Connector::new(config, lookup) {
            Ok(connector) if problems.is_empty() => {
                Ok(Self { config: config.clone(), client: Arc::new(Client::new(config, connector)) })
            }
            Ok(_) => Err(problems),
            Err(found) => {
                problems.extend(found);
                Err(problems)
            }
        }
    }

    /// What may be fetched from where.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.client.connector.rules
    }

    /// Looks at a URL as far as that is possible at once: [`Rules::check`], and the addresses of its host. Where the servers
    /// of names do not answer that is left for [`Fetcher::open`].
    ///
    /// # Errors
    /// [`Refusal::Invalid`] in a sentence for whoever named it, without the URL.
    pub async fn check(&self, url: &str) -> Result<(), Refusal> {
        let target = self.rules().check(url)?;
        let looking = self.client.connector.addresses(&target, false);
        match tokio::time::timeout(Duration::from_secs(self.config.connect_timeout_s), looking).await {
            Ok(Err(Error::Unavailable(_))) if self.client.connector.is_proxied(&target) => Ok(()),
            Ok(Err(refused)) => Err(Refusal::Invalid(format!("Invalid URL: {refused}"))),
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    /// Begins to get the data at `url`, `cap_bytes` at most.
    ///
    /// # Errors
    /// [`Error`], before the first byte. The deadline counts from here.
    pub async fn open(&self, url: &str, cap_bytes: u64) -> Result<Fetched, Error> {
        let target = self.rules().check(url).map_err(|refusal| Error::Refused(refusal.to_string()))?;
        self.open_target(target, Question::default(), cap_bytes).await
    }

    async fn open_target(&self, origin: Target, question: Question, cap_bytes: u64) -> Result<Fetched, Error> {
        let mut pace = Pace::new(&self.config);
        let range_bytes = self.config.range_mib << 20;
        // 1. The first piece, as an offer to the server: one that knows ranges gives no more than that.
        let first = Question { range: Some(0..range_bytes), ..question.clone() };
        let answer = pace.keep(self.ask(&origin, &first)).await??;
        let range = ContentRange::read(&answer.headers).filter(|range| {
            answer.status == StatusCode::PARTIAL_CONTENT && range.first == 0 && range.last < range_bytes
        });
        // 2. All of it in pieces, if they can be told from those of later data.
        if let (Some(range), Some(validator)) = (range, Validator::read(&answer.headers)) {
            fits(range.total, cap_bytes)?;
            let ranges = Ranges {
                client: Arc::clone(&self.client),
                current: Mutex::new(answer.target.clone()),
                origin,
                question: Question { validator: Some(validator), ..question },
                size_bytes: range.total,
                idle: Mutex::default(),
                received: pace.received(),
                tries_max: self.config.tries_max,
            };
            let (first_bytes, segments_max) = (range.last + 1, self.config.connections_max);
            let body = body::in_ranges(ranges, answer, first_bytes, pace, range_bytes, segments_max);
            return Ok(Fetched { size_bytes: Some(range.total), body });
        }
        // 3. Or in one go. What was no answer to a range may be one to a plain question: an empty file has no ranges.
        let answer = match answer.status {
            StatusCode::OK => answer,
            StatusCode::PARTIAL_CONTENT
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::BAD_REQUEST
            | StatusCode::NOT_IMPLEMENTED => pace.keep(self.ask(&origin, &question)).await??,
            _ => return Err(answer.failure()),
        };
        if answer.status != StatusCode::OK {
            return Err(answer.failure());
        }
        let size_bytes = content_length(&answer.headers);
        fits(size_bytes.unwrap_or_default(), cap_bytes)?;
        Ok(Fetched { size_bytes, body: body::whole(answer, pace, size_bytes, cap_bytes) })
    }

    /// Asks until there is an answer that will not change by asking again.
    async fn ask(&self, origin: &Target, question: &Question) -> Result<Answer, Error> {
        let mut tries = Tries::new(self.config.tries_max);
        loop {
            let failure = match self.client.ask(origin, question, None).await {
                Ok(answer) if !answer.failure().is_passing() || answer.status == StatusCode::NOT_IMPLEMENTED => {
                    return Ok(answer);
                }
                Ok(answer) => answer.failure(),
                Err(failure) => failure,
            };
            tries.after(failure).await?;
        }
    }
}

fn fits(size_bytes: u64, cap_bytes: u64) -> Result<(), Error> {
    if size_bytes > cap_bytes {
        return Err(Error::TooLarge(format!("The data is more than the {cap_bytes} bytes that may be fetched.")));
    }
    Ok(())
}
