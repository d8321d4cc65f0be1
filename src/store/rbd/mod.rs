//! RBD: one image of the API is one RBD image, in Glance's layout, so that Nova, Cinder and the `rbd`
//! command find what they know (`docs/rbd-layout.md`).
//!
//! | what | where |
//! |---|---|
//! | a finished image | RBD image `<id>`, snapshot `snap`, protected |
//! | an upload under way, or what is left of one | RBD image `uploading-<id>-<attempt>` |
//! | what an import reads | RBD image `staging-<id>-<attempt>`, with a snapshot once it is whole |
//! | an image being deleted | the pool's trash, under its old name |

mod adopt;
mod clones;
mod config;
mod copy;
mod delete;
mod inventory;
mod publish;
mod read;
mod source;
mod start;
mod write;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use ceph::{Connection, Kind, Pool};
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

pub use config::Config;

use super::inventory::Inventory;
use super::{
    Attempt, BlobReader, BlobWriter, CloneSource, Cloned, Common, Copied, Error, Foreign, Probe, Purpose, Store,
};
use crate::domain::id::ImageId;
use crate::domain::location::{RbdUrl, SNAPSHOT};
use crate::telemetry::StoreMeter;

/// What the metadata of an attempt gives as its state until it is sealed.
const UPLOADING: &str = "uploading";
/// How the names of attempts begin.
const ATTEMPT_PREFIX: &str = "uploading-";
/// The same of those that an import reads.
const STAGING_PREFIX: &str = "staging-";
/// The same of the write tests of gateways that start.
const STARTUP_CHECK_PREFIX: &str = "uploading-startup-check-";

/// A pool of RBD images.
pub struct RbdStore {
    common: Common,
    connection: Connection,
    pool_name: String,
    data_pool: Option<String>,
    /// log2 of the object size.
    order: u8,
    /// The cluster's identity, once it was reached; it never changes.
    fsid: OnceLock<String>,
    /// The pool as of the connection in use.
    pool: Mutex<Option<Pool>>,
}

impl RbdStore {
    /// Prepares the store; connects nowhere yet.
    #[must_use]
    pub fn new(common: &Common, config: &Config, meter: StoreMeter) -> Self {
        Self {
            common: common.clone(),
            connection: Connection::new(config.cluster(meter)),
            pool_name: config.pool.clone(),
            data_pool: config.data_pool.clone(),
            order: config.order(),
            fsid: OnceLock::new(),
            pool: Mutex::new(None),
        }
    }

    /// The pool, on a connection that works as far as anybody knows.
    async fn pool(&self) -> Result<Pool, Error> {
        let cluster = self.connection.current().await.map_err(error)?;
        let mut cached = self.pool.lock().await;
        if let Some(pool) = cached.as_ref().filter(|pool| pool.cluster().is_same(&cluster)) {
            return Ok(pool.clone());
        }
        let pool = cluster.pool(&self.pool_name).await.map_err(|e| self.note(&cluster, e))?;
        self.fsid.get_or_init(|| cluster.fsid().to_owned());
        *cached = Some(pool.clone());
        Ok(pool)
    }

    /// Turns a failure into the store's terms; a connection that went bad is given up, so that the next
    /// call makes a new one.
    fn note(&self, cluster: &ceph::Cluster, failure: ceph::Error) -> Error {
        if failure.is_connection_fault() {
            self.connection.invalidate(cluster);
        }
        error(failure)
    }

    fn attempt_name(attempt: Attempt) -> String {
        let prefix = match attempt.purpose {
            Purpose::Image => ATTEMPT_PREFIX,
            Purpose::Staging => STAGING_PREFIX,
        };
        format!("{prefix}{}-{}", attempt.image, attempt.id.as_simple())
    }

