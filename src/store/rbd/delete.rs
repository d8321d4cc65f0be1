//! Taking a blob away, so that it is never both listed and unclonable: first find out whether anybody
//! uses it, then move it to the trash (nobody opens it by name any more), look again, and only then
//! touch the snapshot (`image-api.md` 9.5).

use std::time::Duration;

use ceph::{Children, Error, Image, Kind, Pool};

use super::publish::is_of;
use super::{ATTEMPT_PREFIX, RbdStore, SNAPSHOT};
use crate::store::{Attempt, Purpose};

/// Why a blob cannot be retired.
pub(super) enum Failure {
    /// Somebody uses it; the text says who.
    InUse(String),
    /// Somebody has it open for writing, or died with it open.
    Busy,
    /// Ceph failed.
    Ceph(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ceph(error)
    }
}

/// How often, and how far apart, an image that somebody has open for writing is looked at again.
const BUSY_TRIES: u32 = 6;
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// Most users of an image that an error names.
const NAMED_USERS_MAX: usize = 5;

/// See [`crate::store::Store::retire`].
pub(super) async fn retire(pool: &Pool, name: &str) -> Result<(), Failure> {
    // 1. Users of the image as it stands.
    check_unused(pool, name).await?;
    // 2. Out of sight: whoever opens it by name from now on finds nothing.
    let mut tries = 0;
    loop {
        tries += 1;
        match pool.trash_move(name, Duration::ZERO).await {
            Ok(()) => break,
            // Retired before, or gone.
            Err(e) if e.kind() == Kind::NotFound => break,
            // Our own description of the image may just be being written.
            Err(e) if e.kind() == Kind::Busy && tries < BUSY_TRIES => tokio::time::sleep(BUSY_PAUSE).await,
            Err(e) if e.kind() == Kind::Busy => return Err(Failure::Busy),
            Err(e) => return Err(e.into()),
        }
    }
    let Some(id) = trash_id(pool, name).await? else { return Ok(()) };
    // 3. A clone may have been made in between. Unprotecting has the last word.
    let image = match pool.open_by_id(&id).await {
        Ok(image) => image,
        // Its removal has begun: nobody can use it.
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let mut verdict = users(&image, name).await;
    if verdict.is_ok() {
        verdict = match image.snapshot_unprotect(SNAPSHOT).await {
            Ok(()) => Ok(()),
            // Not there, or not protected: an earlier try came this far.
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::InvalidArgument) => Ok(()),
            Err(e) if matches!(e.kind(), Kind::Busy | Kind::HasChildren) => {
                Err(Failure::InUse("a clone was made just now".into()))
            }
            Err(e) => Err(e.into()),
        };
    }
    image.close().await?;
    if let Err(failure) = verdict {
        pool.trash_restore(&id, name).await?;
        return Err(failure);
    }
    Ok(())
}

