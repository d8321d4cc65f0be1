//! Bytes that become raw on their way into a store, because nothing else can be cloned: out of what they are packed
//! with, then out of their format. Uploads and imports do the same.
//!
//! ```text
//!   packed, or a VMDK that is a stream ──> decoded as they come ──────────────────┐
//!   other formats ──> staged, read by their tables, many reads at once ───────────┴──> pump
//! ```

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};

use super::ingest::{Extents, Plan, observed};
use super::locate::{Piece, pieces};
use super::zeros::zeros;
use super::{Error, Plugin, Services};
use crate::domain::content::Extent;
use crate::domain::image::Attributes;
use crate::format::Format;
use crate::format::disk::{self, ReadAt, vmdk};
use crate::format::inspect::{Expected, Rules};
use crate::format::unpack::{self, Packing, Wrapping};
use crate::store::{BlobReader, Store};

/// Formats that are converted, by `disk_format`.
const CONVERTED: [Format; 5] = [Format::Qcow2, Format::Vmdk, Format::Vhd, Format::Vhdx, Format::Vdi];
/// Memory for what the conversion of a staged image reads ahead, in bytes.
const READ_AHEAD_BYTES: usize = 32 << 20;
/// Staged images that one gateway converts at once; more wait. It bounds memory, and processors are few, too.
pub(super) const CONVERSIONS_MAX: usize = 4;
/// Reads of a blob under way at once.
const READS_AHEAD: usize = 3;

/// Bytes for the pump.
pub(super) struct Feed {
    pub(super) extents: Extents,
    /// Their number, where it is known.
    pub(super) size_bytes: Option<u64>,
    /// What is known of the bytes received, where these are others.
    pub(super) receipt: Option<Receipt>,
    /// The format that the image has from now on, where that is another.
    pub(super) disk_format: Option<Format>,
}

impl Feed {
    /// The attributes of an image that holds these bytes.
    pub(super) fn attributes(&self, mut attributes: Attributes) -> Attributes {
        if let Some(format) = self.disk_format {
            attributes.disk_format = Some(format.as_str().to_owned());
        }
        attributes
    }
}

/// The MD5 of bytes received, once all of them have been; within it none where none is computed.
#[derive(Clone, Default)]
pub(super) struct Receipt(Arc<OnceLock<Option<String>>>);

impl Receipt {
    /// Of bytes that are all there.
    pub(super) fn of(checksum: Option<String>) -> Self {
        Self(Arc::new(OnceLock::from(checksum)))
    }

    /// All bytes have passed.
    pub(super) fn complete(&self, checksum: Option<String>) {
        // There is one end only.
        let _ = self.0.set(checksum);
    }

    /// The MD5.
    ///
    /// # Errors
    /// [`Error::Internal`] when not all bytes have passed: whoever decoded them has left some.
    pub(super) fn checksum(&self) -> Result<Option<String>, Error> {
        let left = || Error::Internal("not all bytes received have been read".into());
        self.0.get().cloned().ok_or_else(left)
    }
}

/// How bytes get out of what they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// They are what is to be stored.
    Plain,
    /// They are unpacked as they come.
    Unpack(Packing),
    /// They are decoded as they come.
    Decode,
    /// They have to be all there before they are converted; unpacked before, as they come.
    Stage(Option<Packing>, Format),
}

impl Way {
    /// For bytes that begin like this.
    pub(super) fn of(head: &[u8], packing: Option<Packing>, format: Option<Format>) -> Self {
        match (packing, format) {
            (None, None) => Self::Plain,
            (Some(packing), None) => Self::Unpack(packing),
            (None, Some(Format::Vmdk)) if vmdk::stream::is_stream(head) => Self::Decode,
            (packing, Some(format)) => Self::Stage(packing, format),
        }
    }
}

/// What has become of bytes on their way in.
pub(super) enum Decoded {
    /// What is to be stored.
    Ready(Feed),
    /// A disk in this format, which is read by its tables once it has been staged.
    Unread(Format, Feed),
}

impl Services {
    /// What an image is packed with that is to be unpacked.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for an archive.
    pub(super) fn packing(&self, attributes: &Attributes, head: &[u8]) -> Result<Option<Packing>, Error> {
        if !is_bare(attributes) || !self.settings.import.plugins.contains(&Plugin::Decompression) {
            return Ok(None);
        }
        match Wrapping::of(head) {
            None => Ok(None),
            Some(Wrapping::Packed(packing)) => Ok(Some(packing)),
            Some(Wrapping::Foreign(name)) => {
                Err(Error::Unsupported(format!("The data is {name}, which is not unpacked: send the image in it.")))
            }
        }
    }