    /// The blob that a URL of this store names.
    fn locate(&self, pool: &Pool, url: &str) -> Result<RbdUrl, Error> {
        let location = RbdUrl::parse(url).map_err(|e| Error::Other(format!("{url}: {e}")))?;
        if location.fsid != pool.cluster().fsid() || location.pool != self.pool_name {
            return Err(Error::NotFound(format!(
                "{url} is not in pool {} of cluster {}",
                self.pool_name,
                pool.cluster().fsid()
            )));
        }
        Ok(location)
    }
}

#[async_trait]
impl Store for RbdStore {
    fn common(&self) -> &Common {
        &self.common
    }

    fn holds(&self, url: &RbdUrl) -> bool {
        // What is still being uploaded is nobody else's to name.
        url.pool == self.pool_name && self.fsid.get() == Some(&url.fsid) && !is_unfinished(&url.image)
    }

    fn properties(&self) -> Map<String, Value> {
        let properties = [
            ("chunk_size", json!(1_u64 << self.order)),
            ("pool", json!(self.pool_name)),
            // Zeros are never written.
            ("thin_provisioning", json!(true)),
            ("fsid", json!(self.fsid.get())),
        ];
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }

    async fn check(&self) -> Result<(), String> {
        self.try_out().await
    }

    async fn probe(&self) -> Result<Probe, Error> {
        let pool = self.pool().await?;
        let start = Instant::now();
        pool.ping().await.map_err(|e| self.note(pool.cluster(), e))?;
        let latency = start.elapsed();
        // An object that is not there, and a pool that is not there, look the same so far.
        pool.cluster().pool(&self.pool_name).await.map_err(|e| self.note(pool.cluster(), e))?;
        let usage = pool.usage().await.ok();
        Ok(Probe {
            latency,
            used_bytes: usage.as_ref().map(|u| u.stored_bytes),
            available_bytes: usage.and_then(|u| u.max_available_bytes),
        })
    }

    async fn create(&self, attempt: Attempt, size_bytes: Option<u64>) -> Result<Box<dyn BlobWriter>, Error> {
        let pool = self.pool().await?;
        let writer = write::RbdWriter::create(self, &pool, attempt, size_bytes).await;
        writer.map(|w| Box::new(w) as Box<dyn BlobWriter>).map_err(|e| self.note(pool.cluster(), e))
    }

    async fn copy_from(
        &self,
        source: &str,
        attempt: Attempt,
        copied: Copied<'_>,
    ) -> Result<Option<Box<dyn BlobWriter>>, Error> {
        let Ok(source) = RbdUrl::parse(source) else { return Ok(None) };
        let pool = self.pool().await?;
        if source.fsid != pool.cluster().fsid() {
            return Ok(None);
        }
        let copy = copy::copy(self, &pool, &source, &Self::attempt_name(attempt), copied).await;
        copy.map(|w| w.map(|w| Box::new(w) as Box<dyn BlobWriter>)).map_err(|e| self.note(pool.cluster(), e))
    }

    async fn survey_foreign(&self, pool: &str, image: &str, place: Option<ImageId>) -> Result<Foreign, Error> {
        adopt::survey(self, &self.pool().await?, pool, image, place).await
    }

    async fn open_foreign(&self, foreign: &Foreign) -> Result<Arc<dyn BlobReader>, Error> {
        Ok(Arc::new(adopt::open(&self.pool().await?, foreign).await?))
    }

    async fn adopt_copy(
        &self,
        pool: &str,
        image: &str,
        attempt: Attempt,
        copied: Copied<'_>,
    ) -> Result<Box<dyn BlobWriter>, Error> {
        let copy = adopt::copy(self, &self.pool().await?, pool, image, attempt, copied).await?;
        Ok(Box::new(copy))
    }

    async fn adopt_in_place(&self, image: &str, id: ImageId) -> Result<String, Error> {
        adopt::in_place(&self.pool().await?, image, id).await
    }

    async fn publish(&self, attempt: Attempt) -> Result<String, Error> {
        let pool = self.pool().await?;
        publish::publish(&pool, attempt).await.map_err(|e| self.note(pool.cluster(), e))
    }

