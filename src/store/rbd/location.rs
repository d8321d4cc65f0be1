//! `rbd://<fsid>/<pool>/<image>/<snapshot>`, each part percent-encoded: Glance's form, which Nova and
//! Cinder take apart.

use std::fmt;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Where a blob is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// Cluster.
    pub(super) fsid: String,
    /// Pool.
    pub(super) pool: String,
    /// RBD image.
    pub(super) image: String,
    /// Snapshot.
    pub(super) snapshot: String,
}

impl Location {
    /// Takes a URL apart; `None` unless it has exactly four parts, none empty.
    pub(super) fn parse(url: &str) -> Option<Self> {
        let rest = url.strip_prefix("rbd://")?;
        let mut parts = Vec::with_capacity(4);
        for part in rest.split('/') {
            let decoded = percent_decode_str(part).decode_utf8().ok()?;
            if decoded.is_empty() || decoded.contains('\0') {
                return None;
            }
            parts.push(decoded.into_owned());
        }
        let [fsid, pool, image, snapshot] = <[String; 4]>::try_from(parts).ok()?;
        Some(Self { fsid, pool, image, snapshot })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Python's quote(), which Glance uses, leaves these alone.
        const ENCODED: &percent_encoding::AsciiSet =
            &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        let part = |text| utf8_percent_encode(text, ENCODED);
        write!(f, "rbd://{}/{}/{}/{}", part(&self.fsid), part(&self.pool), part(&self.image), part(&self.snapshot))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::Location;

    #[test]
    fn glance_urls() {
        let url = "rbd://b0f5c3e2-1c1e-4e7c-9d5e-0c2f9a1b7d11/images/6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b/snap";
        let location = Location::parse(url).unwrap();
        assert_eq!(location.pool, "images");
        assert_eq!(location.to_string(), url);
        for bad in [
            "rbd://image",
            "rbd://a/b/c",
            "rbd://a/b/c/d/e",
            "rbd://a//c/d",
            "file:///etc/passwd",
            "rbd://a/b/c/%00",
            "RBD://a/b/c/d",
        ] {
            assert_eq!(Location::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn odd_names_round_trip(pool in "[^\0]{1,12}", image in "[^\0]{1,12}") {
            let location = Location { fsid: "f".into(), pool, image, snapshot: "snap".into() };
            assert_eq!(Location::parse(&location.to_string()), Some(location));
        }
    }
}
