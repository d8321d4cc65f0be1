//! What bytes are, whatever somebody calls them: told while they pass, without a read of their own.
//!
//! ```text
//!   bytes ──> head (64 KiB) ─────────> one look per format ──┐
//!         ──> VHDX: table by table ──────────────────────────┼──> formats found, their faults ──> verdict
//!         ──> tail (1.5 KiB) ──> fixed VHD, end of a VMDK ───┘
//! ```
//!
//! Safe for any input: nothing is followed out of what is kept, and what is kept are at most 200 KiB. A verdict says
//! what the bytes are, how large the disk in them is, and whether they refer to anything outside of themselves. Tables
//! of clusters are not walked: whoever converts an image does that.

mod capture;
mod iso;
mod luks;
mod mbr;
mod qcow2;
mod qed;
#[cfg(test)]
mod tests;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;

use std::ops::Range;
use std::sync::Arc;

use serde::Deserialize;

use self::capture::{HEAD_BYTES, TAIL_BYTES, Tail, Window};
use super::Format;
use crate::domain::Refusal;

/// `[inspection]`: what images' bytes may be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Whether bytes must be of the format that the record names.
    pub require_image_format_match: bool,
    /// Whether `raw` may be qcow2, vmdk, vhd, vhdx or vdi.
    pub accept_foreign_as_raw: bool,
    /// Checks of partition tables that refuse nothing: `mbr`.
    pub gpt_safety_checks_nonfatal: Vec<String>,
    /// Create types of VMDKs.
    pub vmdk_allowed_types: Vec<String>,
    /// Largest disk that an image may hold, in bytes.
    pub virtual_size_cap_bytes: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            require_image_format_match: true,
            accept_foreign_as_raw: false,
            gpt_safety_checks_nonfatal: Vec::new(),
            vmdk_allowed_types: vec!["streamOptimized".into(), "monolithicSparse".into()],
            virtual_size_cap_bytes: 16 << 40,
        }
    }
}

impl Rules {
    /// Everything that is wrong with them, a sentence each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let unknown = self.gpt_safety_checks_nonfatal.iter().filter(|name| *name != mbr::CHECK);
        let mut problems: Vec<String> = unknown
            .map(|name| {
                format!("inspection.gpt_safety_checks_nonfatal: there is no check \"{name}\"; known: {}", mbr::CHECK)
            })
            .collect();
        if self.virtual_size_cap_bytes == 0 {
            problems.push("inspection.virtual_size_cap_bytes must be at least 1".into());
        }
        problems
    }
}

/// What the bytes should be.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Rules in force.
    pub rules: Arc<Rules>,
    /// `disk_format` of the record; `None`: whatever they are.
    pub disk_format: Option<String>,
    /// `container_format` of the record.
    pub container_format: Option<String>,
}

/// Something about a file that makes it dangerous or useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Name of the check.
    pub check: &'static str,
    /// The fault, as the end of a sentence.
    pub text: String,
}

impl Fault {
    fn new(check: &'static str, text: impl Into<String>) -> Self {
        Self { check, text: text.into() }
    }
}

/// A format that bytes are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The format.
    pub format: Format,
    /// Size of the disk, where known.
    pub virtual_size_bytes: Option<u64>,
    /// What is wrong with it.
    pub faults: Vec<Fault>,
}

impl Found {
    fn new(format: Format, virtual_size_bytes: Option<u64>) -> Self {
        Self { format, virtual_size_bytes, faults: Vec::new() }
    }

    fn fault(&mut self, check: &'static str, text: impl Into<String>) {
        self.faults.push(Fault::new(check, text));
    }
}

/// What is known of the bytes: the first ones, and when all have passed, their number and the last ones.
struct Seen<'a> {
    head: &'a [u8],
    end: Option<End<'a>>,
}

struct End<'a> {
    size_bytes: u64,
    tail: &'a [u8],
}

impl Seen<'_> {
    fn size_bytes(&self) -> Option<u64> {
        self.end.as_ref().map(|end| end.size_bytes)
    }

    /// Whether the bytes are known to end before `offset`.
    fn ends_before(&self, offset: u64) -> bool {
        self.size_bytes().is_some_and(|size| size < offset)
    }
}

/// What was found out about bytes that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What they are.
    pub format: Format,
    /// Size of the disk that a machine would see, where it can be told.
    pub virtual_size_bytes: Option<u64>,
    /// What would have been refused under stricter rules.
    pub warning: Option<String>,
}

