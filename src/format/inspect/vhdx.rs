//! Microsoft's second virtual hard disk. What is needed of it lies behind two tables, each of which names where the
//! next thing is:
//!
//! ```text
//!   192 KiB   region table ──> metadata region (1 MiB or later): table ──> items: size, parameters
//! ```

use std::ops::Range;

use uuid::{Uuid, uuid};

use super::capture::{Window, bytes, le16, le32, le64};
use super::{Found, Seen};
use crate::format::Format;

const MAGIC: &[u8] = b"vhdxfile";
const REGION_TABLE: u64 = 192 * 1024;
const TABLE_BYTES: usize = 64 * 1024;
const ENTRY_BYTES: usize = 32;
const ENTRIES_MAX: usize = 2047;
/// Regions lie behind all tables and headers.
const REGIONS_START: u64 = 1 << 20;
const METADATA: Uuid = uuid!("8b7ca206-4790-4b9a-b8fe-575f050f886e");
const VIRTUAL_SIZE: Uuid = uuid!("2fa54224-cd1b-4876-b211-5dbed83bf4b8");
const FILE_PARAMETERS: Uuid = uuid!("caa16737-fa36-4d43-b3b6-33f0aa44e76b");
/// Bytes of each of these items.
const ITEM_BYTES: u64 = 8;
const HAS_PARENT: u32 = 0b10;

/// Where in the file the walk is.
enum Step {
    Regions,
    /// The region is there.
    Table(u64),
    /// The items are that far into the window.
    Items {
        virtual_size: usize,
        parameters: usize,
    },
    Known {
        virtual_size_bytes: u64,
        has_parent: bool,
    },
    Broken(&'static str),
}

/// A walk along the tables, as they pass.
pub(super) struct Walk {
    step: Step,
    window: Window,
}

impl Walk {
    /// A walk, if the file begins like one.
    pub(super) fn begin(head: &[u8]) -> Option<Self> {
        head.starts_with(MAGIC).then(|| Self { step: Step::Regions, window: Window::new(REGION_TABLE, TABLE_BYTES) })
    }

    /// Takes what it waits for out of a piece at `offset`.
    pub(super) fn take(&mut self, offset: u64, piece: &[u8]) {
        while self.missing().is_some() {
            self.window.take(offset, piece);
            if !self.window.is_full() {
                return;
            }
            self.advance().unwrap_or_else(|why| self.step = Step::Broken(why));
        }
    }

    /// What it waits for.
    pub(super) fn missing(&self) -> Option<Range<u64>> {
        match self.step {
            Step::Regions | Step::Table(_) | Step::Items { .. } => Some(self.window.missing()),
            Step::Known { .. } | Step::Broken(_) => None,
        }
    }

    fn advance(&mut self) -> Result<(), &'static str> {
        let data = self.window.bytes();
        match self.step {
            Step::Regions => {
                let count = le32(data, 8).map_or(0, |count| count as usize);
                let entry = entry(data, b"regi", 16, count, METADATA)?;
                let region = le64(entry, 16).filter(|at| *at >= REGIONS_START);
                let region = region.ok_or("its metadata region lies within its header")?;
                self.window = Window::new(region, TABLE_BYTES);
                self.step = Step::Table(region);
            }
            Step::Table(region) => {
                let count = le16(data, 10).map_or(0, usize::from);
                let item = |name| -> Result<u64, &'static str> {
                    let entry = entry(data, b"metadata", ENTRY_BYTES, count, name)?;
                    let at = le32(entry, 16).map(u64::from).filter(|at| *at >= TABLE_BYTES as u64);
                    at.ok_or("an item of its metadata lies within their table")
                };
                let (virtual_size, parameters) = (item(VIRTUAL_SIZE)?, item(FILE_PARAMETERS)?);
                let first = virtual_size.min(parameters);
                let within = |at: u64| usize::try_from(at - first).ok().filter(|at| *at < TABLE_BYTES);
                let spread = "its metadata is spread too far";
                let length = virtual_size.max(parameters) - first + ITEM_BYTES;
                self.step = Step::Items {
                    virtual_size: within(virtual_size).ok_or(spread)?,
                    parameters: within(parameters).ok_or(spread)?,
                };
                let start = region.checked_add(first).ok_or("its metadata region is nowhere")?;
                self.window = Window::new(start, usize::try_from(length).map_err(|_| spread)?);
            }
            Step::Items { virtual_size, parameters } => {
                let flags = le32(data, parameters + 4).unwrap_or(0);
                let virtual_size_bytes = le64(data, virtual_size).unwrap_or(0);
                self.step = Step::Known { virtual_size_bytes, has_parent: flags & HAS_PARENT != 0 };
                self.window = Window::new(0, 0);
            }
            Step::Known { .. } | Step::Broken(_) => {}
        }
        Ok(())
    }

    pub(super) fn look(&self, seen: &Seen<'_>) -> Found {
        let mut found = Found::new(Format::Vhdx, None);
        match self.step {
            Step::Known { virtual_size_bytes, has_parent } => {
                found.virtual_size_bytes = Some(virtual_size_bytes);
                if has_parent {
                    found.fault("parent", "it is a difference to another file");
                }
            }
            Step::Broken(why) => found.fault("structure", why),
            _ if seen.end.is_some() => found.fault("structure", "it is cut off: it ends before its metadata"),
            _ => {}
        }
        found
    }
}

/// The entry of that name in a table whose entries begin at `first`.
fn entry<'d>(
    data: &'d [u8],
    signature: &[u8],
    first: usize,
    count: usize,
    name: Uuid,
) -> Result<&'d [u8], &'static str> {
    if !data.starts_with(signature) {
        return Err("one of its tables is not where it should be");
    }
    if count > ENTRIES_MAX {
        return Err("one of its tables has too many entries");
    }
    let mut entries = data.get(first..).unwrap_or_default().chunks_exact(ENTRY_BYTES).take(count);
    let named = |entry: &&[u8]| bytes(entry, 0).is_some_and(|id| Uuid::from_bytes_le(id) == name);
    entries.find(named).ok_or("one of its tables lacks an entry that every image has")
}
