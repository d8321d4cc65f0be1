//! VMware's virtual machine disk in one file: monolithicSparse, where grains (blocks) lie as they are, and
//! streamOptimized, where they are packed behind markers and the directory of their tables may stand at the end.
//!
//! ```text
//!   header, descriptor (text) ── directory: where the tables are ── tables: where 512 grains are, each
//!   streamOptimized: header, descriptor, grains and tables behind markers, directory, footer = header, end marker
//! ```

pub mod stream;

use std::collections::VecDeque;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::try_join_all;

use super::table::{self, File, SECTOR_BYTES, Taken, WINDOW_BYTES, le16, le32, le64};
use super::{Codec, DiskMap, Error, Limits, ReadAt, Run};
use crate::format::Format;

const HEADER_BYTES: u64 = 512;
const MAGIC: &[u8] = b"KDMV";
const VERSION_MAX: u32 = 3;
const FLAG_ZERO_GRAINS: u32 = 1 << 2;
const FLAG_PACKED: u32 = 1 << 16;
const FLAG_MARKERS: u32 = 1 << 17;
/// What the header says instead of where the directory is, when the footer says it.
const AT_END: u64 = u64::MAX;
/// What a transfer as text would change.
const LINE_ENDS: &[u8] = b"\n \r\n";
/// The end of a file with a footer: its marker, the footer, the end marker.
const TRAILER_BYTES: u64 = 3 * SECTOR_BYTES;
const MARKER_FOOTER: u32 = 3;
const MARKER_END: u32 = 0;
/// Longer descriptors belong to disks of many files.
const DESCRIPTOR_MAX_BYTES: u64 = 64 * 1024;
/// Of what the descriptor says, so much is shown.
const SHOWN_CHARS: usize = 40;
/// Sectors of a grain: the format asks for more than 8, and what is unpacked at once has a limit.
const GRAIN_SECTORS: RangeInclusive<u64> = 16..=4096;
const TABLE_ENTRIES_MAX: u64 = 512;
const ENTRY_BYTES: u64 = 4;
/// Tables that are read at once.
const TABLES_AT_ONCE: usize = 64;
/// An entry of the directory or a table without a table or a grain: zeros.
const NO_PLACE: u32 = 0;
/// An entry of a table for a grain of zeros, in files with that flag.
const ZERO_GRAIN: u32 = 1;

/// What header and footer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    version: u32,
    flags: u32,
    sectors: u64,
    grain_sectors: u64,
    descriptor: (u64, u64),
    table_entries: u64,
    directory: u64,
    overhead_sectors: u64,
    compression: u16,
}

impl Header {
    fn parse(bytes: &[u8], limits: Limits) -> Result<Self, Error> {
        if !bytes.starts_with(MAGIC) {
            return Err(refused(
                "does not begin like one of a single file (monolithicSparse, streamOptimized). `qemu-img convert` makes one of it",
            ));
        }
        let header = Self {
            version: le32(bytes, 4),
            flags: le32(bytes, 8),
            sectors: le64(bytes, 12),
            grain_sectors: le64(bytes, 20),
            descriptor: (le64(bytes, 28), le64(bytes, 36)),
            table_entries: u64::from(le32(bytes, 44)),
            directory: le64(bytes, 56),
            overhead_sectors: le64(bytes, 64),
            compression: le16(bytes, 77),
        };
        if !(1..=VERSION_MAX).contains(&header.version) {
            return Err(refused(format_args!("has version {}; 1 to {VERSION_MAX} can be read", header.version)));
        }
        if bytes.get(73..77) != Some(LINE_ENDS) {
            return Err(damaged("its line ends were changed, as by a transfer as text"));
        }
        if !header.grain_sectors.is_power_of_two() || !GRAIN_SECTORS.contains(&header.grain_sectors) {
            return Err(refused(format_args!(
                "has grains of {} sectors; powers of two from 16 to 4096 can be read",
                header.grain_sectors
            )));
        }
        if !(1..=TABLE_ENTRIES_MAX).contains(&header.table_entries) {
            return Err(damaged(format_args!("its tables have {} entries", header.table_entries)));
        }
        let packing = (header.compression, header.flags & FLAG_PACKED != 0, header.flags & FLAG_MARKERS != 0);
        if !matches!(packing, (0, false, false) | (1, true, true)) {
            return Err(damaged(format_args!(
                "compression {} does not go with its flags {:#x}",
                header.compression, header.flags
            )));
        }
        table::check_disk(Format::Vmdk, header.sectors.saturating_mul(SECTOR_BYTES), limits)?;
        Ok(header)
    }

    fn is_packed(&self) -> bool {
        self.flags & FLAG_PACKED != 0
    }

    /// Whether the directory is at the end of the file, and the header for it in the footer.
    fn is_at_end(&self) -> bool {
        self.directory == AT_END
    }

