//! A disk with a partition table: a GPT, whose first sector protects it, or an MBR.

use super::capture::{bytes, le32};
use super::{Fault, Found, Seen};
use crate::format::Format;

const SECTOR_BYTES: usize = 512;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const ENTRIES: usize = 446;
const ENTRY_BYTES: usize = 16;
const ENTRY_COUNT: usize = 4;
/// Type of the entry that protects a GPT.
const PROTECTIVE: u8 = 0xee;
/// The one name of a check that operators may switch off.
pub(super) const CHECK: &str = "mbr";

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let sector = seen.head.get(..SECTOR_BYTES)?;
    if bytes(sector, 510)? != SIGNATURE || is_fat(sector) {
        return None;
    }
    let mut found = Found::new(Format::Gpt, seen.size_bytes());
    found.faults.extend(partitions(sector));
    Some(found)
}

/// The boot sector of a FAT file system has the same signature: two tables, on a fixed disk.
fn is_fat(sector: &[u8]) -> bool {
    sector[0x10] == 2 && sector[0x15] == 0xf8
}

fn partitions(sector: &[u8]) -> Option<Fault> {
    let fault = |text: &str| Some(Fault::new(CHECK, format!("its partition table is wrong: {text}")));
    let mut used = Vec::new();
    for (n, entry) in sector[ENTRIES..].chunks_exact(ENTRY_BYTES).take(ENTRY_COUNT).enumerate() {
        if !matches!(entry[0], 0 | 0x80) {
            return fault(&format!("the boot flag of entry {n} is {:#04x}, not 0 or 0x80", entry[0]));
        }
        if entry[4] != 0 {
            used.push((n, entry[4]));
        }
        if entry[4] == PROTECTIVE && (entry[1..4] != [0, 2, 0] || le32(entry, 8)? != 1) {
            return fault(&format!("entry {n} protects a GPT and does not start at the second sector"));
        }
    }
    if used.is_empty() {
        return fault("it has no partition");
    }
    if used.iter().any(|(_, kind)| *kind == PROTECTIVE) && used != [(0, PROTECTIVE)] {
        return fault("beside the entry that protects a GPT there are others");
    }
    None
}
