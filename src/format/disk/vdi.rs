//! VirtualBox's disk image: a header, a map with an entry for each block of the disk, the blocks.

use std::sync::Arc;

use async_trait::async_trait;

use super::table::{File, SECTOR_BYTES, Taken, WINDOW_BYTES, le32, le64};
use super::{DiskMap, Error, Limits, ReadAt, Run};
use crate::format::Format;

const HEADER_BYTES: u64 = 512;
const SIGNATURE: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
/// Types of images: one that grows, and one that has all blocks from the beginning.
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;
/// Entries from this one on are blocks of zeros, given back (this one) or never written.
const DISCARDED: u32 = 0xffff_fffe;
const ENTRY_BYTES: u64 = 4;
/// VirtualBox makes blocks of 1 MiB unless it is told otherwise.
const BLOCK_MIN_BYTES: u64 = 64 << 10;
const BLOCK_MAX_BYTES: u64 = 256 << 20;

/// The walk through the map.
pub(super) struct Map {
    file: File,
    virtual_size_bytes: u64,
    block_bytes: u64,
    map_at: u64,
    data_at: u64,
    /// Blocks that were told.
    told: u64,
    taken: Taken,
}

impl Map {
    pub(super) async fn open(source: Arc<dyn ReadAt>, limits: Limits) -> Result<Self, Error> {
        let file = File::new(source, Format::Vdi);
        let header = file.read("the header", 0, HEADER_BYTES).await?;
        // 1. Whose disk it is.
        if le32(&header, 0x40) != SIGNATURE {
            return Err(file.refused("does not begin like one"));
        }
        let (version, kind) = (le32(&header, 0x44), le32(&header, 0x4c));
        if version != VERSION {
            return Err(file.refused(format_args!(
                "has version {}.{}; only 1.1 can be read",
                version >> 16,
                version & 0xffff
            )));
        }
        let (link, parent) = (header.slice(0x1a8..0x1b8), header.slice(0x1b8..0x1c8));
        if !matches!(kind, DYNAMIC | STATIC) || link.iter().chain(&parent).any(|byte| *byte != 0) {
            return Err(file.refused(
                "is a snapshot or a differencing disk and holds only a part of its disk. Clone it to a new disk (VBoxManage clonemedium) and send that",
            ));
        }
        // 2. What disk it is.
        let virtual_size_bytes = le64(&header, 0x170);
        file.check_disk(virtual_size_bytes, limits)?;
        let virtual_size_bytes = virtual_size_bytes.next_multiple_of(SECTOR_BYTES);
        let (sector, block_bytes, extra) =
            (le32(&header, 0x168), u64::from(le32(&header, 0x178)), le32(&header, 0x17c));
        if u64::from(sector) != SECTOR_BYTES || extra != 0 {
            return Err(file.refused(format_args!(
                "has sectors of {sector} bytes and {extra} more bytes for each block; only 512 and 0 can be read"
            )));
        }
        if !block_bytes.is_power_of_two() || !(BLOCK_MIN_BYTES..=BLOCK_MAX_BYTES).contains(&block_bytes) {
            return Err(file.damaged(format_args!("its blocks have {block_bytes} bytes")));
        }
        // 3. Where its blocks are.
        let (map_at, data_at) = (u64::from(le32(&header, 0x154)), u64::from(le32(&header, 0x158)));
        let (blocks, needed) = (u64::from(le32(&header, 0x180)), virtual_size_bytes.div_ceil(block_bytes));
        if blocks < needed {
            return Err(file.damaged(format_args!("it has {blocks} blocks, and its disk needs {needed}")));
        }
        if map_at % SECTOR_BYTES != 0 || data_at % SECTOR_BYTES != 0 {
            return Err(file.damaged("its map or its blocks do not begin with a sector"));
        }
        let map = file.place("the map", map_at, needed * ENTRY_BYTES)?;
        if map.end > data_at {
            return Err(file.damaged("its blocks begin before its map ends"));
        }
        let taken = Taken::new(&file, block_bytes, vec![0..HEADER_BYTES, map])?;
        Ok(Self { file, virtual_size_bytes, block_bytes, map_at, data_at, told: 0, taken })
    }
}

#[async_trait]
impl DiskMap for Map {
    fn virtual_size_bytes(&self) -> u64 {
        self.virtual_size_bytes
    }

    async fn next(&mut self) -> Result<Vec<Run>, Error> {
        let left = self.virtual_size_bytes.div_ceil(self.block_bytes) - self.told;
        let length = (left * ENTRY_BYTES).min(WINDOW_BYTES);
        let window = self.file.read("the map", self.map_at + self.told * ENTRY_BYTES, length).await?;
        let mut runs = Vec::new();
        for entry in window.chunks_exact(ENTRY_BYTES as usize) {
            let entry = le32(entry, 0);
            let length = self.block_bytes.min(self.virtual_size_bytes - self.told * self.block_bytes);
            runs.push(if entry >= DISCARDED {
                Run::Zero { length }
            } else {
                let at = self.data_at + u64::from(entry) * self.block_bytes;
                self.taken.take(&self.file, at, length)?
            });
            self.told += 1;
        }
        Ok(runs)
    }
}
