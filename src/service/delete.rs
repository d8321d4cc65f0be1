//! `DELETE /v2/images/{id}`.
//!
//! An image with data leaves the lists first, together with a job that owns its end; then the store is
//! asked to take the data out of use. Either that works, and the data goes for good, or it has users, and
//! the image comes back as it was: it is never listed and unclonable. Any gateway can finish the job.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tracing::Instrument as _;
use uuid::Uuid;

use super::lease::Held;
use super::{Error, Services};
use crate::catalog::{Charge, Job, JobKind, Lease, NewJob};
use crate::domain::id::ImageId;
use crate::domain::image::Image;
use crate::domain::status::{DELETE, Status, undelete};
use crate::identity::Caller;
use crate::identity::policy::Action;
use crate::store;

/// How long a request waits for the data to be gone. Removing many TiB takes longer and goes on without
/// the client.
pub(super) const PURGE_WAIT: Duration = Duration::from_secs(20);

/// Job states of a deletion. While "retiring" the image may still come back.
pub(super) const RETIRING: &str = "retiring";
/// The data is out of use.
const PURGING: &str = "purging";
/// Member of the job's payload: the state that the image comes back to.
pub(super) const WAS: &str = "was";

impl Services {
    /// Deletes an image.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for a protected image, [`Error::Conflict`] naming who uses it.
    pub async fn delete(self: &Arc<Self>, caller: &Caller, id: &str) -> Result<(), Error> {
        // 1. May the caller, and may the image go?
        let missing = || Error::NotFound(format!("Failed to find image {id} to delete"));
        let permitted = self.permitted(Action::DeleteImage, caller, id).await;
        let image = permitted.map_err(|e| if matches!(e, Error::NotFound(_)) { missing() } else { e })?;
        if image.attributes.protected {
            return Err(Error::Forbidden(format!("Image {id} is protected and cannot be deleted.")));
        }
        // 2. Does anybody use its data? A first look, so that an image in use does not vanish for a moment.
        for location in &image.locations {
            self.check_unused(&image, location).await?;
        }
        // 3. Out of the lists; the data that goes with it has an owner.
        let Some((lease, image)) = self.begin_delete(image.id).await? else { return Err(missing()) };
        let Some(lease) = lease else { return Ok(()) };
        // 4. Out of use, then gone; to the end even if the client does not wait.
        let held = Held::keep(&self.catalog, lease, self.settings.lease);
        match self.retire(&image, &held).await {
            // Open for writing, by whomever: the client may try again.
            Err(Error::Busy(by)) => {
                self.undelete(&image, &held).await?;
                return Err(in_use(image.id, &by));
            }
            other => other?,
        }
        let (services, id) = (Arc::clone(self), image.id);
        let purge = async move { services.purge(&image, &held).await };
        let task = self.tasks.spawn(purge.in_current_span());
        match tokio::time::timeout(PURGE_WAIT, task).await {
            Ok(Ok(Ok(()))) | Err(_) => {}
            Ok(Ok(Err(error))) => {
                tracing::warn!(image = %id, %error, "the data of a deleted image will be removed later")
            }
            Ok(Err(panic)) => {
                tracing::error!(image = %id, %panic, "removing the data of a deleted image panicked")
            }
        }
        Ok(())
    }

    /// Step 3: the image as it was, with those of its locations whose data goes with it. `None`: somebody else
    /// deleted it. Without a lease there is no data to remove, or its upload cleans up behind itself.
    async fn begin_delete(&self, id: ImageId) -> Result<Option<(Option<Lease>, Image)>, Error> {
        let tx = self.catalog.begin("image_delete").await?;
        let Some(mut image) = tx.lock_image(id).await?.filter(|image| image.status != Status::Deleted) else {
            tx.rollback().await?;
            return Ok(None);
        };
        if image.attributes.protected {
            tx.rollback().await?;
            return Err(Error::Forbidden(format!("Image {id} is protected and cannot be deleted.")));
        }
        // Data of others, and data that other images refer to, stays where it is.
        let urls: Vec<&str> = image.locations.iter().map(|location| location.url.as_str()).collect();
        tx.lock_urls(urls.iter().copied()).await?;
        let given_up = tx.give_up_locations(id, &urls).await?;
        tx.transition(id, &DELETE).await?;
        tx.wake_imports(id).await?;
        let lease = if given_up.is_empty() {
            tx.image_event("image.delete", id, &json!({})).await?;
            tx.forget_image(id).await?;
            None
        } else {
            let job = NewJob {
                id: Uuid::new_v4(),
                kind: JobKind::Delete,
                image: id,
                state: RETIRING,
                payload: &json!({ WAS: image.status.as_str() }),
                owner: Some(&self.settings.gateway),
                lease: self.settings.lease,
                charge: charge(&image),
            };
            Some(tx.enqueue(&job).await?)
        };
        tx.commit().await?;
        self.job_bell.notify_one();
        self.long_job_bell.notify_one();
        image.locations.retain(|location| given_up.contains(&location.url));
        Ok(Some((lease, image)))
    }