    /// Does to bytes that come in what can be done as they come.
    pub(super) fn decode(&self, attributes: &Attributes, way: Way, body: Extents, size_bytes: Option<u64>) -> Decoded {
        let receipt = Receipt::default();
        // What is packed is looked at when it is unpacked.
        let expected = match way {
            Way::Decode => self.expected(attributes),
            Way::Plain | Way::Unpack(_) | Way::Stage(..) => self.plan(None).expected,
        };
        let plan = Plan { algorithm: None, expected, ..self.plan(size_bytes) };
        let plain = |extents| Feed { extents, size_bytes, receipt: None, disk_format: None };
        let other = |extents| Feed { extents, size_bytes: None, receipt: Some(receipt.clone()), disk_format: None };
        match way {
            Way::Plain => Decoded::Ready(plain(body)),
            Way::Stage(None, format) => Decoded::Unread(format, plain(body)),
            Way::Unpack(packing) => {
                Decoded::Ready(other(self.unpacked(observed(body, plan, receipt.clone()), packing)))
            }
            Way::Stage(Some(packing), format) => {
                Decoded::Unread(format, other(self.unpacked(observed(body, plan, receipt.clone()), packing)))
            }
            Way::Decode => {
                let disk = self.decoded(observed(body, plan, receipt.clone()));
                Decoded::Ready(Feed { disk_format: Some(Format::Raw), ..other(disk) })
            }
        }
    }

    /// What is done with a disk that is staged.
    pub(super) fn staging_plan(&self, attributes: &Attributes, feed: &Feed) -> Plan {
        Plan {
            checksum: self.settings.checksum && feed.receipt.is_none(),
            algorithm: None,
            expected: self.expected(attributes),
            ..self.plan(feed.size_bytes)
        }
    }

    /// What is done with bytes that become the data of an image.
    pub(super) fn feed_plan(&self, attributes: &Attributes, feed: &Feed) -> Plan {
        Plan {
            checksum: self.settings.checksum && feed.receipt.is_none(),
            expected: match feed.disk_format {
                Some(_) => self.expected_disk(),
                None => self.expected(attributes),
            },
            ..self.plan(feed.size_bytes)
        }
    }

    /// What packed bytes hold.
    pub(super) fn unpacked(&self, packed: Extents, packing: Packing) -> Extents {
        let limits = unpack::Limits {
            size_bytes: self.settings.image_size_cap_bytes,
            ratio: self.settings.import.decompression_ratio_max,
        };
        let unpacked = unpack::unpack(as_bytes(packed), packing, limits);
        Box::pin(unpacked.map(|piece| piece.map(Extent::Data).map_err(decoded)))
    }

    /// The disk in a VMDK that is a stream.
    fn decoded(&self, stream: Extents) -> Extents {
        Box::pin(vmdk::stream::extents(as_bytes(stream), self.disk_limits()).map_err(decoded))
    }

    /// The disk in a blob of this format, and its size in bytes. Waits while too many are being read.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a blob that is broken, [`Error::TooLarge`], [`Error::Unavailable`].
    pub(super) async fn disk(&self, format: Format, blob: Arc<dyn BlobReader>) -> Result<(Extents, u64), Error> {
        let permit = Arc::clone(&self.conversions).acquire_owned().await.map_err(|e| Error::Internal(e.to_string()))?;
        let file: Arc<dyn ReadAt> = Arc::new(File(blob));
        let map = disk::open(format, Arc::clone(&file), self.disk_limits()).await.map_err(read)?;
        let size_bytes = map.virtual_size_bytes();
        self.check_size(Some(size_bytes))?;
        let extents = disk::extents(map, file, READ_AHEAD_BYTES).map(move |extent| {
            // As long as it is read.
            let _held = &permit;
            extent.map_err(read)
        });
        Ok((Box::pin(extents), size_bytes))
    }

    fn disk_limits(&self) -> disk::Limits {
        disk::Limits { virtual_size_bytes: self.settings.inspection.virtual_size_cap_bytes }
    }

    /// What a disk should be that came out of another format: no format again. Its boot sector is its own business, as
    /// it was when it could not be seen.
    fn expected_disk(&self) -> Expected {
        let rules = Rules { gpt_safety_checks_nonfatal: vec!["mbr".into()], ..(*self.settings.inspection).clone() };
        Expected {
            rules: Arc::new(rules),
            disk_format: Some(Format::Raw.as_str().to_owned()),
            container_format: Some("bare".into()),
        }
    }
}

