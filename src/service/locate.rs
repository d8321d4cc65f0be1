//! Hashing bytes that somebody else has put into the store: a job of `locations`, which any gateway can take up.
//!
//! ```text
//!   with a hash to compare     importing ── same ──> active
//!                                        ── other ─> queued, without the location; data of ours is removed
//!   without                    active, and the hashes are filled in
//! ```
//!
//! How far it has come is written down from time to time, with the state of the digests: another gateway goes on there.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::checkpoint::{FORM, Resumable};
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
/// Reads under way at once, beside the one that is being hashed: what one job holds in memory is three times
/// [`READ_BYTES`].
const READS_AHEAD: usize = 2;
/// How often it is written down how far a job has come: a gateway that dies loses so much of its work.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// What the job carries.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Work {
    /// The location.
    pub(super) url: String,
    /// What its bytes should be.
    pub(super) expected: Option<Validation>,
    /// How far the hashing has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    so_far: Option<Checkpoint>,
}

impl Work {
    /// The work on a location that nobody has read yet.
    pub(super) fn new(url: &str, expected: Option<Validation>) -> Self {
        Self { url: url.to_owned(), expected, so_far: None }
    }
}

/// Digests of the first bytes of a location, as they are kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Checkpoint {
    /// Number of the bytes.
    at: u64,
    /// [`FORM`] of the states.
    form: u32,
    /// State of the MD5.
    checksum: Option<Vec<u8>>,
    /// Name of the hash, and its state.
    hash: Option<(String, Vec<u8>)>,
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
        // Whoever waits for an image to become active waits for the hash.
        let rate_bytes = if image.status == Status::Importing { 0 } else { self.settings.secure_hash_rate_bytes };
        let hashing = async {
            let store = self.stores.get(Some(&location.store))?;
            let reader = store.open(&location.url).await?;
            // A snapshot is what it was; what others serve may have changed.
            let so_far = work.so_far.as_ref().filter(|_| store.can_clone());
            let hashing = Hashing::begin(so_far, self.settings.checksum, algorithm, rate_bytes);
            hash(reader, hashing, Some(Notebook { services: self, job, work: &work })).await
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

    /// Writes down how far a job has come. What cannot be written now is hashed again, at worst.
    async fn note_hashing(&self, job: &Job, work: &Work, hashing: &Hashing) {
        let so_far = Work { so_far: Some(hashing.checkpoint()), ..work.clone() };
        let noted = async {
            let tx = self.catalog.begin("locate_checkpoint").await?;
            tx.job_progress(job.lease, HASHING, &json!(so_far)).await?;
            tx.commit().await
        };
        if let Err(error) = noted.await {
            tracing::debug!(image = %job.image, %error, "the progress of a hashing could not be written");
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

/// The hash of a whole blob, read at no more than so many bytes in a second; 0: no limit.
pub(super) async fn hash_whole(
    reader: Arc<dyn BlobReader>,
    algorithm: HashAlgorithm,
    rate_bytes: u64,
) -> Result<String, store::Error> {
    let hashes = hash(reader, Hashing::begin(None, false, Some(algorithm), rate_bytes), None).await?;
    Ok(hashes.hash.map(|(_, value)| value).unwrap_or_default())
}

/// Where a job writes down how far it has come.
struct Notebook<'n> {
    services: &'n Services,
    job: &'n Job,
    work: &'n Work,
}

/// Hashes what is left of a blob, its holes included, and writes down from time to time how far it has come.
async fn hash(
    reader: Arc<dyn BlobReader>,
    mut hashing: Hashing,
    notebook: Option<Notebook<'_>>,
) -> Result<Hashes, store::Error> {
    let size_bytes = reader.size_bytes();
    let data = if hashing.at < size_bytes { reader.data(hashing.at, size_bytes).await? } else { Vec::new() };
    let mut pieces = stream::iter(pieces(data, hashing.at, size_bytes))
        .map(|piece| {
            let reader = Arc::clone(&reader);
            async move {
                match piece {
                    Piece::Hole(length) => Ok((zeros(length).collect(), 0)),
                    Piece::Data(offset, length) => {
                        let buffer = vec![0; usize::try_from(length).unwrap_or(0)];
                        Ok::<_, store::Error>((vec![Bytes::from(reader.read(offset, buffer).await?)], length))
                    }
                }
            }
        })
        .buffered(READS_AHEAD);
    let mut noted = Instant::now();
    while let Some(piece) = pieces.next().await {
        let (bytes, read_bytes) = piece?;
        hashing = hashing.add(bytes).await?;
        hashing.keep_rate(read_bytes).await;
        if let Some(Notebook { services, job, work }) = &notebook
            && noted.elapsed() >= CHECKPOINT_INTERVAL
        {
            services.note_hashing(job, work, &hashing).await;
            noted = Instant::now();
        }
    }
    Ok(hashing.finish())
}

/// Digests of the first bytes of a blob.
struct Hashing {
    /// Number of the bytes.
    at: u64,
    checksum: Option<Resumable>,
    hash: Option<(HashAlgorithm, Resumable)>,
    /// Most bytes that are read in a second; 0: no limit.
    rate_bytes: u64,
    begun: Instant,
    /// Bytes read since then.
    read_bytes: u64,
}

impl Hashing {
    /// Goes on from where an earlier run has come to, if that computed the same digests.
    fn begin(so_far: Option<&Checkpoint>, checksum: bool, algorithm: Option<HashAlgorithm>, rate_bytes: u64) -> Self {
        let fresh = || Self {
            at: 0,
            checksum: checksum.then(|| Resumable::start(HashAlgorithm::Md5)),
            hash: algorithm.map(|algorithm| (algorithm, Resumable::start(algorithm))),
            rate_bytes,
            begun: Instant::now(),
            read_bytes: 0,
        };
        let resumed = so_far.filter(|so_far| so_far.form == FORM).and_then(|so_far| {
            let checksum = match (&so_far.checksum, checksum) {
                (Some(state), true) => Some(Resumable::resume(HashAlgorithm::Md5, state)?),
                (None, false) => None,
                (Some(_), false) | (None, true) => return None,
            };
            let hash = match (&so_far.hash, algorithm) {
                (Some((name, state)), Some(algorithm)) if name == algorithm.as_str() => {
                    Some((algorithm, Resumable::resume(algorithm, state)?))
                }
                (None, None) => None,
                (Some(_), _) | (None, Some(_)) => return None,
            };
            tracing::info!(at_bytes = so_far.at, "a hashing goes on where it was cut off");
            Some(Self { at: so_far.at, checksum, hash, ..fresh() })
        });
        resumed.unwrap_or_else(fresh)
    }

    /// Adds the next bytes, to each digest on a thread of its own.
    async fn add(mut self, pieces: Vec<Bytes>) -> Result<Self, store::Error> {
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let update = async |digest: Option<Resumable>| {
            let Some(mut digest) = digest else { return Ok(None) };
            let pieces = pieces.clone();
            let updated = tokio::task::spawn_blocking(move || {
                pieces.iter().for_each(|piece| digest.update(piece));
                digest
            });
            updated.await.map(Some).map_err(|e| store::Error::Other(format!("a digest failed: {e}")))
        };
        let (algorithm, hash) = self.hash.unzip();
        let (checksum, hash) = tokio::try_join!(update(self.checksum), update(hash))?;
        self.checksum = checksum;
        self.hash = algorithm.zip(hash);
        self.at += length as u64;
        Ok(self)
    }

    /// Waits until so many bytes more are not too many.
    async fn keep_rate(&mut self, read_bytes: u64) {
        self.read_bytes += read_bytes;
        if let Some(due_ms) = self.read_bytes.saturating_mul(1000).checked_div(self.rate_bytes) {
            tokio::time::sleep_until(self.begun + Duration::from_millis(due_ms)).await;
        }
    }

    fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            at: self.at,
            form: FORM,
            checksum: self.checksum.as_ref().map(Resumable::save),
            hash: self.hash.as_ref().map(|(algorithm, hash)| (algorithm.as_str().to_owned(), hash.save())),
        }
    }

    fn finish(self) -> Hashes {
        Hashes {
            checksum: self.checksum.map(Resumable::finish),
            hash: self.hash.map(|(algorithm, hash)| (algorithm, hash.finish())),
        }
    }
}

/// A part of a blob.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Hole(u64),
    Data(u64, u64),
}

/// What there is from `at` on of a blob of `size_bytes` with these runs of data, in pieces of at most [`READ_BYTES`].
pub(super) fn pieces(data: Vec<(u64, u64)>, mut at: u64, size_bytes: u64) -> impl Iterator<Item = Piece> {
    let mut runs = data.into_iter().peekable();
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
            from in 0_u64..100,
        ) {
            let mut data = Vec::new();
            let mut size_bytes = 0;
            for (gap, length) in runs {
                data.push((size_bytes + gap, length));
                size_bytes += gap + length;
            }
            size_bytes += rest;
            let mut at = size_bytes * from / 100;
            for piece in pieces(data.clone(), at, size_bytes) {
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
