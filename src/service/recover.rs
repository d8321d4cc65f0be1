//! Jobs whose gateway has died, or that were left for later: any gateway takes them up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::lease::Held;
use super::upload::{COMMITTING, Progress, SWEEPING, WRITING};
use super::{Error, Services};
use crate::catalog::{Job, JobKind};
use crate::domain::image::Image;
use crate::domain::query::Scope;
use crate::domain::status::Status;
use crate::store::{self, Attempt, whole_description};

/// Pause before a job that failed is taken up again; doubles with every attempt up to the maximum.
pub(super) const RETRY_PAUSE_MIN: Duration = Duration::from_secs(2);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(300);

/// What is told of an upload that its gateway could neither finish nor undo.
pub(super) const GATEWAY_DIED: &str =
    "The gateway that received the data died, or was cut off, before it had all of it.";

/// Jobs that take minutes wait in a line of their own, so that no upload waits for them to be recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Jobs that end soon.
    Short,
    /// Jobs that read whole images.
    Long,
}

impl Services {
    /// Takes up one job of the line that nobody works on. `false`: there is none. A job that takes long is given back
    /// when `stop` rings.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the catalog does not answer; a job that fails is postponed and logged.
    pub async fn recover_one(self: &Arc<Self>, line: Line, stop: &CancellationToken) -> Result<bool, Error> {
        let kinds = match line {
            Line::Short => JobKind::SHORT,
            Line::Long => JobKind::LONG,
        };
        let taken = self.catalog.take_expired_job(kinds, &self.settings.gateway, self.settings.lease).await?;
        let Some(job) = taken else { return Ok(false) };
        let start = Instant::now();
        let held = Held::keep(&self.catalog, job.lease, self.settings.lease);
        let done = match job.kind {
            JobKind::Upload => self.recover_upload(&job, &held).await,
            JobKind::Delete => self.recover_delete(&job, &held).await,
            JobKind::Describe => self.describe(&job).await,
            JobKind::Locate => self.recover_locate(&job, &held, stop).await,
            JobKind::Unlocate => self.recover_unlocate(&job, &held).await,
            JobKind::Stage => self.recover_stage(&job).await,
            JobKind::Import => self.recover_import(&job, &held, stop).await,
        };
        let outcome = if done.is_ok() { "done" } else { "postponed" };
        self.telemetry.job(job.kind.as_str(), outcome, start.elapsed());
        if let Err(error) = done {
            let doublings = u32::try_from(job.attempts.saturating_sub(1)).unwrap_or(0).min(16);
            let pause = match stop.is_cancelled() {
                true => Duration::ZERO,
                false => RETRY_PAUSE_MIN.saturating_mul(1 << doublings).min(RETRY_PAUSE_MAX),
            };
            tracing::info!(image = %job.image, kind = ?job.kind, state = %job.state, attempt = job.attempts, retry_in_s = pause.as_secs(), %error, "a job was postponed");
            self.catalog.postpone_job(job.lease, pause, &error.to_string()).await?;
        }
        Ok(true)
    }

    /// Removes what is too old to keep.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn prune(&self) -> Result<(), Error> {
        self.catalog.prune_events(self.settings.event_retention_days).await?;
        self.catalog.prune_tasks(self.settings.task_time_to_live).await?;
        Ok(())
    }

    async fn recover_upload(&self, job: &Job, held: &Held) -> Result<(), Error> {
        let attempt = Attempt::upload(job.image, job.lease.job);
        let progress: Progress = serde_json::from_value(job.payload.clone())
            .map_err(|e| Error::Internal(format!("upload job {}: {e}", attempt.id)))?;
        let store = self.stores.get(Some(&progress.store))?;
        if job.state == COMMITTING {
            tracing::info!(image = %job.image, "finishing an upload whose gateway is gone");
            return match self.complete_upload(attempt, held, store.as_ref(), &progress).await {
                // Deleted meanwhile, and cleaned up.
                Err(Error::Gone(_)) => Ok(()),
                other => other,
            };
        }
        if job.state == SWEEPING {
            return self.sweep_upload(attempt, job.lease, store.as_ref(), &progress).await;
        }
        if job.state == WRITING {
            tracing::info!(image = %job.image, "undoing an upload whose gateway is gone");
            // The record first: its data may have to wait until the dead writer stops counting as a user.
            if !self.requeue(attempt, job.lease, GATEWAY_DIED).await? {
                return Ok(());
            }
        }
        self.discard_upload(attempt, job.lease, store.as_ref(), &progress).await
    }

    async fn recover_delete(&self, job: &Job, held: &Held) -> Result<(), Error> {
        let tx = self.catalog.begin("delete_resume").await?;
        let image = tx.lock_image(job.image).await?;
        tx.rollback().await?;
        match image {
            Some(image) if image.status == Status::Deleted => self.resume_delete(image, held, job).await,
            // Restored or gone: nothing is left to do.
            Some(_) | None => self.drop_job(job).await,
        }
    }

    /// Brings the description beside the data up to date.
    async fn describe(&self, job: &Job) -> Result<(), Error> {
        let mut described = None;
        // Two of these may be at work on one image: whoever writes last has looked again since.
        while let Some(image) = self.catalog.image(job.image, &Scope::Everything(None)).await?
            && let Some(content) = &image.content
        {
            let members = self.catalog.members(job.image, None).await?;
            let keys = whole_description(&image, content, &members, job.lease.job);
            if described.as_ref() == Some(&keys) {
                break;
            }
            self.write_description(&image, &keys).await?;
            described = Some(keys);
        }
        self.drop_job(job).await
    }

    async fn write_description(&self, image: &Image, keys: &BTreeMap<String, String>) -> Result<(), Error> {
        // What is not ours is left as it is.
        for location in image.locations.iter().filter(|location| location.owned) {
            let store = self.stores.get(Some(&location.store))?;
            if store.is_read_only() {
                continue;
            }
            match store.describe(&location.url, keys).await {
                // Deleted meanwhile, or data that is gone for other reasons: not ours to mend here.
                Ok(()) | Err(store::Error::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn drop_job(&self, job: &Job) -> Result<(), Error> {
        let tx = self.catalog.begin("job_drop").await?;
        tx.finish_job(job.lease).await?;
        tx.commit().await?;
        Ok(())
    }
}
