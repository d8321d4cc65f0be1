//! Writing a blob.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use ceph::{CreateOptions, Image, Pool};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};

use super::{RbdStore, SNAPSHOT, UPLOADING, error};
use crate::store::{Attempt, BlobWriter, DESCRIPTION_PREFIX, Error, Purpose};

/// First and largest step by which a blob of unknown size grows. Each step doubles the last one: a
/// resize costs a few round trips, so few of them are made (`ceph.md` 2.1).
const GROWTH_MIN_BYTES: u64 = 64 * 1024 * 1024;
const GROWTH_MAX_BYTES: u64 = 8 * 1024 * 1024 * 1024;

/// An RBD image under the name of its attempt.
pub(super) struct RbdWriter {
    image: Image,
    order: u8,
    /// How far it may be written.
    end: u64,
    growth: u64,
    /// Whether it gets a snapshot, which costs a round of the monitors, at its end: it will be cloned.
    cloned: bool,
}

impl RbdWriter {
    pub(super) async fn create(
        store: &RbdStore,
        pool: &Pool,
        attempt: Attempt,
        size_bytes: Option<u64>,
    ) -> Result<Self, ceph::Error> {
        let name = &RbdStore::attempt_name(attempt);
        let cloned = attempt.purpose == Purpose::Image;
        let end = size_bytes.unwrap_or(0);
        let options = CreateOptions {
            size_bytes: end,
            order: store.order,
            features: features(pool).await?,
            data_pool: store.data_pool.clone(),
        };
        pool.create_image(name, &options).await?;
        let image = match pool.open(name).await {
            Ok(image) => image,
            Err(e) => {
                // Not opened, so nobody else can have: best effort, the job's undo comes again.
                let _ = pool.remove_image(name).await;
                return Err(e);
            }
        };
        let writer = Self { image, order: store.order, end, growth: GROWTH_MIN_BYTES, cloned };
        writer.image.metadata_set(&format!("{DESCRIPTION_PREFIX}state"), UPLOADING).await?;
        Ok(writer)
    }

    /// Goes on with an image of `size_bytes`.
    pub(super) fn resume(image: Image, order: u8, size_bytes: u64) -> Self {
        Self { image, order, end: size_bytes, growth: GROWTH_MIN_BYTES, cloned: true }
    }
}

/// The RBD feature without which there are no clones.
pub(super) const LAYERING: u64 = 1;

/// The cluster's default features; layering always.
pub(super) async fn features(pool: &Pool) -> Result<Option<u64>, ceph::Error> {
    let default = pool.cluster().config_option("rbd_default_features").await?;
    Ok(default.and_then(|text| text.trim().parse::<u64>().ok()).map(|features| features | LAYERING))
}

#[async_trait]
impl BlobWriter for RbdWriter {
    fn block_bytes(&self) -> usize {
        1 << self.order
    }

    async fn reserve(&mut self, end: u64) -> Result<(), Error> {
        if end <= self.end {
            return Ok(());
        }
        let target = end.max(self.end.saturating_add(self.growth));
        self.image.resize(target).await.map_err(error)?;
        self.end = target;
        self.growth = (self.growth * 2).min(GROWTH_MAX_BYTES);
        Ok(())
    }

    fn write(&self, offset: u64, pieces: Vec<Bytes>) -> BoxFuture<'static, Result<(), Error>> {
        let image = self.image.clone();
        async move { image.write(offset, pieces).await.map_err(error) }.boxed()
    }

    async fn seal(self: Box<Self>, size_bytes: u64, description: &BTreeMap<String, String>) -> Result<(), Error> {
        // 1. Cut off what was reserved and not needed.
        if size_bytes != self.end {
            self.image.resize(size_bytes).await.map_err(error)?;
        }
        self.image.flush().await.map_err(error)?;
        // 2. Snapshot and description at the same time: the snapshot waits for the monitors (0.2-1 s,
        //    `ceph.md` 4) whatever else happens.
        let describe = try_join_all(description.iter().map(|(key, value)| self.image.metadata_set(key, value)));
        let snapshot = async {
            if !self.cloned {
                return Ok(());
            }
            self.image.snapshot_create(SNAPSHOT).await?;
            self.image.snapshot_protect(SNAPSHOT).await
        };
        tokio::try_join!(describe, snapshot).map_err(error)?;
        // 3. Nobody may have it open when it is renamed.
        self.image.close().await.map_err(error)
    }

    async fn abandon(self: Box<Self>) {
        // A failure to close shows when the blob is discarded.
        let _ = self.image.close().await;
    }
}
