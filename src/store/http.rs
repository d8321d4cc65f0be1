//! http and https: data of others, which stays where it is and is read by ranges. What may be read from where, the rules
//! of `[fetch]` say, at every connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Attempt, BlobReader, BlobWriter, Common, Error, Probe, Store};
use crate::domain::location::RbdUrl;
use crate::fetch::{self, Fetcher, InPlace};

/// Options of `type = "http"`: there are none but those of every store, and those in `[fetch]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {}

/// Data on other people's servers.
pub struct HttpStore {
    common: Common,
    fetcher: Arc<Fetcher>,
}

impl HttpStore {
    /// Asks nobody yet.
    #[must_use]
    pub fn new(common: &Common, fetcher: &Arc<Fetcher>) -> Self {
        Self { common: common.clone(), fetcher: Arc::clone(fetcher) }
    }
}

/// Nothing is ever written there, or removed.
fn not_ours<T>() -> Result<T, Error> {
    Err(Error::Denied("data on other servers is not ours to change".into()))
}

#[async_trait]
impl Store for HttpStore {
    fn common(&self) -> &Common {
        &self.common
    }

    fn holds(&self, _url: &RbdUrl) -> bool {
        false
    }

    fn properties(&self) -> Map<String, Value> {
        Map::new()
    }

    async fn check(&self) -> Result<(), String> {
        Ok(())
    }

    async fn probe(&self) -> Result<Probe, Error> {
        Ok(Probe { latency: Duration::ZERO, used_bytes: None, available_bytes: None })
    }

    async fn create(&self, _attempt: Attempt, _size_bytes: Option<u64>) -> Result<Box<dyn BlobWriter>, Error> {
        not_ours()
    }

    async fn open_attempt(&self, _attempt: Attempt) -> Result<Arc<dyn BlobReader>, Error> {
        not_ours()
    }

    async fn publish(&self, _attempt: Attempt) -> Result<String, Error> {
        not_ours()
    }

    async fn discard(&self, _attempt: Attempt) -> Result<(), Error> {
        not_ours()
    }

    async fn open(&self, url: &str) -> Result<Arc<dyn BlobReader>, Error> {
        Ok(Arc::new(HttpReader(self.fetcher.in_place(url).await.map_err(error)?)))
    }

    async fn users(&self, _url: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn retire(&self, _url: &str) -> Result<(), Error> {
        not_ours()
    }

    async fn restore(&self, _url: &str) -> Result<(), Error> {
        not_ours()
    }

    async fn purge(&self, _url: &str) -> Result<(), Error> {
        not_ours()
    }

    async fn describe(&self, _url: &str, _description: &BTreeMap<String, String>) -> Result<(), Error> {
        not_ours()
    }
}

struct HttpReader(InPlace);

#[async_trait]
impl BlobReader for HttpReader {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    async fn data(&self, start: u64, end: u64) -> Result<Vec<(u64, u64)>, Error> {
        Ok(if start < end { vec![(start, end - start)] } else { Vec::new() })
    }

    async fn read(&self, offset: u64, buffer: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.0.read(offset, buffer).await.map_err(error)
    }
}

/// A failure to fetch in the store's terms. The texts are for whoever named the URL.
fn error(failure: fetch::Error) -> Error {
    let text = failure.to_string();
    if failure.is_passing() || matches!(failure, fetch::Error::TooSlow(_)) {
        Error::Unavailable(text)
    } else {
        Error::NotFound(text)
    }
}