/// Refuses an image that has users; one that does not exist has none.
pub(super) async fn check_unused(pool: &Pool, name: &str) -> Result<(), Failure> {
    let image = match pool.open_read_only(name, None).await {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let verdict = users(&image, name).await;
    image.close().await?;
    verdict
}

/// See [`crate::store::Store::purge`].
pub(super) async fn purge(pool: &Pool, name: &str) -> Result<(), Error> {
    let Some(id) = trash_id(pool, name).await? else { return Ok(()) };
    match pool.open_by_id(&id).await {
        Ok(image) => {
            let removed = image.snapshot_remove(SNAPSHOT).await;
            image.close().await?;
            ignore_missing(removed)?;
        }
        // An earlier removal came as far as the header and died; the rest goes without it.
        Err(e) if e.kind() == Kind::NotFound => {}
        Err(e) => return Err(e),
    }
    ignore_missing(pool.trash_remove(&id, true).await)
}

/// See [`crate::store::Store::restore`].
pub(super) async fn restore(pool: &Pool, name: &str) -> Result<(), Error> {
    let Some(id) = trash_id(pool, name).await? else { return Ok(()) };
    let image = pool.open_by_id(&id).await?;
    let protected = image.snapshot_protect(SNAPSHOT).await;
    image.close().await?;
    match protected {
        // Protected still.
        Err(e) if !matches!(e.kind(), Kind::Busy | Kind::Exists) => return Err(e),
        Ok(()) | Err(_) => {}
    }
    pool.trash_restore(&id, name).await
}

/// See [`crate::store::Store::discard`].
pub(super) async fn discard(pool: &Pool, attempt: Attempt) -> Result<(), Error> {
    let mut names = vec![RbdStore::attempt_name(attempt)];
    let published = attempt.image.to_string();
    if attempt.purpose == Purpose::Image && is_of(pool, &published, attempt).await? {
        names.push(published);
    }
    for name in names {
        remove_name(pool, &name).await?;
    }
    Ok(())
}

async fn remove_name(pool: &Pool, name: &str) -> Result<(), Error> {
    remove(pool, name).await?;
    // Two removals at the same time can leave the name without an image; a third one takes it away.
    if pool.object_exists(&format!("rbd_id.{name}")).await? {
        remove(pool, name).await?;
    }
    Ok(())
}

/// See [`crate::store::Inventory::sweep`].
pub(super) async fn sweep(pool: &Pool, name: &str) -> Result<(), Error> {
    remove_name(pool, name).await?;
    // What a removal that was cut off has left.
    purge(pool, name).await
}

/// Refuses an image in the trash that has users; one whose removal has begun has none.
pub(super) async fn check_trashed_unused(pool: &Pool, id: &str) -> Result<(), Failure> {
    let image = match pool.open_by_id(id).await {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let verdict = users(&image, id).await;
    image.close().await?;
    verdict
}

/// Removes an RBD image that no consumer has seen, with its snapshot if it got that far.
pub(super) async fn remove(pool: &Pool, name: &str) -> Result<(), Error> {
    match pool.remove_image(name).await {
        Err(e) if e.kind() == Kind::HasSnapshots => {}
        done => return ignore_missing(done),
    }
    let image = pool.open(name).await?;
    let unprotected = image.snapshot_unprotect(SNAPSHOT).await;
    let removed = match unprotected {
        Err(e) if !matches!(e.kind(), Kind::NotFound | Kind::InvalidArgument) => Err(e),
        Ok(()) | Err(_) => image.snapshot_remove(SNAPSHOT).await,
    };
    image.close().await?;
    ignore_missing(removed)?;
    ignore_missing(pool.remove_image(name).await)
}

/// Refuses an image that has clones, or snapshots that are not ours to remove. A copy of it that is under way is no
/// user: it keeps what it needs until it has ended, one way or the other.
async fn users(image: &Image, name: &str) -> Result<(), Failure> {
    let snapshots = image.snapshots().await?;
    let foreign: Vec<&str> = snapshots.iter().map(|s| s.name.as_str()).filter(|name| *name != SNAPSHOT).collect();
    if !foreign.is_empty() {
        return Err(Failure::InUse(format!(
            "it has snapshots that Rockpool did not make: {}; remove them with rbd snap rm",
            foreign.join(", ")
        )));
    }
    if snapshots.is_empty() {
        return Ok(());
    }
    match image.children(SNAPSHOT).await? {
        Children::Known(mut children) => {
            children.retain(|child| !child.image.starts_with(&format!("{ATTEMPT_PREFIX}{name}-")));
            if children.is_empty() {
                return Ok(());
            }
            let mut named: Vec<String> =
                children.iter().take(NAMED_USERS_MAX).map(|child| format!("{}/{}", child.pool, child.image)).collect();
            if children.len() > NAMED_USERS_MAX {
                named.push("...".into());
            }
            Err(Failure::InUse(format!("it has {} copy-on-write clone(s): {}", children.len(), named.join(", "))))
        }
        Children::Hidden => {
            Err(Failure::InUse("it has copy-on-write clones in a pool that the gateway's Ceph user cannot read".into()))
        }
    }
}

/// The id of the trash entry that was called `name`.
async fn trash_id(pool: &Pool, name: &str) -> Result<Option<String>, Error> {
    Ok(pool.trash_list().await?.into_iter().find(|entry| entry.name == name).map(|entry| entry.id))
}

fn ignore_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}
