//! The data pump: from a stream of extents into a blob, with digests on the way. There is no other.
//!
//! ```text
//!   stream ──> blocks of the object size ──┬──> zeros dropped ──> writes in flight ──> store
//!              (a permit each)             ├──> inspection
//!                                          ├──> MD5
//!                                          └──> SHA-512 / ...
//! ```
//!
//! A block's permit comes back when its writes are acknowledged and all digests have passed over it, so
//! that memory is bounded by the number of permits, and a slow store or processor slows the client down
//! through TCP.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use openssl::hash::MessageDigest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::convert::Receipt;
use super::digest::{self, Digest};
use super::quota::Allowance;
use super::zeros::{data_ranges, slice, zero_piece};
use crate::domain::content::{Extent, HashAlgorithm};
use crate::format::inspect::{Expected, Facts, Inspection};
use crate::store::{self, BlobWriter};

/// Pieces shorter than this are copied together: a client that sends single bytes must not cost a
/// reference each.
const PIECE_MIN_BYTES: usize = 16 * 1024;
/// Blocks in which bytes pass that are decoded before they are stored.
const OBSERVED_BLOCK_BYTES: usize = 1024 * 1024;

/// Why a stream ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or the framing was wrong.
    #[error("{0}")]
    Broken(String),
    /// No byte came for too long.
    #[error("no data for {0} s")]
    Stalled(u64),
}

/// Bytes on their way in.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// What the pump moves: in order, from the first byte to the last.
pub(super) type Extents = Pin<Box<dyn Stream<Item = Result<Extent, Error>> + Send>>;

/// What a client sends, for the pump.
pub(super) fn received(body: ByteStream) -> Extents {
    Box::pin(body.map(|frame| match frame {
        Ok(bytes) => Ok(Extent::Data(bytes)),
        Err(BodyError::Broken(why)) => Err(Error::ClientGone(why)),
        Err(stalled @ BodyError::Stalled(_)) => Err(Error::TooSlow(format!("The upload was given up: {stalled}."))),
    }))
}

/// One object's worth of the stream.
pub(super) struct Block {
    pieces: Vec<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl Block {
    pub(super) fn new(pieces: Vec<Bytes>, permit: OwnedSemaphorePermit) -> Self {
        Self { pieces, _permit: permit }
    }

    /// The bytes, in order.
    pub(super) fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }
}

/// What to do with the stream, and how much of it is acceptable.
pub(super) struct Plan {
    /// Blocks in memory at once.
    pub(super) blocks_in_flight: usize,
    /// Whether to compute an MD5.
    pub(super) checksum: bool,
    /// Hash to compute, if any.
    pub(super) algorithm: Option<HashAlgorithm>,
    /// Length that was announced.
    pub(super) declared_bytes: Option<u64>,
    /// Largest length.
    pub(super) cap_bytes: u64,
    /// What the bytes should be.
    pub(super) expected: Expected,
}

/// What came through.
#[derive(Debug)]
pub(super) struct Pumped {
    /// Number of bytes.
    pub(super) size_bytes: u64,
    /// MD5.
    pub(super) checksum: Option<String>,
    /// Hash by the plan's algorithm.
    pub(super) hash: Option<String>,
    /// What the bytes are.
    pub(super) facts: Facts,
}

/// Moves the whole stream into the blob. When it returns without an error, every write has been
/// acknowledged; with one, writes may still be under way.
///
/// # Errors
/// What ended the stream, was not what the plan expects, exceeded the plan or the allowance, or failed in the store; [`Error::Conflict`] when `stop` rings.
pub(super) async fn pump(
    body: Extents,
    writer: &mut dyn BlobWriter,
    plan: &Plan,
    allowance: Option<Allowance>,
    stop: &CancellationToken,
) -> Result<Pumped, Error> {
    tokio::select! {
        // Whatever else it waits for: a gateway that has lost its lease stops writing.
        biased;
        () = stop.cancelled() => Err(Error::Gone("The image was deleted, or taken over by another gateway, while data arrived.".into())),
        result = run(body, writer, plan, allowance) => result,
    }
}

