//! Microsoft's virtual hard disk: fixed (a disk with a footer), dynamic, differencing.

use super::capture::{be16, be32, be64, bytes};
use super::{Fault, Found, Seen};
use crate::format::Format;

const COOKIE: &[u8] = b"conectix";
const FOOTER_BYTES: usize = 512;
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const CHECKSUM: std::ops::Range<usize> = 64..68;
const HEADER_COOKIE: &[u8] = b"cxsparse";
const HEADER_BYTES: usize = 1024;
const SECTOR_BYTES: u64 = 512;
/// Programs that mean the size in the footer; all others mean the product of the geometry, unless that is the largest
/// there is.
const CREATORS_BY_SIZE: [&[u8; 4]; 6] = [b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0", b"wa\0\0"];
const LARGEST_GEOMETRY_SECTORS: u64 = 65535 * 16 * 255;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    match seen.head.get(..FOOTER_BYTES).filter(|copy| copy.starts_with(COOKIE)) {
        Some(copy) => dynamic(copy, seen),
        None => fixed(seen),
    }
}

/// A disk, and behind it a footer that is right in every respect: anything could end with eight bytes.
fn fixed(seen: &Seen<'_>) -> Option<Found> {
    let end = seen.end.as_ref()?;
    let footer = end.tail.last_chunk::<FOOTER_BYTES>().filter(|footer| footer.starts_with(COOKIE))?;
    let disk_bytes = end.size_bytes - FOOTER_BYTES as u64;
    let is_ours =
        be32(footer, 60)? == FIXED && be64(footer, 48)? == disk_bytes && checksum(footer) == be32(footer, 64)?;
    is_ours.then(|| Found::new(Format::Vhd, virtual_size(footer)))
}

fn dynamic(copy: &[u8], seen: &Seen<'_>) -> Option<Found> {
    let size_bytes = virtual_size(copy)?;
    let mut found = Found::new(Format::Vhd, Some(size_bytes));
    match be32(copy, 60)? {
        DYNAMIC => found.faults.extend(structure(copy, size_bytes, seen)),
        // The copy of a footer belongs to the other kinds.
        FIXED => found.fault("structure", "it says that it is fixed and begins like a dynamic one"),
        _ => found.fault("parent", "it is a difference to another file"),
    }
    Some(found)
}

fn structure(copy: &[u8], size_bytes: u64, seen: &Seen<'_>) -> Option<Fault> {
    let fault = |text: &str| Some(Fault::new("structure", text));
    let at = usize::try_from(be64(copy, 16)?).unwrap_or(usize::MAX);
    let header = at.checked_add(HEADER_BYTES).and_then(|end| seen.head.get(at..end));
    let Some(header) = header.filter(|header| header.starts_with(HEADER_COOKIE)) else {
        return fault("its header is not where it says");
    };
    let (table, entries, block_bytes) = (be64(header, 16)?, u64::from(be32(header, 28)?), u64::from(be32(header, 32)?));
    if !block_bytes.is_power_of_two() || block_bytes < SECTOR_BYTES {
        return fault("its block size is none that there is");
    }
    if entries * block_bytes < size_bytes {
        return fault("its table is too small for its virtual size");
    }
    if seen.ends_before(table.saturating_add(entries * 4)) {
        return fault("it is cut off: its table lies beyond its end");
    }
    let ended = seen.end.as_ref().map(|end| end.tail);
    if ended.is_some_and(|tail| !tail.last_chunk::<FOOTER_BYTES>().is_some_and(|last| last.starts_with(COOKIE))) {
        return fault("it is cut off: there is no footer at its end");
    }
    None
}

fn virtual_size(footer: &[u8]) -> Option<u64> {
    let [heads, sectors] = bytes(footer, 58)?;
    let geometry = u64::from(be16(footer, 56)?) * u64::from(heads) * u64::from(sectors);
    let by_size = CREATORS_BY_SIZE.contains(&&bytes(footer, 28)?) || geometry == LARGEST_GEOMETRY_SECTORS;
    let sectors = if by_size { be64(footer, 48)? / SECTOR_BYTES } else { geometry };
    Some(sectors.saturating_mul(SECTOR_BYTES))
}

/// Complement of the sum of all bytes but its own.
fn checksum(footer: &[u8]) -> u32 {
    let all = footer.iter().enumerate().filter(|(at, _)| !CHECKSUM.contains(at));
    !all.map(|(_, byte)| u32::from(*byte)).sum::<u32>()
}
