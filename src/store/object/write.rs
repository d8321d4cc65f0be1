//! Writing an object: from writes at offsets to parts one after the other.
//!
//! ```text
//!   write(offset, pieces) ──> queue ──> one task: gaps become zeros ──> parts ──> the server, a few at once
//! ```

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opendal::{Buffer, Operator, Writer};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{Key, ObjectStore, error};
use crate::store::{BlobWriter, Error};

/// What is best written at once. Parts are longer; the writer collects them by itself, and so that its own memory is the
/// one that counts, the pump's blocks are short.
const BLOCK_BYTES: usize = 4 << 20;

const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// An object that is being written. It appears under its name when it is whole, and not before.
pub(super) struct ObjectWriter {
    store: ObjectStore,
    key: Key,
    queue: mpsc::UnboundedSender<Piece>,
    task: JoinHandle<Stream>,
    /// How long it may become.
    limit_bytes: u64,
}

/// One write, and whoever waits for it.
struct Piece {
    offset: u64,
    pieces: Vec<Bytes>,
    done: oneshot::Sender<Result<(), Error>>,
}

/// What has been written so far.
struct Stream {
    writer: Writer,
    at: u64,
    failed: bool,
}

impl ObjectWriter {
    pub(super) async fn create(
        store: ObjectStore,
        operator: &Operator,
        key: Key,
        size_bytes: Option<u64>,
    ) -> Result<Self, Error> {
        let parts = store.0.parts.plan(size_bytes)?;
        let name = key.data();
        let writer = operator.writer_with(&name).chunk(parts.part_bytes).concurrent(parts.in_flight);
        let writer = writer.await.map_err(error)?;
        let (queue, pieces) = mpsc::unbounded_channel();
        let task = tokio::spawn(Stream { writer, at: 0, failed: false }.drain(pieces));
        Ok(Self { store, key, queue, task, limit_bytes: parts.limit_bytes })
    }

    /// What was written, once everything that was queued has been.
    async fn end(self) -> Result<(ObjectStore, Key, Stream), Error> {
        drop(self.queue);
        let stream = self.task.await.map_err(|panic| Error::Other(panic.to_string()))?;
        Ok((self.store, self.key, stream))
    }
}

impl Stream {
    async fn drain(mut self, mut queue: mpsc::UnboundedReceiver<Piece>) -> Self {
        while let Some(Piece { offset, pieces, done }) = queue.recv().await {
            let written = if self.failed {
                Err(Error::Other("an earlier write has failed".into()))
            } else {
                self.append(offset, pieces).await
            };
            self.failed |= written.is_err();
            // Whoever asked may have gone.
            let _ = done.send(written);
        }
        self
    }

    async fn append(&mut self, offset: u64, pieces: Vec<Bytes>) -> Result<(), Error> {
        self.fill(offset).await?;
        let buffer = Buffer::from(pieces);
        let length = buffer.len() as u64;
        self.writer.write(buffer).await.map_err(error)?;
        self.at += length;
        Ok(())
    }

    /// Writes zeros up to `end`.
    async fn fill(&mut self, end: u64) -> Result<(), Error> {
        if end < self.at {
            return Err(Error::Other(format!("a write at {end} comes after one that ended at {}", self.at)));
        }
        while self.at < end {
            let length = usize::try_from(end - self.at).unwrap_or(ZEROS_BYTES).min(ZEROS_BYTES);
            self.writer.write(Bytes::from_static(&ZEROS[..length])).await.map_err(error)?;
            self.at += length as u64;
        }
        Ok(())
    }
}

#[async_trait]
impl BlobWriter for ObjectWriter {
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    async fn reserve(&mut self, end: u64) -> Result<(), Error> {
        if end <= self.limit_bytes {
            return Ok(());
        }
        Err(Error::TooLarge(format!(
            "The store takes at most {} bytes here; an upload that says its size (X-OpenStack-Image-Size) may be larger, up to {} bytes.",
            self.limit_bytes,
            self.store.0.parts.largest_bytes()
        )))
    }

    fn write(&self, offset: u64, pieces: Vec<Bytes>) -> BoxFuture<'static, Result<(), Error>> {
        let (done, written) = oneshot::channel();
        // Queued now, so that the order is that of the calls.
        let queued = self.queue.send(Piece { offset, pieces, done });
        async move {
            let gone = || Error::Other("the writer has gone".into());
            queued.map_err(|_| gone())?;
            written.await.map_err(|_| gone())?
        }
        .boxed()
    }

    async fn seal(self: Box<Self>, size_bytes: u64, description: &BTreeMap<String, String>) -> Result<(), Error> {
        // 1. All of it.
        let (store, key, mut stream) = self.end().await?;
        if stream.failed {
            return Err(Error::Other("an earlier write has failed".into()));
        }
        stream.fill(size_bytes).await?;
        if stream.at != size_bytes {
            return Err(Error::Other(format!("{} bytes were written, not {size_bytes}", stream.at)));
        }
        // 2. Under its name, whole.
        stream.writer.close().await.map_err(error)?;
        // 3. The description makes it sealed.
        store.write_description(&key, description).await?;
        store.sync().await
    }

    async fn abandon(self: Box<Self>) {
        if let Ok((_, _, mut stream)) = self.end().await {
            // What this leaves is found when the attempt is discarded.
            let _ = stream.writer.abort().await;
        }
    }
}
