//! `PUT /v2/images/{id}/stage`: data that an import will read.
//!
//! ```text
//!   catalog   queued -> uploading, job "staging" with a lease
//!   store     staging-<id>-<attempt>: bytes, snapshot
//!   catalog   job "staged": it waits for an import, or for the end of the data's time
//! ```
//!
//! The data lies where every gateway can read it, and the job owns it until an import is done with it, the image is
//! deleted, or nobody has come for it.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::ingest::{Extents, Plan, Pumped, pump, received};
use super::lease::Held;
use super::quota::{Account, Allowance};
use super::recover::GATEWAY_DIED;
use super::transfer::Transfer;
use super::upload::{DISCARDING, reason};
use super::{Error, Services, Upload};
use crate::catalog::{self, Charge, Job, JobKind, Lease, NewJob, Tx};
use crate::domain::content::Content;
use crate::domain::id::ImageId;
use crate::domain::image::Image;
use crate::domain::import::Method;
use crate::domain::limits::Resource;
use crate::domain::status::{ABORT_STAGE, BEGIN_STAGE, Status};
use crate::identity::Caller;
use crate::identity::policy::Action;
use crate::store::{Attempt, Store, staged_description};
use crate::telemetry::Direction;

/// Job state while the bytes arrive.
const STAGING: &str = "staging";
/// Job state while they wait to be imported.
pub(super) const STAGED: &str = "staged";

/// What the job of staged data carries; its id is that of the attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Staged {
    /// Store that has the bytes.
    pub(super) store: String,
    /// Their number, once they are all there.
    #[serde(default)]
    pub(super) size_bytes: u64,
    /// Their MD5.
    #[serde(default)]
    pub(super) checksum: Option<String>,
}

impl Services {
    /// Keeps the bytes of a queued image for an import.
    ///
    /// # Errors
    /// As [`Services::upload`]; the image is queued again and nothing is left in the store.
    pub async fn stage(self: &Arc<Self>, caller: &Caller, id: &str, upload: Upload) -> Result<(), Error> {
        // 1. May the caller, and is the image waiting for data?
        if !self.settings.import.methods.contains(&Method::GlanceDirect) {
            return Err(Error::NotFound("The import method glance-direct is not enabled at this site.".into()));
        }
        let image = self.permitted(Action::ModifyImage, caller, id).await?;
        if !BEGIN_STAGE.allows(image.status) {
            return Err(not_queued(&image));
        }
        self.check_size(upload.declared_bytes)?;
        let account = self.account(caller, image.attributes.owner.as_deref()).await?;
        let transfer = self.transfers.begin(Direction::In)?;
        let store = self.stores.staging().ok_or_else(|| Error::Internal("no store can keep staged data".into()))?;
        // 2. Intent, and room for the bytes.
        let staged = Staged { store: store.name().to_owned(), size_bytes: 0, checksum: None };
        let lease = self.begin_stage(&image, &staged, upload.declared_bytes, account.as_ref()).await?;
        let allowance = match (upload.declared_bytes, account) {
            (None, Some(account)) => Allowance::new(&self.catalog, account, Resource::ImageStageTotal, lease),
            (Some(_), _) | (None, None) => None,
        };
        // 3. The rest runs to its end even if this request is dropped, as an upload does.
        let services = Arc::clone(self);
        let work = async move { services.run_stage(lease, staged, image.id, upload, allowance, transfer).await };
        let task = self.tasks.spawn(work.in_current_span());
        task.await.map_err(|panic| Error::Internal(format!("the staging task panicked: {panic}")))?
    }