async fn run(
    body: Extents,
    writer: &mut dyn BlobWriter,
    plan: &Plan,
    allowance: Option<Allowance>,
) -> Result<Pumped, Error> {
    // Asked once more at the end, where the last block is a whole one.
    let mut body: Extents = Box::pin(body.fuse());
    let checksum = plan.checksum.then(|| Digest::start(MessageDigest::md5()));
    let hash = plan.algorithm.map(|algorithm| Digest::start(digest::function(algorithm)));
    let mut inspection = Inspection::new(plan.expected.clone());
    let permits = Arc::new(Semaphore::new(plan.blocks_in_flight));
    let mut writes: JoinSet<Result<(), store::Error>> = JoinSet::new();
    let mut gather = Gather { block_bytes: writer.block_bytes(), rest: Extent::Zero(0), allowance };
    let mut offset: u64 = 0;
    loop {
        // 1. Memory for one more block, as soon as an earlier one is done with.
        let permit = loop {
            tokio::select! {
                permit = Arc::clone(&permits).acquire_owned() => break permit.map_err(|e| Error::Internal(e.to_string()))?,
                Some(written) = writes.join_next() => check(written)?,
            }
        };
        // 2. Its bytes; a write that fails meanwhile ends it all at once.
        let next = gather.next(&mut body, plan, offset);
        tokio::pin!(next);
        let pieces = loop {
            tokio::select! {
                pieces = &mut next => break pieces?,
                Some(written) = writes.join_next() => check(written)?,
            }
        };
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length == 0 {
            break;
        }
        // 3. Are they what they should be? The first block tells in most cases, before anything is written.
        for piece in &pieces {
            inspection.feed(piece);
        }
        if offset == 0
            && let Some(refusal) = inspection.refusal()
        {
            return Err(refusal.into());
        }
        // 4. To the digests, and what is not zero to the store.
        let block = Arc::new(Block::new(pieces, permit));
        for digest in checksum.iter().chain(&hash) {
            digest.add(&block);
        }
        for range in data_ranges(block.pieces()) {
            writer.reserve(offset + range.end as u64).await?;
            let write = writer.write(offset + range.start as u64, slice(block.pieces(), &range));
            let block = Arc::clone(&block);
            writes.spawn(async move {
                let written = write.await;
                drop(block);
                written
            });
        }
        offset += length as u64;
    }
    check_end(plan, offset)?;
    let facts = inspection.finish()?;
    while let Some(written) = writes.join_next().await {
        check(written)?;
    }
    Ok(Pumped { size_bytes: offset, checksum: finish(checksum).await?, hash: finish(hash).await?, facts })
}

/// The same bytes on their way to a decoder: the plan is kept, and the receipt is complete, when the last one has passed.
pub(super) fn observed(body: Extents, plan: Plan, receipt: Receipt) -> Extents {
    let observer = Observer {
        body: Box::pin(body.fuse()),
        gather: Gather { block_bytes: OBSERVED_BLOCK_BYTES, rest: Extent::Zero(0), allowance: None },
        checksum: plan.checksum.then(|| Digest::start(MessageDigest::md5())),
        inspection: Inspection::new(plan.expected.clone()),
        permits: Arc::new(Semaphore::new(plan.blocks_in_flight)),
        plan,
        receipt,
        offset: 0,
        ready: Vec::new().into_iter(),
    };
    Box::pin(stream::try_unfold(observer, |mut observer| async move {
        let next = observer.next().await;
        next.map(|piece| piece.map(|piece| (Extent::Data(piece), observer)))
    }))
}

/// What looks at bytes that pass.
struct Observer {
    body: Extents,
    gather: Gather,
    checksum: Option<Digest>,
    inspection: Inspection,
    permits: Arc<Semaphore>,
    plan: Plan,
    receipt: Receipt,
    offset: u64,
    /// What is left of the last block.
    ready: std::vec::IntoIter<Bytes>,
}

