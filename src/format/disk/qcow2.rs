//! QEMU's copy-on-write format, versions 2 and 3, with everything that changes what its own disk holds: packed,
//! zero and sub-clusters. What would make it read another file, or be read with a key, is refused; its snapshots are
//! other disks and are passed over.
//!
//! An entry of the first table (L1) names a cluster with a table (L2), an entry of which names a cluster of the disk.
//! A table that claims more of the file than there is of it uses something twice: that bounds what a small file can
//! make of itself.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf as _, Bytes};
use futures_util::future::try_join_all;

use super::read::fetch;
use super::{Codec, DiskMap, Error, Limits, ReadAt, Run};

const MAGIC: u32 = 0x5146_49fb;
/// Length of a header of version 2, and the least that one of version 3 has, in bytes.
const HEADER_V2_BYTES: u64 = 72;
const HEADER_V3_BYTES: u64 = 104;
/// The largest L1 table that QEMU opens.
const L1_MAX_BYTES: u64 = 32 << 20;
/// Tables are read in pages of this size; L1 one after the other, L2 many at once.
const PAGE_BYTES: u64 = 64 << 10;
const PAGES_AT_ONCE_BYTES: u64 = 2 * PAGE_BYTES;
const PAGES_AT_ONCE: usize = 64;

/// The refcounts may be behind; they are of no use to a reader.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Bits of an entry of either table: the cluster has one user only; where it is.
const COPIED: u64 = 1 << 63;
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits of an L2 entry.
const PACKED: u64 = 1 << 62;
const ZERO: u64 = 1;
/// Packed bytes are counted in these.
const SECTOR_BYTES: u64 = 512;
/// Parts of a cluster with an extended L2 entry.
const SUBCLUSTERS: u64 = 32;
/// Deflate never gets more out of a byte.
const DEFLATE_MAX_RATIO: u64 = 1032;
/// No Zstandard frame with something in it is shorter.
const ZSTD_MIN_BYTES: u64 = 9;

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::refused(format!("The qcow2 image is damaged: {what}. `qemu-img check` tells more."))
}

/// What the header says.
#[derive(Debug, Clone, Copy)]
struct Header {
    version: u32,
    virtual_size_bytes: u64,
    cluster_bits: u32,
    extended_l2: bool,
    codec: Codec,
    /// Where L1 is, and how much of it the disk needs.
    l1_at: u64,
    l1_bytes: u64,
}

impl Header {
    async fn read(source: &dyn ReadAt, limits: Limits) -> Result<Self, Error> {
        let available = source.size_bytes().min(HEADER_V3_BYTES + 1);
        let header = fetch(source, 0..available).await?;
        Self::parse(&header, source.size_bytes(), limits)
    }

    /// `header`: the beginning of a file of `file_bytes`.
    fn parse(header: &[u8], file_bytes: u64, limits: Limits) -> Result<Self, Error> {
        let has = header.len() as u64;
        if has < HEADER_V2_BYTES || number(header, 0) != u64::from(MAGIC) {
            return Err(Error::refused("The image is no qcow2 image: it does not begin like one."));
        }
        let version = number(header, 4) as u32;
        if !matches!(version, 2 | 3) {
            return Err(Error::refused(format!("The qcow2 image has version {version}; only 2 and 3 can be read.")));
        }
        if long(header, 8) != 0 {
            return Err(Error::refused(
                "The qcow2 image has a backing file and holds only a part of its disk. `qemu-img convert` makes a whole one of it.",
            ));
        }
        let cluster_bits = number(header, 20) as u32;
        if !(9..=21).contains(&cluster_bits) {
            return Err(damaged(format!("its clusters have 2^{cluster_bits} bytes, not 2^9 to 2^21")));
        }
        let virtual_size_bytes = long(header, 24);
        limits.check(virtual_size_bytes)?;
        if number(header, 32) != 0 {
            return Err(Error::refused("The qcow2 image is encrypted. Decrypt it first."));
        }
        let (extended_l2, codec) = if version == 2 { (false, Codec::Deflate) } else { features(header, cluster_bits)? };
        let entry_bits = if extended_l2 { 4 } else { 3 };
        let entries = virtual_size_bytes.div_ceil(1 << (2 * cluster_bits - entry_bits));
        let (l1_at, l1_bytes) = (long(header, 40), entries * 8);
        let claimed_bytes = number(header, 36) * 8;
        if claimed_bytes > L1_MAX_BYTES {
            return Err(damaged(format!(
                "its L1 table has {claimed_bytes} bytes, more than the {L1_MAX_BYTES} allowed"
            )));
        }
        if l1_bytes > claimed_bytes {
            return Err(damaged(format!(
                "its L1 table has {claimed_bytes} bytes, and a disk of {virtual_size_bytes} bytes needs {l1_bytes}"
            )));
        }
        let parsed = Self { version, virtual_size_bytes, cluster_bits, extended_l2, codec, l1_at, l1_bytes };
        if entries > 0 {
            parsed.check_place("the L1 table", l1_at, l1_bytes, file_bytes)?;
        }
        Ok(parsed)
    }

    fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an L2 entry.
    fn entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Bytes of the disk that one L2 table is about.
    fn table_span_bytes(&self) -> u64 {
        self.cluster_bytes() / self.entry_bytes() * self.cluster_bytes()
    }

    /// Whether a cluster may begin at `at` with `length` bytes of use.
    fn check_place(&self, what: &str, at: u64, length: u64, file_bytes: u64) -> Result<(), Error> {
        if !at.is_multiple_of(self.cluster_bytes()) {
            return Err(damaged(format!("{what} is at byte {at}, in the middle of a cluster")));
        }
        self.check_room(what, at, length, file_bytes)
    }

    fn check_room(&self, what: &str, at: u64, length: u64, file_bytes: u64) -> Result<(), Error> {
        if at < self.cluster_bytes() {
            return Err(damaged(format!("{what} is at byte {at}, where the header is")));
        }
        match at.checked_add(length) {
            Some(end) if end <= file_bytes => Ok(()),
            Some(_) | None => Err(Error::refused(format!(
                "The qcow2 image is cut off: {what} is at byte {at} with {length} bytes, and there are only {file_bytes}. Send it again."
            ))),
        }
    }
}

/// What a header of version 3 says of extended L2 entries and of packing.
fn features(header: &[u8], cluster_bits: u32) -> Result<(bool, Codec), Error> {
    if (header.len() as u64) < HEADER_V3_BYTES {
        return Err(damaged("it ends in its header"));
    }
    let incompatible = long(header, 72);
    if incompatible & DATA_FILE != 0 {
        return Err(Error::refused(
            "The qcow2 image keeps its data in another file. `qemu-img convert` makes a whole one of it.",
        ));
    }
    if incompatible & CORRUPT != 0 {
        return Err(Error::refused("The qcow2 image is marked as corrupt. `qemu-img check -r all` may repair it."));
    }
    let unknown = incompatible & !(DIRTY | COMPRESSION | EXTENDED_L2);
    if unknown != 0 {
        return Err(Error::refused(format!(
            "The qcow2 image has features that are not known here (incompatible bits {unknown:#x})."
        )));
    }
    let length = number(header, 100);
    if length < HEADER_V3_BYTES || length > 1 << cluster_bits {
        return Err(damaged(format!("its header has {length} bytes")));
    }
    let extended_l2 = incompatible & EXTENDED_L2 != 0;
    if extended_l2 && 1 << cluster_bits < SUBCLUSTERS * SECTOR_BYTES {
        return Err(damaged(format!("clusters of 2^{cluster_bits} bytes are too small for extended L2 entries")));
    }
    let compression = if length > HEADER_V3_BYTES { header.get(104).copied().unwrap_or(0) } else { 0 };
    match (compression, incompatible & COMPRESSION != 0) {
        (0, false) => Ok((extended_l2, Codec::Deflate)),
        (1, true) => Ok((extended_l2, Codec::Zstd)),
        (other, flag) => Err(damaged(format!("compression type {other} does not go with its flag ({flag})"))),
    }
}

/// A big-endian number of 32 bits; the header has been found long enough.
fn number(header: &[u8], at: usize) -> u64 {
    header.get(at..at + 4).map_or(0, |mut bytes| u64::from(bytes.get_u32()))
}

/// One of 64 bits.
fn long(header: &[u8], at: usize) -> u64 {
    header.get(at..at + 8).map_or(0, |mut bytes| bytes.get_u64())
}

/// A part of the disk whose tables are to be looked at.
enum Part {
    /// No table: so many zeros.
    Zero(u64),
    /// A page of an L2 table, from `at` with `length` bytes.
    Page { at: u64, length: u64 },
}

/// The tables of a qcow2 image.
pub(super) struct Map {
    source: Arc<dyn ReadAt>,
    header: Header,
    /// Bytes of the disk that are planned; what has been handed out.
    planned_bytes: u64,
    done_bytes: u64,
    /// The page of L1 that is looked at, and where in L1 it begins.
    l1_page: Bytes,
    l1_page_at: u64,
    /// Bytes of the file that the tables have claimed so far.
    claimed_bytes: u64,
}

