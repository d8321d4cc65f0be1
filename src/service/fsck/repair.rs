//! What is done about a finding: one step each, which looks again before it acts and may be repeated.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::catalog::{JobKind, NewJob, Tx};
use crate::domain::content::HashAlgorithm;
use crate::domain::id::ImageId;
use crate::domain::image::{Image, Import, Location};
use crate::domain::status::{ABORT_STAGE, ABORT_UPLOAD, REJECT, Status};
use crate::service::delete::{RETIRING, WAS};
use crate::service::recover::GATEWAY_DIED;
use crate::service::unlocate::{REMOVING, Unlocate};
use crate::service::{Error, Line, Services, conclude, locate};
use crate::store::{Inventory, Store};

/// Longest wait for a job that a gateway is at.
const JOB_WAIT: Duration = Duration::from_secs(60);
/// How often such a job is looked at.
const JOB_POLL: Duration = Duration::from_millis(100);

/// What is done about a finding. A store is that of the finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// A job is taken up, as a gateway would.
    TakeUp { job: Uuid },
    /// A task is ended.
    AbandonTask { task: Uuid },
    /// Old tasks are forgotten.
    Prune,
    /// An image that waits for data is queued again.
    Requeue { image: ImageId },
    /// A deletion is carried to its end.
    FinishDelete { image: ImageId },
    /// An image is given back by an import.
    Unlock { image: ImageId },
    /// Data comes back from the trash.
    Restore { image: ImageId, location: Location },
    /// Data gets its protected snapshot, if it has the hash that is given by algorithm and value.
    Secure { image: ImageId, location: Location, verify: Option<(String, String)> },
    /// The description is written again.
    Describe { image: ImageId },
    /// Data of an image that was deleted is removed.
    Remove { image: ImageId, store: String, url: String },
    /// What an attempt, or the start of a gateway, has left is removed.
    Sweep { image: Option<ImageId>, store: String, name: String },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TakeUp { .. } => "take the job up: it is finished, or undone",
            Self::AbandonTask { .. } => "end the task as a failure",
            Self::Prune => "forget the tasks",
            Self::Requeue { .. } => "queue the image again, so that it can be uploaded",
            Self::FinishDelete { .. } => "carry the deletion to its end, by a job",
            Self::Unlock { .. } => "unlock the image",
            Self::Restore { .. } => "restore the data from the trash",
            Self::Secure { verify: None, .. } => "protect the snapshot",
            Self::Secure { verify: Some(_), .. } => {
                "hash the data and, if it is what is recorded, take the snapshot and protect it"
            }
            Self::Describe { .. } => "write the image metadata again from the record, by a job",
            Self::Remove { .. } => "move the data to the trash, unless somebody uses it, and remove it, by a job",
            Self::Sweep { .. } => "remove it",
        })
    }
}

impl Services {
    /// Takes one step. It may be taken again, and may be cut off.
    pub(super) async fn repair(self: &Arc<Self>, step: &Repair, before: OffsetDateTime) -> Result<(), Error> {
        match step {
            Repair::TakeUp { job } => self.see_through(*job, before).await,
            Repair::AbandonTask { task } => {
                let tx = self.catalog.begin("fsck_task").await?;
                tx.abandon_task(*task, before, "No job worked on it any more (rockpool fsck).").await?;
                Ok(tx.commit().await?)
            }
            Repair::Prune => self.prune().await,
            Repair::Requeue { image } => self.settle(*image, requeue).await,
            Repair::Unlock { image } => self.settle(*image, unlock).await,
            Repair::FinishDelete { image } => self.finish_delete(*image, before).await,
            Repair::Restore { image, location } => {
                self.touch_data(image, location, async |store, _, _| Ok(store.restore(&location.url).await?)).await
            }
            Repair::Secure { image, location, verify } => {
                if let Some((algorithm, value)) = verify {
                    self.verify(location, algorithm, value).await?;
                }
                self.touch_data(image, location, async |_, inventory, name| Ok(inventory.secure(name).await?)).await
            }
            Repair::Describe { image } => self.describe_again(*image, before).await,
            Repair::Remove { image, store, url } => self.remove_orphan(*image, store, url, before).await,
            Repair::Sweep { image, store, name } => self.sweep(*image, store, name).await,
        }
    }

