//! `rockpool adopt`: an RBD image that somebody else has made becomes an image of the catalog.
//!
//! ```text
//!   a copy     record queued -> saving, as an upload; clone, flatten, snapshot; -> active      interrupted: undone as an upload is
//!   in place   record queued; snapshot, protect, rename; -> active, one transaction             interrupted: run it again
//! ```
//!
//! Either way the data is hashed at last, by a job that any gateway takes up when this process is gone.

use std::sync::Arc;

use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::lease::Held;
use super::upload::Progress;
use super::{Error, Services, conclude, locate, lock, no_image};
use crate::catalog::{Job, JobKind, Lease, NewJob, Tx};
use crate::domain::content::Content;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Image, Location};
use crate::domain::query::Scope;
use crate::domain::status::{LOCATE, Status};
use crate::store::{Attempt, Copied, Foreign, Store, description};

/// What to adopt, and as what.
#[derive(Debug, Clone)]
pub struct Adoption {
    /// The RBD image's pool.
    pub pool: String,
    /// Its name.
    pub image: String,
    /// The store that it goes to; without it, the default one.
    pub store: Option<String>,
    /// Id of the new image, or of a queued one.
    pub id: ImageId,
    /// What a new record says.
    pub attributes: Attributes,
    /// Whether to take the RBD image itself instead of a copy.
    pub in_place: bool,
}

impl Services {
    /// Adopts an RBD image. `copied` hears how much of a copy is there.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an RBD image that is not there, [`Error::Conflict`] for one in use or an id that is
    /// taken, [`Error::Invalid`]. The record stays queued: the same call, with its id, tries again.
    pub async fn adopt(self: &Arc<Self>, adoption: &Adoption, copied: Copied<'_>) -> Result<Image, Error> {
        let Adoption { pool, image: name, id, .. } = adoption;
        // 1. Is it there, free, and nobody's?
        let store =
            self.stores.get(adoption.store.as_deref()).map_err(|e| Error::Invalid(format!("{e} does not exist.")))?;
        let store = Arc::clone(store);
        if store.is_read_only() {
            return Err(Error::Conflict(format!("Store {} is read-only.", store.name())));
        }
        let place = adoption.in_place.then_some(*id);
        let foreign = store.survey_foreign(pool, name, place).await?;
        self.check_nobodys(adoption, &foreign).await?;
        // 2. A record for it.
        let image = self.adopted_record(adoption).await?;
        // 3. Its data.
        if adoption.in_place {
            let url = store.adopt_in_place(name, *id).await?;
            let tx = self.catalog.begin("adopt_in_place").await?;
            let activated = self.try_activate_in_place(&tx, store.as_ref(), &image, &foreign, url).await;
            conclude(tx, activated).await?;
        } else {
            self.adopt_copy(adoption, &store, &image, &foreign, copied).await?;
        }
        // 4. Its hash.
        self.hash_adopted(*id).await?;
        self.catalog.image(*id, &Scope::Everything(None)).await?.ok_or_else(|| no_image(&id.to_string()))
    }

    /// Refuses to take in place what an image refers to.
    async fn check_nobodys(&self, adoption: &Adoption, foreign: &Foreign) -> Result<(), Error> {
        if !adoption.in_place {
            return Ok(());
        }
        let mut holders = self.catalog.other_holders(adoption.id, &foreign.url).await?;
        if let Some(named) = ImageId::parse(&adoption.image).filter(|named| *named != adoption.id)
            && self.catalog.status(named).await?.is_some()
        {
            holders.push(named);
        }
        match holders.first() {
            Some(holder) => Err(Error::Conflict(format!(
                "{}/{} is the data of image {holder} already; leave --in-place out to copy it.",
                adoption.pool, adoption.image
            ))),
            None => Ok(()),
        }
    }

    /// The queued record of the id, or a new one.
    async fn adopted_record(&self, adoption: &Adoption) -> Result<Image, Error> {
        let id = adoption.id;
        let tx = self.catalog.begin("adopt_record").await?;
        let recorded = async {
            if let Some(image) = tx.lock_image(id).await? {
                return match image.status {
                    Status::Queued => Ok(image),
                    status => Err(Error::Conflict(format!("Image {id} is {status}: only a queued record takes data."))),
                };
            }
            if !tx.reserve_id(id).await? {
                return Err(Error::Conflict(format!("Image ID {id} was in use before; ids are never used again.")));
            }
            let now = tx.now().await?;
            let image = Image {
                id,
                status: Status::Queued,
                attributes: adoption.attributes.clone(),
                content: None,
                locations: Vec::new(),
                upload_failure: None,
                import: Default::default(),
                created_at: now,
                updated_at: now,
                version: 1,
            };
            tx.insert_image(&image).await?;
            tx.image_event("image.create", id, &json!({})).await?;
            Ok(image)
        };
        let recorded = recorded.await;
        conclude(tx, recorded).await
    }

