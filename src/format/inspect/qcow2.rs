//! QEMU's copy-on-write format.

use super::capture::{be32, be64};
use super::{Fault, Found, Seen};
use crate::format::Format;

const MAGIC: &[u8] = b"QFI\xfb";
/// What is shorter than this is no image.
const HEADER_BYTES: usize = 512;
/// Incompatible features that change nothing about where the bytes are: dirty, corrupt, compression type, extended L2.
const KNOWN_FEATURES: u64 = 0b1_1011;
/// The data is in another file.
const DATA_FILE: u64 = 0b100;
/// Header extension with the name of that file.
const DATA_FILE_NAME: u32 = 0x4441_5441;
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// Largest L1 table and refcount table that QEMU reads.
const L1_MAX_BYTES: u64 = 32 << 20;
const REFCOUNT_TABLE_MAX_BYTES: u64 = 8 << 20;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let header = seen.head.get(..HEADER_BYTES).filter(|header| header.starts_with(MAGIC))?;
    let size_bytes = be64(header, 24)?;
    let mut found = Found::new(Format::Qcow2, Some(size_bytes));
    if be64(header, 8)? != 0 {
        found.fault("backing_file", "it has a backing file, that is, it shows the content of another file");
    }
    let version = be32(header, 4)?;
    if !matches!(version, 2 | 3) {
        found.fault("version", format!("its version is {version}; 2 and 3 are supported"));
        return Some(found);
    }
    if version == 3 {
        let features = be64(header, 72)?;
        if features & DATA_FILE != 0 || names_data_file(seen.head) {
            found.fault("data_file", "its data is in another file");
        }
        if features & !(KNOWN_FEATURES | DATA_FILE) != 0 {
            found.fault("unknown_features", format!("it needs features that are not known here ({features:#x})"));
        }
    }
    if be32(header, 32)? != 0 {
        found.fault("encryption", "it is encrypted; encrypt the volume instead, or use LUKS");
    }
    found.faults.extend(structure(header, size_bytes, seen));
    Some(found)
}

/// Whether a header extension names an external data file.
fn names_data_file(head: &[u8]) -> bool {
    let mut at = be32(head, 100).map_or(0, |length| length as usize);
    while let (Some(kind), Some(length)) = (be32(head, at), be32(head, at + 4)) {
        match kind {
            0 => return false,
            DATA_FILE_NAME => return true,
            _ => at += 8 + (length as usize).next_multiple_of(8),
        }
    }
    false
}

/// Tables that cannot be where the header says, or are too small for the disk.
fn structure(header: &[u8], size_bytes: u64, seen: &Seen<'_>) -> Option<Fault> {
    let fault = |text: &str| Some(Fault::new("structure", text));
    let cluster_bits = be32(header, 20)?;
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return fault("its cluster size is none that there is");
    }
    let cluster_bytes = 1u64 << cluster_bits;
    let l1_bytes = u64::from(be32(header, 36)?) * 8;
    let entry_bytes = if be32(header, 4)? == 3 && be64(header, 72)? & 0b1_0000 != 0 { 16 } else { 8 };
    // One entry of L1 maps a cluster full of entries of L2.
    let mapped = u128::from(l1_bytes / 8) * u128::from(cluster_bytes / entry_bytes) * u128::from(cluster_bytes);
    if mapped < u128::from(size_bytes) {
        return fault("its first table is too small for its virtual size");
    }
    let refcount_bytes = u64::from(be32(header, 56)?) * cluster_bytes;
    if l1_bytes > L1_MAX_BYTES || refcount_bytes > REFCOUNT_TABLE_MAX_BYTES {
        return fault("one of its tables is too large");
    }
    for (offset, length) in [(be64(header, 40)?, l1_bytes), (be64(header, 48)?, refcount_bytes)] {
        if length == 0 {
            continue;
        }
        if offset == 0 || !offset.is_multiple_of(cluster_bytes) {
            return fault("one of its tables begins where none can");
        }
        if seen.ends_before(offset.saturating_add(length)) {
            return fault("it is cut off: one of its tables lies beyond its end");
        }
    }
    None
}