    /// Sees a job to its end: takes it up if nobody else does.
    async fn see_through(self: &Arc<Self>, job: Uuid, before: OffsetDateTime) -> Result<(), Error> {
        let end = tokio::time::Instant::now() + JOB_WAIT;
        let mut taken_up = None;
        loop {
            let Some(standing) = self.catalog.job_standing(job, before).await? else { return Ok(()) };
            let attempts = *taken_up.get_or_insert(standing.attempts);
            if !standing.is_held && standing.is_waiting {
                // Given back; or it waits for something that is not wrong.
                return match standing.last_error.filter(|_| standing.attempts > attempts) {
                    Some(error) => Err(Error::Unavailable(error)),
                    None => Ok(()),
                };
            }
            let stop = CancellationToken::new();
            let worked = !standing.is_held
                && (self.recover_one(Line::Short, &stop).await? || self.recover_one(Line::Long, &stop).await?);
            if !worked {
                if tokio::time::Instant::now() >= end {
                    return Err(Error::Unavailable("a gateway is at work on it".into()));
                }
                tokio::time::sleep(JOB_POLL).await;
            }
        }
    }

    /// Changes the record of an image that no job is about.
    async fn settle(
        &self,
        id: ImageId,
        change: impl AsyncFnOnce(&Tx, &Image) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let tx = self.catalog.begin("fsck_settle").await?;
        let settled = async {
            let image = idle(&tx, id).await?;
            change(&tx, &image).await?;
            Ok(tx.image_event("image.update", id, &json!({})).await?)
        };
        let settled = settled.await;
        conclude(tx, settled).await
    }

