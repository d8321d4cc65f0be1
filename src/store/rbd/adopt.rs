//! Images that somebody else has made: taken over as they are, or copied.
//!
//! In place nothing is undone: every step may be repeated, and an image that was renamed is known by a mark. A copy
//! leaves its source as it was: the snapshot that it is cloned from is removed at once, and lives on unseen for as
//! long as the clone needs it.

use ceph::{Error as Failure, Image, Kind, Pool};
use uuid::Uuid;

use super::inventory::secure;
use super::read::RbdReader;
use super::write::{LAYERING, RbdWriter};
use super::{RbdStore, SNAPSHOT, copy, error, is_unfinished};
use crate::domain::id::ImageId;
use crate::domain::location::RbdUrl;
use crate::store::{Attempt, Copied, DESCRIPTION_PREFIX, Error, Foreign};

/// How the snapshots are named that copies are cloned from.
const MOMENT_PREFIX: &str = "rockpool-adopt-";

/// Key that says what an image was called that has been adopted in place.
fn origin_key() -> String {
    format!("{DESCRIPTION_PREFIX}adopted_from")
}

/// Looks at a foreign image, and refuses what is in use or no image to adopt. With `place` it is to be adopted in
/// place, under this id.
pub(super) async fn survey(
    store: &RbdStore,
    pool: &Pool,
    from: &str,
    name: &str,
    place: Option<ImageId>,
) -> Result<Foreign, Error> {
    let spec = format!("{from}/{name}");
    if place.is_some() && from != store.pool_name {
        return Err(Error::Other(format!(
            "{spec} is not in pool {} of store {}: an image cannot be moved to another pool; leave --in-place out to copy it",
            store.pool_name, store.common.name
        )));
    }
    if from == store.pool_name && is_unfinished(name) {
        return Err(Error::InUse(format!("{spec} is an upload of this service that is under way")));
    }
    let home = pool.cluster().pool(from).await.map_err(|e| explain(e, pool, &spec))?;
    // Renamed already, by an adoption that was cut off?
    if let Some(id) = place
        && let Some(image) = renamed(&home, name, id).await.map_err(|e| explain(e, pool, &spec))?
    {
        let size_bytes = image.stat().await.map_err(error)?.size_bytes;
        image.close().await.map_err(error)?;
        return Ok(Foreign { url: url(pool, from, &id.to_string()), size_bytes, snapped: true });
    }
    let image = home.open_read_only(name, None).await.map_err(|e| explain(e, pool, &spec))?;
    let looked = look(&image, &spec, place.is_some()).await;
    image.close().await.map_err(error)?;
    let (size_bytes, snapped) = looked?;
    Ok(Foreign { url: url(pool, from, name), size_bytes, snapped })
}

/// Opens a foreign image that was surveyed.
pub(super) async fn open(pool: &Pool, foreign: &Foreign) -> Result<RbdReader, Error> {
    let found = RbdUrl::parse(&foreign.url).map_err(|e| Error::Other(format!("{}: {e}", foreign.url)))?;
    let spec = format!("{}/{}", found.pool, found.image);
    let opened = async {
        let home = pool.cluster().pool(&found.pool).await?;
        RbdReader::open(&home, &found.image, foreign.snapped.then_some(SNAPSHOT)).await
    };
    opened.await.map_err(|e| explain(e, pool, &spec))
}

/// The size of an image that may be adopted, and whether it has its snapshot.
async fn look(image: &Image, spec: &str, in_place: bool) -> Result<(u64, bool), Error> {
    let stat = image.stat().await.map_err(error)?;
    let watchers = image.watchers().await.map_err(error)?;
    if let Some(watcher) = watchers.first() {
        return Err(Error::InUse(format!(
            "{spec} is in use: {} has it open (rbd status {spec}); stop the machine, or unmap it, and wait half a minute",
            watcher.addr
        )));
    }
    if stat.size_bytes == 0 {
        return Err(Error::Other(format!("{spec} has a size of 0: there is nothing to adopt")));
    }
    if stat.features & LAYERING == 0 {
        return Err(Error::Other(format!(
            "{spec} was made without the feature layering and cannot be cloned; copy it with rbd cp --image-feature layering, and adopt the copy"
        )));
    }
    if !in_place {
        return Ok((stat.size_bytes, false));
    }
    if let Some(parent) = image.parent().await.map_err(error)? {
        return Err(Error::InUse(format!(
            "{spec} is a clone of {}/{}@{}; run rbd flatten {spec} first, or leave --in-place out to copy it",
            parent.pool, parent.image, parent.snapshot
        )));
    }
    let snapshots = image.snapshots().await.map_err(error)?;
    let foreign: Vec<&str> = snapshots.iter().map(|s| s.name.as_str()).filter(|name| *name != SNAPSHOT).collect();
    if !foreign.is_empty() {
        return Err(Error::InUse(format!(
            "{spec} has snapshots that would keep the image from ever being deleted: {}; remove them with rbd snap rm, or leave --in-place out to copy it",
            foreign.join(", ")
        )));
    }
    Ok(snapshots.first().map_or((stat.size_bytes, false), |snapshot| (snapshot.size_bytes, true)))
}

