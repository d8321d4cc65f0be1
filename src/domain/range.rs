//! HTTP byte ranges (RFC 9110 section 14), as far as the Image API serves them: one range.

/// What a `Range` header asks for, against an image of known size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requested {
    /// No range, or one that covers the whole image without naming it.
    Whole,
    /// Bytes `start..end` (end exclusive, never empty, within the image).
    Part {
        /// First byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// Several ranges: refused with 400, as the reference does.
    Several,
    /// Unreadable, or beyond the end: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for an image of `size_bytes`.
#[must_use]
pub fn parse(header: &str, size_bytes: u64) -> Requested {
    let Some(spec) = header.trim().strip_prefix("bytes=") else {
        return Requested::Unsatisfiable;
    };
    if spec.contains(',') {
        return Requested::Several;
    }
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Requested::Unsatisfiable;
    };
    let (start, end) = match (number(first), number(last)) {
        (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(size_bytes)),
        (Some(start), None) if last.is_empty() => (start, size_bytes),
        // A suffix: the last N bytes; longer than the image means all of it.
        (None, Some(suffix)) if first.is_empty() && suffix > 0 => (size_bytes.saturating_sub(suffix), size_bytes),
        _ => return Requested::Unsatisfiable,
    };
    if start >= end { Requested::Unsatisfiable } else { Requested::Part { start, end } }
}

/// Digits only: no sign, no blanks, no overflow.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};

    use super::{Requested, parse};

    #[test]
    fn the_usual_forms() {
        assert_eq!(parse("bytes=0-9", 100), Requested::Part { start: 0, end: 10 });
        assert_eq!(parse("bytes=90-", 100), Requested::Part { start: 90, end: 100 });
        assert_eq!(parse("bytes=-10", 100), Requested::Part { start: 90, end: 100 });
        assert_eq!(parse("bytes=-1000", 100), Requested::Part { start: 0, end: 100 });
        assert_eq!(parse("bytes=50-1000", 100), Requested::Part { start: 50, end: 100 });
        assert_eq!(parse("bytes=0-1,5-6", 100), Requested::Several);
    }

    #[test]
    fn what_cannot_be_served() {
        for bad in [
            "bytes=100-",
            "bytes=9-5",
            "bytes=-",
            "bytes=-0",
            "bytes=a-b",
            "bytes=+1-2",
            "items=0-1",
            "bytes=",
            "bytes=1",
            "bytes=0x0-0x9",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(parse(bad, 100), Requested::Unsatisfiable, "{bad}");
        }
        assert_eq!(parse("bytes=0-0", 0), Requested::Unsatisfiable);
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_image(header in "\\PC{0,24}", spec in "[0-9,-]{0,24}", size in any::<u64>()) {
            for text in [header.clone(), format!("bytes={spec}")] {
                if let Requested::Part { start, end } = parse(&text, size) {
                    assert!(start < end && end <= size);
                }
            }
        }
    }
}
