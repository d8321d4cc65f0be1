//! What is in a pool.

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use ceph::{Image, Kind, Pool};
use uuid::Uuid;

use super::read::RbdReader;
use super::{ATTEMPT_PREFIX, RbdStore, SNAPSHOT, STAGING_PREFIX, STARTUP_CHECK_PREFIX, delete};
use crate::domain::id::ImageId;
use crate::domain::location::RbdUrl;
use crate::store::inventory::{Inventory, Listed, Meaning, Stored, Trashed};
use crate::store::{Attempt, BlobReader, DESCRIPTION_PREFIX, Error, Purpose};

#[async_trait]
impl Inventory for RbdStore {
    fn object_bytes(&self) -> u64 {
        1 << self.order
    }

    async fn names(&self, after: &str, limit: u32) -> Result<Vec<Listed>, Error> {
        let pool = self.pool().await?;
        let images = pool.list_images_after(after, limit).await.map_err(|e| self.note(pool.cluster(), e))?;
        Ok(images.into_iter().map(|image| Listed { meaning: meaning(&image.name), name: image.name }).collect())
    }

    async fn trashed(&self) -> Result<Vec<Trashed>, Error> {
        let pool = self.pool().await?;
        let entries = pool.trash_list().await.map_err(|e| self.note(pool.cluster(), e))?;
        let now = SystemTime::now();
        let trashed = entries.into_iter().map(|entry| Trashed {
            id: entry.id,
            meaning: meaning(&entry.name),
            name: entry.name,
            deleted_at: entry.deleted_at.into(),
            is_kept: entry.deferment_end > now,
        });
        Ok(trashed.collect())
    }

    async fn url(&self, name: &str) -> Result<String, Error> {
        let pool = self.pool().await?;
        let url = RbdUrl {
            fsid: pool.cluster().fsid().to_owned(),
            pool: self.pool_name.clone(),
            image: name.to_owned(),
            snapshot: SNAPSHOT.to_owned(),
        };
        Ok(url.to_string())
    }

    async fn name(&self, url: &str) -> Result<String, Error> {
        let pool = self.pool().await?;
        Ok(self.locate(&pool, url)?.image)
    }

    async fn examine(&self, name: &str) -> Result<Option<Stored>, Error> {
        let pool = self.pool().await?;
        let note = |e| self.note(pool.cluster(), e);
        let image = match pool.open_read_only(name, None).await {
            Ok(image) => image,
            Err(e) if e.kind() == Kind::NotFound => return Ok(None),
            Err(e) => return Err(note(e)),
        };
        let stored = look(&image).await;
        image.close().await.map_err(note)?;
        let stored = match stored {
            Ok(stored) if stored.snapshot.is_some() && !opens(&pool, name).await.map_err(note)? => {
                Ok(Stored { snapshot: None, published_bytes: None, ..stored })
            }
            stored => stored,
        };
        match stored {
            // Removed while it was looked at.
            Err(e) if e.kind() == Kind::NotFound => Ok(None),
            stored => stored.map(Some).map_err(note),
        }
    }

    async fn users_of_trashed(&self, id: &str) -> Result<Option<String>, Error> {
        let pool = self.pool().await?;
        match delete::check_trashed_unused(&pool, id).await {
            Ok(()) => Ok(None),
            Err(delete::Failure::InUse(by)) => Ok(Some(by)),
            Err(delete::Failure::Busy) => Ok(Some("it is open for writing".into())),
            Err(delete::Failure::Ceph(e)) => Err(self.note(pool.cluster(), e)),
        }
    }

    async fn open_unpublished(&self, name: &str) -> Result<Arc<dyn BlobReader>, Error> {
        let pool = self.pool().await?;
        let reader = RbdReader::open(&pool, name, None).await.map_err(|e| self.note(pool.cluster(), e))?;
        Ok(Arc::new(reader))
    }

    async fn secure(&self, name: &str) -> Result<(), Error> {
        let pool = self.pool().await?;
        let secured = async {
            let image = pool.open(name).await?;
            let secured = secure(&image).await;
            image.close().await?;
            secured
        };
        secured.await.map_err(|e| self.note(pool.cluster(), e))
    }

    async fn sweep(&self, name: &str) -> Result<(), Error> {
        if matches!(meaning(name), Meaning::Image(_) | Meaning::Foreign) {
            return Err(Error::Denied(format!("{name} is no leftover of an upload")));
        }
        let pool = self.pool().await?;
        delete::sweep(&pool, name).await.map_err(|e| self.note(pool.cluster(), e))
    }
}

