//! The job of an import.
//!
//! ```text
//!   writing      [fetched into staging] -> [unpacked] -> [converted] -> written to all stores, sealed
//!   committing   published, recorded                                  <- from here on it only goes forward
//!   discarding   what is left of tries and of staged data is removed
//! ```
//!
//! A try writes to an attempt of its own, which the job names before it is made. Any gateway goes on from the last state:
//! a try that has died begins anew, from what has been staged if anything has.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::progress::Progress;
use super::{Source, Work, Written, source};
use crate::catalog::Job;
use crate::domain::content::{Content, HashAlgorithm};
use crate::domain::image::{Attributes, Image, Import, Location};
use crate::domain::import::Method;
use crate::domain::limits::Resource;
use crate::domain::query::Scope;
use crate::domain::status::{IMPORT_UNDONE, IMPORTED, REJECT, Status};
use crate::domain::task::TaskStatus;
use crate::format::{Format, unpack};
use crate::service::convert::{Decoded, Feed, Receipt, Way, blob, conversion, peek};
use crate::service::ingest::{Extents, Plan, Pumped, pump};
use crate::service::lease::Held;
use crate::service::quota::Allowance;
use crate::service::stage::{STAGED, Staged, write_staged};
use crate::service::upload::{COMMITTING, DISCARDING, WRITING, content, reason};
use crate::service::{Error, Plugin, Services};
use crate::store::fan::Fan;
use crate::store::{self, Attempt, BlobReader, BlobWriter, Store, description};

/// How often an import is tried: over some minutes.
const TRIES_MAX: i32 = 8;
/// What is told of an import whose image went away.
const IMAGE_DELETED: &str = "The image was deleted.";

/// One try.
struct Try<'t> {
    job: &'t Job,
    held: &'t Held,
    image: &'t Image,
    attempt: Attempt,
    progress: &'t Progress,
}

impl Services {
    /// Brings an import forward: to its end, unless something is in the way that may pass.
    pub(in crate::service) async fn recover_import(
        &self,
        job: &Job,
        held: &Held,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let mut work: Work = serde_json::from_value(job.payload.clone())
            .map_err(|e| Error::Internal(format!("import job {}: {e}", job.lease.job)))?;
        let mut state = job.state.as_str();
        loop {
            state = match state {
                WRITING => self.write_import(job, held, stop, &mut work).await?,
                COMMITTING => self.complete_import(job, &mut work).await?,
                _ => return self.sweep_import(job, &work).await,
            }
        }
    }

