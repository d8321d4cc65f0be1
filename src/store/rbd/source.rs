//! What a consumer meets who clones a blob.

use ceph::{Error, Image, Pool};

use super::SNAPSHOT;
use super::write::LAYERING;
use crate::domain::location::RbdUrl;
use crate::store::CloneSource;

/// See [`crate::store::Store::clone_source`].
pub(super) async fn clone_source(pool: &Pool, location: &RbdUrl) -> Result<CloneSource, Error> {
    let image = pool.open_read_only(&location.image, None).await?;
    let source = look(&image, location).await;
    image.close().await?;
    source
}

async fn look(image: &Image, location: &RbdUrl) -> Result<CloneSource, Error> {
    let stat = image.stat().await?;
    let snapshots = image.snapshots().await?;
    let snapshot = snapshots.iter().find(|snapshot| snapshot.name == SNAPSHOT);
    let parent = image.parent().await?;
    Ok(CloneSource {
        fsid: location.fsid.clone(),
        pool: location.pool.clone(),
        image: location.image.clone(),
        size_bytes: snapshot.map_or(stat.size_bytes, |snapshot| snapshot.size_bytes),
        object_bytes: 1 << stat.order,
        layering: stat.features & LAYERING != 0,
        snapshot: snapshot.map(|snapshot| snapshot.protected),
        parent: parent.map(|parent| format!("{}/{}@{}", parent.pool, parent.image, parent.snapshot)),
    })
}
