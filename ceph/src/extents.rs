//! Which parts of an image hold data.

use std::ffi::c_void;

use crate::error::{Error, check};
use crate::sys;

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is, never 0.
    pub length: u64,
}

pub(crate) fn allocated(
    raw: sys::rbd_image_t,
    label: &str,
    offset: u64,
    length: u64,
    include_parent: bool,
) -> Result<Vec<Extent>, Error> {
    let mut found: Vec<Extent> = Vec::new();
    if length == 0 {
        // librbd aborts the process when it is asked about nothing (16.2.15, DiffIterate.cc).
        return Ok(found);
    }
    // From no snapshot, so "everything there is"; whole objects, so that the object map is enough to answer.
    let whole_object = 1;
    // SAFETY: a live image; librbd calls back only during this call, one call at a time, with the pointer to
    // `found`, which nobody else uses meanwhile.
    let value = unsafe {
        sys::rbd_diff_iterate2(
            raw,
            std::ptr::null(),
            offset,
            length,
            u8::from(include_parent),
            whole_object,
            Some(on_extent),
            (&raw mut found).cast(),
        )
    };
    check(value, "rbd_diff_iterate2", label)?;
    Ok(merge(found, offset, length))
}

unsafe extern "C" fn on_extent(offset: u64, length: usize, exists: libc::c_int, found: *mut c_void) -> libc::c_int {
    if exists != 0 {
        // SAFETY: `allocated` passed a pointer to its vector and waits for librbd.
        let found = unsafe { &mut *found.cast::<Vec<Extent>>() };
        found.push(Extent { offset, length: length as u64 });
    }
    0
}

/// Sorts, cuts to the range, and joins what touches or overlaps.
fn merge(mut found: Vec<Extent>, offset: u64, length: u64) -> Vec<Extent> {
    found.sort_unstable_by_key(|extent| extent.offset);
    let end = offset.saturating_add(length);
    let mut merged: Vec<Extent> = Vec::new();
    for extent in found {
        let from = extent.offset.max(offset);
        let to = extent.offset.saturating_add(extent.length).min(end);
        if from >= to {
            continue;
        }
        match merged.last_mut() {
            Some(last) if from <= last.offset + last.length => {
                last.length = last.length.max(to - last.offset);
            }
            _ => merged.push(Extent { offset: from, length: to - from }),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::{Extent, merge};

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn merges_what_touches() {
        let found = vec![extent(16, 8), extent(0, 8), extent(8, 4), extent(10, 2), extent(30, 5)];
        assert_eq!(merge(found, 0, u64::MAX), [extent(0, 12), extent(16, 8), extent(30, 5)]);
    }

    #[test]
    fn cuts_to_the_range() {
        let found = vec![extent(0, 8), extent(8, 8), extent(24, 8)];
        assert_eq!(merge(found.clone(), 4, 8), [extent(4, 8)]);
        assert_eq!(merge(found, 20, 5), [extent(24, 1)]);
        assert!(merge(Vec::new(), 0, 10).is_empty());
    }
}
