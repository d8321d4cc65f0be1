//! `PUT /v2/images/{id}/file`: intent, bytes, completion, in this order.
//!
//! ```text
//!   catalog   queued -> saving, job "writing" with a lease
//!   store     uploading-<id>-<attempt>: bytes, snapshot, description (see `receive`)
//!   catalog   job "committing", with what is known of the bytes      <- from here on it only goes forward
//!   store     renamed to <id>
//!   catalog   saving -> active, location; the job is gone, or "sweeping" where something was staged
//! ```
//!
//! Whatever breaks before "committing" is undone: by this gateway at once, or by any gateway when the
//! lease has run out. Whatever breaks after it is finished the same way. See `recover`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::Instrument as _;
use uuid::Uuid;

use super::convert::Receipt;
use super::ingest::{ByteStream, Plan, Pumped};
use super::lease::Held;
use super::quota::Account;
use super::receive::Reception;
use super::transfer::Transfer;
use super::{Error, Services};
use crate::catalog::{self, Charge, JobKind, Lease, NewJob};
use crate::domain::content::Content;
use crate::domain::image::{Attributes, Image, Location};
use crate::domain::limits::Resource;
use crate::domain::status::{ABORT_UPLOAD, ACTIVATE, BEGIN_UPLOAD, Status};
use crate::format::inspect::Expected;
use crate::identity::Caller;
use crate::identity::policy::Action;
use crate::store::{self, Attempt, Store};
use crate::telemetry::Direction;

/// Pause between two tries to write down a result while the catalog does not answer.
const COMMIT_RETRY_PAUSE: Duration = Duration::from_millis(300);

/// An upload as a client asks for it.
pub struct Upload {
    /// The bytes.
    pub body: ByteStream,
    /// Their number, if the client said it.
    pub declared_bytes: Option<u64>,
    /// Store, if the client named one.
    pub store: Option<String>,
}

/// What an upload's job carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Store that the bytes go to.
    pub(super) store: String,
    /// Version of the record when the upload began: its description stands beside the bytes.
    pub(super) version: i64,
    /// What is known of the bytes; set when they are all there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<Content>,
    /// Job that will hash the bytes, where that has not been done while they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) hash_job: Option<Uuid>,
    /// What the image is now, where that is not what its record says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) disk_format: Option<String>,
    /// Staging attempts in the same store that are not known to be gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) staging: Vec<Uuid>,
}

impl Progress {
    /// An upload to this store that begins, of an image whose record has this version then.
    pub(super) fn begin(store: &str, version: i64) -> Self {
        Self { store: store.to_owned(), version, content: None, hash_job: None, disk_format: None, staging: Vec::new() }
    }
}

/// Job states of an upload.
pub(super) const WRITING: &str = "writing";
/// All bytes are there and verified; only names and rows are missing.
pub(super) const COMMITTING: &str = "committing";
/// The record is queued again or deleted; data of the attempt may be left.
pub(super) const DISCARDING: &str = "discarding";
/// The image has its data; what was staged for it may be left.
pub(super) const SWEEPING: &str = "sweeping";

