//! The few bytes of a stream that a verdict needs, kept as they pass.

use std::ops::Range;

/// Bytes at the start that are kept: room for the headers of all formats, the volume descriptors of an ISO (32 KiB in)
/// and the descriptor of a VMDK.
pub(super) const HEAD_BYTES: usize = 64 * 1024;
/// Bytes at the end that are kept: what a streamed VMDK ends with.
pub(super) const TAIL_BYTES: usize = 1536;

/// The bytes from `start`, as many as are wanted.
pub(super) struct Window {
    start: u64,
    wanted: usize,
    bytes: Vec<u8>,
}

impl Window {
    pub(super) fn new(start: u64, wanted: usize) -> Self {
        Self { start, wanted, bytes: Vec::new() }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes what it lacks out of a piece at `offset`. What it lacks must not have passed already.
    pub(super) fn take(&mut self, offset: u64, piece: &[u8]) {
        let missing = self.missing();
        let skipped = missing.start.checked_sub(offset).and_then(|skipped| usize::try_from(skipped).ok());
        let rest = skipped.and_then(|skipped| piece.get(skipped..)).unwrap_or_default();
        self.bytes.extend_from_slice(&rest[..rest.len().min(self.wanted - self.bytes.len())]);
    }

    /// What it lacks.
    pub(super) fn missing(&self) -> Range<u64> {
        let from = self.start.saturating_add(self.bytes.len() as u64);
        from..from.saturating_add((self.wanted - self.bytes.len()) as u64)
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() == self.wanted
    }
}

/// The last bytes of what has passed so far.
#[derive(Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn take(&mut self, piece: &[u8]) {
        self.0.extend_from_slice(&piece[piece.len().saturating_sub(TAIL_BYTES)..]);
        self.0.drain(..self.0.len().saturating_sub(TAIL_BYTES));
    }

    /// What came before is not followed by what comes next.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The `N` bytes at `offset`.
pub(super) fn bytes<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk().copied()
}

/// A big-endian number at `offset`.
pub(super) fn be16(data: &[u8], offset: usize) -> Option<u16> {
    bytes(data, offset).map(u16::from_be_bytes)
}

/// See [`be16`].
pub(super) fn be32(data: &[u8], offset: usize) -> Option<u32> {
    bytes(data, offset).map(u32::from_be_bytes)
}

/// See [`be16`].
pub(super) fn be64(data: &[u8], offset: usize) -> Option<u64> {
    bytes(data, offset).map(u64::from_be_bytes)
}

/// A little-endian number at `offset`.
pub(super) fn le16(data: &[u8], offset: usize) -> Option<u16> {
    bytes(data, offset).map(u16::from_le_bytes)
}

/// See [`le16`].
pub(super) fn le32(data: &[u8], offset: usize) -> Option<u32> {
    bytes(data, offset).map(u32::from_le_bytes)
}

/// See [`le16`].
pub(super) fn le64(data: &[u8], offset: usize) -> Option<u64> {
    bytes(data, offset).map(u64::from_le_bytes)
}
