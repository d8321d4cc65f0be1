//! VMware's virtual machine disk: a sparse extent with its descriptor inside, or a descriptor alone.

use super::capture::{le32, le64};
use super::{Fault, Found, Rules, Seen};
use crate::format::Format;

const MAGIC: &[u8] = b"KDMV";
/// Sparse extents of ESX, which have no descriptor.
const MAGIC_ESX: &[u8] = b"COWD";
const HEADER_BYTES: usize = 512;
const SECTOR_BYTES: u64 = 512;
const DESCRIPTOR: usize = 512;
/// The grain directory is in a footer.
const AT_END: u64 = u64::MAX;
/// What begins a descriptor's line about an extent.
const ACCESS: [&str; 3] = ["rw", "rdonly", "noaccess"];
/// Markers of a stream: a type, and nothing else in their sector.
const MARKER_END: u32 = 0;
const MARKER_FOOTER: u32 = 3;

pub(super) fn look(seen: &Seen<'_>, rules: &Rules) -> Option<Found> {
    if seen.head.starts_with(MAGIC) {
        return sparse(seen, rules);
    }
    if seen.head.starts_with(MAGIC_ESX) {
        let mut found = Found::new(Format::Vmdk, None);
        found.fault("descriptor", "it is a part of a disk and has no descriptor");
        return Some(found);
    }
    let text =
        std::str::from_utf8(&seen.head[..seen.head.len().min(HEADER_BYTES)]).ok().filter(|text| is_text(text))?;
    let begins = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let all = String::from_utf8_lossy(seen.head).to_ascii_lowercase();
    if !begins.is_some_and(|line| line.to_ascii_lowercase().starts_with("version=")) && !all.contains("createtype=\"") {
        return None;
    }
    let mut found = Found::new(Format::Vmdk, None);
    found.fault("descriptor", "it is a descriptor alone: the disk is in other files, which it names");
    Some(found)
}

fn is_text(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c.is_ascii_whitespace())
}

fn sparse(seen: &Seen<'_>, rules: &Rules) -> Option<Found> {
    let header = seen.head.get(..HEADER_BYTES)?;
    let sectors = le64(header, 12)?;
    let mut found = Found::new(Format::Vmdk, Some(sectors.saturating_mul(SECTOR_BYTES)));
    let version = le32(header, 4)?;
    if !matches!(version, 1..=3) {
        found.fault("version", format!("its version is {version}; 1, 2 and 3 are supported"));
    }
    if sectors == 0 {
        found.fault("structure", "it has no size of its own");
    }
    found.faults.extend(descriptor(header, seen, rules));
    if le64(header, 56)? == AT_END
        && let Some(end) = &seen.end
    {
        found.faults.extend(footer(header, end.tail));
    }
    Some(found)
}

/// Every line of the descriptor is known and harmless, or the image is refused.
fn descriptor(header: &[u8], seen: &Seen<'_>, rules: &Rules) -> Option<Fault> {
    let fault = |text: String| Some(Fault::new("descriptor", text));
    if le64(header, 28)?.checked_mul(SECTOR_BYTES) != Some(DESCRIPTOR as u64) {
        return fault("its descriptor is not in its second sector".into());
    }
    let length = usize::try_from(le64(header, 36)?.saturating_mul(SECTOR_BYTES)).unwrap_or(usize::MAX);
    if seen.ends_before((DESCRIPTOR as u64).saturating_add(length as u64)) {
        return fault("it is cut off: its descriptor lies beyond its end".into());
    }
    let region = &seen.head[DESCRIPTOR..DESCRIPTOR.saturating_add(length).min(seen.head.len())];
    let text = region.iter().position(|byte| *byte == 0).map_or(region, |end| &region[..end]);
    if text.len() == region.len() && region.len() < length {
        return fault("its descriptor is too long".into());
    }
    let Some(text) = std::str::from_utf8(text).ok().filter(|text| is_text(text)) else {
        return fault("its descriptor is missing, or not plain text".into());
    };
    let text = text.to_ascii_lowercase();
    // Programs differ in which one they believe.
    if text.matches("createtype").count() != 1 {
        return fault("its descriptor must name one create type".into());
    }
    let mut kind = "";
    let mut extents = 0;
    for line in text.lines().map(str::trim) {
        let (key, value) = line.split_once('=').unwrap_or(("", line));
        if line.is_empty() || line.starts_with('#') || line.starts_with("ddb") {
            continue;
        }
        if !key.is_empty() && !key.trim_end().contains(char::is_whitespace) {
            match key.trim_end() {
                "createtype" => kind = value.trim().trim_matches('"'),
                "parentcid" if value.trim() != "ffffffff" => {
                    return fault("it is a difference to another file".into());
                }
                "parentfilenamehint" => return fault("it names a parent file".into()),
                _ => {}
            }
        } else if line.split_whitespace().next().is_some_and(|access| ACCESS.contains(&access)) {
            extents += 1;
            if line.contains('/') {
                return fault("one of its extents is a path".into());
            }
            if line.split_whitespace().nth(2) != Some("sparse") {
                return fault("one of its extents lies in another file".into());
            }
        } else {
            return fault("its descriptor has a line that is not known here".into());
        }
    }
    if !rules.vmdk_allowed_types.iter().any(|allowed| allowed.eq_ignore_ascii_case(kind)) {
        let kind: String = kind.chars().take(40).collect();
        return fault(format!(
            "its create type is '{kind}'; allowed: {} (vmdk_allowed_types)",
            rules.vmdk_allowed_types.join(", ")
        ));
    }
    match extents {
        1 => None,
        0 => fault("its descriptor names no extent".into()),
        _ => fault("it consists of several extents".into()),
    }
}

/// A marker, a second header that counts instead of the first, and the marker of the end.
fn footer(header: &[u8], tail: &[u8]) -> Option<Fault> {
    let fault = |text: &str| Some(Fault::new("footer", format!("its footer is wrong: {text}")));
    let Some([start, footer, end]) = tail.as_chunks::<HEADER_BYTES>().0.get(..3).and_then(|all| all.first_chunk())
    else {
        return fault("it is cut off");
    };
    let is_marker =
        |sector: &[u8], kind| sector[8..12] == [0; 4] && le32(sector, 12) == Some(kind) && sector[16..] == [0; 496];
    if !is_marker(start, MARKER_FOOTER) {
        return fault("there is no marker before it");
    }
    // Magic and version; place and length of the descriptor.
    if header[..8] != footer[..8] || header[28..44] != footer[28..44] {
        return fault("it contradicts the header");
    }
    if le64(footer, 12) != le64(header, 12) {
        return fault("it has another size than the header");
    }
    if le64(footer, 56)? == AT_END {
        return fault("it names a further footer");
    }
    if !is_marker(end, MARKER_END) || end[..8] != [0; 8] {
        return fault("there is no marker behind it");
    }
    None
}
