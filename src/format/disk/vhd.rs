//! Microsoft's virtual hard disk (VPC): a fixed one is the disk and a footer; a dynamic one begins with a copy of the
//! footer, and has a header and a table (BAT) with an entry for each block. A block begins with a bitmap of its
//! sectors.
//!
//! Which size the disk has depends on who made it: Virtual PC and QEMU's old driver go by the geometry, others by the
//! size in the footer. This and the bitmaps are taken as QEMU takes them: the size by the table of makers below, and
//! a block that is there counts whole, since it is zeros where it was never written.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::table::{File, SECTOR_BYTES, Taken, WINDOW_BYTES, be16, be32, be64};
use super::{DiskMap, Error, Limits, ReadAt, Run};
use crate::format::Format;

const FOOTER_BYTES: u64 = 512;
const HEADER_BYTES: u64 = 1024;
const FOOTER_COOKIE: &[u8] = b"conectix";
const HEADER_COOKIE: &[u8] = b"cxsparse";
/// What in a footer says which disk it is: where the header is; the maker; sizes, geometry and type.
const FOOTER_FACTS: [Range<usize>; 3] = [16..24, 28..32, 40..64];
/// Where the footer and the header keep the complement of the sum of all their other bytes.
const FOOTER_SUM_AT: usize = 64;
const HEADER_SUM_AT: usize = 36;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;
/// Who goes by the size in the footer: Hyper-V, QEMU with force_size, disk2vhd, XenServer, XenConverter, Azure.
const BY_SIZE: [&[u8]; 6] = [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS", b"wa\0\0"];
/// The largest geometry: it only says that the disk is at least that large.
const GEOMETRY_MAX_SECTORS: u64 = 65535 * 16 * 255;
const UNUSED: u32 = u32::MAX;
const ENTRY_BYTES: u64 = 4;
/// Makers use 2 MiB and 512 KiB.
const BLOCK_MIN_BYTES: u64 = 64 * 1024;
const BLOCK_MAX_BYTES: u64 = 256 << 20;

/// The walk through the disk.
pub(super) enum Map {
    /// Of a fixed one; `told` when that was done.
    Fixed { virtual_size_bytes: u64, told: bool },
    /// Of a dynamic one.
    Dynamic(Dynamic),
}

/// The walk through the table.
pub(super) struct Dynamic {
    file: File,
    virtual_size_bytes: u64,
    block_bytes: u64,
    table_at: u64,
    /// Blocks that were told.
    told: u64,
    taken: Taken,
}

impl Map {
    pub(super) async fn open(source: Arc<dyn ReadAt>, limits: Limits) -> Result<Self, Error> {
        let file = File::new(source, Format::Vhd);
        let first = file.read("the first sector", 0, FOOTER_BYTES).await?;
        let last_at = file.size_bytes() - FOOTER_BYTES;
        let last = file.read("the footer", last_at, FOOTER_BYTES).await?;
        // 1. Which of the two is the footer: they may not disagree.
        let has_copy = first.starts_with(FOOTER_COOKIE);
        let differ = FOOTER_FACTS.into_iter().any(|range| first[range.clone()] != last[range]);
        if has_copy && last.starts_with(FOOTER_COOKIE) && differ {
            return Err(file.damaged("its footer and the copy at its beginning differ, so it would be two disks"));
        }
        let footer = if has_copy { first } else { last };
        if !footer.starts_with(FOOTER_COOKIE) {
            return Err(file.refused("has no footer: it is none, or cut off"));
        }
        check_sum(&file, "footer", &footer, FOOTER_SUM_AT)?;
        // 2. What disk it is.
        let virtual_size_bytes = size_bytes(&footer);
        file.check_disk(virtual_size_bytes, limits)?;
        match (be32(&footer, 60), has_copy) {
            (FIXED, false) if virtual_size_bytes <= last_at => Ok(Self::Fixed { virtual_size_bytes, told: false }),
            (FIXED, false) => Err(file.refused(format_args!(
                "is cut off or damaged: its disk has {virtual_size_bytes} bytes, and there are only {last_at}"
            ))),
            (DYNAMIC, true) => Ok(Self::Dynamic(Dynamic::open(file, &footer, virtual_size_bytes).await?)),
            (DIFFERENCING, _) => Err(file.refused(
                "is a differencing disk and holds only a part of its disk. Merge it with its parent and send that",
            )),
            (kind, _) => Err(file.damaged(format_args!("type {kind} does not go with the place of its footer"))),
        }
    }
}

/// Size of the disk.
fn size_bytes(footer: &[u8]) -> u64 {
    let (cylinders, heads, sectors) = (be16(footer, 56), footer[58], footer[59]);
    let geometry = u64::from(cylinders) * u64::from(heads) * u64::from(sectors);
    if geometry == GEOMETRY_MAX_SECTORS || BY_SIZE.contains(&&footer[28..32]) {
        return be64(footer, 48) / SECTOR_BYTES * SECTOR_BYTES;
    }
    geometry * SECTOR_BYTES
}

fn check_sum(file: &File, what: &str, bytes: &[u8], sum_at: usize) -> Result<(), Error> {
    let sum_of = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    if be32(bytes, sum_at) != !(sum_of(bytes) - sum_of(&bytes[sum_at..sum_at + 4])) {
        return Err(file.damaged(format_args!("the checksum of its {what} is wrong")));
    }
    Ok(())
}

impl Dynamic {
    async fn open(file: File, footer: &Bytes, virtual_size_bytes: u64) -> Result<Self, Error> {
        let header_at = be64(footer, 16);
        let header = file.read("the header", header_at, HEADER_BYTES).await?;
        if !header.starts_with(HEADER_COOKIE) {
            return Err(file.damaged("there is no header where its footer says"));
        }
        check_sum(&file, "header", &header, HEADER_SUM_AT)?;
        let block_bytes = u64::from(be32(&header, 32));
        if !block_bytes.is_power_of_two() || !(BLOCK_MIN_BYTES..=BLOCK_MAX_BYTES).contains(&block_bytes) {
            return Err(file.refused(format_args!(
                "has blocks of {block_bytes} bytes; powers of two from 64 KiB to 256 MiB can be read"
            )));
        }
        let (entries, needed) = (u64::from(be32(&header, 28)), virtual_size_bytes.div_ceil(block_bytes));
        if entries < needed {
            return Err(file.damaged(format_args!("its table has {entries} entries, and its disk needs {needed}")));
        }
        let table = file.place("the table", be64(&header, 16), needed * ENTRY_BYTES)?;
        let table_at = table.start;
        let tables = vec![0..FOOTER_BYTES, header_at..header_at + HEADER_BYTES, table];
        let taken = Taken::new(&file, block_bytes, tables)?;
        Ok(Self { file, virtual_size_bytes, block_bytes, table_at, told: 0, taken })
    }

    async fn next(&mut self) -> Result<Vec<Run>, Error> {
        let left = self.virtual_size_bytes.div_ceil(self.block_bytes) - self.told;
        let length = (left * ENTRY_BYTES).min(WINDOW_BYTES);
        let window = self.file.read("the table", self.table_at + self.told * ENTRY_BYTES, length).await?;
        // A bit for each sector, in whole sectors.
        let bitmap_bytes = (self.block_bytes / SECTOR_BYTES / 8).next_multiple_of(SECTOR_BYTES);
        let mut runs = Vec::new();
        for entry in window.chunks_exact(ENTRY_BYTES as usize) {
            let entry = be32(entry, 0);
            let length = self.block_bytes.min(self.virtual_size_bytes - self.told * self.block_bytes);
            runs.push(if entry == UNUSED {
                Run::Zero { length }
            } else {
                self.taken.take(&self.file, u64::from(entry) * SECTOR_BYTES + bitmap_bytes, length)?
            });
            self.told += 1;
        }
        Ok(runs)
    }
}

#[async_trait]
impl DiskMap for Map {
    fn virtual_size_bytes(&self) -> u64 {
        match self {
            Self::Fixed { virtual_size_bytes, .. } => *virtual_size_bytes,
            Self::Dynamic(dynamic) => dynamic.virtual_size_bytes,
        }
    }

    async fn next(&mut self) -> Result<Vec<Run>, Error> {
        match self {
            Self::Fixed { told: told @ false, virtual_size_bytes } => {
                *told = true;
                Ok(vec![Run::Plain { at: 0, length: *virtual_size_bytes }])
            }
            Self::Fixed { told: true, .. } => Ok(Vec::new()),
            Self::Dynamic(dynamic) => dynamic.next().await,
        }
    }
}