/// A look at bytes while they pass, in order.
pub struct Inspection {
    expected: Expected,
    head: Window,
    tail: Tail,
    vhdx: Option<vhdx::Walk>,
    /// Bytes that have passed.
    offset: u64,
}

impl Inspection {
    /// Begins.
    #[must_use]
    pub fn new(expected: Expected) -> Self {
        Self { expected, head: Window::new(0, HEAD_BYTES), tail: Tail::default(), vhdx: None, offset: 0 }
    }

    /// Goes on for an image with this `disk_format`.
    #[must_use]
    pub fn named(mut self, disk_format: &str) -> Self {
        self.expected.disk_format = Some(disk_format.to_owned());
        self
    }

    /// Takes the next bytes. Cheap: all but a few of them are not even looked at.
    pub fn feed(&mut self, bytes: &[u8]) {
        if !self.head.is_full() {
            self.head.take(self.offset, bytes);
            if self.vhdx.is_none() {
                self.vhdx = vhdx::Walk::begin(self.head.bytes());
            }
        }
        if let Some(walk) = &mut self.vhdx {
            walk.take(self.offset, bytes);
        }
        self.tail.take(bytes);
        self.offset = self.offset.saturating_add(bytes.len() as u64);
    }

    /// The bytes of a file of `size_bytes` that are still wanted, for those who can read from anywhere; `None`: no
    /// more. Between them and the last ones nothing need be fed: see [`Inspection::skip_to`].
    #[must_use]
    pub fn wanted(&self, size_bytes: u64) -> Option<Range<u64>> {
        let within = |range: Range<u64>| range.start.max(self.offset)..range.end.min(size_bytes);
        let tail = size_bytes.saturating_sub(TAIL_BYTES as u64)..size_bytes;
        [Some(self.head.missing()), self.vhdx.as_ref().and_then(vhdx::Walk::missing), Some(tail)]
            .into_iter()
            .flatten()
            .map(within)
            .find(|range| !range.is_empty())
    }

    /// Goes on at `offset`: what lies before it is not wanted.
    pub fn skip_to(&mut self, offset: u64) {
        if offset > self.offset {
            self.tail.clear();
            self.offset = offset;
        }
    }

    /// What the bytes look like, once the first of them have passed.
    #[must_use]
    pub fn early(&self) -> Option<Format> {
        let found = self.early_found()?;
        choose(&found).ok().map(|found| found.map_or(Format::Raw, |found| found.format))
    }

    /// Why they will be refused, if that is certain before they have all passed.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        // A fixed VHD shows at its end, and looks like the disk in it until then.
        let waits = self.expected.disk_format.as_deref() == Some(Format::Vhd.as_str());
        let found = self.early_found().filter(|_| !waits)?;
        judge(&found, &self.expected, None).err()
    }

    fn early_found(&self) -> Option<Vec<Found>> {
        self.head.is_full().then(|| self.look(&Seen { head: self.head.bytes(), end: None }))
    }

    /// All formats that all the bytes are of; none: they are raw.
    #[must_use]
    pub fn found(&self) -> Vec<Found> {
        let end = End { size_bytes: self.offset, tail: self.tail.bytes() };
        self.look(&Seen { head: self.head.bytes(), end: Some(end) })
    }

    fn look(&self, seen: &Seen<'_>) -> Vec<Found> {
        let looks = [
            qcow2::look(seen),
            qed::look(seen),
            vhd::look(seen),
            self.vhdx.as_ref().map(|walk| walk.look(seen)),
            vmdk::look(seen, &self.expected.rules),
            vdi::look(seen),
            iso::look(seen),
            mbr::look(seen),
            luks::look(seen),
        ];
        let mut found: Vec<Found> = looks.into_iter().flatten().collect();
        let is_vhd_at_end =
            found.iter().any(|found| found.format == Format::Vhd) && !seen.head.starts_with(b"conectix");
        // The disk in a fixed VHD begins with its partition table, and a bootable ISO with one of its own.
        if is_vhd_at_end || found.iter().any(|found| found.format == Format::Iso) {
            found.retain(|found| found.format != Format::Gpt);
        }
        found
    }

    /// The verdict, when all bytes have passed.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for bytes that are not what they should be, or are dangerous; [`Refusal::TooLarge`] for
    /// a disk beyond the cap.
    pub fn finish(&self) -> Result<Facts, Refusal> {
        judge(&self.found(), &self.expected, Some(self.offset))
    }
}

/// The one format among those found; `None`: raw.
fn choose(found: &[Found]) -> Result<Option<&Found>, Refusal> {
    match found {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let names: Vec<&str> = several.iter().map(|found| found.format.as_str()).collect();
            Err(Refusal::Unsupported(format!(
                "The data is of several formats at once ({}), so that different programs would see different disks in it.",
                names.join(", ")
            )))
        }
    }
}

