//! Hashing bytes that somebody else has put into the store: a job of `locations`, which any gateway can take up.
//!
//! ```text
//!   with a hash to compare     importing ── same ──> active
//!                                        ── other ─> queued, without the location; data of ours is removed
//!   without                    active, and the hashes are filled in
//! ```

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::digest::{self, Digest};
use super::ingest::Block;
use super::lease::Held;
use super::zeros::zeros;
use super::{Error, Services};
use crate::catalog::Job;
use crate::domain::content::{Content, HashAlgorithm};
use crate::domain::image::Image;
use crate::domain::location::Validation;
use crate::domain::query::Scope;
use crate::domain::status::{REJECT, Status, VERIFIED};
use crate::domain::task::TaskStatus;
use crate::store::{self, BlobReader};

/// The one state of the job.
pub(super) const HASHING: &str = "hashing";

/// Bytes of one read.
const READ_BYTES: u64 = 4 * 1024 * 1024;
/// Reads under way at once, and blocks that wait for a digest: what one job holds in memory is four times
/// [`READ_BYTES`].
const READS_AHEAD: usize = 2;
const BLOCKS_WAITING: usize = 2;

/// What the job carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Work {
    /// The location.
    pub(super) url: String,
    /// What its bytes should be.
    pub(super) expected: Option<Validation>,
}

/// What the bytes are.
struct Hashes {
    checksum: Option<String>,
    hash: Option<(HashAlgorithm, String)>,
}

