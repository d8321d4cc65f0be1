//! An encrypted disk.

use super::capture::{be16, be32};
use super::{Found, Seen};
use crate::format::Format;

const MAGIC: &[u8] = b"LUKS\xba\xbe";
const HEADER_BYTES: usize = 592;
const SECTOR_BYTES: u64 = 512;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let header = seen.head.get(..HEADER_BYTES).filter(|header| header.starts_with(MAGIC))?;
    let payload = u64::from(be32(header, 104)?) * SECTOR_BYTES;
    let version = be16(header, 6)?;
    let size_bytes = seen.size_bytes().filter(|_| version == 1).map(|size| size.saturating_sub(payload));
    let mut found = Found::new(Format::Luks, size_bytes);
    if version != 1 {
        found.fault("version", format!("its version is {version}; 1 is supported"));
    } else if seen.ends_before(payload) {
        found.fault("structure", "it is cut off: its payload lies beyond its end");
    }
    Some(found)
}