    async fn begin_stage(
        &self,
        image: &Image,
        staged: &Staged,
        declared_bytes: Option<u64>,
        account: Option<&Account>,
    ) -> Result<Lease, Error> {
        let bytes = declared_bytes.unwrap_or(0);
        let job = NewJob {
            id: Uuid::new_v4(),
            kind: JobKind::Stage,
            image: image.id,
            state: STAGING,
            payload: &json!(staged),
            owner: Some(&self.settings.gateway),
            lease: self.settings.lease,
            charge: image.attributes.owner.as_deref().map(|project| Charge { project, bytes }),
        };
        let tx = self.catalog.begin("stage_begin").await?;
        if !tx.transition(image.id, &BEGIN_STAGE).await? {
            tx.rollback().await?;
            return Err(not_queued(image));
        }
        let lease = tx.enqueue(&job).await?;
        if let Some(account) = account {
            let asked = [(Resource::ImageStageTotal, bytes), (Resource::ImageCountUploading, 1)];
            if let Err(refused) = account.admit(&tx, &asked).await {
                tx.rollback().await?;
                return Err(refused);
            }
        }
        tx.commit().await?;
        Ok(lease)
    }

    async fn run_stage(
        &self,
        lease: Lease,
        mut staged: Staged,
        image: ImageId,
        upload: Upload,
        allowance: Option<Allowance>,
        transfer: Transfer,
    ) -> Result<(), Error> {
        let attempt = Attempt::staging(image, lease.job);
        let store = Arc::clone(self.stores.get(Some(&staged.store))?);
        let held = Held::keep(&self.catalog, lease, self.settings.lease);
        // 4. Bytes, sealed.
        let received = self.receive_staged(attempt, &store, upload, allowance, &held).await;
        drop(transfer);
        // 5. Kept, unless the image went away meanwhile.
        let kept = match received {
            Ok(content) => {
                staged.size_bytes = content.size_bytes;
                staged.checksum = content.checksum.clone();
                self.keep_staged(attempt, lease, &staged).await
            }
            Err(failure) => Err(failure),
        };
        match kept {
            Ok(()) => {
                let size_bytes = staged.size_bytes;
                tracing::info!(image = %image, store = store.name(), size_bytes, "data was staged");
                Ok(())
            }
            Err(failure) => {
                self.undo_stage(attempt, lease, store.as_ref(), &failure).await;
                Err(failure)
            }
        }
    }

    async fn receive_staged(
        &self,
        attempt: Attempt,
        store: &Arc<dyn Store>,
        upload: Upload,
        allowance: Option<Allowance>,
        held: &Held,
    ) -> Result<Content, Error> {
        // Hashed is what is stored in the end.
        let plan = Plan { algorithm: None, ..self.plan(upload.declared_bytes) };
        let body = received(upload.body);
        let pumped = write_staged(store.as_ref(), attempt, body, &plan, allowance, held.lost()).await?;
        Ok(Content { checksum: pumped.checksum, ..Content::of_size(pumped.size_bytes) })
    }

    /// Step 5. When it fails, the data is nobody's to import.
    async fn keep_staged(&self, attempt: Attempt, lease: Lease, staged: &Staged) -> Result<(), Error> {
        let tx = self.catalog.begin("stage_keep").await?;
        let image = tx.lock_image(attempt.image).await?;
        let Some(image) = image.filter(|image| ABORT_STAGE.allows(image.status)) else {
            tx.rollback().await?;
            return Err(Error::Gone(format!("Image {} was deleted while data arrived.", attempt.image)));
        };
        if !tx.park_job(lease, STAGED, &json!(staged), self.settings.import.staging_time).await? {
            tx.rollback().await?;
            return Err(Error::Unavailable("the lease of the staging was lost; another gateway undoes it".into()));
        }
        // How much there is shows, and counts; what it is shows when it has been imported.
        tx.set_content(image.id, &Content::of_size(staged.size_bytes)).await?;
        Ok(tx.commit().await?)
    }

    /// Queues the record again, then removes the data. What cannot be done now is left to the job.
    async fn undo_stage(&self, attempt: Attempt, lease: Lease, store: &dyn Store, failure: &Error) {
        let undone = match self.give_up_staged(attempt.image, lease, &reason(failure)).await {
            Ok(false) => return,
            Ok(true) => self.discard_staged(attempt, lease, store).await,
            Err(error) => Err(error),
        };
        if let Err(error) = undone {
            tracing::info!(image = %attempt.image, %error, "the rest of a failed staging will be removed later");
            let _ = self.catalog.postpone_job(lease, Duration::ZERO, &error.to_string()).await;
            self.job_bell.notify_one();
        }
    }

