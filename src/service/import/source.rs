//! What an import reads, as streams for the pump and as files for the readers of disk formats.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::domain::content::Extent;
use crate::fetch;
use crate::format::disk::{self, ReadAt};
use crate::format::unpack;
use crate::service::Error;
use crate::service::ingest::Extents;
use crate::service::locate::{Piece, pieces};
use crate::store::BlobReader;

/// Reads under way at once.
const READS_AHEAD: usize = 3;

/// A blob as a file.
pub(super) struct File(pub(super) Arc<dyn BlobReader>);

#[async_trait]
impl ReadAt for File {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, disk::Error> {
        let read = self.0.read(offset, vec![0; length]).await;
        read.map(Bytes::from).map_err(|error| disk::Error::Source(Box::new(error)))
    }
}

/// The bytes of a blob, holes as such.
pub(super) async fn blob(reader: Arc<dyn BlobReader>) -> Result<Extents, Error> {
    let size_bytes = reader.size_bytes();
    let data = if size_bytes == 0 { Vec::new() } else { reader.data(0, size_bytes).await? };
    let read = move |piece| {
        let reader = Arc::clone(&reader);
        async move {
            match piece {
                Piece::Hole(length) => Ok(Extent::Zero(length)),
                Piece::Data(offset, length) => {
                    let buffer = vec![0; usize::try_from(length).unwrap_or(0)];
                    Ok(Extent::Data(Bytes::from(reader.read(offset, buffer).await?)))
                }
            }
        }
    };
    Ok(Box::pin(stream::iter(pieces(data, 0, size_bytes)).map(read).buffered(READS_AHEAD)))
}

/// A download, with its first bytes looked at: they come again.
pub(super) struct Peeked {
    /// So many bytes as were asked for, or all of a shorter download.
    pub(super) head: Vec<u8>,
    /// All of it.
    pub(super) extents: Extents,
}

/// Looks at the first `wanted` bytes of a download.
pub(super) async fn peek(mut body: fetch::Body, wanted: usize) -> Result<Peeked, Error> {
    let (mut head, mut first) = (Vec::new(), Vec::new());
    while head.len() < wanted
        && let Some(frame) = body.next().await
    {
        let frame = frame.map_err(fetched)?;
        head.extend_from_slice(&frame[..frame.len().min(wanted - head.len())]);
        first.push(Ok(Extent::Data(frame)));
    }
    let rest = body.map(|frame| frame.map(Extent::Data).map_err(fetched));
    Ok(Peeked { head, extents: Box::pin(stream::iter(first).chain(rest)) })
}

/// What packed bytes hold.
pub(super) fn unpacked(packed: Extents, packing: unpack::Packing, limits: unpack::Limits) -> Extents {
    // Zeros in packed bytes are few.
    let bytes = packed.map_ok(|extent| match extent {
        Extent::Data(bytes) => stream::iter(vec![Ok(bytes)]),
        Extent::Zero(length) => stream::iter(crate::service::zeros::zeros(length).map(Ok).collect::<Vec<_>>()),
    });
    let unpacked = unpack::unpack(bytes.try_flatten(), packing, limits);
    Box::pin(unpacked.map(|piece| match piece {
        Ok(bytes) => Ok(Extent::Data(bytes)),
        Err(unpack::Error::Refused(why)) => Err(Error::Invalid(why)),
        Err(unpack::Error::Source(error)) => Err(error),
    }))
}

/// Why a download failed, in this service's terms: what may pass is [`Error::Busy`], because it tells what it is.
pub(super) fn fetched(error: fetch::Error) -> Error {
    let text = error.to_string();
    match error {
        fetch::Error::Refused(_) | fetch::Error::Unusable(_) => Error::Invalid(text),
        fetch::Error::Unavailable(_) | fetch::Error::Busy(..) => Error::Busy(text),
        fetch::Error::TooSlow(_) => Error::TooSlow(text),
        fetch::Error::TooLarge(_) => Error::TooLarge(text),
    }
}

/// The same for a disk that is read out of a file.
pub(super) fn read(error: disk::Error) -> Error {
    match error {
        disk::Error::Refused(why) => Error::Invalid(why),
        disk::Error::Source(_) => Error::Unavailable(error.to_string()),
    }
}
