//! Hyper-V's virtual hard disk, version 2.
//!
//! ```text
//!   identifier ── two headers, the newer one counts: where the log is, and whether it is in use
//!              ── two region tables: where the metadata and the block table (BAT) are
//!   metadata: size of the disk, of its blocks and its sectors      BAT: state and place of each block
//! ```
//!
//! Everything but the blocks has checksums. A log that is in use holds changes of the tables that a writer did not
//! finish: the file is then refused as `qemu-img convert` refuses it, since its tables may be from two moments.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::table::{File, Taken, WINDOW_BYTES, le16, le32, le64};
use super::{DiskMap, Error, Limits, ReadAt, Run};
use crate::format::Format;

/// What everything in the file is aligned to, but for what is before the first one.
const MIB: u64 = 1 << 20;
const IDENTIFIER: &[u8] = b"vhdxfile";
const HEADERS_AT: [u64; 2] = [64 << 10, 128 << 10];
const HEADER_BYTES: u64 = 4096;
const HEADER_MAGIC: &[u8] = b"head";
const REGIONS_AT: [u64; 2] = [192 << 10, 256 << 10];
const REGIONS_BYTES: u64 = 64 << 10;
const REGIONS_MAGIC: &[u8] = b"regi";
const REGIONS_MAX: usize = 2047;
const METADATA_TABLE_BYTES: u64 = 64 << 10;
const METADATA_MAGIC: &[u8] = b"metadata";
const METADATA_MAX: usize = 1023;
const ENTRY_BYTES: usize = 32;
/// Where all but the BAT keep their checksum.
const SUM_AT: usize = 4;

/// Ids of regions and of metadata, as they stand in the file.
const BAT: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
const PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
const DISK_SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
const DISK_ID: [u8; 16] = *b"\xab\x12\xca\xbe\xe6\xb2\x23\x45\x93\xef\xc3\x09\xe0\x00\xc7\x46";
const LOGICAL_SECTOR: [u8; 16] = *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
const PHYSICAL_SECTOR: [u8; 16] = *b"\xc7\x48\xa3\xcd\x5d\x44\x71\x44\x9c\xc9\xe9\x88\x52\x51\xc5\x56";
const PARENT_LOCATOR: [u8; 16] = *b"\x2d\x5f\xd3\xa8\x0b\xb3\x4d\x45\xab\xf7\xd3\xd8\x48\x34\xab\x0c";

/// An entry that a reader has to know, in the region table and in that of the metadata.
const REGION_REQUIRED: u32 = 1;
const METADATA_REQUIRED: u32 = 1 << 2;
const HAS_PARENT: u32 = 1 << 1;

/// Sectors that one entry for a bitmap in the BAT is about.
const BITMAP_SECTORS: u64 = 1 << 23;
const BLOCK_MAX_BYTES: u64 = 256 * MIB;
const BAT_ENTRY_BYTES: u64 = 8;
/// States of a block: zeros, for four reasons and in one old spelling; all there; partly there, over a parent.
const ZEROS: [u64; 5] = [0, 1, 2, 3, 5];
const PRESENT: u64 = 6;
const PARTLY_PRESENT: u64 = 7;

/// The walk through the BAT.
pub(super) struct Map {
    file: File,
    disk: Disk,
    bat_at: u64,
    /// Blocks that were told.
    told: u64,
    taken: Taken,
}

/// What the metadata say.
#[derive(Debug, Clone, Copy)]
struct Disk {
    virtual_size_bytes: u64,
    block_bytes: u64,
    /// Blocks after which the BAT has an entry for a bitmap.
    chunk_blocks: u64,
}

impl Disk {
    fn blocks(self) -> u64 {
        self.virtual_size_bytes.div_ceil(self.block_bytes)
    }

    /// Where in the BAT the entry of a block is.
    fn entry(self, block: u64) -> u64 {
        block + block / self.chunk_blocks
    }
}

impl Map {
    pub(super) async fn open(source: Arc<dyn ReadAt>, limits: Limits) -> Result<Self, Error> {
        let file = File::new(source, Format::Vhdx);
        if !file.read("the identifier", 0, IDENTIFIER.len() as u64).await?.starts_with(IDENTIFIER) {
            return Err(file.refused("does not begin like one"));
        }
        // 1. Whether the tables are whole.
        let log = check_header(&file).await?;
        // 2. Where they are.
        let (bat, metadata) = regions(&file).await?;
        let items = Items::read(&file, metadata.clone()).await?;
        // 3. What disk it is, and whether the BAT is long enough for it.
        let disk = items.disk(&file, limits).await?;
        let needed = disk.blocks().checked_sub(1).map_or(0, |last| disk.entry(last) + 1) * BAT_ENTRY_BYTES;
        if bat.end - bat.start < needed {
            return Err(file.damaged(format_args!(
                "its block table has {} bytes, and its disk needs {needed}",
                bat.end - bat.start
            )));
        }
        let bat_at = bat.start;
        let taken = Taken::new(&file, MIB, vec![0..MIB, log, metadata, bat])?;
        Ok(Self { file, disk, bat_at, told: 0, taken })
    }
}