    /// Where the descriptor is.
    fn descriptor(&self) -> Result<Range<u64>, Error> {
        let (at, length) = self.descriptor;
        let length = length.saturating_mul(SECTOR_BYTES);
        if at == 0 || length == 0 {
            return Err(refused("has no descriptor: it is one of the files of a larger disk"));
        }
        if length > DESCRIPTOR_MAX_BYTES {
            return Err(refused(format_args!("has a descriptor of {length} bytes, too much for a single file")));
        }
        let at = at.saturating_mul(SECTOR_BYTES);
        Ok(at..at.saturating_add(length))
    }

    fn virtual_size_bytes(&self) -> u64 {
        self.sectors * SECTOR_BYTES
    }

    fn grain_bytes(&self) -> u64 {
        self.grain_sectors * SECTOR_BYTES
    }

    /// Most that a packed grain and its marker take: packing makes nothing much longer.
    fn packed_max_bytes(&self) -> u64 {
        (self.grain_bytes() + self.grain_bytes() / 8 + 1024).next_multiple_of(SECTOR_BYTES)
    }

    fn table_bytes(&self) -> u64 {
        self.table_entries * ENTRY_BYTES
    }

    /// Tables that the disk needs, with or without a grain in them.
    fn tables(&self) -> u64 {
        self.virtual_size_bytes().div_ceil(self.table_span_bytes())
    }

    /// Whether an entry of a table is for a grain of zeros.
    fn is_zero(&self, entry: u32) -> bool {
        entry == NO_PLACE || entry == ZERO_GRAIN && self.flags & FLAG_ZERO_GRAINS != 0
    }

    /// Bytes of the disk that a table is about.
    fn table_span_bytes(&self) -> u64 {
        self.table_entries * self.grain_bytes()
    }
}

/// Whether the descriptor tells of this one file, and of nothing else.
fn check_descriptor(descriptor: &[u8], header: &Header) -> Result<(), Error> {
    let text = descriptor.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let mut extents = 0;
    for line in text.lines().map(str::trim) {
        let (key, value) = line.split_once('=').map_or((line, ""), |(key, value)| (key.trim(), value.trim()));
        let value = value.trim_matches('"');
        match key {
            "createType" if !matches!(value, "monolithicSparse" | "streamOptimized") => {
                let value: String = value.chars().take(SHOWN_CHARS).collect();
                return Err(refused(format_args!(
                    "has the type {value:?}; monolithicSparse and streamOptimized can be read"
                )));
            }
            "parentCID" if !value.eq_ignore_ascii_case("ffffffff") => return Err(has_parent()),
            "parentFileNameHint" => return Err(has_parent()),
            _ => {}
        }
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
            extents += 1;
            let (sectors, kind) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next());
            if sectors != Some(header.sectors) || kind != Some("SPARSE") {
                return Err(refused(format_args!(
                    "has a descriptor that tells of other data than the {} sectors in this file",
                    header.sectors
                )));
            }
        }
    }
    if extents != 1 {
        return Err(refused(format_args!("has a descriptor with {extents} files of data; one can be read")));
    }
    Ok(())
}

fn has_parent() -> Error {
    refused("has a parent and holds only a part of its disk. Clone it to a whole disk and send that")
}

/// The header at the end of the file, which says where the directory is.
fn check_footer(trailer: &[u8], first: &Header, limits: Limits) -> Result<Header, Error> {
    let (marker, rest) = trailer.split_at(SECTOR_BYTES as usize);
    let (footer, end) = rest.split_at(SECTOR_BYTES as usize);
    let is_marker = |bytes: &[u8], kind| le32(bytes, 8) == 0 && le32(bytes, 12) == kind;
    if !is_marker(marker, MARKER_FOOTER)
        || !is_marker(end, MARKER_END)
        || le64(end, 0) != 0
        || !footer.starts_with(MAGIC)
    {
        return Err(refused("has no footer where one has to be: it is cut off, or something follows it"));
    }
    let footer = Header::parse(footer, limits)?;
    if footer.is_at_end() || !is_same_disk(&footer, first) {
        return Err(damaged("its header and its footer differ, so it would be two disks"));
    }
    Ok(footer)
}

/// Whether two headers tell of the same disk, wherever its directory is.
fn is_same_disk(one: &Header, other: &Header) -> bool {
    let (directory, overhead_sectors) = (one.directory, one.overhead_sectors);
    *one == Header { directory, overhead_sectors, ..*other }
}

fn damaged(what: impl Display) -> Error {
    table::damaged(Format::Vmdk, what)
}

fn refused(what: impl Display) -> Error {
    table::refused(Format::Vmdk, what)
}

/// The walk through the tables.
pub(super) struct Map {
    file: File,
    header: Header,
    directory_at: u64,
    /// Entries of the directory that were told.
    told: u64,
    /// Those that were read after them.
    entries: VecDeque<u32>,
    /// Bytes of all tables that were read.
    tables_bytes: u64,
    /// Where grains are that are not packed; those that are say themselves where on the disk they belong.
    taken: Taken,
}

