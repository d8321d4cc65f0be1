//! Who clones a blob, and how much of it they still share.

use ceph::{Child, Children, Error, Extent, Image, Pool};
use futures_util::{StreamExt as _, stream};

use super::SNAPSHOT;
use crate::domain::location::RbdUrl;
use crate::store::{Cloned, Room};

/// Clones that are looked at at once.
const LOOKS_AT_ONCE: usize = 8;

/// See [`crate::store::Store::clones`].
pub(super) async fn clones(pool: &Pool, location: &RbdUrl) -> Result<Option<Vec<Cloned>>, Error> {
    let image = pool.open_read_only(&location.image, None).await?;
    let children = children(&image).await;
    image.close().await?;
    let Children::Known(children) = children? else { return Ok(None) };
    let looks = children.into_iter().map(|child| look(pool, child));
    Ok(Some(stream::iter(looks).buffered(LOOKS_AT_ONCE).collect().await))
}

async fn children(image: &Image) -> Result<Children, Error> {
    // Registered data may have a snapshot of another name, or none: then nobody clones it as ours.
    if image.snapshots().await?.iter().all(|snapshot| snapshot.name != SNAPSHOT) {
        return Ok(Children::Known(Vec::new()));
    }
    image.children(SNAPSHOT).await
}

async fn look(pool: &Pool, child: Child) -> Cloned {
    let room = match child.namespace.as_str() {
        "" => room(pool, &child).await.map_err(|e| e.to_string()),
        _ => Err("it is in a namespace, where the gateway does not look".into()),
    };
    let Child { pool, namespace, image, trash, .. } = child;
    let image = if namespace.is_empty() { image } else { format!("{namespace}/{image}") };
    Cloned { pool, image, trash, room }
}

async fn room(pool: &Pool, child: &Child) -> Result<Room, Error> {
    let its_pool = pool.cluster().pool(&child.pool).await?;
    // The id stays as it is when the clone is renamed, or moved to the trash.
    let image = its_pool.open_by_id_read_only(&child.image_id).await?;
    let measured = measure(&image).await;
    image.close().await?;
    measured
}

async fn measure(image: &Image) -> Result<Room, Error> {
    let size_bytes = image.stat().await?.size_bytes;
    let own_bytes = sum(&image.own_extents(0, size_bytes).await?);
    let all_bytes = sum(&image.allocated_extents(0, size_bytes).await?);
    Ok(Room { size_bytes, own_bytes, shared_bytes: all_bytes.saturating_sub(own_bytes) })
}

fn sum(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.length).sum()
}
