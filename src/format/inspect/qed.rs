//! QEMU's enhanced disk: known in order to be refused.

use super::capture::le64;
use super::{Found, Seen};
use crate::format::Format;

const MAGIC: &[u8] = b"QED\0";
const HEADER_BYTES: usize = 512;

pub(super) fn look(seen: &Seen<'_>) -> Option<Found> {
    let header = seen.head.get(..HEADER_BYTES).filter(|header| header.starts_with(MAGIC))?;
    let mut found = Found::new(Format::Qed, le64(header, 48));
    found.fault("banned", "QED is not supported; convert it with qemu-img to raw or qcow2");
    Some(found)
}