impl Services {
    /// Stores the bytes of a queued image.
    ///
    /// # Errors
    /// As `image-api.md` 4.1; the image is queued again and nothing is left in the store.
    pub async fn upload(self: &Arc<Self>, caller: &Caller, id: &str, upload: Upload) -> Result<(), Error> {
        // 1. May the caller, and is the image waiting for data?
        let image = self.permitted(Action::UploadImage, caller, id).await?;
        let store = Arc::clone(self.target(upload.store.as_deref())?);
        check_ready(&image)?;
        self.check_size(upload.declared_bytes)?;
        let converts = self.converts_upload(&image.attributes)?;
        let account = self.account(caller, image.attributes.owner.as_deref()).await?;
        let transfer = self.transfers.begin(Direction::In)?;
        // 2. Intent, and room for the bytes.
        let attempt = Attempt::upload(image.id, Uuid::new_v4());
        // Beginning is a change of the record itself.
        let progress = Progress::begin(store.name(), image.version + 1);
        let charge = image
            .attributes
            .owner
            .as_deref()
            .map(|project| Charge { project, bytes: upload.declared_bytes.unwrap_or(0) });
        let lease = self.begin_upload(attempt, &progress, charge, account.as_ref()).await?;
        // 3. The rest runs to its end even if this request is dropped: the client's going away shows in
        //    the body, and is undone like any other failure.
        let services = Arc::clone(self);
        let work = async move {
            let held = Held::keep(&services.catalog, lease, services.settings.lease);
            let reception = Reception { image: &image, attempt, store: &store, held: &held, account, converts };
            services.run_upload(reception, progress, upload, transfer).await
        };
        let task = self.tasks.spawn(work.in_current_span());
        task.await.map_err(|panic| Error::Internal(format!("the upload task panicked: {panic}")))?
    }

    /// Refuses more bytes than any image may have, where their number is known.
    pub(super) fn check_size(&self, size_bytes: Option<u64>) -> Result<(), Error> {
        let cap_bytes = self.settings.image_size_cap_bytes;
        if size_bytes.is_some_and(|size| size > cap_bytes) {
            return Err(Error::TooLarge(format!(
                "The image exceeds the maximum of {cap_bytes} bytes (image_size_cap)."
            )));
        }
        Ok(())
    }

    pub(super) async fn begin_upload(
        &self,
        attempt: Attempt,
        progress: &Progress,
        charge: Option<Charge<'_>>,
        account: Option<&Account>,
    ) -> Result<Lease, Error> {
        let taken =
            || Error::Conflict(format!("Image {} is not queued any more: another upload was faster.", attempt.image));
        let payload = json!(progress);
        let job = NewJob {
            id: attempt.id,
            kind: JobKind::Upload,
            image: attempt.image,
            state: WRITING,
            payload: &payload,
            owner: Some(&self.settings.gateway),
            lease: self.settings.lease,
            charge,
        };
        let tx = self.catalog.begin("upload_begin").await?;
        if !tx.transition(attempt.image, &BEGIN_UPLOAD).await? {
            tx.rollback().await?;
            return Err(taken());
        }
        let lease = match tx.enqueue(&job).await {
            Err(catalog::Error::Exists(_)) => return Err(taken()),
            other => other?,
        };
        tx.image_event("image.prepare", attempt.image, &to_one_store(&progress.store)).await?;
        if let Some(account) = account {
            let bytes = charge.map_or(0, |charge| charge.bytes);
            let asked = [(Resource::ImageSizeTotal, bytes), (Resource::ImageCountUploading, 1)];
            if let Err(refused) = account.admit(&tx, &asked).await {
                tx.rollback().await?;
                return Err(refused);
            }
        }
        tx.commit().await?;
        Ok(lease)
    }

    async fn run_upload(
        &self,
        reception: Reception<'_>,
        mut progress: Progress,
        upload: Upload,
        transfer: Transfer,
    ) -> Result<(), Error> {
        let Reception { attempt, store, held, .. } = reception;
        let begun = Instant::now();
        // 4. Bytes, sealed.
        match self.receive(&reception, upload, &mut progress).await {
            Ok(content) => progress.content = Some(content),
            Err(failure) => {
                self.undo_upload(attempt, held.lease, store.as_ref(), &progress, &failure).await;
                return Err(failure);
            }
        }
        drop(transfer);
        // 5. Completion. Failing here leaves open whether the record was made: the job decides, when its lease
        //    runs out.
        self.record_received(held, &progress).await?;
        self.complete_upload(attempt, held, store.as_ref(), &progress).await?;
        let size_bytes = progress.content.as_ref().map_or(0, |content| content.size_bytes);
        tracing::info!(image = %attempt.image, store = store.name(), size_bytes, duration_ms = millis(begun), "an image was stored");
        Ok(())
    }