/// Whether the newer of the headers that are whole says that the file was closed; and where the log is.
async fn check_header(file: &File) -> Result<Range<u64>, Error> {
    let mut newest: Option<Bytes> = None;
    for at in HEADERS_AT {
        let header = file.read("a header", at, HEADER_BYTES).await?;
        if header.starts_with(HEADER_MAGIC)
            && le32(&header, SUM_AT) == checksum(&header)
            && newest.as_ref().is_none_or(|other| le64(&header, 8) > le64(other, 8))
        {
            newest = Some(header);
        }
    }
    let header = newest.ok_or_else(|| file.damaged("neither of its headers is whole"))?;
    if le16(&header, 66) != 1 {
        return Err(file.refused(format_args!("has version {}; only 1 can be read", le16(&header, 66))));
    }
    if header[48..64].iter().any(|byte| *byte != 0) {
        return Err(file.refused(
            "was not closed: its log holds changes that are not in its tables yet. Close it, or repair it with `qemu-img check -r all`, and send it again",
        ));
    }
    file.place("the log", le64(&header, 72), u64::from(le32(&header, 68)))
}

/// Where the BAT and the metadata are.
async fn regions(file: &File) -> Result<(Range<u64>, Range<u64>), Error> {
    let mut table = None;
    for at in REGIONS_AT {
        let bytes = file.read("a region table", at, REGIONS_BYTES).await?;
        if bytes.starts_with(REGIONS_MAGIC) && le32(&bytes, SUM_AT) == checksum(&bytes) {
            table = Some(bytes);
            break;
        }
    }
    let table = table.ok_or_else(|| file.damaged("neither of its region tables is whole"))?;
    let count = le32(&table, 8) as usize;
    if count > REGIONS_MAX {
        return Err(file.damaged(format_args!("its region table has {count} entries")));
    }
    let (mut bat, mut metadata) = (None, None);
    for entry in table[16..].chunks_exact(ENTRY_BYTES).take(count) {
        let region = match &entry[..16] {
            id if id == BAT => &mut bat,
            id if id == METADATA => &mut metadata,
            _ if le32(entry, 28) & REGION_REQUIRED != 0 => {
                return Err(file.refused("needs a region that is not known here"));
            }
            _ => continue,
        };
        let (at, length) = (le64(entry, 16), u64::from(le32(entry, 24)));
        if at < MIB || at % MIB != 0 || length == 0 || length % MIB != 0 {
            return Err(file.damaged(format_args!("a region is at byte {at} with {length} bytes")));
        }
        if region.replace(file.place("a region", at, length)?).is_some() {
            return Err(file.damaged("it has a region twice"));
        }
    }
    bat.zip(metadata).ok_or_else(|| file.damaged("it has no block table or no metadata"))
}

/// The table of the metadata.
struct Items {
    region: Range<u64>,
    table: Bytes,
    count: usize,
}