/// The format that an image is converted from on its way to raw in one of these stores. Images that go to no store that
/// can be cloned from may be anything.
pub(super) fn conversion<'s>(
    attributes: &Attributes,
    stores: impl IntoIterator<Item = &'s Arc<dyn Store>>,
) -> Option<Format> {
    let clonable = stores.into_iter().any(|store| store.can_clone());
    let format = attributes.disk_format.as_deref().filter(|_| clonable && is_bare(attributes))?;
    CONVERTED.into_iter().find(|known| known.as_str() == format)
}

fn is_bare(attributes: &Attributes) -> bool {
    attributes.container_format.as_deref() == Some("bare")
}

/// Looks at the first `wanted` bytes of a stream: they come again.
pub(super) async fn peek(mut extents: Extents, wanted: usize) -> Result<(Vec<u8>, Extents), Error> {
    let (mut head, mut first) = (Vec::new(), Vec::new());
    while head.len() < wanted
        && let Some(extent) = extents.try_next().await?
    {
        let room = wanted - head.len();
        match &extent {
            Extent::Data(bytes) => head.extend_from_slice(&bytes[..bytes.len().min(room)]),
            Extent::Zero(length) => head.resize(head.len() + room.min(usize::try_from(*length).unwrap_or(room)), 0),
        }
        first.push(Ok(extent));
    }
    Ok((head, Box::pin(stream::iter(first).chain(extents))))
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

/// A blob as a file.
struct File(Arc<dyn BlobReader>);

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

/// For decoders: zeros in packed bytes are few.
fn as_bytes(extents: Extents) -> impl Stream<Item = Result<Bytes, Error>> + Send + Unpin {
    let bytes = extents.map_ok(|extent| match extent {
        Extent::Data(bytes) => stream::iter(vec![Ok(bytes)]),
        Extent::Zero(length) => stream::iter(zeros(length).map(Ok).collect::<Vec<_>>()),
    });
    bytes.try_flatten()
}

/// Why bytes could not be decoded as they came.
fn decoded(error: unpack::Error<Error>) -> Error {
    match error {
        unpack::Error::Refused(why) => Error::Unsupported(why),
        unpack::Error::Source(error) => error,
    }
}

/// The same for a disk that is read out of a file.
fn read(error: disk::Error) -> Error {
    match error {
        disk::Error::Refused(why) => Error::Unsupported(why),
        disk::Error::Source(_) => Error::Unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::{FutureExt as _, TryStreamExt as _, stream};

    use super::{Extent, Extents, Format, Packing, Receipt, Way, peek};

    #[test]
    fn what_is_decoded_as_it_comes_is_told_by_its_first_bytes() {
        let mut sparse = vec![0; 512];
        sparse[..4].copy_from_slice(b"KDMV");
        let mut streamed = sparse.clone();
        streamed[56..64].fill(0xff);
        let (gzip, vmdk) = (Some(Packing::Gzip), Some(Format::Vmdk));
        for (head, packing, format, way) in [
            (&streamed, None, vmdk, Way::Decode),
            (&sparse, None, vmdk, Way::Stage(None, Format::Vmdk)),
            (&streamed, None, None, Way::Plain),
            (&streamed, gzip, vmdk, Way::Stage(gzip, Format::Vmdk)),
            (&streamed, None, Some(Format::Qcow2), Way::Stage(None, Format::Qcow2)),
            (&streamed, gzip, None, Way::Unpack(Packing::Gzip)),
        ] {
            assert_eq!(Way::of(head, packing, format), way, "{packing:?} {format:?}");
        }
    }

    #[test]
    fn what_was_looked_at_comes_again() {
        let extents = || -> Extents {
            let all =
                [Extent::Data(Bytes::from_static(b"abc")), Extent::Zero(4), Extent::Data(Bytes::from_static(b"d"))];
            Box::pin(stream::iter(all.map(Ok)))
        };
        let looked = |wanted| peek(extents(), wanted).now_or_never().unwrap().unwrap();
        for (wanted, head) in [(0, &b""[..]), (2, b"ab"), (5, b"abc\0\0"), (99, b"abc\0\0\0\0d")] {
            let (seen, again) = looked(wanted);
            assert_eq!(seen, head);
            let again: Vec<Extent> = again.try_collect().now_or_never().unwrap().unwrap();
            assert_eq!(again.len(), 3);
        }
    }

    #[test]
    fn a_receipt_is_none_before_its_end() {
        let receipt = Receipt::default();
        assert!(receipt.checksum().is_err());
        receipt.clone().complete(Some("md5".into()));
        assert_eq!(receipt.checksum().unwrap().as_deref(), Some("md5"));
        assert_eq!(Receipt::of(None).checksum().unwrap(), None);
    }
}