    /// From "writing" to "committing", or to "discarding" for an import that has failed.
    async fn write_import(
        &self,
        job: &Job,
        held: &Held,
        stop: &CancellationToken,
        work: &mut Work,
    ) -> Result<&'static str, Error> {
        // 1. Does anybody still want it, and is there hope?
        let Some(image) = self.catalog.image(job.image, &Scope::Everything(None)).await? else {
            return self.fail_import(job, work, IMAGE_DELETED).await;
        };
        if job.attempts > TRIES_MAX {
            let last = work.last_error.clone().unwrap_or_else(|| "its gateways died".into());
            return self.fail_import(job, work, &format!("Given up after {TRIES_MAX} tries: {last}")).await;
        }
        // 2. A new attempt, known before it is made.
        let attempt = Attempt::upload(image.id, Uuid::new_v4());
        work.litter.push(attempt.id);
        self.record_import(job, WRITING, work).await?;
        // 3. Bytes, sealed.
        let progress = Progress::default();
        progress.begin("starting", None);
        let last_error = work.last_error.clone();
        let this = Try { job, held, image: &image, attempt, progress: &progress };
        let outcome = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Error::Unavailable("this gateway stops".into())),
            () = held.lost().cancelled() => Err(Error::Unavailable("the lease was lost".into())),
            written = self.write_try(&this, work) => written,
            () = progress.tell(&self.catalog, job.lease.job, image.id, last_error.as_deref()) => Err(Error::Internal("the progress ended".into())),
        };
        // 4. What came of it.
        match outcome {
            Ok(written) => {
                work.written = Some(written);
                work.forget_token();
                self.record_import(job, COMMITTING, work).await?;
                Ok(COMMITTING)
            }
            Err(error) if stop.is_cancelled() => Err(error),
            Err(error) if held.lost().is_cancelled() => match self.catalog.status(job.image).await? {
                None | Some(Status::Deleted) => self.fail_import(job, work, IMAGE_DELETED).await,
                Some(_) => Err(error),
            },
            Err(error) if may_pass(&error) && job.attempts < TRIES_MAX => {
                work.last_error = Some(reason(&error));
                self.record_import(job, WRITING, work).await?;
                Err(error)
            }
            Err(error) => {
                tracing::info!(image = %image.id, %error, "an import failed");
                self.fail_import(job, work, &reason(&error)).await
            }
        }
    }

    /// Notes how far an import has come.
    async fn record_import(&self, job: &Job, state: &'static str, work: &Work) -> Result<(), Error> {
        let tx = self.catalog.begin("import_record").await?;
        if !tx.job_progress(job.lease, state, &json!(work)).await? {
            tx.rollback().await?;
            return Err(Error::Unavailable("the lease of the import was lost; another gateway goes on".into()));
        }
        Ok(tx.commit().await?)
    }

    async fn write_try(&self, this: &Try<'_>, work: &mut Work) -> Result<Written, Error> {
        if work.method == Method::CopyImage {
            return self.write_copies(this, work).await;
        }
        if work.staged.is_none() {
            this.progress.begin("connecting", None);
            self.ask_region(this.job.lease.job, work, &this.image.attributes).await?;
        }
        let mut image = this.image.clone();
        work.take_over(&mut image.attributes);
        let feed = self.import_source(&Try { image: &image, ..*this }, work).await?;
        image.attributes = feed.attributes(image.attributes);
        let plan = self.feed_plan(&image.attributes, &feed);
        image.attributes = self.injected(work, image.attributes);
        let stores = work.stores.clone();
        let describe = |pumped: &Pumped| {
            let content = content(pumped, &plan, feed.receipt.as_ref())?;
            Ok((description(&image, &content, this.attempt.id), content))
        };
        this.progress.begin("writing", feed.size_bytes);
        let (content, stores, failed) =
            self.write_stores(this, work, stores, this.progress.count(feed.extents), &plan, describe).await?;
        let (attempt, version) = (this.attempt.id, this.image.version);
        let disk_format = feed.disk_format.map(|format| format.as_str().to_owned());
        Ok(Written { attempt, content, stores, failed, disk_format, version })
    }

    /// What is to be written: as it comes as far as that is possible, otherwise out of staged data.
    async fn import_source(&self, this: &Try<'_>, work: &mut Work) -> Result<Feed, Error> {
        let attributes = &this.image.attributes;
        let stores = work.stores.iter().filter_map(|name| self.stores.get(Some(name)).ok());
        let wanted = self.settings.import.plugins.contains(&Plugin::Conversion);
        let convert = conversion(attributes, stores).filter(|_| wanted);
        // 1. As it comes.
        if work.staged.is_none() {
            let mut fetched = match &work.region {
                Some(region) => self.open_region(this.job.lease.job, region).await?,
                None => {
                    let uri = work.uri.as_deref().unwrap_or_default();
                    self.fetcher.open(uri, self.settings.image_size_cap_bytes).await.map_err(source::fetched)?
                }
            };
            if let Some(expected) = &work.expected {
                fetched = fetched.verified(expected).map_err(source::fetched)?;
            }
            let size_bytes = fetched.size_bytes;
            let (head, extents) = peek(source::body(fetched.body), unpack::HEAD_BYTES).await?;
            let way = Way::of(&head, self.packing(attributes, &head)?, convert);
            this.progress.begin("downloading", size_bytes);
            let extents = match way {
                Way::Stage(..) => this.progress.count(extents),
                Way::Plain | Way::Unpack(_) | Way::Decode => extents,
            };
            match self.decode(attributes, way, extents, size_bytes) {
                Decoded::Ready(feed) => return Ok(feed),
                Decoded::Unread(_, feed) => work.staged = Some(self.stage_import(this, work, feed).await?),
            }
            work.forget_token();
            self.record_import(this.job, WRITING, work).await?;
        }
        // 2. Out of staged data: out of what a client has packed it with, which then has to be staged once more.
        let source = work.staged.clone().ok_or_else(|| Error::Internal("nothing is staged".into()))?;
        let receipt = Receipt::of(source.staged.checksum.clone());
        let mut reader = self.open_staged(this.image, &source).await?;
        let head = reader.read(0, vec![0; unpack::HEAD_BYTES.min(usize::try_from(reader.size_bytes()).unwrap_or(0))]);
        if let Some(packing) = self.packing(attributes, &head.await?)? {
            let extents = self.unpacked(blob(Arc::clone(&reader)).await?, packing);
            let feed = Feed { extents, size_bytes: None, receipt: Some(receipt.clone()), disk_format: None };
            if convert.is_none() {
                return Ok(feed);
            }
            this.progress.begin("unpacking", None);
            let feed = Feed { extents: this.progress.count(feed.extents), ..feed };
            let unpacked = self.stage_import(this, work, feed).await?;
            reader = self.open_staged(this.image, &unpacked).await?;
        }
        // 3. Out of its format.
        if let Some(format) = convert {
            let (extents, size_bytes) = self.disk(format, reader).await?;
            let (receipt, disk_format) = (Some(receipt), Some(Format::Raw));
            return Ok(Feed { extents, size_bytes: Some(size_bytes), receipt, disk_format });
        }
        let size_bytes = Some(reader.size_bytes());
        Ok(Feed { extents: blob(reader).await?, size_bytes, receipt: None, disk_format: None })
    }

    async fn open_staged(&self, image: &Image, source: &Source) -> Result<Arc<dyn BlobReader>, Error> {
        let store = self.stores.get(Some(&source.staged.store))?;
        match store.open_attempt(Attempt::staging(image.id, source.id)).await {
            Err(store::Error::NotFound(_)) => Err(Error::Gone("The staged data is gone.".into())),
            other => Ok(other?),
        }
    }

    /// Puts bytes where they can be read here and there: unpacked, in the image's format.
    async fn stage_import(&self, this: &Try<'_>, work: &mut Work, feed: Feed) -> Result<Source, Error> {
        let store = self.stores.staging().ok_or_else(|| Error::Internal("no store can keep staged data".into()))?;
        let attempt = Attempt::staging(this.image.id, Uuid::new_v4());
        work.staging_litter.push((store.name().to_owned(), attempt.id));
        self.record_import(this.job, WRITING, work).await?;
        let plan = self.staging_plan(&this.image.attributes, &feed);
        let pumped = write_staged(store.as_ref(), attempt, feed.extents, &plan, None, this.held.lost()).await?;
        let checksum = match &feed.receipt {
            Some(receipt) => receipt.checksum()?,
            None => pumped.checksum,
        };
        let staged = Staged { store: store.name().to_owned(), size_bytes: pumped.size_bytes, checksum };
        Ok(Source { id: attempt.id, staged })
    }

    /// Writes the same bytes to stores side by side. Returns what is known of them, the stores that have them, and those
    /// that have not.
    async fn write_stores(
        &self,
        this: &Try<'_>,
        work: &Work,
        stores: Vec<String>,
        extents: Extents,
        plan: &Plan,
        describe: impl FnOnce(&Pumped) -> Result<(BTreeMap<String, String>, Content), Error>,
    ) -> Result<(Content, Vec<String>, Vec<(String, String)>), Error> {
        // 1. Somewhere to write to.
        let mut writers: BTreeMap<String, Box<dyn BlobWriter>> = BTreeMap::new();
        let mut failed = Vec::new();
        for name in &stores {
            match self.stores.get(Some(name))?.create(this.attempt, plan.declared_bytes).await {
                Ok(writer) => drop(writers.insert(name.clone(), writer)),
                Err(error) if work.all_must_succeed || stores.len() == 1 => {
                    for writer in writers.into_values() {
                        writer.abandon().await;
                    }
                    return Err(error.into());
                }
                Err(error) => failed.push((name.clone(), error.to_string())),
            }
        }
        if writers.is_empty() {
            return Err(Error::Unavailable("none of the stores can be written to".into()));
        }
        // 2. Bytes, as far as there is room for them.
        let allowance = self.import_allowance(this, stores.len()).await?;
        let mut fan = Box::new(Fan::new(writers, work.all_must_succeed));
        let failures = fan.failures();
        let pumped = match pump(extents, fan.as_mut(), plan, allowance, this.held.lost()).await {
            Ok(pumped) => pumped,
            Err(error) => {
                fan.abandon().await;
                return Err(error);
            }
        };
        // 3. Sealed.
        this.progress.begin("sealing", None);
        let (description, content) = match describe(&pumped) {
            Ok(described) => described,
            Err(error) => {
                fan.abandon().await;
                return Err(error);
            }
        };
        fan.seal(pumped.size_bytes, &description).await?;
        failed.extend(failures.list());
        let stores = stores.into_iter().filter(|name| failed.iter().all(|(store, _)| store != name)).collect();
        Ok((content, stores, failed))
    }

    /// Room for what an import writes, every copy counted.
    async fn import_allowance(&self, this: &Try<'_>, copies: usize) -> Result<Option<Allowance>, Error> {
        let account = self.account_of(this.image.attributes.owner.as_deref()).await?;
        Ok(account.and_then(|account| {
            let allowance = Allowance::new(&self.catalog, account, Resource::ImageSizeTotal, this.job.lease)?;
            Some(allowance.for_copies(copies as u64))
        }))
    }

    /// Further copies of an image that has data: within a cluster by the cluster itself, otherwise through the pump.
    async fn write_copies(&self, this: &Try<'_>, work: &Work) -> Result<Written, Error> {
        let image = this.image;
        let content = image.content.clone().ok_or_else(|| Error::Conflict("The image has no data.".into()))?;
        let keys = description(image, &content, this.attempt.id);
        this.progress.begin("copying", Some(content.size_bytes));
        let (mut done, mut failed, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for name in &work.stores {
            let store = self.stores.get(Some(name))?;
            match self.copy_within(this, store, &keys, content.size_bytes).await {
                Ok(true) => done.push(name.clone()),
                Ok(false) => left.push(name.clone()),
                Err(error) if work.all_must_succeed => return Err(error.into()),
                Err(error) => failed.push((name.clone(), error.to_string())),
            }
        }
        if !left.is_empty() {
            let reader = self.copy_source(image, content.size_bytes).await?;
            let algorithm = content.os_hash_algo.as_deref().and_then(HashAlgorithm::named);
            let plan = Plan { checksum: false, algorithm, ..self.plan(Some(content.size_bytes)) };
            let extents = this.progress.count(blob(reader).await?);
            let describe = |pumped: &Pumped| match (&pumped.hash, &content.os_hash_value) {
                (Some(hash), Some(expected)) if !hash.eq_ignore_ascii_case(expected) => Err(Error::Invalid(format!(
                    "The data that was copied is not what it should be: its hash is {hash}, not {expected}."
                ))),
                _ => Ok((keys.clone(), content.clone())),
            };
            let (_, stores, more) = self.write_stores(this, work, left, extents, &plan, describe).await?;
            done.extend(stores);
            failed.extend(more);
        }
        if done.is_empty() {
            return Err(Error::Unavailable(format!("none of the stores took a copy: {failed:?}")));
        }
        let (attempt, version) = (this.attempt.id, image.version);
        Ok(Written { attempt, content, stores: done, failed, disk_format: None, version })
    }

    /// The first copy that can be opened.
    async fn copy_source(&self, image: &Image, size_bytes: u64) -> Result<Arc<dyn BlobReader>, Error> {
        let mut last = Error::Gone("The image has no data.".into());
        for location in self.stores.in_order(&image.locations, &[]) {
            match self.stores.get(Some(&location.store))?.open(&location.url).await {
                Ok(reader) if reader.size_bytes() == size_bytes => return Ok(reader),
                Ok(reader) => {
                    let found = reader.size_bytes();
                    last = Error::Internal(format!("{} holds {found} bytes, not {size_bytes}", location.url));
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// `false`: there is no such way.
    async fn copy_within(
        &self,
        this: &Try<'_>,
        store: &Arc<dyn Store>,
        keys: &BTreeMap<String, String>,
        size_bytes: u64,
    ) -> Result<bool, store::Error> {
        for location in self.stores.in_order(&this.image.locations, &[]) {
            let copied = |bytes| this.progress.reached(bytes);
            match store.copy_from(&location.url, this.attempt, &copied).await {
                Ok(Some(writer)) => return writer.seal(size_bytes, keys).await.map(|()| true),
                Ok(None) => {}
                // Another location may still have it.
                Err(store::Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The attributes with what the operator wants every imported image to have.
    fn injected(&self, work: &Work, mut attributes: Attributes) -> Attributes {
        let import = &self.settings.import;
        let ignored = import.inject_ignored_roles.iter().any(|role| work.asker.roles.contains(role));
        if work.method != Method::CopyImage && !ignored && import.plugins.contains(&Plugin::InjectImageMetadata) {
            attributes.properties.extend(import.inject.clone());
        }
        attributes
    }

    /// From "committing" to an image that has its data.
    async fn complete_import(&self, job: &Job, work: &mut Work) -> Result<&'static str, Error> {
        let mut written =
            work.written.clone().ok_or_else(|| Error::Internal(format!("import job {} has nothing", job.lease.job)))?;
        // 1. Under its name, in every store.
        let attempt = Attempt::upload(job.image, written.attempt);
        let mut locations = Vec::new();
        let mut trouble = None;
        for name in std::mem::take(&mut written.stores) {
            match self.stores.get(Some(&name))?.publish(attempt).await {
                Ok(url) => {
                    locations.push(Location { store: name.clone(), url, metadata: Map::new(), owned: true });
                    written.stores.push(name);
                }
                Err(error) => {
                    written.failed.push((name, error.to_string()));
                    trouble = Some(error);
                }
            }
        }
        if let Some(error) = trouble {
            let gone = matches!(error, store::Error::NotFound(_));
            if !gone && job.attempts <= TRIES_MAX {
                return Err(error.into());
            }
            if work.all_must_succeed || locations.is_empty() {
                return self.fail_import(job, work, &reason(&error.into())).await;
            }
        }
        // 2. Into the record.
        let tx = self.catalog.begin("import_done").await?;
        let image = tx.lock_image(job.image).await?;
        let right = if work.method == Method::CopyImage { Status::Active } else { Status::Importing };
        let image = image.filter(|image| image.status == right && image.import.task == Some(job.lease.job));
        let Some(image) = image else {
            tx.rollback().await?;
            return self.fail_import(job, work, IMAGE_DELETED).await;
        };
        work.litter.retain(|id| *id != written.attempt);
        work.abandoned = written.failed.iter().map(|(store, _)| (store.clone(), written.attempt)).collect();
        if !tx.job_progress(job.lease, DISCARDING, &json!(work)).await? {
            tx.rollback().await?;
            return Err(Error::Unavailable("the lease of the import was lost; another gateway goes on".into()));
        }
        self.record_imported(&tx, job, work, &written, &image, &locations).await?;
        tx.commit().await?;
        self.job_bell.notify_one();
        tracing::info!(image = %image.id, stores = ?written.stores, size_bytes = written.content.size_bytes, "an image was imported");
        Ok(DISCARDING)
    }

    async fn record_imported(
        &self,
        tx: &crate::catalog::Tx,
        job: &Job,
        work: &Work,
        written: &Written,
        image: &Image,
        locations: &[Location],
    ) -> Result<(), Error> {
        let mut all = image.locations.clone();
        all.extend_from_slice(locations);
        tx.set_locations(image.id, &image.locations, &all).await?;
        if work.method != Method::CopyImage {
            tx.set_content(image.id, &written.content).await?;
            tx.transition(image.id, &IMPORTED).await?;
            let mut next = image.attributes.clone();
            work.take_over(&mut next);
            let mut next = self.injected(work, next);
            if let Some(format) = &written.disk_format {
                next.disk_format = Some(format.clone());
                next.container_format = Some("bare".into());
            }
            tx.update_attributes(image.id, &image.attributes, &next, tx.now().await?).await?;
            tx.image_event(
                "image.upload",
                image.id,
                &json!({"store": written.stores, "size": written.content.size_bytes}),
            )
            .await?;
            tx.image_event("image.activate", image.id, &json!({"size": written.content.size_bytes})).await?;
        }
        if image.version != written.version || tx.count_members(image.id).await? > 0 {
            tx.leave_describe_job(image.id).await?;
        }
        if work.method == Method::GlanceDirect
            && let Some(source) = &work.staged
        {
            tx.wake_job(source.id, STAGED, DISCARDING).await?;
        }
        let mut failed = image.import.failed.clone().unwrap_or_default();
        failed.extend(written.failed.iter().map(|(store, _)| store.clone()));
        tx.set_import(image.id, &Import { task: None, to: Some(Vec::new()), failed: Some(failed) }).await?;
        let said: Vec<String> =
            written.failed.iter().map(|(store, why)| format!("Store {store} failed: {why}.")).collect();
        let result = json!({"image_id": image.id.to_string()});
        tx.end_task_with(job.lease.job, TaskStatus::Success, &said.join(" "), &result).await?;
        Ok(())
    }

    /// Puts the image back to where another import can begin, and says why. The data goes next.
    async fn fail_import(&self, job: &Job, work: &mut Work, why: &str) -> Result<&'static str, Error> {
        work.written = None;
        work.forget_token();
        let tx = self.catalog.begin("import_failed").await?;
        let image = tx.lock_image(job.image).await?;
        if !tx.job_progress(job.lease, DISCARDING, &json!(work)).await? {
            tx.rollback().await?;
            return Err(Error::Unavailable("the lease of the import was lost; another gateway goes on".into()));
        }
        if let Some(image) = image.filter(|image| image.status != Status::Deleted) {
            match work.method {
                Method::GlanceDirect => {
                    tx.transition(image.id, &IMPORT_UNDONE).await?;
                    tx.note_failure(image.id, why).await?;
                }
                Method::WebDownload | Method::GlanceDownload => {
                    tx.transition(image.id, &REJECT).await?;
                    tx.clear_content(image.id, why).await?;
                }
                Method::CopyImage => {}
            }
            let mut failed = image.import.failed.clone().unwrap_or_default();
            failed.extend(
                work.stores.iter().filter(|name| !image.import.failed.iter().flatten().any(|f| f == *name)).cloned(),
            );
            tx.set_import(image.id, &Import { task: None, to: Some(Vec::new()), failed: Some(failed) }).await?;
        }
        let result = json!({"image_id": job.image.to_string()});
        tx.end_task_with(job.lease.job, TaskStatus::Failure, why, &result).await?;
        tx.commit().await?;
        Ok(DISCARDING)
    }

    /// Removes what tries and downloads have left.
    async fn sweep_import(&self, job: &Job, work: &Work) -> Result<(), Error> {
        for id in &work.litter {
            for name in &work.stores {
                self.stores.get(Some(name))?.discard(Attempt::upload(job.image, *id)).await?;
            }
        }
        for (store, id) in &work.abandoned {
            self.stores.get(Some(store))?.discard(Attempt::upload(job.image, *id)).await?;
        }
        for (store, id) in &work.staging_litter {
            self.stores.get(Some(store))?.discard(Attempt::staging(job.image, *id)).await?;
        }
        Ok(self.forget_attempt(Attempt::upload(job.image, job.lease.job), job.lease).await?)
    }
}

/// Whether another try may have another end.
fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Unavailable(_) | Error::Busy(_) | Error::Internal(_))
}
