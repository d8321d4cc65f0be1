//! VirtualBox's disk image.

use super::capture::{le32, le64};
use super::{Fault, Found, Seen};
use crate::format::Format;

const MAGIC: u32 = 0xbeda_107f;
const HEADER_BYTES: usize = 512;
const VERSION_1_1: u32 = 0x1_0001;
/// Types of images that stand for themselves; the others are differences to another file.
const DYNAMIC: u32 = 1;
const STATIC: u32 = 2;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let header = seen.head.get(..HEADER_BYTES)?;
    if le32(header, 0x40)? != MAGIC {
        return None;
    }
    let size_bytes = le64(header, 0x170)?;
    let mut found = Found::new(Format::Vdi, Some(size_bytes));
    if !matches!(le32(header, 0x4c)?, DYNAMIC | STATIC) || header.get(0x1b8..0x1c8)?.iter().any(|byte| *byte != 0) {
        found.fault("parent", "it is a difference to another file");
    }
    found.faults.extend(structure(header, size_bytes, seen));
    Some(found)
}

fn structure(header: &[u8], size_bytes: u64, seen: &Seen<'_>) -> Option<Fault> {
    let fault = |text: &str| Some(Fault::new("structure", text));
    if le32(header, 0x44)? != VERSION_1_1 {
        return fault("its version is not 1.1");
    }
    let (block_bytes, blocks) = (u64::from(le32(header, 0x178)?), u64::from(le32(header, 0x180)?));
    if u128::from(block_bytes) * u128::from(blocks) < u128::from(size_bytes) {
        return fault("it has too few blocks for its virtual size");
    }
    let map = u64::from(le32(header, 0x154)?);
    if map < HEADER_BYTES as u64 {
        return fault("its map of blocks begins in its header");
    }
    if seen.ends_before(map + blocks * 4) {
        return fault("it is cut off: its map of blocks lies beyond its end");
    }
    None
}