/// Whether the snapshot of an image can be opened, as whoever reads or clones it does. librbd lists one before it is
/// complete, and leaves it so if it is killed.
async fn opens(pool: &Pool, name: &str) -> Result<bool, ceph::Error> {
    match pool.open_read_only(name, Some(SNAPSHOT)).await {
        Ok(image) => image.close().await.map(|()| true),
        Err(e) if e.kind() == Kind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sees to it that an image has its snapshot, and that this is protected.
pub(super) async fn secure(image: &Image) -> Result<(), ceph::Error> {
    let mut snapshot = image.snapshots().await?.into_iter().find(|snapshot| snapshot.name == SNAPSHOT);
    // One that cannot be opened has no clones: it is taken again.
    if let Some(found) = &snapshot
        && !opens(image.pool(), image.name()).await?
    {
        if found.protected {
            image.snapshot_unprotect(SNAPSHOT).await?;
        }
        image.snapshot_remove(SNAPSHOT).await?;
        snapshot = None;
    }
    if snapshot.is_none() {
        image.snapshot_create(SNAPSHOT).await?;
    }
    if !snapshot.is_some_and(|snapshot| snapshot.protected) {
        image.snapshot_protect(SNAPSHOT).await?;
    }
    Ok(())
}

async fn look(image: &Image) -> Result<Stored, ceph::Error> {
    let stat = image.stat().await?;
    let (created_at, id) = (image.created_at().await?, image.id().await?);
    let snapshot = image.snapshots().await?.into_iter().find(|snapshot| snapshot.name == SNAPSHOT);
    // Snapshots do not change, and numbers of theirs are not given twice.
    let identity = format!("{id}@{}", snapshot.as_ref().map(|snapshot| snapshot.id.to_string()).unwrap_or_default());
    let mut description = image.metadata_list().await?;
    description.retain(|key, _| key.starts_with(DESCRIPTION_PREFIX));
    Ok(Stored {
        size_bytes: stat.size_bytes,
        published_bytes: snapshot.as_ref().map(|snapshot| snapshot.size_bytes),
        snapshot: snapshot.map(|snapshot| snapshot.protected),
        object_bytes: 1 << stat.order,
        description,
        created_at: created_at.into(),
        identity,
    })
}

/// What a name in the pool says. Only what is spelled exactly as this service would spell it is its own.
fn meaning(name: &str) -> Meaning {
    if let Some(id) = ImageId::parse(name).filter(|id| id.to_string() == name) {
        return Meaning::Image(id);
    }
    if name.strip_prefix(STARTUP_CHECK_PREFIX).is_some_and(|id| Uuid::try_parse(id).is_ok()) {
        return Meaning::StartupCheck;
    }
    let attempt = [(ATTEMPT_PREFIX, Purpose::Image), (STAGING_PREFIX, Purpose::Staging)].into_iter().find_map(
        |(prefix, purpose)| {
            let (image, id) = name.strip_prefix(prefix)?.rsplit_once('-')?;
            Some(Attempt { image: ImageId::parse(image)?, id: Uuid::try_parse(id).ok()?, purpose })
        },
    );
    match attempt.filter(|attempt| RbdStore::attempt_name(*attempt) == name) {
        Some(attempt) => Meaning::Attempt(attempt),
        None => Meaning::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::meaning;
    use crate::domain::id::ImageId;
    use crate::store::Attempt;
    use crate::store::inventory::Meaning;
    use crate::store::rbd::RbdStore;

    #[test]
    fn only_names_that_this_service_makes_mean_anything() {
        let (id, attempt) = (ImageId::random(), Uuid::new_v4());
        assert_eq!(meaning(&id.to_string()), Meaning::Image(id));
        for attempt in [Attempt::upload(id, attempt), Attempt::staging(id, attempt)] {
            let name = RbdStore::attempt_name(attempt);
            assert_eq!(meaning(&name), Meaning::Attempt(attempt));
            for other in [name.to_uppercase(), format!("{name}0"), format!("x{name}"), name.replace("ing-", "ing")] {
                assert_eq!(meaning(&other), Meaning::Foreign, "{other}");
            }
        }
        assert_eq!(meaning(&format!("uploading-startup-check-{attempt}")), Meaning::StartupCheck);
        for other in
            ["", "uploading-", "staging-a-b", "uploading-startup-check-", "golden", &id.to_string().to_uppercase()]
        {
            assert_eq!(meaning(other), Meaning::Foreign, "{other}");
        }
    }
}