    /// Takes every copy of the image, as it was, out of use, or brings it back. [`Error::Busy`] leaves it to the
    /// caller whether to wait: a gateway that died a moment ago still counts as a user.
    async fn retire(&self, image: &Image, held: &Held) -> Result<(), Error> {
        for location in &image.locations {
            self.confirm(held).await?;
            match self.store_of(location)?.retire(&location.url).await {
                Ok(()) => {}
                Err(store::Error::InUse(by)) => {
                    self.undelete(image, held).await?;
                    return Err(in_use(image.id, &by));
                }
                Err(store::Error::Busy(by)) => return Err(Error::Busy(by)),
                Err(error) => {
                    // Nothing is known: the job stays and is taken up again, by any gateway.
                    let _ = self.catalog.postpone_job(held.lease, Duration::ZERO, &error.to_string()).await;
                    return Err(error.into());
                }
            }
        }
        let tx = self.catalog.begin("image_retired").await?;
        if !tx.set_job_state(held.lease, PURGING).await? {
            tx.rollback().await?;
            self.put_back(image).await?;
            return Err(taken_over());
        }
        tx.image_event("image.delete", image.id, &json!({})).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Makes sure that the job is still ours, right before something that must not be done twice.
    pub(super) async fn confirm(&self, held: &Held) -> Result<(), Error> {
        if self.catalog.renew(held.lease, self.settings.lease).await? { Ok(()) } else { Err(taken_over()) }
    }

    /// Undoes a retirement that came too late: another gateway had taken over and brought the image back.
    async fn put_back(&self, image: &Image) -> Result<(), Error> {
        if matches!(
            self.catalog.status(image.id).await?,
            Some(Status::Active | Status::Deactivated | Status::Importing)
        ) {
            for location in &image.locations {
                self.store_of(location)?.restore(&location.url).await?;
            }
        }
        Ok(())
    }

    /// Brings the image back, with every copy. When that fails the job stays, and is taken up again.
    async fn undelete(&self, image: &Image, held: &Held) -> Result<(), Error> {
        self.confirm(held).await?;
        for location in &image.locations {
            self.store_of(location)?.restore(&location.url).await?;
        }
        let tx = self.catalog.begin("image_undelete").await?;
        tx.transition(image.id, &undelete(image.status)).await?;
        if tx.finish_job(held.lease).await? {
            tx.commit().await?
        } else {
            tx.rollback().await?
        }
        Ok(())
    }

    /// Removes the data for good, and the record with it.
    async fn purge(&self, image: &Image, held: &Held) -> Result<(), Error> {
        for location in &image.locations {
            self.confirm(held).await?;
            self.store_of(location)?.purge(&location.url).await?;
        }
        let tx = self.catalog.begin("image_purged").await?;
        if !tx.finish_job(held.lease).await? {
            tx.rollback().await?;
            return Ok(());
        }
        tx.forget_image(image.id).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Takes up a deletion whose gateway has died.
    pub(super) async fn resume_delete(&self, image: Image, held: &Held, job: &Job) -> Result<(), Error> {
        // Jobs of older gateways do not say: theirs were active.
        let was = job.payload.get(WAS).and_then(Value::as_str).and_then(Status::parse);
        let mut image = Image { status: was.unwrap_or(Status::Active), ..image };
        image.locations.retain(|location| location.owned);
        if job.state == RETIRING {
            match self.retire(&image, held).await {
                // In use, and back in the lists: that is an end, too.
                Err(Error::Conflict(_)) => return Ok(()),
                other => other?,
            }
        }
        self.purge(&image, held).await
    }
}

/// What an image uses of its owner's room.
fn charge(image: &Image) -> Option<Charge<'_>> {
    let size_bytes = image.content.as_ref().map_or(0, |content| content.size_bytes);
    let bytes = size_bytes.saturating_mul(image.locations.len() as u64);
    image.attributes.owner.as_deref().map(|project| Charge { project, bytes })
}

fn taken_over() -> Error {
    Error::Unavailable("the lease of the deletion was lost; another gateway decides".into())
}

fn in_use(id: ImageId, by: &str) -> Error {
    Error::Conflict(format!("Image {id} could not be deleted because it is in use: {by}."))
}
