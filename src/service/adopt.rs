//! `rockpool adopt`: an RBD image that somebody else has made becomes an image of the catalog.
//!
//! ```text
//!   a copy     record queued -> saving, as an upload; clone, flatten, snapshot; -> active, job that hashes      interrupted: undone as an upload is
//!   in place   record queued; snapshot, protect, rename; -> active, job that hashes, one transaction             interrupted: run it again
//! ```
//!
//! The job belongs to this process, and when that is gone to any gateway.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::lease::Held;
use super::quota::Account;
use super::upload::Progress;
use super::{Error, Services, conclude, locate, lock, no_image};
use crate::catalog::{self, Charge, JobKind, NewJob, Tx};
use crate::domain::content::Content;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Image, Location};
use crate::domain::limits::Resource;
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

/// What is to become of it.
struct Adopted {
    /// The record.
    image: Image,
    content: Content,
    /// The job that will hash it, where anything is hashed.
    hash_job: Option<Uuid>,
    /// Who pays for it.
    account: Option<Account>,
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
        // 2. Would it be taken if somebody uploaded it?
        let known = self.catalog.image(*id, &Scope::Everything(None)).await?;
        let attributes = known.as_ref().map_or(&adoption.attributes, |image| &image.attributes);
        let account = self.account_of(attributes.owner.as_deref()).await?;
        let content = self.inspect_foreign(store.as_ref(), &foreign, attributes).await?;
        if let Some(account) = &account {
            let one = u64::from(known.is_none());
            let asked = [(Resource::ImageSizeTotal, content.size_bytes), (Resource::ImageCountTotal, one)];
            account.check(&self.catalog, &asked).await?;
        }
        // 3. A record for it.
        let image = self.adopted_record(adoption, account.as_ref()).await?;
        // 4. Its data, and the job that hashes it.
        let hash_job = self.hashes_anything().then(Uuid::new_v4);
        let adopted = Adopted { image, content, hash_job, account };
        if adoption.in_place {
            let url = store.adopt_in_place(name, *id).await?;
            let tx = self.catalog.begin("adopt_in_place").await?;
            let activated = self.try_activate_in_place(&tx, store.as_ref(), &adopted, url).await;
            conclude(tx, activated).await?;
        } else {
            self.adopt_copy(adoption, &store, &adopted, copied).await?;
        }
        // 5. Its hash.
        if let Some(job) = hash_job {
            self.hash_adopted(*id, job).await?;
        }
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

    /// What is known of a foreign image that would be accepted as an upload.
    async fn inspect_foreign(
        &self,
        store: &dyn Store,
        foreign: &Foreign,
        attributes: &Attributes,
    ) -> Result<Content, Error> {
        self.check_size(Some(foreign.size_bytes))?;
        let reader = store.open_foreign(foreign).await?;
        let facts = self.inspect(reader.as_ref(), attributes).await?;
        if let Some(warning) = &facts.warning {
            tracing::warn!(url = foreign.url, warning, "an image is not what it is called");
        }
        Ok(Content { virtual_size_bytes: facts.virtual_size_bytes, ..Content::of_size(foreign.size_bytes) })
    }

    /// The queued record of the id, or a new one.
    async fn adopted_record(&self, adoption: &Adoption, account: Option<&Account>) -> Result<Image, Error> {
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
            if let Some(account) = account {
                account.admit(&tx, &[(Resource::ImageCountTotal, 1)]).await?;
            }
            Ok(image)
        };
        let recorded = recorded.await;
        conclude(tx, recorded).await
    }

    async fn try_activate_in_place(
        &self,
        tx: &Tx,
        store: &dyn Store,
        adopted: &Adopted,
        url: String,
    ) -> Result<(), Error> {
        let Adopted { image, content, hash_job, account } = adopted;
        let locked = lock(tx, image.id).await?;
        self.take_up(tx, &url).await?;
        if !LOCATE.allows(locked.status) {
            return Err(Error::Conflict(format!("Image {} is {} by now.", image.id, locked.status)));
        }
        let location = Location { store: store.name().to_owned(), url, metadata: Map::new(), owned: true };
        tx.set_content(image.id, content).await?;
        tx.set_locations(image.id, &locked.locations, std::slice::from_ref(&location)).await?;
        tx.transition(image.id, &LOCATE).await?;
        tx.image_event("image.activate", image.id, &json!({})).await?;
        tx.leave_describe_job(image.id).await?;
        if let Some(job) = *hash_job {
            self.enqueue_hash(tx, job, image.id, &location.url).await?;
        }
        match account {
            Some(account) => account.admit(tx, &[(Resource::ImageSizeTotal, content.size_bytes)]).await,
            None => Ok(()),
        }
    }

    /// As an upload, with a copy instead of a body.
    async fn adopt_copy(
        &self,
        adoption: &Adoption,
        store: &Arc<dyn Store>,
        adopted: &Adopted,
        copied: Copied<'_>,
    ) -> Result<(), Error> {
        let Adopted { image, content, hash_job, account } = adopted;
        let attempt = Attempt::upload(image.id, Uuid::new_v4());
        let mut progress = Progress { hash_job: *hash_job, ..Progress::begin(store.name(), image.version + 1) };
        let owner = image.attributes.owner.as_deref();
        let charge = owner.map(|project| Charge { project, bytes: content.size_bytes });
        let lease = self.begin_upload(attempt, &progress, charge, account.as_ref()).await?;
        let held = Held::keep(&self.catalog, lease, self.settings.lease);
        let copy = async {
            let writer = tokio::select! {
                biased;
                () = held.lost().cancelled() => return Err(Error::Gone("The image was deleted while it was adopted.".into())),
                writer = store.adopt_copy(&adoption.pool, &adoption.image, attempt, copied) => writer?,
            };
            writer.seal(content.size_bytes, &description(image, content, attempt.id)).await?;
            Ok(())
        };
        match copy.await {
            Ok(()) => progress.content = Some(content.clone()),
            Err(failure) => {
                self.undo_upload(attempt, lease, store.as_ref(), &progress, &failure).await;
                return Err(failure);
            }
        }
        self.record_received(&held, &progress).await?;
        self.complete_upload(attempt, &held, store.as_ref(), &progress).await
    }

    /// Leaves word that the data of an image that becomes active has not been hashed. The job is this process's first.
    pub(super) async fn enqueue_hash(
        &self,
        tx: &Tx,
        job: Uuid,
        image: ImageId,
        url: &str,
    ) -> Result<(), catalog::Error> {
        let job = NewJob {
            id: job,
            kind: JobKind::Locate,
            image,
            state: locate::HASHING,
            payload: &json!(locate::Work::new(url, None)),
            owner: Some(&self.settings.gateway),
            lease: self.settings.lease,
            charge: None,
        };
        tx.enqueue(&job).await.map(drop)
    }

    /// Hashes the data of an image that was just adopted, unless somebody else does that by now.
    async fn hash_adopted(&self, id: ImageId, job: Uuid) -> Result<(), Error> {
        let Some(job) = self.catalog.own_job(job, &self.settings.gateway).await? else { return Ok(()) };
        let held = Held::keep(&self.catalog, job.lease, self.settings.lease);
        if let Err(error) = self.recover_locate(&job, &held, &CancellationToken::new()).await {
            self.catalog.postpone_job(job.lease, Duration::ZERO, &error.to_string()).await?;
            return Err(Error::Unavailable(format!(
                "image {id} is active; a gateway will hash it, because it could not be done now: {error}"
            )));
        }
        Ok(())
    }
}