    /// Queues an image again whose staged data goes, and says why. `false`: the lease is lost.
    async fn give_up_staged(&self, image: ImageId, lease: Lease, why: &str) -> Result<bool, Error> {
        let tx = self.catalog.begin("stage_undo").await?;
        tx.lock_image(image).await?;
        if !tx.set_job_state(lease, DISCARDING).await? {
            tx.rollback().await?;
            return Ok(false);
        }
        requeue(&tx, image, why).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn discard_staged(&self, attempt: Attempt, lease: Lease, store: &dyn Store) -> Result<(), Error> {
        store.discard(attempt).await?;
        Ok(self.forget_attempt(attempt, lease).await?)
    }

    /// Takes up staged data whose gateway has died, whose time is over, or that is not needed any more.
    pub(super) async fn recover_stage(&self, job: &Job) -> Result<(), Error> {
        let staged: Staged = serde_json::from_value(job.payload.clone())
            .map_err(|e| Error::Internal(format!("stage job {}: {e}", job.lease.job)))?;
        let attempt = Attempt::staging(job.image, job.lease.job);
        if job.state != DISCARDING && self.still_needed(job, &staged).await? {
            return Ok(());
        }
        let store = self.stores.get(Some(&staged.store))?;
        self.discard_staged(attempt, job.lease, store.as_ref()).await
    }

    /// Whether staged data stays; if not, the image does not wait for it any more.
    async fn still_needed(&self, job: &Job, staged: &Staged) -> Result<bool, Error> {
        let tx = self.catalog.begin("stage_recover").await?;
        let image = tx.lock_image(job.image).await?;
        if job.state == STAGED && image.as_ref().is_some_and(|image| image.status == Status::Importing) {
            tx.park_job(job.lease, STAGED, &json!(staged), self.settings.import.staging_time).await?;
            tx.commit().await?;
            return Ok(true);
        }
        if !tx.set_job_state(job.lease, DISCARDING).await? {
            tx.rollback().await?;
            return Ok(true);
        }
        if job.state == STAGED {
            tracing::info!(image = %job.image, "staged data that nobody imported is removed");
            let hours = self.settings.import.staging_time.as_secs() / 3600;
            let why = format!("The staged data was not imported within {hours} hours and has been removed.");
            requeue(&tx, job.image, &why).await?;
        } else {
            tracing::info!(image = %job.image, "undoing a staging whose gateway is gone");
            requeue(&tx, job.image, GATEWAY_DIED).await?;
        }
        tx.commit().await?;
        Ok(false)
    }
}

/// Keeps bytes where they can be read here and there. With an error they are left to be discarded.
pub(super) async fn write_staged(
    store: &dyn Store,
    attempt: Attempt,
    extents: Extents,
    plan: &Plan,
    allowance: Option<Allowance>,
    stop: &CancellationToken,
) -> Result<Pumped, Error> {
    let mut writer = store.create(attempt, plan.declared_bytes).await?;
    let pumped = match pump(extents, writer.as_mut(), plan, allowance, stop).await {
        Ok(pumped) => pumped,
        Err(failure) => {
            writer.abandon().await;
            return Err(failure);
        }
    };
    writer.seal(pumped.size_bytes, &staged_description(attempt)).await?;
    Ok(pumped)
}

/// Queues an image again that waits for staged data; others are left as they are.
async fn requeue(tx: &Tx, image: ImageId, why: &str) -> Result<(), catalog::Error> {
    if tx.transition(image, &ABORT_STAGE).await? {
        tx.clear_content(image, why).await?;
    }
    Ok(())
}

fn not_queued(image: &Image) -> Error {
    Error::Conflict(format!(
        "Image status transition from {} to uploading is not allowed: data can be staged for a queued image alone.",
        image.status
    ))
}