    async fn try_activate_in_place(
        &self,
        tx: &Tx,
        store: &dyn Store,
        image: &Image,
        foreign: &Foreign,
        url: String,
    ) -> Result<(), Error> {
        let locked = lock(tx, image.id).await?;
        self.take_up(tx, &url).await?;
        if !LOCATE.allows(locked.status) {
            return Err(Error::Conflict(format!("Image {} is {} by now.", image.id, locked.status)));
        }
        let location = Location { store: store.name().to_owned(), url, metadata: Map::new(), owned: true };
        tx.set_content(image.id, &content(image, foreign)).await?;
        tx.set_locations(image.id, &locked.locations, std::slice::from_ref(&location)).await?;
        tx.transition(image.id, &LOCATE).await?;
        tx.image_event("image.activate", image.id, &json!({})).await?;
        tx.leave_describe_job(image.id).await?;
        Ok(())
    }

    /// As an upload, with a copy instead of a body.
    async fn adopt_copy(
        &self,
        adoption: &Adoption,
        store: &Arc<dyn Store>,
        image: &Image,
        foreign: &Foreign,
        copied: Copied<'_>,
    ) -> Result<(), Error> {
        let attempt = Attempt::upload(image.id, Uuid::new_v4());
        let mut progress = Progress::begin(store.name(), image.version + 1);
        let lease = self.begin_upload(attempt, &progress, None, None).await?;
        let held = Held::keep(&self.catalog, lease, self.settings.lease);
        let copy = async {
            let writer = tokio::select! {
                biased;
                () = held.lost().cancelled() => return Err(Error::Gone("The image was deleted while it was adopted.".into())),
                writer = store.adopt_copy(&adoption.pool, &adoption.image, attempt, copied) => writer?,
            };
            let content = content(image, foreign);
            writer.seal(content.size_bytes, &description(image, &content, attempt.id)).await?;
            Ok(content)
        };
        match copy.await {
            Ok(content) => progress.content = Some(content),
            Err(failure) => {
                self.undo_upload(attempt, lease, store.as_ref(), &progress, &failure).await;
                return Err(failure);
            }
        }
        self.record_received(&held, &progress).await?;
        self.complete_upload(attempt, &held, store.as_ref(), &progress).await
    }

    /// Hashes the data of an image that was just adopted.
    async fn hash_adopted(&self, id: ImageId) -> Result<(), Error> {
        let tx = self.catalog.begin("adopt_hash").await?;
        let enqueued = self.try_enqueue_hash(&tx, id).await;
        let Some(job) = conclude(tx, enqueued).await? else { return Ok(()) };
        let held = Held::keep(&self.catalog, job.lease, self.settings.lease);
        if let Err(error) = self.recover_locate(&job, &held, &CancellationToken::new()).await {
            self.catalog.postpone_job(job.lease, std::time::Duration::ZERO, &error.to_string()).await?;
            return Err(Error::Unavailable(format!(
                "image {id} is active; a gateway will hash it, because it could not be done now: {error}"
            )));
        }
        Ok(())
    }

    async fn try_enqueue_hash(&self, tx: &Tx, id: ImageId) -> Result<Option<Job>, Error> {
        let image = lock(tx, id).await?;
        let Some(location) = image.locations.first().filter(|_| self.hashes_anything()) else { return Ok(None) };
        let payload = json!(locate::Work::new(&location.url, None));
        let job = NewJob {
            id: Uuid::new_v4(),
            kind: JobKind::Locate,
            image: id,
            state: locate::HASHING,
            payload: &payload,
            owner: Some(&self.settings.gateway),
            lease: self.settings.lease,
            charge: None,
        };
        let lease: Lease = tx.enqueue(&job).await?;
        let state = locate::HASHING.to_owned();
        Ok(Some(Job { lease, kind: JobKind::Locate, image: id, state, payload, attempts: 0 }))
    }
}

fn content(image: &Image, foreign: &Foreign) -> Content {
    // A raw image is its own disk.
    let raw = image.attributes.disk_format.as_deref() == Some("raw");
    Content { virtual_size_bytes: raw.then_some(foreign.size_bytes), ..Content::of_size(foreign.size_bytes) }
}