    /// What is done with so many bytes, or an unknown number, on their way in. They may be of any format, if they are
    /// not dangerous.
    pub(super) fn plan(&self, declared_bytes: Option<u64>) -> Plan {
        Plan {
            blocks_in_flight: self.settings.upload_blocks_in_flight,
            checksum: self.settings.checksum,
            algorithm: self.settings.hashing_algorithm,
            declared_bytes,
            cap_bytes: self.settings.image_size_cap_bytes,
            expected: Expected {
                rules: Arc::clone(&self.settings.inspection),
                disk_format: None,
                container_format: None,
            },
        }
    }

    /// What the bytes of an image should be.
    pub(super) fn expected(&self, attributes: &Attributes) -> Expected {
        Expected {
            rules: Arc::clone(&self.settings.inspection),
            disk_format: attributes.disk_format.clone(),
            container_format: attributes.container_format.clone(),
        }
    }

    /// The point of no return: from here on the upload is finished, by whomever.
    pub(super) async fn record_received(&self, held: &Held, progress: &Progress) -> Result<(), Error> {
        loop {
            match self.try_record_received(held.lease, progress).await {
                Ok(true) => return Ok(()),
                Ok(false) => {
                    return Err(Error::Unavailable(
                        "the lease of the upload was lost before its bytes could be recorded".into(),
                    ));
                }
                Err(error) if error.is_temporary() => wait_for_catalog(held, error).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn try_record_received(&self, lease: Lease, progress: &Progress) -> Result<bool, catalog::Error> {
        let tx = self.catalog.begin("upload_received").await?;
        let recorded = tx.job_progress(lease, COMMITTING, &json!(progress)).await?;
        tx.commit().await?;
        Ok(recorded)
    }

    /// From "committing" to active. Also the way to finish for a gateway that took the job over.
    pub(super) async fn complete_upload(
        &self,
        attempt: Attempt,
        held: &Held,
        store: &dyn Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        let content = progress
            .content
            .as_ref()
            .ok_or_else(|| Error::Internal(format!("the upload job {} has no content", attempt.id)))?;
        let url = match store.publish(attempt).await {
            Err(error @ store::Error::NotFound(_)) => {
                // Somebody removed it by hand: there is nothing to finish.
                let failure = error.into();
                self.undo_upload(attempt, held.lease, store, progress, &failure).await;
                return Err(failure);
            }
            other => other?,
        };
        let location = Location { store: store.name().to_owned(), url, metadata: Map::new(), owned: true };
        loop {
            match self.try_activate(attempt, held.lease, progress, content, &location).await {
                Ok(Activation::Done) => {
                    self.job_bell.notify_one();
                    if !progress.staging.is_empty() {
                        let swept = self.sweep_upload(attempt, held.lease, store, progress).await;
                        self.put_off(attempt, held.lease, swept).await;
                    }
                    return Ok(());
                }
                Ok(Activation::Deleted) => {
                    let gone = Error::Gone(format!("Image {} was deleted while data arrived.", attempt.image));
                    self.undo_upload(attempt, held.lease, store, progress, &gone).await;
                    return Err(gone);
                }
                Ok(Activation::NotOurs) => return self.outcome_elsewhere(attempt).await,
                Err(error) if error.is_temporary() => {
                    if wait_for_catalog(held, error).await.is_err() {
                        return self.outcome_elsewhere(attempt).await;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// How an upload ended whose job is not ours any more: another gateway took it over, or our own commit
    /// got through and its answer did not.
    async fn outcome_elsewhere(&self, attempt: Attempt) -> Result<(), Error> {
        match self.catalog.status(attempt.image).await? {
            Some(Status::Active | Status::Deactivated) => Ok(()),
            _ => Err(Error::Unavailable("the lease of the upload was lost; another gateway finishes it".into())),
        }
    }

    async fn try_activate(
        &self,
        attempt: Attempt,
        lease: Lease,
        progress: &Progress,
        content: &Content,
        location: &Location,
    ) -> Result<Activation, catalog::Error> {
        let tx = self.catalog.begin("upload_activate").await?;
        // The image's row first, as a deletion does.
        let image = tx.lock_image(attempt.image).await?;
        // Once: a commit whose answer was lost has made the image what it is.
        let ours = match progress.staging.is_empty() {
            true => tx.finish_job(lease).await?,
            false => tx.advance_job(lease, COMMITTING, SWEEPING).await?,
        };
        if !ours {
            tx.rollback().await?;
            return Ok(Activation::NotOurs);
        }
        let Some(image) = image.filter(|image| ACTIVATE.allows(image.status)) else {
            tx.rollback().await?;
            return Ok(Activation::Deleted);
        };
        tx.set_content(attempt.image, content).await?;
        tx.set_locations(attempt.image, &[], std::slice::from_ref(location)).await?;
        tx.transition(attempt.image, &ACTIVATE).await?;
        if let Some(format) = &progress.disk_format {
            let next = Attributes { disk_format: Some(format.clone()), ..image.attributes.clone() };
            tx.update_attributes(attempt.image, &image.attributes, &next, tx.now().await?).await?;
        }
        if let Some(job) = progress.hash_job {
            self.enqueue_hash(&tx, job, attempt.image, &location.url).await?;
        }
        if image.version != progress.version || tx.count_members(attempt.image).await? > 0 {
            tx.leave_describe_job(attempt.image).await?;
        }
        tx.image_event("image.upload", attempt.image, &to_one_store(&location.store)).await?;
        tx.image_event("image.activate", attempt.image, &json!({})).await?;
        tx.commit().await?;
        Ok(Activation::Done)
    }

    /// Puts everything back as it was before the upload: the record is queued again, so that a retry is
    /// possible whatever the store does, then the data goes. What cannot be done now is left to the job. To be
    /// called only while no other gateway can take the upload for complete.
    pub(super) async fn undo_upload(
        &self,
        attempt: Attempt,
        lease: Lease,
        store: &dyn Store,
        progress: &Progress,
        failure: &Error,
    ) {
        match self.requeue(attempt, lease, &reason(failure)).await {
            Ok(true) => {}
            // Somebody else does it; two at the same time would get in each other's way.
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(image = %attempt.image, %error, "a failed upload will be undone when its lease has run out");
                return;
            }
        }
        let discarded = self.discard_upload(attempt, lease, store, progress).await;
        self.put_off(attempt, lease, discarded).await;
    }

    /// Removes whatever an upload has left whose record has been queued again.
    pub(super) async fn discard_upload(
        &self,
        attempt: Attempt,
        lease: Lease,
        store: &dyn Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        store.discard(attempt).await?;
        self.sweep_upload(attempt, lease, store, progress).await
    }

    /// Removes what was staged for an upload, and ends its job.
    pub(super) async fn sweep_upload(
        &self,
        attempt: Attempt,
        lease: Lease,
        store: &dyn Store,
        progress: &Progress,
    ) -> Result<(), Error> {
        for id in &progress.staging {
            store.discard(Attempt::staging(attempt.image, *id)).await?;
        }
        Ok(self.forget_attempt(attempt, lease).await?)
    }

    /// Leaves to the job what could not be removed.
    async fn put_off(&self, attempt: Attempt, lease: Lease, removed: Result<(), Error>) {
        if let Err(error) = removed {
            tracing::info!(image = %attempt.image, %error, "the rest of an upload will be removed later");
            let _ = self.catalog.postpone_job(lease, Duration::ZERO, &error.to_string()).await;
            self.job_bell.notify_one();
        }
    }

    /// Queues the record of a failed upload again, and notes in it why. `false`: it is somebody else's business.
    pub(super) async fn requeue(&self, attempt: Attempt, lease: Lease, why: &str) -> Result<bool, catalog::Error> {
        let tx = self.catalog.begin("upload_undo").await?;
        tx.abort_upload(attempt.image, lease, &ABORT_UPLOAD, &[WRITING, COMMITTING], why).await?;
        if !tx.set_job_state(lease, DISCARDING).await? {
            tx.rollback().await?;
            return Ok(false);
        }
        tx.failure_event("image.upload", attempt.image, why).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Notes that nothing is left in the store of an upload whose record has been queued again.
    pub(super) async fn forget_attempt(&self, attempt: Attempt, lease: Lease) -> Result<(), catalog::Error> {
        let tx = self.catalog.begin("upload_discarded").await?;
        if !tx.finish_job(lease).await? {
            return tx.rollback().await;
        }
        tx.forget_image(attempt.image).await?;
        tx.commit().await
    }
}

/// What the events of an upload tell of where the data goes.
fn to_one_store(store: &str) -> Value {
    json!({"backend": store, "os_glance_importing_to_stores": [], "os_glance_failed_import": []})
}

/// How an attempt to activate an image ended.
enum Activation {
    Done,
    Deleted,
    NotOurs,
}

/// Why an upload failed, for whoever looks at the image later: what its client was told.
pub(super) fn reason(failure: &Error) -> String {
    match failure {
        Error::Unavailable(_) => "Something that the image service depends on did not answer.".into(),
        Error::Internal(_) => "The image service failed; its log tells why.".into(),
        Error::ClientGone(why) => format!("The client went away before it had sent everything: {why}."),
        Error::Invalid(_)
        | Error::Forbidden(_)
        | Error::NotFound(_)
        | Error::TooSlow(_)
        | Error::Conflict(_)
        | Error::Gone(_)
        | Error::TooLarge(_)
        | Error::Unsupported(_)
        | Error::Busy(_) => failure.to_string(),
    }
}

/// Waits a moment for the catalog to come back, as long as the lease is ours.
async fn wait_for_catalog(held: &Held, error: catalog::Error) -> Result<(), Error> {
    tokio::select! {
        () = held.lost().cancelled() => Err(error.into()),
        () = tokio::time::sleep(COMMIT_RETRY_PAUSE) => Ok(()),
    }
}

pub(super) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn check_ready(image: &Image) -> Result<(), Error> {
    if !BEGIN_UPLOAD.allows(image.status) {
        return Err(Error::Conflict(format!(
            "Image status transition from {} to saving is not allowed: data can be uploaded to a queued image alone.",
            image.status
        )));
    }
    check_formats(&image.attributes)
}

/// Refuses data for an image that does not say in what format it is.
pub(super) fn check_formats(attributes: &Attributes) -> Result<(), Error> {
    for (name, value) in [("disk_format", &attributes.disk_format), ("container_format", &attributes.container_format)]
    {
        if value.is_none() {
            return Err(Error::Invalid(format!("Property {name} must be set prior to saving data.")));
        }
    }
    Ok(())
}

/// What is known of the bytes that were written for an image; `receipt` is that of those that came, where others were
/// written.
pub(super) fn content(pumped: &Pumped, plan: &Plan, receipt: Option<&Receipt>) -> Result<Content, Error> {
    Ok(Content {
        size_bytes: pumped.size_bytes,
        virtual_size_bytes: pumped.facts.virtual_size_bytes,
        converted: receipt.is_some(),
        checksum: match receipt {
            Some(receipt) => receipt.checksum()?,
            None => pumped.checksum.clone(),
        },
        os_hash_algo: pumped.hash.as_ref().and(plan.algorithm).map(|algorithm| algorithm.as_str().to_owned()),
        os_hash_value: pumped.hash.clone(),
    })
}
