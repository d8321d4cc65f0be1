//! What the head of an answer promises, as far as it can be believed.

use hyper::HeaderMap;
use hyper::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderName, HeaderValue, LAST_MODIFIED, RETRY_AFTER,
};
use std::time::Duration;

use super::target::Target;

/// Longest pause that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Encodings that are no more than what the file is, by the end of its name: some servers say so of archives.
const ARCHIVES: [(&str, &[&str]); 5] = [
    ("gzip", &[".gz", ".tgz"]),
    ("x-gzip", &[".gz", ".tgz"]),
    ("zstd", &[".zst"]),
    ("x-xz", &[".xz"]),
    ("x-bzip2", &[".bz2"]),
];

/// `Content-Range: bytes first-last/total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentRange {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) total: u64,
}

impl ContentRange {
    /// Reads the header; nothing if it is not there, makes no sense, or keeps the total to itself.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let text = only(headers, &CONTENT_RANGE)?.strip_prefix("bytes ")?;
        let (range, total) = text.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let range = Self { first: number(first)?, last: number(last)?, total: number(total)? };
        let length = range.last.checked_sub(range.first)?.checked_add(1)?;
        let contradicted = headers.contains_key(CONTENT_LENGTH) && content_length(headers) != Some(length);
        (range.last < range.total && !contradicted).then_some(range)
    }
}

/// `Content-Length`, if it is one number.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    number(only(headers, &CONTENT_LENGTH)?)
}

/// What tells one state of the data from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validator {
    etag: Option<HeaderValue>,
    last_modified: Option<HeaderValue>,
}

impl Validator {
    /// The validator of an answer, if it has one.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let (etag, last_modified) = (headers.get(ETAG).cloned(), headers.get(LAST_MODIFIED).cloned());
        (etag.is_some() || last_modified.is_some()).then_some(Self { etag, last_modified })
    }

    /// What to send as `If-Range`: a weak tag is not allowed there.
    pub(super) fn if_range(&self) -> Option<&HeaderValue> {
        self.etag.as_ref().filter(|etag| !etag.as_bytes().starts_with(b"W/")).or(self.last_modified.as_ref())
    }

    /// Whether an answer is of the same state. One without validators may be: the server was told which one is wanted.
    pub(super) fn agrees(&self, headers: &HeaderMap) -> bool {
        match (&self.etag, headers.get(ETAG)) {
            (Some(known), Some(found)) => known == found,
            _ => match (&self.last_modified, headers.get(LAST_MODIFIED)) {
                (Some(known), Some(found)) => known == found,
                _ => true,
            },
        }
    }
}

/// An encoding that was put around the data although nobody asked for it.
pub(super) fn unasked_encoding(headers: &HeaderMap, target: &Target) -> Option<String> {
    let path = target.path().to_ascii_lowercase();
    let all = headers.get_all(CONTENT_ENCODING).iter();
    let mut all = all.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_lowercase());
    all.find(|encoding| {
        let archive =
            ARCHIVES.iter().any(|(name, ends)| name == encoding && ends.iter().any(|end| path.ends_with(end)));
        !encoding.is_empty() && encoding != "identity" && !archive
    })
}

/// The pause that the server asks for.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = number(only(headers, &RETRY_AFTER)?)?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value.trim())
}

/// Digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::{ContentRange, Validator, content_length, retry_after, unasked_encoding};
    use crate::fetch::Target;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect()
    }

    #[test]
    fn a_range_must_make_sense() {
        let read = |text: &str| ContentRange::read(&headers(&[("content-range", text)]));
        assert_eq!(read("bytes 0-9/10"), Some(ContentRange { first: 0, last: 9, total: 10 }));
        for text in [
            "bytes 0-9/*",
            "bytes */10",
            "bytes 9-0/10",
            "bytes 0-10/10",
            "0-9/10",
            "bytes +0-9/10",
            "bytes 0-9/10, x",
            "bytes 0-/1",
            "bytes 0-18446744073709551615/18446744073709551615",
            "bytes 0-9/99999999999999999999",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(ContentRange::read(&headers(&[("content-range", "bytes 0-9/10"), ("content-length", "10")])).is_some());
        assert!(ContentRange::read(&headers(&[("content-range", "bytes 0-9/10"), ("content-length", "11")])).is_none());
        assert_eq!(content_length(&headers(&[("content-length", "-1")])), None);
    }

    #[test]
    fn a_validator_tells_states_apart() {
        let of = |list: &[(&'static str, &str)]| Validator::read(&headers(list));
        assert_eq!(of(&[]), None);
        let strong = of(&[("etag", "\"a\""), ("last-modified", "Mon")]).unwrap();
        assert_eq!(strong.if_range().unwrap(), "\"a\"");
        assert!(strong.agrees(&headers(&[("etag", "\"a\""), ("last-modified", "Tue")])));
        assert!(!strong.agrees(&headers(&[("etag", "\"b\""), ("last-modified", "Mon")])));
        assert!(!strong.agrees(&headers(&[("last-modified", "Tue")])));
        assert_eq!(of(&[("etag", "W/\"a\"")]).unwrap().if_range(), None);
        assert_eq!(of(&[("etag", "W/\"a\""), ("last-modified", "Mon")]).unwrap().if_range().unwrap(), "Mon");
    }

    #[test]
    fn an_encoding_is_refused_unless_it_is_the_file_itself() {
        let refused = |encoding: &str, path: &str| {
            unasked_encoding(
                &headers(&[("content-encoding", encoding)]),
                &Target::parse(&format!("http://a{path}")).unwrap(),
            )
        };
        assert_eq!(refused("gzip", "/disk.qcow2").as_deref(), Some("gzip"));
        assert_eq!(refused("gzip", "/x?disk.gz").as_deref(), Some("gzip"));
        assert_eq!(refused("identity", "/disk.qcow2"), None);
        assert_eq!(refused("x-gzip", "/disk.qcow2.GZ?signature=x"), None);
        assert_eq!(refused("br", "/disk.gz").as_deref(), Some("br"));
    }

    proptest! {
        #[test]
        fn no_header_is_a_panic(name in 0..3_usize, value: Vec<u8>) {
            let name = ["content-range", "content-length", "retry-after"][name];
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let headers = HeaderMap::from_iter([(HeaderName::from_static(name), value)]);
                if let Some(range) = ContentRange::read(&headers) {
                    prop_assert!(range.first <= range.last && range.last < range.total);
                }
                let _ = (content_length(&headers), retry_after(&headers));
            }
        }
    }
}