impl Observer {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(piece) = self.ready.next() {
            return Ok(Some(piece));
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|e| Error::Internal(e.to_string()))?;
        let pieces = self.gather.next(&mut self.body, &self.plan, self.offset).await?;
        let length: usize = pieces.iter().map(Bytes::len).sum();
        if length == 0 {
            check_end(&self.plan, self.offset)?;
            self.inspection.finish()?;
            self.receipt.complete(finish(self.checksum.take()).await?);
            return Ok(None);
        }
        for piece in &pieces {
            self.inspection.feed(piece);
        }
        if self.offset == 0
            && let Some(refusal) = self.inspection.refusal()
        {
            return Err(refusal.into());
        }
        if let Some(checksum) = &self.checksum {
            checksum.add(&Arc::new(Block::new(pieces.clone(), permit)));
        }
        self.offset += length as u64;
        self.ready = pieces.into_iter();
        Ok(self.ready.next())
    }
}

async fn finish(digest: Option<Digest>) -> Result<Option<String>, Error> {
    match digest {
        Some(digest) => digest.finish().await.map(Some),
        None => Ok(None),
    }
}

fn check(written: Result<Result<(), store::Error>, JoinError>) -> Result<(), Error> {
    match written {
        Ok(result) => result.map_err(Error::from),
        Err(panic) => Err(Error::Internal(format!("a write panicked: {panic}"))),
    }
}

fn check_end(plan: &Plan, size_bytes: u64) -> Result<(), Error> {
    match plan.declared_bytes {
        Some(declared) if declared != size_bytes => {
            Err(Error::Invalid(format!("Size mismatch: {declared} bytes were declared, {size_bytes} bytes arrived.")))
        }
        Some(_) | None => Ok(()),
    }
}

/// Cuts the stream into blocks.
struct Gather {
    block_bytes: usize,
    /// What came with the last block and belongs to the next.
    rest: Extent,
    /// Room that the owner of the bytes pays for as they come.
    allowance: Option<Allowance>,
}

impl Gather {
    /// The pieces of the next block; short or empty at the end of the stream only. `offset` is where the
    /// block begins.
    async fn next(&mut self, body: &mut Extents, plan: &Plan, offset: u64) -> Result<Vec<Bytes>, Error> {
        let mut pieces = Vec::new();
        let mut small = BytesMut::new();
        let mut length = 0;
        while length < self.block_bytes {
            let room = self.block_bytes - length;
            let piece = match std::mem::replace(&mut self.rest, Extent::Zero(0)) {
                Extent::Zero(0) => match body.next().await {
                    None => break,
                    Some(extent) => {
                        self.rest = extent?;
                        continue;
                    }
                },
                Extent::Zero(run) => {
                    let piece = zero_piece(run.min(room as u64));
                    self.rest = Extent::Zero(run - piece.len() as u64);
                    piece
                }
                Extent::Data(mut piece) => {
                    if piece.len() > room {
                        self.rest = Extent::Data(piece.split_off(room));
                    }
                    piece
                }
            };
            length += piece.len();
            check_room(plan, offset + length as u64)?;
            if let Some(allowance) = &mut self.allowance {
                allowance.cover(offset + length as u64).await?;
            }
            if piece.len() < PIECE_MIN_BYTES {
                small.extend_from_slice(&piece);
            } else {
                if !small.is_empty() {
                    pieces.push(small.split().freeze());
                }
                pieces.push(piece);
            }
        }
        if !small.is_empty() {
            pieces.push(small.freeze());
        }
        Ok(pieces)
    }
}

fn check_room(plan: &Plan, size_bytes: u64) -> Result<(), Error> {
    if let Some(declared) = plan.declared_bytes
        && size_bytes > declared
    {
        return Err(Error::Invalid(format!("Size mismatch: {declared} bytes were declared, more arrived.")));
    }
    if size_bytes > plan.cap_bytes {
        return Err(Error::TooLarge(format!(
            "The image exceeds the maximum of {} bytes (image_size_cap).",
            plan.cap_bytes
        )));
    }
    Ok(())
}
