//! Taking locations from an image that keeps others: `DELETE /v2/stores/{store}/{image}`, and PATCH.
//!
//! The location leaves the record first, together with a job that owns the end of its data. Data that the image does
//! not own, or that another image refers to, stays.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::Instrument as _;
use uuid::Uuid;

use super::delete::PURGE_WAIT;
use super::lease::Held;
use super::recover::RETRY_PAUSE_MIN;
use super::{Error, Services, conclude, lock};
use crate::catalog::{Job, JobKind, Lease, NewJob, Tx};
use crate::domain::id::ImageId;
use crate::domain::image::{Image, Location};
use crate::domain::status::Status;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};
use crate::store;

/// The one state of the job.
pub(super) const REMOVING: &str = "removing";

/// What the job carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Unlocate {
    /// Store that has the data.
    pub(super) store: String,
    /// Where in it.
    pub(super) url: String,
}

/// A job that this gateway may hold.
pub(super) struct Removal {
    lease: Lease,
    work: Unlocate,
}

impl Services {
    /// Takes the copy of an image in one store away.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for the last copy, [`Error::NotFound`] where there is none, [`Error::Conflict`] naming
    /// who uses it.
    pub async fn delete_from_store(self: &Arc<Self>, caller: &Caller, store: &str, id: &str) -> Result<(), Error> {
        // 1. May the caller, and may the copy go?
        if self.stores.get(Some(store)).is_err() {
            return Err(Error::Conflict(format!("The selected store {store} is not available on this node.")));
        }
        let image = self.permitted(Action::GetImageLocation, caller, id).await?;
        self.authorize(Action::DeleteImageLocation, caller, Target::from(&image)).await?;
        let location = copy_in(&image, store)?.clone();
        self.check_unused(&image, &location).await?;
        // 2. Out of the record; its data has an owner.
        let tx = self.catalog.begin("location_delete").await?;
        let deleted = self.try_delete_from_store(&tx, store, image.id).await;
        let removals = conclude(tx, deleted).await?;
        // 3. Gone; to the end even if the client does not wait.
        self.remove_data(image.id, removals).await;
        Ok(())
    }

    async fn try_delete_from_store(&self, tx: &Tx, store: &str, id: ImageId) -> Result<Vec<Removal>, Error> {
        let image = lock(tx, id).await?;
        let location = copy_in(&image, store)?;
        let jobs = self.give_up_data(tx, id, std::slice::from_ref(location), Some(&self.settings.gateway)).await?;
        let kept: Vec<Location> = image.locations.iter().filter(|kept| kept.url != location.url).cloned().collect();
        tx.set_locations(id, &image.locations, &kept).await?;
        tx.touch(id).await?;
        tx.image_event("image.update", id, &json!({"removed_from": store})).await?;
        Ok(jobs)
    }

    /// Refuses to take away data that has users. A first look, so that nothing is taken apart in vain.
    pub(super) async fn check_unused(&self, image: &Image, location: &Location) -> Result<(), Error> {
        if !location.owned || !self.catalog.other_holders(image.id, &location.url).await?.is_empty() {
            return Ok(());
        }
        let store = self.store_of(location)?;
        if store.is_read_only() {
            return Err(Error::Forbidden(format!(
                "The data of image {} could not be deleted: it lies in store {}, which is read-only.",
                image.id, location.store
            )));
        }
        match store.users(&location.url).await? {
            Some(by) => Err(Error::Conflict(format!(
                "The data of image {} could not be deleted because it is in use: {by}.",
                image.id
            ))),
            None => Ok(()),
        }
    }

    /// Leaves a job for the data of each of the locations that an image gives up, if it is the image's and nobody
    /// else refers to it; to be called before the locations are removed. `owner` holds the leases, if anybody does.
    pub(super) async fn give_up_data(
        &self,
        tx: &Tx,
        id: ImageId,
        locations: &[Location],
        owner: Option<&str>,
    ) -> Result<Vec<Removal>, Error> {
        let urls: Vec<&str> = locations.iter().map(|location| location.url.as_str()).collect();
        tx.lock_urls(urls.iter().copied()).await?;
        let given_up = tx.give_up_locations(id, &urls).await?;
        let mut jobs = Vec::new();
        for location in locations.iter().filter(|location| given_up.contains(&location.url)) {
            let work = Unlocate { store: location.store.clone(), url: location.url.clone() };
            let job = NewJob {
                id: Uuid::new_v4(),
                kind: JobKind::Unlocate,
                image: id,
                state: REMOVING,
                payload: &json!(work),
                owner,
                charge: None,
                lease: if owner.is_some() { self.settings.lease } else { Duration::ZERO },
            };
            jobs.push(Removal { lease: tx.enqueue(&job).await?, work });
        }
        Ok(jobs)
    }

    /// Carries such jobs out, and waits for a while. What cannot be done now is taken up again later.
    pub(super) async fn remove_data(self: &Arc<Self>, id: ImageId, removals: Vec<Removal>) {
        if removals.is_empty() {
            return;
        }
        let services = Arc::clone(self);
        let work = async move {
            for Removal { lease, work } in removals {
                let held = Held::keep(&services.catalog, lease, services.settings.lease);
                if let Err(error) = services.unlocate(&held, &work).await {
                    tracing::info!(image = %id, %error, "the data of a removed location will go later");
                    let _ = services.catalog.postpone_job(lease, RETRY_PAUSE_MIN, &error.to_string()).await;
                }
            }
        };
        let task = self.tasks.spawn(work.in_current_span());
        if let Ok(Err(panic)) = tokio::time::timeout(PURGE_WAIT, task).await {
            tracing::error!(image = %id, %panic, "removing the data of a location panicked");
        }
    }

    /// Takes up such a job from a gateway that has died.
    pub(super) async fn recover_unlocate(&self, job: &Job, held: &Held) -> Result<(), Error> {
        let work: Unlocate = serde_json::from_value(job.payload.clone())
            .map_err(|e| Error::Internal(format!("unlocate job {}: {e}", job.lease.job)))?;
        self.unlocate(held, &work).await
    }

    async fn unlocate(&self, held: &Held, work: &Unlocate) -> Result<(), Error> {
        let store = self.stores.get(Some(&work.store))?;
        self.confirm(held).await?;
        match store.retire(&work.url).await {
            Ok(()) => {}
            // A clone that was made after the first look: the data stays as long as it does.
            Err(store::Error::InUse(by) | store::Error::Busy(by)) => return Err(Error::Unavailable(by)),
            Err(error) => return Err(error.into()),
        }
        self.confirm(held).await?;
        store.purge(&work.url).await?;
        let tx = self.catalog.begin("location_gone").await?;
        tx.finish_job(held.lease).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// The copy of an image in a store, if it may be taken away.
fn copy_in<'i>(image: &'i Image, store: &str) -> Result<&'i Location, Error> {
    if image.status != Status::Active {
        return Err(Error::Conflict(format!(
            "It's not allowed to remove image data from store if image status is not 'active': it is {}.",
            image.status
        )));
    }
    if image.locations.len() < 2 {
        return Err(Error::Forbidden(
            "Cannot delete image data from the only store containing it. Consider deleting the image instead.".into(),
        ));
    }
    image
        .locations
        .iter()
        .find(|location| location.store == store)
        .ok_or_else(|| Error::NotFound(format!("Image {} is not stored in store {store}.", image.id)))
}