/// A complete copy of a foreign image that was surveyed, as a blob for `attempt`.
pub(super) async fn copy(
    store: &RbdStore,
    pool: &Pool,
    from: &str,
    name: &str,
    attempt: Attempt,
    copied: Copied<'_>,
) -> Result<RbdWriter, Error> {
    let spec = format!("{from}/{name}");
    let home = pool.cluster().pool(from).await.map_err(error)?;
    // 1. A moment of it.
    let moment = format!("{MOMENT_PREFIX}{}", Uuid::new_v4().as_simple());
    let image = home.open(name).await.map_err(|e| explain(e, pool, &spec))?;
    let cloned = async {
        for left in image.snapshots().await?.iter().filter(|snapshot| snapshot.name.starts_with(MOMENT_PREFIX)) {
            // Of an adoption that was killed in this very moment.
            image.snapshot_remove(&left.name).await?;
        }
        image.snapshot_create(&moment).await?;
        let child = RbdStore::attempt_name(attempt);
        let options = copy::options(store, pool).await?;
        let cloned = home.clone_image(name, &moment, pool, &child, &options).await;
        image.snapshot_remove(&moment).await?;
        cloned
    };
    let cloned = cloned.await.map_err(|e| explain(e, pool, &spec));
    let size_bytes = image.stat().await.map(|stat| stat.size_bytes);
    image.close().await.map_err(error)?;
    cloned?;
    // 2. On its own feet.
    copy::settle(store, pool, &RbdStore::attempt_name(attempt), size_bytes.map_err(error)?, copied).await.map_err(error)
}

/// Makes a surveyed image of the store's own pool the data of image `id`. May be repeated.
pub(super) async fn in_place(pool: &Pool, name: &str, id: ImageId) -> Result<String, Error> {
    let spec = format!("{}/{name}", pool.name());
    let target = id.to_string();
    if let Some(image) = renamed(pool, name, id).await.map_err(error)? {
        image.close().await.map_err(error)?;
        return Ok(url(pool, pool.name(), &target));
    }
    let image = pool.open(name).await.map_err(|e| explain(e, pool, &spec))?;
    let marked = async {
        image.metadata_set(&origin_key(), name).await?;
        secure(&image).await
    };
    let marked = marked.await.map_err(|e: Failure| explain(e, pool, &spec));
    image.close().await.map_err(error)?;
    marked?;
    // The last step: who finds it renamed finds it finished.
    if name != target {
        pool.rename_image(name, &target).await.map_err(|e| explain(e, pool, &spec))?;
    }
    Ok(url(pool, pool.name(), &target))
}

/// The image `id`, if it was called `name` before it was adopted.
async fn renamed(pool: &Pool, name: &str, id: ImageId) -> Result<Option<Image>, Failure> {
    let id = id.to_string();
    if id == name {
        return Ok(None);
    }
    let image = match pool.open_read_only(&id, Some(SNAPSHOT)).await {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if image.metadata_get(&origin_key()).await?.is_some_and(|origin| origin == name) {
        return Ok(Some(image));
    }
    image.close().await?;
    Ok(None)
}

fn url(pool: &Pool, of: &str, image: &str) -> String {
    let fsid = pool.cluster().fsid().to_owned();
    RbdUrl { fsid, pool: of.to_owned(), image: image.to_owned(), snapshot: SNAPSHOT.to_owned() }.to_string()
}

/// A failure that an operator can do something about.
fn explain(failure: Failure, pool: &Pool, spec: &str) -> Error {
    let user = pool.cluster().user();
    match failure.kind() {
        Kind::NotFound => Error::NotFound(format!("{spec} (pool and image, as rbd ls shows them)")),
        Kind::Denied | Kind::ReadOnly => {
            let of = spec.split('/').next().unwrap_or_default();
            Error::Denied(format!(
                "client.{user} may not do that to {spec}; it needs osd 'profile rbd pool={of}' as long as it adopts from there ({failure})"
            ))
        }
        _ => error(failure),
    }
}
