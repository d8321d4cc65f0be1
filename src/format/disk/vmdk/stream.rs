//! A streamOptimized disk as its bytes come, without a place for the file: its grains stand in the order of the disk,
//! each behind a marker that says where it belongs.
//!
//! ```text
//!   bytes ──> markers, one after the other ──> some grains: unpacked on a thread, several at once ──> extents
//! ```
//!
//! The tables in the stream are compared with the grains that came: whoever reads the file by its tables, as
//! [`super::Map`] and QEMU do, must see the same disk.

use std::thread::available_parallelism;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, future, stream};

use super::{
    AT_END, ENTRY_BYTES, HEADER_BYTES, Header, MAGIC, MARKER_END, MARKER_FOOTER, NO_PLACE, SECTOR_BYTES,
    check_descriptor, damaged, is_same_disk, refused,
};
use crate::domain::content::Extent;
use crate::format::disk::inflate::Inflater;
use crate::format::disk::table::{le32, le64};
use crate::format::disk::{self, Codec, Limits};
use crate::format::unpack::Error;

/// Of a marker, before the packed bytes of a grain.
const MARKER_HEAD_BYTES: u64 = 12;
const MARKER_TABLE: u32 = 1;
const MARKER_DIRECTORY: u32 = 2;
/// Bytes of the disk that are unpacked at once.
const BATCH_BYTES: u64 = 1 << 20;
/// Sectors before the first grain: header and descriptor, and no more than this.
const OVERHEAD_MAX_SECTORS: u64 = 2048;
/// Longest directory, of the largest disk with the smallest tables that anybody makes.
const DIRECTORY_MAX_BYTES: u64 = 4 << 20;

/// Whether a file that begins so can be decoded by [`extents`]; others, as QEMU's, have to be read by their tables.
#[must_use]
pub fn is_stream(head: &[u8]) -> bool {
    head.starts_with(MAGIC) && head.len() as u64 >= HEADER_BYTES && le64(head, 56) == AT_END
}

/// The disk in a streamOptimized file. Dropped at any time, it stops after the grains it is at.
///
/// # Errors
/// [`Error::Refused`] for a stream that [`is_stream`] does not hold of, that is broken, ends too early, is followed by
/// anything, or whose tables and grains disagree; [`Error::Source`].
pub fn extents<S, E>(body: S, limits: Limits) -> impl Stream<Item = Result<Extent, Error<E>>> + Send
where
    S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: Send,
{
    let reader = Reader { inflow: Inflow { body, ahead: BytesMut::new(), position: 0 }, progress: None, limits };
    let batches =
        stream::try_unfold(reader, |mut reader| async { Ok(reader.batch().await?.map(|batch| (batch, reader))) });
    let unpacked = batches.map(|batch| match batch {
        Ok(batch) => future::Either::Left(async {
            let done = tokio::task::spawn_blocking(move || batch.unpack()).await;
            done.map_err(|panic| damaged(panic).to_string()).flatten().map_err(Error::Refused)
        }),
        Err(e) => future::Either::Right(future::ready(Err(e))),
    });
    let at_once = available_parallelism().map_or(1, usize::from);
    unpacked.buffered(at_once).map_ok(|extents| stream::iter(extents.into_iter().map(Ok))).try_flatten()
}

/// Bytes on their way in, by sectors.
struct Inflow<S> {
    body: S,
    ahead: BytesMut,
    /// Bytes taken.
    position: u64,
}