impl Services {
    /// Hashes what a location holds and records it. `stop` rings when the process is about to end: the job is then
    /// left to the next gateway.
    pub(super) async fn recover_locate(&self, job: &Job, held: &Held, stop: &CancellationToken) -> Result<(), Error> {
        let work: Work = serde_json::from_value(job.payload.clone())
            .map_err(|e| Error::Internal(format!("locate job {}: {e}", job.lease.job)))?;
        // 1. Does anybody still want to know?
        let Some(image) = self.catalog.image(job.image, &Scope::Everything(None)).await? else {
            return match self.catalog.status(job.image).await? {
                None => self.drop_locate(job).await,
                // It may come back, if its data turns out to be in use.
                Some(_) => Err(Error::Unavailable("the image is being deleted".into())),
            };
        };
        let Some(location) = image.locations.iter().find(|location| location.url == work.url) else {
            return self.drop_locate(job).await;
        };
        // 2. What is there?
        let algorithm = match &work.expected {
            Some(expected) => HashAlgorithm::named(&expected.os_hash_algo),
            None => self.settings.hashing_algorithm,
        };
        let hashing = async {
            let reader = self.stores.get(Some(&location.store))?.open(&location.url).await?;
            hash(reader, self.settings.checksum, algorithm).await
        };
        let hashed = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Error::Unavailable("this gateway stops".into())),
            () = held.lost().cancelled() => return Err(Error::Unavailable("the lease was lost".into())),
            hashed = hashing => hashed,
        };
        // 3. Write it down.
        match hashed {
            Ok(hashes) => self.record_hashes(job, &work, hashes).await,
            Err(store::Error::NotFound(_)) => self.reject_location(job, &work, "it is gone").await,
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a job that nobody needs any more.
    async fn drop_locate(&self, job: &Job) -> Result<(), Error> {
        let tx = self.catalog.begin("locate_drop").await?;
        if tx.finish_job(job.lease).await? {
            tx.end_task(job.lease.job, TaskStatus::Failure, "The image does not have this location any more.").await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn record_hashes(&self, job: &Job, work: &Work, hashes: Hashes) -> Result<(), Error> {
        if let Some(expected) = &work.expected {
            let found = hashes.hash.as_ref().map(|(_, value)| value.as_str()).unwrap_or_default();
            if !expected.os_hash_value.eq_ignore_ascii_case(found) {
                let why = format!("its {} is {found}, not {}", expected.os_hash_algo, expected.os_hash_value);
                return self.reject_location(job, work, &why).await;
            }
        }
        let tx = self.catalog.begin("locate_done").await?;
        let image = tx.lock_image(job.image).await?.filter(|image| image.status != Status::Deleted);
        let (Some(image), true) = (image, tx.finish_job(job.lease).await?) else {
            return Err(Error::Unavailable("the image changed hands meanwhile".into()));
        };
        let Some(content) = image.content.as_ref().filter(|_| holds(&image, work)) else {
            tx.commit().await?;
            return Ok(());
        };
        let (algorithm, value) = hashes.hash.map(|(name, value)| (name.as_str().to_owned(), value)).unzip();
        let content =
            Content { checksum: hashes.checksum, os_hash_algo: algorithm, os_hash_value: value, ..content.clone() };
        tx.set_content(image.id, &content).await?;
        if tx.transition(image.id, &VERIFIED).await? {
            tx.image_event("image.activate", image.id, &json!({})).await?;
        }
        tx.leave_describe_job(image.id).await?;
        tx.end_task(job.lease.job, TaskStatus::Success, "").await?;
        tx.commit().await?;
        self.job_bell.notify_one();
        tracing::info!(image = %job.image, size_bytes = content.size_bytes, "a registered location was hashed");
        Ok(())
    }

    /// What is there is not what was promised, or nothing is there: an image that waits for it is queued again.
    async fn reject_location(&self, job: &Job, work: &Work, why: &str) -> Result<(), Error> {
        tracing::warn!(image = %job.image, url = %work.url, why, "a registered location is not what it should be");
        let tx = self.catalog.begin("locate_rejected").await?;
        let image = tx.lock_image(job.image).await?.filter(|image| image.status != Status::Deleted);
        let (Some(image), true) = (image, tx.finish_job(job.lease).await?) else {
            return Err(Error::Unavailable("the image changed hands meanwhile".into()));
        };
        if holds(&image, work) && tx.transition(image.id, &REJECT).await? {
            let why = format!("The data that was registered is not what it should be: {why}.");
            tx.clear_content(image.id, &why).await?;
            tx.end_task(job.lease.job, TaskStatus::Failure, &why).await?;
            self.give_up_data(&tx, image.id, &image.locations, None).await?;
            tx.set_locations(image.id, &image.locations, &[]).await?;
        }
        tx.commit().await?;
        self.job_bell.notify_one();
        Ok(())
    }
}

fn holds(image: &Image, work: &Work) -> bool {
    image.locations.iter().any(|location| location.url == work.url)
}

/// Digests of all the bytes of a blob, its holes included.
async fn hash(
    reader: Arc<dyn BlobReader>,
    checksum: bool,
    algorithm: Option<HashAlgorithm>,
) -> Result<Hashes, store::Error> {
    let failed = |e: Error| store::Error::Other(e.to_string());
    let checksum = checksum.then(|| Digest::start(digest::function(HashAlgorithm::Md5)));
    let hash = algorithm.map(|algorithm| (algorithm, Digest::start(digest::function(algorithm))));
    let size_bytes = reader.size_bytes();
    let data = reader.data(0, size_bytes).await?;
    let mut pieces = stream::iter(pieces(data, size_bytes))
        .map(|piece| {
            let reader = Arc::clone(&reader);
            async move {
                match piece {
                    Piece::Hole(length) => Ok(zeros(length).collect()),
                    Piece::Data(offset, length) => {
                        let buffer = vec![0; usize::try_from(length).unwrap_or(0)];
                        Ok::<_, store::Error>(vec![Bytes::from(reader.read(offset, buffer).await?)])
                    }
                }
            }
        })
        .buffered(READS_AHEAD);
    let waiting = Arc::new(Semaphore::new(BLOCKS_WAITING));
    while let Some(bytes) = pieces.next().await {
        let permit = Arc::clone(&waiting).acquire_owned().await.map_err(|e| store::Error::Other(e.to_string()))?;
        let block = Arc::new(Block::new(bytes?, permit));
        for digest in checksum.iter().chain(hash.as_ref().map(|(_, digest)| digest)) {
            digest.add(&block);
        }
    }
    Ok(Hashes {
        checksum: match checksum {
            Some(digest) => Some(digest.finish().await.map_err(failed)?),
            None => None,
        },
        hash: match hash {
            Some((algorithm, digest)) => Some((algorithm, digest.finish().await.map_err(failed)?)),
            None => None,
        },
    })
}

/// A part of a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Hole(u64),
    Data(u64, u64),
}

/// A blob of `size_bytes` with these runs of data, in pieces of at most [`READ_BYTES`].
pub(super) fn pieces(data: Vec<(u64, u64)>, size_bytes: u64) -> impl Iterator<Item = Piece> {
    let mut runs = data.into_iter().peekable();
    let mut at = 0;
    std::iter::from_fn(move || {
        while runs.next_if(|(offset, length)| offset + length <= at).is_some() {}
        let piece = match runs.peek() {
            _ if at >= size_bytes => return None,
            Some((offset, length)) if *offset <= at => Piece::Data(at, READ_BYTES.min(offset + length - at)),
            Some((offset, _)) => Piece::Hole(READ_BYTES.min(offset - at)),
            None => Piece::Hole(READ_BYTES.min(size_bytes - at)),
        };
        at += match piece {
            Piece::Hole(length) | Piece::Data(_, length) => length,
        };
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, proptest};

    use super::{Piece, READ_BYTES, pieces};

    proptest! {
        #[test]
        fn pieces_cover_the_blob_once_and_in_order(
            runs in prop::collection::vec((0..3 * READ_BYTES, 1..3 * READ_BYTES), 0..6),
            rest in 0..3 * READ_BYTES,
        ) {
            let mut data = Vec::new();
            let mut size_bytes = 0;
            for (gap, length) in runs {
                data.push((size_bytes + gap, length));
                size_bytes += gap + length;
            }
            size_bytes += rest;
            let mut at = 0;
            for piece in pieces(data.clone(), size_bytes) {
                let within = |n: u64| data.iter().any(|(offset, length)| (*offset..offset + length).contains(&n));
                let length = match piece {
                    Piece::Hole(length) => {
                        assert!(!within(at) && !within(at + length - 1));
                        length
                    }
                    Piece::Data(offset, length) => {
                        assert!(offset == at && within(at) && within(at + length - 1));
                        length
                    }
                };
                assert!(0 < length && length <= READ_BYTES);
                at += length;
            }
            assert_eq!(at, size_bytes);
        }
    }
}
