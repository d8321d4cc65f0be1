//! Copying a blob within a cluster: a clone that is flattened. librbd moves the objects that are there; what a copy
//! is made of (object size, features, data pool) is this store's, not the source's.
//!
//! Cut off at any point, the copy is taken up again where it was, under the same attempt: what has no parent any
//! more is complete if it bears the mark of its source.

use std::sync::Arc;
use std::time::Duration;

use ceph::{CloneFormat, CloneOptions, Error, Flattening, Image, Kind, Pool};
use futures_util::future::try_join_all;

use super::delete::remove;
use super::write::{LAYERING, RbdWriter, features};
use super::{RbdStore, UPLOADING};
use crate::domain::location::RbdUrl;
use crate::store::{Copied, DESCRIPTION_PREFIX};

/// How often the caller hears how far a copy has come.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// Objects that librbd has in memory at once for one copy; its own default of 10 would mean 160 MiB.
const OBJECTS_AT_ONCE: &str = "4";
/// The option for that, as metadata of one image.
const OBJECTS_AT_ONCE_KEY: &str = "conf_rbd_concurrent_management_ops";

/// Key that names the source of a copy until it is complete.
fn source_key() -> String {
    format!("{DESCRIPTION_PREFIX}source")
}

/// A complete copy of `source` called `name`, open for writing. `None`: this user may not read the source, or it is
/// nothing that can be cloned.
pub(super) async fn copy(
    store: &RbdStore,
    pool: &Pool,
    source: &RbdUrl,
    name: &str,
    copied: Copied<'_>,
) -> Result<Option<RbdWriter>, Error> {
    // 1. Is there anything to clone, for us?
    let Some(size_bytes) = clonable(pool, source).await? else { return Ok(None) };
    // 2. A clone of our own layout; or the one that an earlier run has left.
    if !begin(store, pool, source, name).await? {
        return Ok(None);
    }
    // 3. An image of its own.
    settle(store, pool, name, size_bytes, copied).await.map(Some)
}

/// Makes the clone called `name`, of `size_bytes`, an image of its own, open for writing.
pub(super) async fn settle(
    store: &RbdStore,
    pool: &Pool,
    name: &str,
    size_bytes: u64,
    copied: Copied<'_>,
) -> Result<RbdWriter, Error> {
    let image = pool.open(name).await?;
    image.metadata_set(&format!("{DESCRIPTION_PREFIX}state"), UPLOADING).await?;
    image.metadata_set(OBJECTS_AT_ONCE_KEY, OBJECTS_AT_ONCE).await?;
    // Options that stand in the metadata count from the next opening on.
    image.close().await?;
    let image = pool.open(name).await?;
    // 1. On its own feet.
    if image.parent().await?.is_some() {
        flatten(&image, store.order, size_bytes, copied).await?;
    }
    // 2. What librbd copied of the source's metadata is not the copy's, nor is the mark.
    let inherited = image.metadata_list().await?;
    let state = format!("{DESCRIPTION_PREFIX}state");
    try_join_all(inherited.keys().filter(|key| **key != state).map(|key| image.metadata_remove(key))).await?;
    copied(size_bytes);
    Ok(RbdWriter::resume(image, store.order, size_bytes))
}

/// The size of the source, if this user may clone it. A source without bytes needs no copying.
async fn clonable(pool: &Pool, source: &RbdUrl) -> Result<Option<u64>, Error> {
    let from = match pool.cluster().pool(&source.pool).await {
        Ok(from) => from,
        Err(e) if e.kind() == Kind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let image = match from.open_read_only(&source.image, Some(&source.snapshot)).await {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::Denied => return Ok(None),
        Err(e) => return Err(e),
    };
    let stat = image.stat().await;
    image.close().await?;
    let stat = stat?;
    Ok((stat.size_bytes > 0 && stat.features & LAYERING != 0).then_some(stat.size_bytes))
}

/// The layout of what this store makes.
pub(super) async fn options(store: &RbdStore, pool: &Pool) -> Result<CloneOptions, Error> {
    Ok(CloneOptions {
        // The source's snapshot may lose its protection meanwhile: an image that is deleted takes its copies along.
        format: CloneFormat::V2,
        features: features(pool).await?,
        order: Some(store.order),
        data_pool: store.data_pool.clone(),
    })
}

/// Sees to it that `name` is a marked clone of the source, new or left by an earlier run; `false`: this user may not
/// make one.
async fn begin(store: &RbdStore, pool: &Pool, source: &RbdUrl, name: &str) -> Result<bool, Error> {
    let from = pool.cluster().pool(&source.pool).await?;
    let options = options(store, pool).await?;
    loop {
        match from.clone_image(&source.image, &source.snapshot, pool, name, &options).await {
            Ok(()) => {}
            Err(e) if e.kind() == Kind::Exists => {}
            Err(e) if matches!(e.kind(), Kind::Denied | Kind::Unsupported) => return Ok(false),
            Err(e) => return Err(e),
        }
        let image = pool.open(name).await?;
        let parent = image.parent().await?;
        let ours = parent.is_some_and(|parent| parent.pool == source.pool && parent.snapshot == source.snapshot);
        if ours || image.metadata_get(&source_key()).await? == Some(source.to_string()) {
            image.metadata_set(&source_key(), &source.to_string()).await?;
            image.close().await?;
            return Ok(true);
        }
        // Something that was written, or complete and cleaned up but not sealed: begin anew.
        image.close().await?;
        remove(pool, name).await?;
    }
}

async fn flatten(image: &Image, order: u8, size_bytes: u64, copied: Copied<'_>) -> Result<(), Error> {
    let state = Arc::new(Flattening::default());
    let flattening = image.flatten(&state);
    tokio::pin!(flattening);
    loop {
        tokio::select! {
            ended = &mut flattening => return ended,
            () = tokio::time::sleep(REPORT_INTERVAL) => copied((state.objects().0 << order).min(size_bytes)),
        }
    }
}
