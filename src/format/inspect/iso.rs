//! ISO 9660 and UDF.

use super::capture::{le16, le32};
use super::{Found, Seen};
use crate::format::Format;

/// Where the first volume descriptor is.
const DESCRIPTOR: usize = 32 * 1024;
const DESCRIPTOR_BYTES: usize = 2048;
const NAMES: [&[u8]; 3] = [b"CD001", b"NSR02", b"NSR03"];
const PRIMARY: u8 = 1;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let descriptor = seen.head.get(DESCRIPTOR..DESCRIPTOR + DESCRIPTOR_BYTES)?;
    if !NAMES.contains(&descriptor.get(1..6)?) {
        return None;
    }
    let volume_bytes = u64::from(le32(descriptor, 80)?) * u64::from(le16(descriptor, 128)?);
    let size_bytes = if descriptor[0] == PRIMARY { Some(volume_bytes) } else { seen.size_bytes() };
    Some(Found::new(Format::Iso, size_bytes))
}