/// Whether bytes are acceptable. Without `size_bytes` more are to come.
fn judge(found: &[Found], expected: &Expected, size_bytes: Option<u64>) -> Result<Facts, Refusal> {
    let rules = &expected.rules;
    let found = choose(found)?;
    let format = found.map_or(Format::Raw, |found| found.format);
    // 1. Is it dangerous? Whatever it is called.
    if let Some(found) = found
        && let Some(fault) = found.faults.iter().find(|fault| is_fatal(fault, format, expected))
    {
        return Err(Refusal::Unsupported(format!(
            "The data is an image in format {format} that cannot be accepted: {} (check {}).",
            fault.text, fault.check
        )));
    }
    // 2. Is it too large? What is raw is as large as it is.
    let disk_bytes = if matches!(format, Format::Raw | Format::Gpt) {
        size_bytes
    } else {
        found.and_then(|found| found.virtual_size_bytes)
    };
    if disk_bytes.is_some_and(|bytes| bytes > rules.virtual_size_cap_bytes) {
        return Err(Refusal::TooLarge(format!(
            "The disk in the image has {} bytes, more than the maximum of {} (virtual_size_cap_bytes).",
            disk_bytes.unwrap_or_default(),
            rules.virtual_size_cap_bytes
        )));
    }
    // 3. Is it what the record says?
    let mut warning = None;
    match mismatch(format, expected, size_bytes) {
        Some(text) if rules.require_image_format_match => return Err(Refusal::Unsupported(text)),
        other => warning = warning.or(other),
    }
    Ok(Facts { format, virtual_size_bytes: virtual_size(format, disk_bytes, expected, size_bytes), warning })
}

fn is_fatal(fault: &Fault, format: Format, expected: &Expected) -> bool {
    // Kernels carry what looks like a boot sector; what has no name may be one.
    let is_kernel = matches!(expected.disk_format.as_deref(), Some("aki" | "ari") | None);
    let ignored = expected.rules.gpt_safety_checks_nonfatal.iter().any(|name| name == fault.check);
    format != Format::Gpt || !(is_kernel || ignored)
}

/// What a record calls a format that can be told from bytes; `None` for names such as `ami` and `ploop`.
fn told_by_bytes(name: &str) -> Option<Format> {
    [
        Format::Raw,
        Format::Qcow2,
        Format::Qed,
        Format::Vhd,
        Format::Vhdx,
        Format::Vmdk,
        Format::Vdi,
        Format::Iso,
        Format::Gpt,
        Format::Luks,
    ]
    .into_iter()
    .find(|format| format.as_str() == name)
}

/// Whether the bytes are wrapped in something that hides what they are.
fn is_wrapped(expected: &Expected) -> bool {
    matches!(expected.container_format.as_deref(), Some("ovf" | "ova" | "docker" | "compressed"))
}

fn mismatch(format: Format, expected: &Expected, size_bytes: Option<u64>) -> Option<String> {
    let name = expected.disk_format.as_deref()?;
    // Without a byte it is no image at all: a boot-from-volume snapshot.
    if size_bytes == Some(0) {
        return None;
    }
    let accepted = match told_by_bytes(name) {
        Some(declared) if declared == format => true,
        Some(Format::Raw) => {
            expected.rules.accept_foreign_as_raw
                || !matches!(format, Format::Qcow2 | Format::Vmdk | Format::Vhd | Format::Vhdx | Format::Vdi)
        }
        Some(_) => format == Format::Raw && is_wrapped(expected),
        None => matches!(format, Format::Raw | Format::Gpt),
    };
    (!accepted).then(|| {
        let fix = match told_by_bytes(name) {
            Some(Format::Raw) => "convert it to raw, or set".to_owned(),
            _ => format!("upload data in format {name}, or set"),
        };
        format!("disk_format is {name}, but the data is {format}: {fix} disk_format to {format}.")
    })
}

fn virtual_size(format: Format, disk_bytes: Option<u64>, expected: &Expected, size_bytes: Option<u64>) -> Option<u64> {
    let declared = expected.disk_format.as_deref().map(told_by_bytes);
    let size = match declared {
        None => disk_bytes,
        // What is called raw is used as raw.
        Some(Some(Format::Raw)) if !is_wrapped(expected) => size_bytes,
        Some(declared) => disk_bytes.filter(|_| declared == Some(format)),
    };
    size.filter(|size| *size > 0 || size_bytes != Some(0))
}
