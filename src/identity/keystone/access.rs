//! Access rules of application credentials: the requests that one may be used for.

use serde::Deserialize;

use super::catalog::SERVICE_TYPE;

/// One kind of request that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct AccessRule {
    service: String,
    method: String,
    path: String,
}

impl AccessRule {
    /// Whether it allows this request to the image service.
    pub(super) fn allows(&self, method: &str, path: &str) -> bool {
        self.service == SERVICE_TYPE && self.method == method && matches(&self.path, path)
    }
}

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// This byte.
    Byte(u8),
    /// `*` or `{name}`: one path segment, or what is left of it, but not nothing.
    Segment,
    /// `**`: anything.
    Anything,
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = pattern.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let (piece, length) = match first {
            b'*' if tail.first() == Some(&b'*') => (Piece::Anything, 2),
            b'*' => (Piece::Segment, 1),
            b'{' => match rest.iter().position(|byte| *byte == b'}') {
                Some(end) => (Piece::Segment, end + 1),
                None => (Piece::Byte(first), 1),
            },
            _ => (Piece::Byte(first), 1),
        };
        pieces.push(piece);
        rest = &rest[length..];
    }
    pieces
}

/// Whether a path matches a pattern, in time that grows with the product of their lengths at worst.
fn matches(pattern: &str, path: &str) -> bool {
    let pieces = pieces(pattern);
    // For each number of pieces: whether these match what has been read so far.
    let mut reached = vec![false; pieces.len() + 1];
    reached[0] = true;
    skip_anything(&pieces, &mut reached);
    for byte in path.bytes() {
        let mut next = vec![false; pieces.len() + 1];
        for (n, piece) in pieces.iter().enumerate() {
            next[n + 1] = match piece {
                Piece::Byte(wanted) => reached[n] && *wanted == byte,
                // Its first byte, or one more.
                Piece::Segment => byte != b'/' && (reached[n] || reached[n + 1]),
                Piece::Anything => reached[n] || reached[n + 1],
            };
        }
        skip_anything(&pieces, &mut next);
        reached = next;
    }
    reached[pieces.len()]
}

/// "Anything" may be nothing.
fn skip_anything(pieces: &[Piece], reached: &mut [bool]) {
    for (n, piece) in pieces.iter().enumerate() {
        if *piece == Piece::Anything && reached[n] {
            reached[n + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{AccessRule, matches};

    #[test]
    fn patterns_of_keystone() {
        for (pattern, path, expected) in [
            ("/v2/images", "/v2/images", true),
            ("/v2/images", "/v2/images/", false),
            ("/v2/images", "/v2/image", false),
            ("/v2/images", "/V2/images", false),
            ("/v2/images", "/x/v2/images", false),
            ("/v2/images/*", "/v2/images/1", true),
            ("/v2/images/*", "/v2/images/", false),
            ("/v2/images/*", "/v2/images", false),
            ("/v2/images/*", "/v2/images/1/file", false),
            ("/v2/images/*/file", "/v2/images/1/file", true),
            ("/v2/images/*/file", "/v2/images/1/2/file", false),
            ("/v2/images/*/file", "/v2/images//file", false),
            ("/v2/images/{image_id}", "/v2/images/1", true),
            ("/v2/images/{image_id}", "/v2/images/{image_id}", true),
            ("/v2/images/{image_id}", "/v2/images/1/file", false),
            ("/v2/images/{image_id}/file", "/v2/images/1/file", true),
            ("/v2/images/{}", "/v2/images/1", true),
            ("/v2/images/{image", "/v2/images/{image", true),
            ("/v2/images/{image", "/v2/images/1", false),
            ("/v2/images/**", "/v2/images/1/file", true),
            ("/v2/images/**", "/v2/images/", true),
            ("/v2/images/**", "/v2/images", false),
            ("/v2/images**", "/v2/images", true),
            ("**", "", true),
            ("**", "/v2/anything", true),
            ("/v2/**/file", "/v2/images/1/file", true),
            ("/v2/**/file", "/v2/images/1/files", false),
            ("/v2/im*s", "/v2/images", true),
            ("/v2/im*s", "/v2/ims", false),
            ("***", "/v2/x", true),
            // No regular expression.
            ("/v2/image.", "/v2/images", false),
            ("/v2/.*", "/v2/images", false),
            ("/v2/(images|tasks)", "/v2/images", false),
            ("", "", true),
            ("", "/", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn service_and_method_count_too() {
        let rule = |service: &str, method: &str| AccessRule {
            service: service.into(),
            method: method.into(),
            path: "/v2/images".into(),
        };
        assert!(rule("image", "GET").allows("GET", "/v2/images"));
        assert!(!rule("image", "GET").allows("POST", "/v2/images"));
        assert!(!rule("image", "get").allows("GET", "/v2/images"));
        assert!(!rule("compute", "GET").allows("GET", "/v2/images"));
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern = "**a".repeat(42);
        assert!(!matches(&pattern, &"a".repeat(8000).replace("aaaaaaaa", "bbbbbbbb")));
    }

    proptest! {
        #[test]
        fn a_path_without_signs_matches_itself(path in "[a-z/0-9.-]{0,60}") {
            prop_assert!(matches(&path, &path));
            prop_assert!(matches("**", &path));
            let start = format!("{path}**");
            prop_assert!(matches(&start, &path));
        }
    }
}