impl<S, E> Inflow<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    async fn take(&mut self, length: u64) -> Result<Bytes, Error<E>> {
        while (self.ahead.len() as u64) < length {
            match self.body.next().await {
                Some(frame) => self.ahead.extend_from_slice(&frame.map_err(Error::Source)?),
                None => {
                    let end = self.position + self.ahead.len() as u64;
                    return Err(Error::Refused(
                        refused(format_args!("is cut off: it ends after {end} bytes, before its end marker"))
                            .to_string(),
                    ));
                }
            }
        }
        self.position += length;
        Ok(self.ahead.split_to(length as usize).freeze())
    }

    /// Whether nothing follows.
    async fn is_at_end(&mut self) -> Result<bool, Error<E>> {
        while self.ahead.is_empty() {
            match self.body.next().await {
                Some(frame) => self.ahead.extend_from_slice(&frame.map_err(Error::Source)?),
                None => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// Neighbours of the disk.
#[derive(Default)]
struct Batch {
    /// Zeros before a grain, where it belongs, its packed bytes with the marker, the bytes of the disk in it.
    grains: Vec<(u64, u64, Bytes, u64)>,
    /// Zeros behind the last one.
    zeros: u64,
}

impl Batch {
    fn unpack(self) -> Result<Vec<Extent>, String> {
        let mut inflater = Inflater::default();
        let mut extents = Vec::new();
        for (zeros, sector, packed, length) in self.grains {
            extents.extend((zeros > 0).then_some(Extent::Zero(zeros)));
            let mut bytes = BytesMut::zeroed(length as usize);
            inflater
                .inflate(Codec::Grain { sector }, &packed, &mut bytes)
                .map_err(|why| damaged(format_args!("the grain for sector {sector}: {why}")).to_string())?;
            extents.push(Extent::Data(bytes.freeze()));
        }
        extents.extend((self.zeros > 0).then_some(Extent::Zero(self.zeros)));
        Ok(extents)
    }
}

struct Reader<S> {
    inflow: Inflow<S>,
    /// None before the header.
    progress: Option<Progress>,
    limits: Limits,
}

impl<S, E> Reader<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    /// The next grains; none at the end.
    async fn batch(&mut self) -> Result<Option<Batch>, Error<E>> {
        let mut progress = match self.progress.take() {
            Some(progress) => progress,
            None => self.header().await?,
        };
        if progress.ended {
            return Ok(None);
        }
        let (mut batch, mut data_bytes) = (Batch::default(), 0);
        while data_bytes < BATCH_BYTES && !progress.ended {
            let marker_at = self.inflow.position;
            let marker = self.inflow.take(SECTOR_BYTES).await?;
            let (value, length) = (le64(&marker, 0), u64::from(le32(&marker, 8)));
            if length > 0 {
                let (zeros, grain_bytes) = progress.grain(value, length, marker_at).map_err(refusal)?;
                let rest = (MARKER_HEAD_BYTES + length).next_multiple_of(SECTOR_BYTES) - SECTOR_BYTES;
                let packed = [marker, self.inflow.take(rest).await?].concat();
                batch.grains.push((zeros, value, packed.into(), grain_bytes));
                data_bytes += grain_bytes;
                continue;
            }
            let content_bytes = progress.content_bytes(value, le32(&marker, 12)).map_err(refusal)?;
            let content_at = self.inflow.position;
            let content = self.inflow.take(content_bytes).await?;
            progress.content(le32(&marker, 12), content_at, &content, self.limits).map_err(refusal)?;
        }
        if progress.ended {
            if !self.inflow.is_at_end().await? {
                return Err(refusal(refused("is followed by something behind its end marker")));
            }
            batch.zeros = progress.header.virtual_size_bytes() - progress.disk_bytes;
        }
        self.progress = Some(progress);
        Ok(Some(batch))
    }

    async fn header(&mut self) -> Result<Progress, Error<E>> {
        let first = self.inflow.take(HEADER_BYTES).await?;
        let header = Header::parse(&first, self.limits).map_err(refusal)?;
        if !header.is_packed() || !is_stream(&first) {
            return Err(refusal(refused("is no stream: its directory is at its beginning")));
        }
        let place = header.descriptor().map_err(refusal)?;
        let overhead = header.overhead_sectors;
        if !(1..=OVERHEAD_MAX_SECTORS).contains(&overhead)
            || place.start < HEADER_BYTES
            || place.end > overhead * SECTOR_BYTES
        {
            return Err(refusal(damaged(format_args!("its descriptor does not fit into {overhead} sectors"))));
        }
        let rest = self.inflow.take(overhead * SECTOR_BYTES - HEADER_BYTES).await?;
        let descriptor = rest.slice((place.start - HEADER_BYTES) as usize..(place.end - HEADER_BYTES) as usize);
        check_descriptor(&descriptor, &header).map_err(refusal)?;
        Ok(Progress {
            header,
            disk_bytes: 0,
            table: None,
            directory: Vec::new(),
            empty_tables: Vec::new(),
            directory_at: None,
            footer: false,
            ended: false,
        })
    }
}

fn refusal<E>(error: disk::Error) -> Error<E> {
    Error::Refused(error.to_string())
}

/// What has passed, and what the tables therefore have to say.
struct Progress {
    header: Header,
    /// Bytes of the disk until now.
    disk_bytes: u64,
    /// The table for the last grains, by its number.
    table: Option<(u64, Vec<u32>)>,
    directory: Vec<u32>,
    /// Where tables without grains are.
    empty_tables: Vec<u32>,
    directory_at: Option<u64>,
    footer: bool,
    ended: bool,
}

impl Progress {
    /// A grain for the disk from `sector` on, at byte `at` of the stream: how many zeros come before it, and how much of
    /// the disk it is.
    fn grain(&mut self, sector: u64, length: u64, at: u64) -> Result<(u64, u64), disk::Error> {
        let (header, start) = (self.header, sector.saturating_mul(SECTOR_BYTES));
        if start >= header.virtual_size_bytes() || !sector.is_multiple_of(header.grain_sectors) {
            return Err(damaged(format_args!("a grain belongs to sector {sector}, where none can be")));
        }
        if length + MARKER_HEAD_BYTES > header.packed_max_bytes() {
            return Err(damaged(format_args!("the grain for sector {sector} has {length} packed bytes")));
        }
        if start < self.disk_bytes || self.directory_at.is_some() {
            return Err(refused(format_args!(
                "has the grain for sector {sector} too late, out of the order of the disk"
            )));
        }
        let number = start / header.table_span_bytes();
        let (other, entries) =
            self.table.get_or_insert_with(|| (number, vec![NO_PLACE; header.table_entries as usize]));
        if *other != number {
            return Err(damaged(format_args!("the table for the grains before byte {at} is missing")));
        }
        let index = start % header.table_span_bytes() / header.grain_bytes();
        let place = u32::try_from(at / SECTOR_BYTES).map_err(|_| refused("is longer than 2 TiB"))?;
        entries[index as usize] = place;
        let (zeros, grain_bytes) =
            (start - self.disk_bytes, header.grain_bytes().min(header.virtual_size_bytes() - start));
        self.disk_bytes = start + grain_bytes;
        Ok((zeros, grain_bytes))
    }

    /// Bytes behind a marker that is not a grain's.
    fn content_bytes(&self, sectors: u64, kind: u32) -> Result<u64, disk::Error> {
        let bytes = sectors.saturating_mul(SECTOR_BYTES);
        let (least, most) = match kind {
            MARKER_END => (0, 0),
            MARKER_TABLE => (self.header.table_bytes(), self.header.table_bytes().next_multiple_of(SECTOR_BYTES)),
            MARKER_DIRECTORY => (self.header.tables() * ENTRY_BYTES, DIRECTORY_MAX_BYTES),
            MARKER_FOOTER => (HEADER_BYTES, HEADER_BYTES),
            _ => return Err(damaged(format_args!("it has a marker of kind {kind}"))),
        };
        if !(least..=most).contains(&bytes) {
            return Err(damaged(format_args!("a marker of kind {kind} announces {sectors} sectors")));
        }
        Ok(bytes)
    }

    /// What is behind a marker, from byte `at` of the stream on.
    fn content(&mut self, kind: u32, at: u64, bytes: &[u8], limits: Limits) -> Result<(), disk::Error> {
        let place = u32::try_from(at / SECTOR_BYTES).map_err(|_| refused("is longer than 2 TiB"))?;
        let entries = bytes.chunks_exact(ENTRY_BYTES as usize).map(|entry| le32(entry, 0));
        match kind {
            MARKER_TABLE => {
                let said = entries.map(|entry| if self.header.is_zero(entry) { NO_PLACE } else { entry });
                let said: Vec<u32> = said.take(self.header.table_entries as usize).collect();
                match self.table.take() {
                    Some((number, came)) if came == said => {
                        self.directory.resize(number as usize, NO_PLACE);
                        self.directory.push(place);
                    }
                    None if said.iter().all(|entry| *entry == NO_PLACE) => {
                        if self.empty_tables.len() as u64 >= self.header.tables() {
                            return Err(damaged("it has more tables than its disk needs"));
                        }
                        self.empty_tables.push(place);
                    }
                    Some(_) | None => {
                        return Err(damaged(format_args!("the table at byte {at} tells of other grains than came")));
                    }
                }
            }
            MARKER_DIRECTORY => {
                let mut said = entries.take(self.header.tables() as usize).enumerate();
                let agrees = |(number, entry): (usize, u32)| match self.directory.get(number) {
                    None | Some(&NO_PLACE) => entry == NO_PLACE || self.empty_tables.binary_search(&entry).is_ok(),
                    Some(place) => *place == entry,
                };
                if self.table.is_some() || self.directory_at.is_some() || !said.all(agrees) {
                    return Err(damaged("its directory tells of other tables than came"));
                }
                self.directory_at = Some(at);
            }
            MARKER_FOOTER => {
                let footer = Header::parse(bytes, limits)?;
                if self.directory_at != Some(footer.directory.saturating_mul(SECTOR_BYTES))
                    || !is_same_disk(&footer, &self.header)
                {
                    return Err(damaged("its header and its footer differ, so it would be two disks"));
                }
                self.footer = true;
            }
            // The end: content_bytes() lets no other kind through.
            _ if self.footer => self.ended = true,
            _ => return Err(damaged("it ends without a footer")),
        }
        Ok(())
    }
}
