//! What the tables of several formats have in common: numbers in them, places that they name, entries that must not
//! name the same place.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::{Error, Limits, ReadAt, Run};
use crate::format::Format;

/// Bytes of a table that are read at once.
pub(super) const WINDOW_BYTES: u64 = 64 * 1024;
/// What all of these formats count in.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A file contradicts itself.
pub(super) fn damaged(format: Format, what: impl Display) -> Error {
    Error::refused(format!("The {format} image is damaged: {what}."))
}

/// A file may be good, and is not accepted.
pub(super) fn refused(format: Format, what: impl Display) -> Error {
    Error::refused(format!("The {format} image {what}."))
}

/// Whether a disk of that size is possible and accepted.
pub(super) fn check_disk(format: Format, virtual_size_bytes: u64, limits: Limits) -> Result<(), Error> {
    if i64::try_from(virtual_size_bytes).is_err() {
        return Err(damaged(format, format_args!("no disk has {virtual_size_bytes} bytes")));
    }
    limits.check(virtual_size_bytes)
}

/// A file in a format, whose tables may point anywhere.
pub(super) struct File {
    source: Arc<dyn ReadAt>,
    format: Format,
}

impl File {
    pub(super) fn new(source: Arc<dyn ReadAt>, format: Format) -> Self {
        Self { source, format }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.source.size_bytes()
    }

    pub(super) fn damaged(&self, what: impl Display) -> Error {
        damaged(self.format, what)
    }

    pub(super) fn refused(&self, what: impl Display) -> Error {
        refused(self.format, what)
    }

    pub(super) fn check_disk(&self, virtual_size_bytes: u64, limits: Limits) -> Result<(), Error> {
        check_disk(self.format, virtual_size_bytes, limits)
    }

    /// Where `what` is, if the file has it whole.
    pub(super) fn place(&self, what: &str, at: u64, length: u64) -> Result<Range<u64>, Error> {
        match at.checked_add(length) {
            Some(end) if end <= self.size_bytes() => Ok(at..end),
            Some(_) | None => Err(self.refused(format_args!(
                "is cut off or damaged: {what} is at byte {at} with {length} bytes, and there are only {}",
                self.size_bytes()
            ))),
        }
    }

    /// The bytes of `what`; not for more than fits into memory.
    pub(super) async fn read(&self, what: &str, at: u64, length: u64) -> Result<Bytes, Error> {
        let place = self.place(what, at, length)?;
        if place.is_empty() {
            return Ok(Bytes::new());
        }
        let bytes = self.source.read_at(place.start, length as usize).await?;
        if bytes.len() as u64 != length {
            return Err(Error::Source(format!("{} bytes came from {at} instead of {length}", bytes.len()).into()));
        }
        Ok(bytes)
    }
}

/// Which parts of the file have a user. Entries that share a place would let a small file claim to be a large disk,
/// and no writer makes them.
pub(super) struct Taken {
    tables: Vec<Range<u64>>,
    unit_bytes: u64,
    /// A bit for each unit of the file, as far as there are blocks: two that begin in the same one overlap.
    begun: Vec<u64>,
}

impl Taken {
    /// For blocks beside the `tables`: of `unit_bytes`, wherever they begin, or of several and aligned to them.
    pub(super) fn new(file: &File, unit_bytes: u64, tables: Vec<Range<u64>>) -> Result<Self, Error> {
        let mut sorted = tables.clone();
        sorted.sort_by_key(|table| table.start);
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].end > pair[1].start) {
            return Err(file.damaged(format_args!("two of its tables share the place at byte {}", pair[1].start)));
        }
        Ok(Self { tables, unit_bytes, begun: Vec::new() })
    }

    /// Gives a block the place from `at`; `length` is what the disk needs of it.
    pub(super) fn take(&mut self, file: &File, at: u64, length: u64) -> Result<Run, Error> {
        let place = file.place("a block of the disk", at, length)?;
        if self.tables.iter().any(|table| place.start < table.end && table.start < place.end) {
            return Err(file.damaged(format_args!("a block of the disk lies where a table is, at byte {at}")));
        }
        for unit in place.step_by(self.unit_bytes as usize).map(|begin| begin / self.unit_bytes) {
            let bit = 1 << (unit % u64::from(u64::BITS));
            let word = (unit / u64::from(u64::BITS)) as usize;
            if self.begun.len() <= word {
                self.begun.resize(word + 1, 0);
            }
            if self.begun[word] & bit != 0 {
                return Err(file.damaged(format_args!("two blocks of the disk share the place at byte {at}")));
            }
            self.begun[word] |= bit;
        }
        Ok(Run::Plain { at, length })
    }
}

/// A little-endian number of 16 bits, of a header that is long enough.
pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

/// One of 32 bits.
pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// One of 64 bits.
pub(super) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// A big-endian number of 16 bits, of a header that is long enough.
pub(super) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

/// One of 32 bits.
pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// One of 64 bits.
pub(super) fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(array(bytes, at))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}