    async fn discard(&self, attempt: Attempt) -> Result<(), Error> {
        let pool = self.pool().await?;
        delete::discard(&pool, attempt).await.map_err(|e| self.note(pool.cluster(), e))
    }

    async fn open(&self, url: &str) -> Result<Arc<dyn BlobReader>, Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        let reader = read::RbdReader::open(&pool, &location.image, Some(&location.snapshot)).await;
        Ok(Arc::new(reader.map_err(|e| self.note(pool.cluster(), e))?))
    }

    async fn open_attempt(&self, attempt: Attempt) -> Result<Arc<dyn BlobReader>, Error> {
        let pool = self.pool().await?;
        let reader = read::RbdReader::open_attempt(&pool, attempt).await.map_err(|e| self.note(pool.cluster(), e))?;
        let unsealed = || Error::NotFound(format!("{} was never completed", Self::attempt_name(attempt)));
        Ok(Arc::new(reader.ok_or_else(unsealed)?))
    }

    async fn users(&self, url: &str) -> Result<Option<String>, Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        match delete::check_unused(&pool, &location.image).await {
            Ok(()) => Ok(None),
            Err(delete::Failure::InUse(by)) => Ok(Some(by)),
            Err(delete::Failure::Busy) => Ok(Some("it is open for writing".into())),
            Err(delete::Failure::Ceph(e)) => Err(self.note(pool.cluster(), e)),
        }
    }

    async fn restore(&self, url: &str) -> Result<(), Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        delete::restore(&pool, &location.image).await.map_err(|e| self.note(pool.cluster(), e))
    }

    async fn retire(&self, url: &str) -> Result<(), Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        delete::retire(&pool, &location.image).await.map_err(|failure| match failure {
            delete::Failure::InUse(by) => Error::InUse(by),
            delete::Failure::Busy => Error::Busy("it is open for writing (rbd status shows by whom)".into()),
            delete::Failure::Ceph(e) => self.note(pool.cluster(), e),
        })
    }

    async fn purge(&self, url: &str) -> Result<(), Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        delete::purge(&pool, &location.image).await.map_err(|e| self.note(pool.cluster(), e))
    }

    fn can_clone(&self) -> bool {
        true
    }

    fn inventory(&self) -> Option<&dyn Inventory> {
        Some(self)
    }

    async fn clone_source(&self, url: &str) -> Result<Option<CloneSource>, Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        source::clone_source(&pool, &location).await.map(Some).map_err(|e| self.note(pool.cluster(), e))
    }

    async fn clones(&self, url: &str) -> Result<Option<Vec<Cloned>>, Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        clones::clones(&pool, &location).await.map_err(|e| self.note(pool.cluster(), e))
    }

    async fn describe(&self, url: &str, description: &BTreeMap<String, String>) -> Result<(), Error> {
        let pool = self.pool().await?;
        let location = self.locate(&pool, url)?;
        publish::describe(&pool, &location.image, description).await.map_err(|e| self.note(pool.cluster(), e))
    }
}

/// Whether an RBD image is called like an attempt.
fn is_unfinished(name: &str) -> bool {
    [ATTEMPT_PREFIX, STAGING_PREFIX].iter().any(|prefix| name.starts_with(prefix))
}

/// A failure of Ceph in the store's terms.
fn error(failure: ceph::Error) -> Error {
    let text = failure.to_string();
    match failure.kind() {
        Kind::NotFound => Error::NotFound(text),
        Kind::NoSpace => Error::NoSpace(text),
        Kind::Busy => Error::Busy(text),
        Kind::HasSnapshots | Kind::HasChildren => Error::InUse(text),
        Kind::TimedOut | Kind::Blocklisted | Kind::Disconnected => Error::Unavailable(text),
        Kind::Denied | Kind::ReadOnly => Error::Denied(text),
        _ => Error::Other(text),
    }
}