impl Map {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::Refused`] for a file that is not, or not only, a disk; [`Error::Source`].
    pub(super) async fn open(source: Arc<dyn ReadAt>, limits: Limits) -> Result<Self, Error> {
        let header = Header::read(&*source, limits).await?;
        Ok(Self {
            source,
            header,
            planned_bytes: 0,
            done_bytes: 0,
            l1_page: Bytes::new(),
            l1_page_at: 0,
            claimed_bytes: 0,
        })
    }

    /// Notes that bytes of the file are used.
    fn claim(&mut self, bytes: u64) -> Result<(), Error> {
        self.claimed_bytes += bytes;
        if self.claimed_bytes > self.source.size_bytes() {
            return Err(damaged("its clusters overlap, for they are more than it has room for"));
        }
        Ok(())
    }

    /// Checks and claims a place for tables or plain bytes.
    fn claim_place(&mut self, what: &str, at: u64, length: u64) -> Result<(), Error> {
        self.header.check_place(what, at, length, self.source.size_bytes())?;
        self.check_l1(what, at, length)?;
        self.claim(length)
    }

    fn check_l1(&self, what: &str, at: u64, length: u64) -> Result<(), Error> {
        let Header { l1_at, l1_bytes, .. } = self.header;
        if at < l1_at + l1_bytes && l1_at < at + length {
            return Err(damaged(format!("{what} is at byte {at}, where the L1 table is")));
        }
        Ok(())
    }

    /// Where the L2 table is that tells of that byte of the disk, if there is one.
    async fn table(&mut self, disk_at: u64) -> Result<Option<u64>, Error> {
        let at = disk_at / self.header.table_span_bytes() * 8;
        let within = self.l1_page_at..self.l1_page_at + self.l1_page.len() as u64;
        if !within.contains(&at) {
            let start = self.header.l1_at + at;
            self.l1_page = fetch(&*self.source, start..start + PAGE_BYTES.min(self.header.l1_bytes - at)).await?;
            self.l1_page_at = at;
        }
        let entry = long(&self.l1_page, (at - self.l1_page_at) as usize);
        if entry & !(COPIED | OFFSET) != 0 {
            return Err(damaged(format!("the L1 entry {entry:#x} has reserved bits")));
        }
        Ok(Some(entry & OFFSET).filter(|at| *at != 0))
    }

    /// What to look at next: as many pages as are read at once.
    async fn plan(&mut self) -> Result<Vec<Part>, Error> {
        let header = self.header;
        let page_bytes = PAGE_BYTES.min(header.cluster_bytes());
        let mut parts: Vec<Part> = Vec::new();
        let (mut pages, mut pages_bytes) = (0, 0);
        while self.planned_bytes < header.virtual_size_bytes
            && pages < PAGES_AT_ONCE
            && pages_bytes < PAGES_AT_ONCE_BYTES
        {
            let left = header.virtual_size_bytes - self.planned_bytes;
            let within = self.planned_bytes % header.table_span_bytes();
            let Some(table) = self.table(self.planned_bytes).await? else {
                let length = left.min(header.table_span_bytes() - within);
                self.planned_bytes += length;
                match parts.last_mut() {
                    Some(Part::Zero(before)) => *before += length,
                    Some(_) | None => parts.push(Part::Zero(length)),
                }
                continue;
            };
            let entries = left.div_ceil(header.cluster_bytes()).min(page_bytes / header.entry_bytes());
            let length = entries * header.entry_bytes();
            let skipped = within / header.cluster_bytes() * header.entry_bytes();
            if skipped == 0 {
                self.header.check_place("an L2 table", table, length, self.source.size_bytes())?;
            }
            let at = table + skipped;
            self.header.check_room("an L2 table", at, length, self.source.size_bytes())?;
            self.check_l1("an L2 table", at, length)?;
            self.claim(length)?;
            parts.push(Part::Page { at, length });
            self.planned_bytes += left.min(entries * header.cluster_bytes());
            pages += 1;
            pages_bytes += length;
        }
        Ok(parts)
    }

    /// The runs of one page.
    fn page(&mut self, mut page: Bytes, runs: &mut Runs) -> Result<(), Error> {
        while page.has_remaining() {
            let entry = page.get_u64();
            let bitmap = if self.header.extended_l2 { page.get_u64() } else { 0 };
            let left = self.header.cluster_bytes().min(self.header.virtual_size_bytes - self.done_bytes);
            if entry & PACKED != 0 {
                self.packed(entry, runs)?;
            } else {
                self.cluster(entry, bitmap, left, runs)?;
            }
            self.done_bytes += left;
        }
        Ok(())
    }

    /// A cluster of which the disk has `left` bytes.
    fn cluster(&mut self, entry: u64, bitmap: u64, left: u64, runs: &mut Runs) -> Result<(), Error> {
        let zero_is_known = self.header.version > 2 && !self.header.extended_l2;
        let known = COPIED | OFFSET | if zero_is_known { ZERO } else { 0 };
        if entry & !known != 0 {
            return Err(damaged(format!("the L2 entry {entry:#x} has reserved bits")));
        }
        let at = entry & OFFSET;
        if self.header.extended_l2 {
            return self.subclusters(at, bitmap, left, runs);
        }
        if at == 0 || entry & ZERO != 0 {
            runs.add(Run::Zero { length: left });
            return Ok(());
        }
        self.claim_place("a cluster", at, left)?;
        runs.add(Run::Plain { at, length: left });
        Ok(())
    }

    /// A cluster whose parts are there or not, each for itself: the lower half of the bitmap says which are, the
    /// upper half which are zeros.
    fn subclusters(&mut self, at: u64, bitmap: u64, left: u64, runs: &mut Runs) -> Result<(), Error> {
        let (there, zero) = (bitmap & u64::from(u32::MAX), bitmap >> 32);
        if there & zero != 0 {
            return Err(damaged(format!("the bitmap {bitmap:#x} has a subcluster both ways")));
        }
        if there == 0 {
            runs.add(Run::Zero { length: left });
            return Ok(());
        }
        let part_bytes = self.header.cluster_bytes() / SUBCLUSTERS;
        self.claim_place("a cluster", at, 0)?;
        for index in 0..left.div_ceil(part_bytes) {
            let start = index * part_bytes;
            let length = part_bytes.min(left - start);
            if there >> index & 1 == 0 {
                runs.add(Run::Zero { length });
                continue;
            }
            self.header.check_room("a subcluster", at + start, length, self.source.size_bytes())?;
            self.check_l1("a subcluster", at + start, length)?;
            self.claim(length)?;
            runs.add(Run::Plain { at: at + start, length });
        }
        Ok(())
    }

    fn packed(&mut self, entry: u64, runs: &mut Runs) -> Result<(), Error> {
        // Where it begins, and in the bits above that in how many further sectors it ends.
        let at_bits = 62 - (self.header.cluster_bits - 8);
        let at = entry & ((1 << at_bits) - 1);
        let sectors = (entry & !(COPIED | PACKED)) >> at_bits;
        self.header.check_room("a compressed cluster", at, 1, self.source.size_bytes())?;
        // The last sector of the file need not be whole.
        let end = ((at / SECTOR_BYTES + 1 + sectors) * SECTOR_BYTES).min(self.source.size_bytes());
        self.check_l1("a compressed cluster", at, 1)?;
        // Others may share its last sector: count what it has at the very least.
        let cluster_bytes = self.header.cluster_bytes();
        self.claim(match self.header.codec {
            Codec::Zstd => ZSTD_MIN_BYTES,
            Codec::Deflate | Codec::Zlib | Codec::Grain { .. } => (cluster_bytes / DEFLATE_MAX_RATIO).max(1),
        })?;
        let (length, codec) = ((end - at) as u32, self.header.codec);
        runs.add(Run::Packed { at, length, codec, unpacked: cluster_bytes as u32 });
        Ok(())
    }
}

/// Runs, of which neighbours are made one.
#[derive(Default)]
struct Runs(Vec<Run>);

impl Runs {
    fn add(&mut self, run: Run) {
        match (self.0.last_mut(), run) {
            (Some(Run::Zero { length: before }), Run::Zero { length }) => *before += length,
            (Some(Run::Plain { at: start, length: before }), Run::Plain { at, length }) if *start + *before == at => {
                *before += length;
            }
            _ => self.0.push(run),
        }
    }
}

#[async_trait]
impl DiskMap for Map {
    fn virtual_size_bytes(&self) -> u64 {
        self.header.virtual_size_bytes
    }

    async fn next(&mut self) -> Result<Vec<Run>, Error> {
        let parts = self.plan().await?;
        let source = Arc::clone(&self.source);
        let pages = try_join_all(parts.iter().map(async |part| match part {
            Part::Zero(_) => Ok(Bytes::new()),
            Part::Page { at, length } => fetch(&*source, *at..at + length).await,
        }))
        .await?;
        let mut runs = Runs::default();
        for (part, page) in parts.iter().zip(pages) {
            match part {
                Part::Zero(length) => {
                    self.done_bytes += length;
                    runs.add(Run::Zero { length: *length });
                }
                Part::Page { .. } => self.page(page, &mut runs)?,
            }
        }
        Ok(runs.0)
    }
}