    /// Does something to data that an image of which no job is about refers to, under the image's lock.
    async fn touch_data(
        &self,
        id: &ImageId,
        location: &Location,
        work: impl AsyncFnOnce(&dyn Store, &dyn Inventory, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let store = self.store_of(location)?;
        let inventory = inventory(store.as_ref())?;
        let name = inventory.name(&location.url).await?;
        let tx = self.catalog.begin("fsck_data").await?;
        let touched = async {
            let image = idle(&tx, *id).await?;
            let has = |status| matches!(status, Status::Active | Status::Deactivated);
            if !has(image.status) || !image.locations.contains(location) {
                return Err(changed(*id));
            }
            work(store.as_ref(), inventory, &name).await
        };
        let touched = touched.await;
        conclude(tx, touched).await
    }

    /// Refuses data that is not what was recorded.
    async fn verify(&self, location: &Location, algorithm: &str, value: &str) -> Result<(), Error> {
        let store = self.store_of(location)?;
        let inventory = inventory(store.as_ref())?;
        let named = HashAlgorithm::named(algorithm)
            .ok_or_else(|| Error::Conflict(format!("its hash is by {algorithm}, which is not known here")))?;
        let reader = inventory.open_unpublished(&inventory.name(&location.url).await?).await?;
        let found = locate::hash_whole(reader, named, 0).await?;
        match found.eq_ignore_ascii_case(value) {
            true => Ok(()),
            false => Err(Error::Conflict(format!(
                "its {algorithm} is {found}, and {value} is recorded: the data has changed"
            ))),
        }
    }

    async fn describe_again(self: &Arc<Self>, id: ImageId, before: OffsetDateTime) -> Result<(), Error> {
        let tx = self.catalog.begin("fsck_describe").await?;
        let left = async {
            idle(&tx, id).await?;
            leave(&tx, id, JobKind::Describe, "waiting", json!({})).await
        };
        let left = left.await;
        let job = conclude(tx, left).await?;
        self.see_through(job, before).await
    }

    async fn finish_delete(self: &Arc<Self>, id: ImageId, before: OffsetDateTime) -> Result<(), Error> {
        let tx = self.catalog.begin("fsck_delete").await?;
        let left = async {
            let image = idle(&tx, id).await?;
            if image.status != Status::Deleted {
                return Err(changed(id));
            }
            if !image.locations.iter().any(|location| location.owned) {
                tx.forget_image(id).await?;
                return Ok(None);
            }
            // If its data turns out to be in use it comes back; what it was before is not known, so withheld.
            let payload = json!({ WAS: Status::Deactivated.as_str() });
            leave(&tx, id, JobKind::Delete, RETIRING, payload).await.map(Some)
        };
        let left = left.await;
        match conclude(tx, left).await? {
            Some(job) => self.see_through(job, before).await,
            None => Ok(()),
        }
    }

    async fn remove_orphan(
        self: &Arc<Self>,
        id: ImageId,
        store: &str,
        url: &str,
        before: OffsetDateTime,
    ) -> Result<(), Error> {
        let tx = self.catalog.begin("fsck_remove").await?;
        let left = async {
            let gone = tx.lock_image(id).await?.is_none() && tx.is_reserved(id).await?;
            tx.lock_urls(std::iter::once(url)).await?;
            if !gone || tx.is_referred(url).await? || tx.is_worked_on(id).await? {
                return Err(changed(id));
            }
            let work = Unlocate { store: store.to_owned(), url: url.to_owned() };
            leave(&tx, id, JobKind::Unlocate, REMOVING, json!(work)).await
        };
        let left = left.await;
        let job = conclude(tx, left).await?;
        self.see_through(job, before).await
    }

    async fn sweep(&self, image: Option<ImageId>, store: &str, name: &str) -> Result<(), Error> {
        if let Some(id) = image {
            let tx = self.catalog.begin("fsck_sweep").await?;
            let left = async { Ok::<_, Error>(tx.is_reserved(id).await? && !tx.is_worked_on(id).await?) };
            let left = left.await;
            if !conclude(tx, left).await? {
                return Err(changed(id));
            }
        }
        let store = self.stores.get(Some(store))?;
        Ok(inventory(store.as_ref())?.sweep(name).await?)
    }
}

/// Locks an image of which no job is about.
async fn idle(tx: &Tx, id: ImageId) -> Result<Image, Error> {
    let image = tx.lock_image(id).await?.ok_or_else(|| changed(id))?;
    if tx.is_worked_on(id).await? { Err(changed(id)) } else { Ok(image) }
}

fn changed(id: ImageId) -> Error {
    Error::Conflict(format!("image {id} has changed meanwhile; run rockpool fsck again"))
}

fn inventory(store: &dyn Store) -> Result<&dyn Inventory, Error> {
    store.inventory().ok_or_else(|| Error::Internal(format!("store {} cannot be listed", store.name())))
}

/// Leaves a job for the first gateway that looks.
async fn leave(tx: &Tx, image: ImageId, kind: JobKind, state: &'static str, payload: Value) -> Result<Uuid, Error> {
    let id = Uuid::new_v4();
    let job = NewJob { id, kind, image, state, payload: &payload, owner: None, lease: Duration::ZERO, charge: None };
    tx.enqueue(&job).await?;
    Ok(id)
}

async fn requeue(tx: &Tx, image: &Image) -> Result<(), Error> {
    if !image.locations.is_empty() {
        return Err(changed(image.id));
    }
    for transition in [&ABORT_UPLOAD, &ABORT_STAGE, &REJECT] {
        if tx.transition(image.id, transition).await? {
            tx.clear_content(image.id, GATEWAY_DIED).await?;
        }
    }
    unlock(tx, image).await
}

async fn unlock(tx: &Tx, image: &Image) -> Result<(), Error> {
    Ok(tx.set_import(image.id, &Import { task: None, ..image.import.clone() }).await?)
}