impl Items {
    async fn read(file: &File, region: Range<u64>) -> Result<Self, Error> {
        let table = file.read("the metadata", region.start, METADATA_TABLE_BYTES).await?;
        let count = usize::from(le16(&table, 10));
        if !table.starts_with(METADATA_MAGIC) || count > METADATA_MAX {
            return Err(file.damaged("its metadata have no table"));
        }
        Ok(Self { region, table, count })
    }

    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        self.table[ENTRY_BYTES..].chunks_exact(ENTRY_BYTES).take(self.count)
    }

    /// An item of `N` bytes.
    async fn item<const N: usize>(&self, file: &File, id: [u8; 16], what: &str) -> Result<[u8; N], Error> {
        let mut found = self.entries().filter(|entry| entry[..16] == id);
        let entry = found.next().ok_or_else(|| file.damaged(format_args!("it does not tell {what}")))?;
        if found.next().is_some() {
            return Err(file.damaged(format_args!("it tells {what} twice")));
        }
        let (at, length) = (u64::from(le32(entry, 16)), u64::from(le32(entry, 20)));
        let inside = at >= METADATA_TABLE_BYTES && self.region.start + at + length <= self.region.end;
        if length != N as u64 || !inside {
            return Err(file.damaged(format_args!("it tells {what} with {length} bytes at {at}")));
        }
        let bytes = file.read(what, self.region.start + at, length).await?;
        bytes.first_chunk().copied().ok_or_else(|| file.damaged(format_args!("it does not tell {what}")))
    }

    async fn disk(&self, file: &File, limits: Limits) -> Result<Disk, Error> {
        const KNOWN: [[u8; 16]; 6] = [PARAMETERS, DISK_SIZE, DISK_ID, LOGICAL_SECTOR, PHYSICAL_SECTOR, PARENT_LOCATOR];
        let unknown =
            |entry: &&[u8]| le32(entry, 24) & METADATA_REQUIRED != 0 && KNOWN.iter().all(|id| entry[..16] != *id);
        if self.entries().any(|entry| unknown(&entry)) {
            return Err(file.refused("needs metadata that are not known here"));
        }
        let parameters: [u8; 8] = self.item(file, PARAMETERS, "the size of its blocks").await?;
        let (block_bytes, flags) = (u64::from(le32(&parameters, 0)), le32(&parameters, 4));
        if flags & HAS_PARENT != 0 || self.entries().any(|entry| entry[..16] == PARENT_LOCATOR) {
            return Err(file.refused(
                "is a differencing disk and holds only a part of its disk. Merge it with its parent and send that",
            ));
        }
        if !block_bytes.is_power_of_two() || !(MIB..=BLOCK_MAX_BYTES).contains(&block_bytes) {
            return Err(file.damaged(format_args!("its blocks have {block_bytes} bytes")));
        }
        let sector_bytes =
            u64::from(u32::from_le_bytes(self.item(file, LOGICAL_SECTOR, "the size of its sectors").await?));
        if !matches!(sector_bytes, 512 | 4096) {
            return Err(file.damaged(format_args!("its sectors have {sector_bytes} bytes")));
        }
        let virtual_size_bytes = u64::from_le_bytes(self.item(file, DISK_SIZE, "the size of its disk").await?);
        file.check_disk(virtual_size_bytes, limits)?;
        if virtual_size_bytes % sector_bytes != 0 {
            return Err(file.damaged(format_args!("its disk of {virtual_size_bytes} bytes ends within a sector")));
        }
        Ok(Disk { virtual_size_bytes, block_bytes, chunk_blocks: BITMAP_SECTORS * sector_bytes / block_bytes })
    }
}

#[async_trait]
impl DiskMap for Map {
    fn virtual_size_bytes(&self) -> u64 {
        self.disk.virtual_size_bytes
    }

    async fn next(&mut self) -> Result<Vec<Run>, Error> {
        // Within a chunk, the entries of the blocks stand together.
        let in_chunk = self.disk.chunk_blocks - self.told % self.disk.chunk_blocks;
        let count = (self.disk.blocks() - self.told).min(in_chunk).min(WINDOW_BYTES / BAT_ENTRY_BYTES);
        let at = self.bat_at + self.disk.entry(self.told) * BAT_ENTRY_BYTES;
        let window = self.file.read("the block table", at, count * BAT_ENTRY_BYTES).await?;
        let mut runs = Vec::new();
        for entry in window.chunks_exact(BAT_ENTRY_BYTES as usize) {
            let entry = le64(entry, 0);
            let (state, at) = (entry & 7, entry / MIB * MIB);
            let length = self.disk.block_bytes.min(self.disk.virtual_size_bytes - self.told * self.disk.block_bytes);
            runs.push(match state {
                PRESENT => self.taken.take(&self.file, at, length)?,
                PARTLY_PRESENT => {
                    return Err(self.file.damaged("a block is partly in a parent, which it does not have"));
                }
                _ if ZEROS.contains(&state) => Run::Zero { length },
                _ => return Err(self.file.damaged(format_args!("block {} has the state {state}", self.told))),
            });
            self.told += 1;
        }
        Ok(runs)
    }
}

/// CRC-32C, with the place of the checksum itself as zeros.
fn checksum(bytes: &[u8]) -> u32 {
    let place = SUM_AT..SUM_AT + 4;
    !bytes.iter().enumerate().fold(u32::MAX, |sum, (at, byte)| {
        let byte = if place.contains(&at) { 0 } else { *byte };
        (0..8).fold(sum ^ u32::from(byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(sum & 1)))
    })
}
