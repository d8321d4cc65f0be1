//! What a client sends, until it is sealed in a store under the name of its attempt: as it comes, or raw.
//!
//! ```text
//!   nothing to do, packed, a VMDK that is a stream ──> attempt
//!   other formats ──> staging-<id>-<attempt> in the same pool ──> read by their tables ──> attempt
//! ```
//!
//! The upload's job names what it stages before that is made, and whoever ends the job removes it.

use std::sync::Arc;
use std::time::Instant;

use serde_json::json;
use uuid::Uuid;

use super::convert::{Decoded, Feed, Receipt, Way, conversion, peek};
use super::ingest::{pump, received};
use super::lease::Held;
use super::quota::{Account, Allowance};
use super::stage::write_staged;
use super::upload::{Progress, WRITING, content, millis};
use super::{ConvertOnUpload, Error, Services, Upload};
use crate::domain::content::Content;
use crate::domain::image::{Attributes, Image};
use crate::domain::import::{CONVERT, asks_for_raw};
use crate::domain::limits::Resource;
use crate::format::{Format, unpack};
use crate::store::{Attempt, BlobReader, Store, description};

/// An upload that has begun.
pub(super) struct Reception<'r> {
    pub(super) image: &'r Image,
    pub(super) attempt: Attempt,
    pub(super) store: &'r Arc<dyn Store>,
    pub(super) held: &'r Held,
    /// Who pays for it, if anybody.
    pub(super) account: Option<Account>,
    /// Whether the image becomes raw, if it can.
    pub(super) converts: bool,
}

impl Services {
    /// Whether an image becomes raw when it is uploaded to a store that can be cloned from.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a property that asks for something else.
    pub(super) fn converts_upload(&self, attributes: &Attributes) -> Result<bool, Error> {
        let asked = attributes.properties.get(CONVERT).map(|value| asks_for_raw(value)).transpose()?.is_some();
        Ok(match self.settings.convert_on_upload {
            ConvertOnUpload::Never => false,
            ConvertOnUpload::OnRequest => asked,
            ConvertOnUpload::Always => true,
        })
    }

    /// A sealed attempt, and what is known of its bytes.
    ///
    /// # Errors
    /// What keeps it from being made; what was made by then is left to [`Services::undo_upload`].
    pub(super) async fn receive(
        &self,
        reception: &Reception<'_>,
        upload: Upload,
        progress: &mut Progress,
    ) -> Result<Content, Error> {
        let Reception { attempt, store, held, .. } = reception;
        let declared_bytes = upload.declared_bytes;
        // 1. What becomes of it?
        let feed = self.upload_source(reception, upload, progress).await?;
        progress.disk_format = feed.disk_format.map(|format| format.as_str().to_owned());
        let mut image = reception.image.clone();
        image.attributes = feed.attributes(image.attributes);
        let plan = self.feed_plan(&image.attributes, &feed);
        // 2. Bytes. What was announced has been paid for, unless others are written.
        let paid = declared_bytes.is_some() && feed.receipt.is_none();
        let allowance = self.upload_allowance(reception).filter(|_| !paid);
        let mut writer = store.create(*attempt, feed.size_bytes).await?;
        let pumped = match pump(feed.extents, writer.as_mut(), &plan, allowance, held.lost()).await {
            Ok(pumped) => pumped,
            Err(failure) => {
                writer.abandon().await;
                return Err(failure);
            }
        };
        if let Some(warning) = &pumped.facts.warning {
            tracing::warn!(image = %attempt.image, warning, "an image is not what it is called");
        }
        // 3. The snapshot waits for a round of the monitors: what an operator wants to tell from slow transfers.
        let sealed = Instant::now();
        let content = content(&pumped, &plan, feed.receipt.as_ref())?;
        writer.seal(content.size_bytes, &description(&image, &content, attempt.id)).await?;
        tracing::info!(image = %attempt.image, duration_ms = millis(sealed), "a snapshot was taken");
        Ok(content)
    }

    /// What is to be written of an upload.
    async fn upload_source(
        &self,
        reception: &Reception<'_>,
        upload: Upload,
        progress: &mut Progress,
    ) -> Result<Feed, Error> {
        let attributes = &reception.image.attributes;
        let body = received(upload.body);
        let size_bytes = upload.declared_bytes;
        if !reception.converts || !reception.store.can_clone() {
            return Ok(Feed { extents: body, size_bytes, receipt: None, disk_format: None });
        }
        // 1. As far as it can be done while it comes.
        let (head, body) = tokio::select! {
            biased;
            () = reception.held.lost().cancelled() => return Err(lost()),
            peeked = peek(body, unpack::HEAD_BYTES) => peeked?,
        };
        let way = Way::of(&head, self.packing(attributes, &head)?, conversion(attributes, [reception.store]));
        let (format, feed) = match self.decode(attributes, way, body, size_bytes) {
            Decoded::Ready(feed) => return Ok(feed),
            Decoded::Unread(format, feed) => (format, feed),
        };
        // 2. By its tables.
        let begun = Instant::now();
        let (receipt, blob) = self.stage_upload(reception, feed, size_bytes, progress).await?;
        tracing::info!(image = %reception.image.id, %format, duration_ms = millis(begun), "an upload was staged and is being converted");
        let (extents, size_bytes) = tokio::select! {
            biased;
            () = reception.held.lost().cancelled() => return Err(lost()),
            disk = self.disk(format, blob) => disk?,
        };
        Ok(Feed { extents, size_bytes: Some(size_bytes), receipt: Some(receipt), disk_format: Some(Format::Raw) })
    }

    /// Puts a disk where it can be read here and there.
    async fn stage_upload(
        &self,
        reception: &Reception<'_>,
        feed: Feed,
        declared_bytes: Option<u64>,
        progress: &mut Progress,
    ) -> Result<(Receipt, Arc<dyn BlobReader>), Error> {
        let Reception { image, store, held, .. } = reception;
        let staging = Attempt::staging(image.id, Uuid::new_v4());
        progress.staging.push(staging.id);
        let tx = self.catalog.begin("upload_stage").await?;
        if !tx.job_progress(held.lease, WRITING, &json!(progress)).await? {
            tx.rollback().await?;
            return Err(lost());
        }
        tx.commit().await?;
        let plan = self.staging_plan(&image.attributes, &feed);
        let paid = declared_bytes.is_some() && feed.receipt.is_none();
        let allowance = self.upload_allowance(reception).filter(|_| !paid);
        let pumped = write_staged(store.as_ref(), staging, feed.extents, &plan, allowance, held.lost()).await?;
        let receipt = feed.receipt.unwrap_or_else(|| Receipt::of(pumped.checksum));
        Ok((receipt, store.open_attempt(staging).await?))
    }

    /// Room that is reserved as bytes come; none where they count for nobody.
    fn upload_allowance(&self, reception: &Reception<'_>) -> Option<Allowance> {
        let account = reception.account.clone()?;
        Allowance::new(&self.catalog, account, Resource::ImageSizeTotal, reception.held.lease)
    }
}

fn lost() -> Error {
    Error::Gone("The image was deleted, or taken over by another gateway, while data arrived.".into())
}