impl Map {
    pub(super) async fn open(source: Arc<dyn ReadAt>, limits: Limits) -> Result<Self, Error> {
        let file = File::new(source, Format::Vmdk);
        let first = Header::parse(&file.read("the header", 0, HEADER_BYTES).await?, limits)?;
        let place = first.descriptor()?;
        let descriptor = file.read("the descriptor", place.start, place.end - place.start).await?;
        check_descriptor(&descriptor, &first)?;
        let header = if first.is_at_end() {
            let trailer_at = file.size_bytes().saturating_sub(TRAILER_BYTES);
            check_footer(&file.read("the footer", trailer_at, TRAILER_BYTES).await?, &first, limits)?
        } else {
            first
        };
        let directory_at = header.directory.saturating_mul(SECTOR_BYTES);
        let directory = file.place("the directory", directory_at, header.tables() * ENTRY_BYTES)?;
        let taken = Taken::new(&file, header.grain_bytes(), vec![0..HEADER_BYTES, place, directory])?;
        Ok(Self { file, header, directory_at, told: 0, entries: VecDeque::new(), tables_bytes: 0, taken })
    }

    /// The next entries of the directory, with as many tables as are read at once. None at the end.
    async fn directory_entries(&mut self) -> Result<Vec<u32>, Error> {
        if self.entries.is_empty() {
            let length = ((self.header.tables() - self.told) * ENTRY_BYTES).min(WINDOW_BYTES);
            let window = self.file.read("the directory", self.directory_at + self.told * ENTRY_BYTES, length).await?;
            self.entries.extend(window.chunks_exact(ENTRY_BYTES as usize).map(|entry| le32(entry, 0)));
        }
        let mut tables = 0;
        let count = self.entries.iter().take_while(|entry| {
            tables += usize::from(**entry != NO_PLACE);
            tables <= TABLES_AT_ONCE
        });
        let count = count.count();
        Ok(self.entries.drain(..count).collect())
    }

    /// What a table says of the disk from `start` on.
    fn grains(&mut self, table: &[u8], start: u64, starts: &[u32], runs: &mut Vec<Run>) -> Result<(), Error> {
        let disk_bytes = self.header.virtual_size_bytes();
        let grain_starts = (start..disk_bytes).step_by(self.header.grain_bytes() as usize);
        for (entry, start) in table.chunks_exact(ENTRY_BYTES as usize).zip(grain_starts) {
            let entry = le32(entry, 0);
            let length = self.header.grain_bytes().min(disk_bytes - start);
            let at = u64::from(entry) * SECTOR_BYTES;
            runs.push(if self.header.is_zero(entry) {
                Run::Zero { length }
            } else if self.header.is_packed() {
                // Its marker says how long it is; here it is enough to read no further than to the next one.
                let next = starts.get(starts.partition_point(|other| *other <= entry));
                let next_at = next.map_or(u64::MAX, |next| u64::from(*next) * SECTOR_BYTES);
                let end = next_at.min(self.file.size_bytes()).min(at + self.header.packed_max_bytes());
                let place = self.file.place("a grain", at, end.saturating_sub(at).max(SECTOR_BYTES))?;
                let (packed, sector) = ((place.end - at) as u32, start / SECTOR_BYTES);
                Run::Packed { at, length: packed, codec: Codec::Grain { sector }, unpacked: length as u32 }
            } else {
                self.taken.take(&self.file, at, length)?
            });
        }
        Ok(())
    }
}

#[async_trait]
impl DiskMap for Map {
    fn virtual_size_bytes(&self) -> u64 {
        self.header.virtual_size_bytes()
    }

    async fn next(&mut self) -> Result<Vec<Run>, Error> {
        // 1. Tables, many at once.
        let entries = self.directory_entries().await?;
        let places = entries.iter().filter(|entry| **entry != NO_PLACE).map(|entry| u64::from(*entry) * SECTOR_BYTES);
        let (file, table_bytes) = (&self.file, self.header.table_bytes());
        let tables = try_join_all(places.map(|at| file.read("a table", at, table_bytes))).await?;
        self.tables_bytes += table_bytes * tables.len() as u64;
        if self.tables_bytes > self.file.size_bytes() {
            return Err(self.file.damaged("its tables share places: together they are longer than the file"));
        }
        // 2. Where the grains begin, in the order of the file.
        let all = tables.iter().flat_map(|table| table.chunks_exact(ENTRY_BYTES as usize));
        let mut starts: Vec<u32> =
            all.map(|entry| le32(entry, 0)).filter(|entry| !self.header.is_zero(*entry)).collect();
        starts.sort_unstable();
        // 3. In the order of the disk.
        let (mut runs, mut tables) = (Vec::new(), tables.into_iter());
        for entry in entries {
            let start = self.told * self.header.table_span_bytes();
            let length = self.header.table_span_bytes().min(self.virtual_size_bytes() - start);
            match (entry != NO_PLACE).then(|| tables.next()).flatten() {
                Some(table) => self.grains(&table, start, &starts, &mut runs)?,
                None => runs.push(Run::Zero { length }),
            }
            self.told += 1;
        }
        Ok(runs)
    }
}
