//! Where bytes are, as a client says it: URLs, what stands beside them, and the hash that they should have.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use super::Refusal;
use super::content::HashAlgorithm;
use super::image::{Location, check_text};
use super::limits::{LOCATION_METADATA_BYTES_MAX, LOCATION_METADATA_DEPTH_MAX, LOCATION_URL_CHARS_MAX};

/// Name of the snapshot that consumers clone: Glance's, and not configurable there either.
pub const SNAPSHOT: &str = "snap";

/// `rbd://<fsid>/<pool>/<image>/<snapshot>`, each part percent-encoded: Glance's form, which Nova and
/// Cinder take apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RbdUrl {
    /// Cluster.
    pub fsid: String,
    /// Pool.
    pub pool: String,
    /// RBD image.
    pub image: String,
    /// Snapshot.
    pub snapshot: String,
}

impl RbdUrl {
    /// Takes a URL apart. There is one spelling for every URL, so that two locations are the same if and only if
    /// their URLs are.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] with the rule that was broken. The text does not repeat the URL: those of other
    /// schemes hold passwords.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let invalid = |why: String| Refusal::Invalid(format!("Invalid location: url {why}."));
        if text.chars().count() > LOCATION_URL_CHARS_MAX {
            return Err(invalid(format!("is longer than {LOCATION_URL_CHARS_MAX} characters")));
        }
        let Some(rest) = text.strip_prefix("rbd://") else {
            return Err(invalid(match scheme(text) {
                Some("http" | "https") => "is of http, and no http store is configured here; register data in RBD as rbd://<fsid>/<pool>/<image>/snap".to_owned(),
                Some(scheme) => format!("is of the scheme '{scheme}', which no store here has; it must begin with rbd://, in lower case"),
                None => "has no scheme; it must be rbd://<fsid>/<pool>/<image>/snap".to_owned(),
            }));
        };
        let parts = rest.split('/').map(part).collect::<Result<Vec<_>, _>>().map_err(|why| invalid(why.to_owned()))?;
        let count = parts.len();
        let [fsid, pool, image, snapshot] = <[String; 4]>::try_from(parts)
            .map_err(|_| invalid(format!("must have four parts, rbd://<fsid>/<pool>/<image>/snap, not {count}")))?;
        if snapshot != SNAPSHOT {
            return Err(invalid(format!("must end with the snapshot that consumers clone, /{SNAPSHOT}")));
        }
        let url = Self { fsid, pool, image, snapshot };
        if url.to_string() != text {
            return Err(invalid(
                "must be percent-encoded in the usual way: letters, digits and -._~ stand for themselves, everything else as %XX in upper case".to_owned(),
            ));
        }
        Ok(url)
    }
}

/// The scheme of a URL, if it is one that can be shown.
fn scheme(text: &str) -> Option<&str> {
    const SHOWN_CHARS_MAX: usize = 32;
    let (scheme, _) = text.split_once(':')?;
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    (!scheme.is_empty() && scheme.len() <= SHOWN_CHARS_MAX && scheme.bytes().all(usual)).then_some(scheme)
}

/// One part of the path, decoded.
fn part(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| "has a part that is not UTF-8")?;
    if decoded.is_empty() {
        return Err("has an empty part");
    }
    if matches!(&*decoded, "." | "..") {
        return Err("has a part '.' or '..'");
    }
    // What the rbd command and librbd would take for a separator is no name.
    if decoded.chars().any(|c| c.is_control() || matches!(c, '/' | '@')) {
        return Err("has a control character, '/' or '@' in one of its parts");
    }
    Ok(decoded.into_owned())
}

impl fmt::Display for RbdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Python's quote(), which Glance uses, leaves these alone.
        const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
        let part = |text| utf8_percent_encode(text, ENCODED);
        write!(f, "rbd://{}/{}/{}/{}", part(&self.fsid), part(&self.pool), part(&self.image), part(&self.snapshot))
    }
}

/// Data that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Where it is, without metadata.
    pub location: Location,
    /// How much it is.
    pub size_bytes: u64,
}

/// What the bytes should be, as whoever registers them says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validation {
    /// MD5 in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checksum: Option<String>,
    /// Algorithm of `os_hash_value`.
    pub os_hash_algo: String,
    /// Hash in hex.
    pub os_hash_value: String,
}

impl Validation {
    /// Whether `os_hash_value` can be a hash by its algorithm, and `checksum` an MD5.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn check(&self) -> Result<(), String> {
        let algorithm = HashAlgorithm::named(&self.os_hash_algo)
            .ok_or_else(|| format!("os_hash_algo '{}' is no algorithm that is known here.", self.os_hash_algo))?;
        check_hex("os_hash_value", &self.os_hash_value, algorithm)?;
        self.checksum.as_deref().map_or(Ok(()), |md5| check_hex("checksum", md5, HashAlgorithm::Md5))
    }
}

fn check_hex(field: &str, text: &str, algorithm: HashAlgorithm) -> Result<(), String> {
    let digits = algorithm.digest_bytes() * 2;
    if text.bytes().any(|byte| !byte.is_ascii_hexdigit()) {
        return Err(format!("{field} is not a valid hexadecimal value; it has digits and the letters a to f alone."));
    }
    if text.len() != digits {
        return Err(format!(
            "{field} is not the correct size for {algorithm}: {} characters, it should be {digits}.",
            text.len()
        ));
    }
    Ok(())
}

/// What `POST /v2/images/{id}/locations` says.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// Where the bytes are; not looked at yet.
    pub url: String,
    /// What they should be; of the right form.
    pub validation: Option<Validation>,
}

impl Registration {
    /// Reads the body of the request.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the member.
    pub fn parse(body: &Value) -> Result<Self, Refusal> {
        let members = object("The request body", body)?;
        known("The request body", members, &["url", "validation_data"])?;
        let url = text("url", members.get("url"))?;
        let validation = match members.get("validation_data") {
            None => None,
            Some(value) => validation(value, &HashAlgorithm::VALIDATION, false)?,
        };
        if let Some(validation) = &validation {
            validation.check().map_err(|why| Refusal::Invalid(format!("validation_data: {why}")))?;
        }
        Ok(Self { url, validation })
    }
}

/// A location as an element of an image's `locations`.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// Where the bytes are; not looked at yet.
    pub url: String,
    /// What is to be remembered beside it.
    pub metadata: Map<String, Value>,
    /// What the bytes should be; not looked at yet.
    pub validation: Option<Validation>,
}

impl Proposal {
    /// Reads an element of `locations`.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the member.
    pub fn parse(value: &Value) -> Result<Self, Refusal> {
        let members = object("A location", value)?;
        known("A location", members, &["url", "metadata", "validation_data"])?;
        let metadata = members
            .get("metadata")
            .ok_or_else(|| Refusal::Invalid("'metadata' is a required property of a location; {} will do.".into()))?;
        check_metadata(metadata)?;
        let validation = match members.get("validation_data") {
            None => None,
            Some(value) => validation(value, &[], true)?,
        };
        let mut metadata = object("metadata", metadata)?.clone();
        // Which store it is in follows from the URL.
        metadata.remove("store");
        Ok(Self { url: text("url", members.get("url"))?, metadata, validation })
    }
}

fn check_metadata(metadata: &Value) -> Result<(), Refusal> {
    let length = metadata.to_string().len();
    if length > LOCATION_METADATA_BYTES_MAX {
        return Err(Refusal::Invalid(format!(
            "metadata is too long: {length} bytes of JSON, at most {LOCATION_METADATA_BYTES_MAX} are allowed."
        )));
    }
    check_nested(metadata, 0)
}

fn check_nested(value: &Value, depth: usize) -> Result<(), Refusal> {
    if depth > LOCATION_METADATA_DEPTH_MAX {
        return Err(Refusal::Invalid(format!(
            "metadata is nested too deeply: at most {LOCATION_METADATA_DEPTH_MAX} levels are allowed."
        )));
    }
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => check_text("metadata", text, true),
        Value::Array(list) => list.iter().try_for_each(|item| check_nested(item, depth + 1)),
        Value::Object(members) => members.iter().try_for_each(|(name, item)| {
            check_text("metadata", name, false)?;
            check_nested(item, depth + 1)
        }),
    }
}

/// Reads `validation_data`; an empty one says nothing. `algorithms` are those permitted, none: any.
pub(super) fn validation(
    value: &Value,
    algorithms: &[HashAlgorithm],
    checksum: bool,
) -> Result<Option<Validation>, Refusal> {
    let names: &[&str] = &["os_hash_algo", "os_hash_value", "checksum"][..if checksum { 3 } else { 2 }];
    let members = object("validation_data", value)?;
    known("validation_data", members, names)?;
    if members.is_empty() && !checksum {
        return Ok(None);
    }
    let os_hash_algo = text("validation_data.os_hash_algo", members.get("os_hash_algo"))?;
    if !algorithms.is_empty() && !algorithms.iter().any(|algorithm| algorithm.as_str() == os_hash_algo) {
        let names = algorithms.iter().map(|algorithm| algorithm.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Refusal::Invalid(format!("validation_data.os_hash_algo must be one of {names}.")));
    }
    Ok(Some(Validation {
        checksum: members.get("checksum").map(|value| text("validation_data.checksum", Some(value))).transpose()?,
        os_hash_algo,
        os_hash_value: text("validation_data.os_hash_value", members.get("os_hash_value"))?,
    }))
}

fn object<'v>(what: &str, value: &'v Value) -> Result<&'v Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| Refusal::Invalid(format!("{what} must be a JSON object.")))
}

fn known(what: &str, members: &Map<String, Value>, names: &[&str]) -> Result<(), Refusal> {
    match members.keys().find(|name| !names.contains(&name.as_str())) {
        None => Ok(()),
        Some(_) => Err(Refusal::Invalid(format!("{what} has an unknown member; known: {}.", names.join(", ")))),
    }
}

fn text(field: &str, value: Option<&Value>) -> Result<String, Refusal> {
    let value = value.ok_or_else(|| Refusal::Invalid(format!("'{field}' is a required property.")))?;
    let text = value.as_str().ok_or_else(|| Refusal::Invalid(format!("{field} must be a string.")))?;
    check_text(field, text, false)?;
    if text.chars().count() > LOCATION_URL_CHARS_MAX {
        return Err(Refusal::Invalid(format!("{field} is longer than {LOCATION_URL_CHARS_MAX} characters.")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    use super::{Proposal, RbdUrl, Registration, Validation};
    use crate::domain::Refusal;

    const URL: &str = "rbd://b0f5c3e2-1c1e-4e7c-9d5e-0c2f9a1b7d11/images/6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b/snap";

    fn refused(text: &str) -> String {
        match RbdUrl::parse(text) {
            Err(Refusal::Invalid(why)) => why,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn glance_urls() {
        let url = RbdUrl::parse(URL).unwrap();
        assert_eq!(url.pool, "images");
        assert_eq!(url.to_string(), URL);
    }

    #[test]
    fn everything_else_is_refused_with_its_rule() {
        for (bad, rule) in [
            ("", "scheme"),
            ("rbd", "scheme"),
            ("rbd://image", "four parts"),
            ("rbd://a/b/c", "four parts"),
            ("rbd://a/b/c/snap/d", "four parts"),
            ("rbd://a//c/snap", "empty part"),
            ("rbd:///b/c/snap", "empty part"),
            ("rbd://a/b/c/", "empty part"),
            ("rbd://a/b/c/other", "snapshot"),
            ("rbd://a/b/c/%00", "control character"),
            ("rbd://a/b/c%0A/snap", "control character"),
            ("rbd://a/b/c%2Fd/snap", "'/'"),
            ("rbd://a/b/c%40snap/snap", "'@'"),
            ("rbd://a/b/../snap", "'..'"),
            ("rbd://a/b/%2e%2E/snap", "'..'"),
            ("rbd://a/b/%FF/snap", "UTF-8"),
            ("rbd://a/imag%65s/c/snap", "percent-encoded"),
            ("rbd://a/b/c%2/snap", "percent-encoded"),
            ("rbd://a/b/c%3a/snap", "percent-encoded"),
            ("rbd://a/b/c/snap?x=1", "snapshot"),
            ("rbd://a/b/c d/snap", "percent-encoded"),
            ("rbd://user:key@a/b/c/snap", "'@'"),
            ("RBD://a/b/c/snap", "lower case"),
            (" rbd://a/b/c/snap", "scheme"),
            ("file:///etc/passwd", "'file'"),
            ("FiLe:///etc/passwd", "'FiLe'"),
            ("filesystem:///etc/passwd", "'filesystem'"),
            ("swift+config://ref/c/o", "'swift+config'"),
            ("cinder://volume", "'cinder'"),
            ("http://example.org/x", "http store"),
            ("https://user:secret@example.org/x", "http store"),
        ] {
            let why = refused(bad);
            assert!(why.contains(rule), "{bad}: {why}");
            assert!(!why.contains("secret") && !why.contains("passwd"), "{why}");
        }
        assert!(refused(&format!("rbd://a/b/{}/snap", "c".repeat(300))).contains("255"));
    }

    #[test]
    fn bodies_name_what_is_wrong_with_them() {
        let sha256 = "a".repeat(64);
        for body in [json!({"url": URL}), json!({"url": URL, "validation_data": {}})] {
            assert_eq!(Registration::parse(&body).unwrap().validation, None);
        }
        let good = json!({"url": URL, "validation_data": {"os_hash_algo": "sha256", "os_hash_value": sha256}});
        assert_eq!(Registration::parse(&good).unwrap().validation.unwrap().os_hash_value, sha256);
        for (body, rule) in [
            (json!([]), "object"),
            (json!({}), "url"),
            (json!({"url": 5}), "url"),
            (json!({"url": URL, "metadata": {}}), "unknown"),
            (json!({"url": URL, "validation_data": null}), "validation_data"),
            (json!({"url": URL, "validation_data": {"os_hash_algo": "sha256"}}), "os_hash_value"),
            (json!({"url": URL, "validation_data": {"os_hash_value": sha256}}), "os_hash_algo"),
            (json!({"url": URL, "validation_data": {"os_hash_algo": "sha384", "os_hash_value": sha256}}), "one of"),
            (json!({"url": URL, "validation_data": {"os_hash_algo": "sha512", "os_hash_value": sha256}}), "size"),
            (json!({"url": URL, "validation_data": {"os_hash_algo": "md5", "os_hash_value": "zz"}}), "hexadecimal"),
            (
                json!({"url": URL, "validation_data": {"checksum": "a", "os_hash_algo": "md5", "os_hash_value": "a"}}),
                "unknown",
            ),
            (json!({"url": "rbd://a\u{0}"}), "control character"),
        ] {
            match Registration::parse(&body) {
                Err(Refusal::Invalid(why)) => assert!(why.contains(rule), "{body}: {why}"),
                other => panic!("{body}: {other:?}"),
            }
        }
    }

    #[test]
    fn metadata_is_bounded() {
        let proposal = |metadata: Value| Proposal::parse(&json!({"url": URL, "metadata": metadata}));
        let mut deep = json!(1);
        for _ in 0..20 {
            deep = json!([deep]);
        }
        for bad in [
            json!(null),
            json!([]),
            json!("x"),
            json!({"a": deep}),
            json!({"a": "b\u{0}"}),
            json!({"k": "x".repeat(10_000)}),
        ] {
            assert!(matches!(proposal(bad.clone()), Err(Refusal::Invalid(_))), "{bad}");
        }
        let kept = proposal(json!({"store": "elsewhere", "zone": {"rack": 5}})).unwrap().metadata;
        assert_eq!(Value::Object(kept), json!({"zone": {"rack": 5}}), "the store follows from the URL");
    }

    #[test]
    fn hashes_have_the_length_of_their_algorithm() {
        let check = |algorithm: &str, value: &str, checksum: Option<&str>| {
            Validation {
                checksum: checksum.map(str::to_owned),
                os_hash_algo: algorithm.into(),
                os_hash_value: value.into(),
            }
            .check()
        };
        let hex = "0123456789abcdefABCDEF".repeat(6);
        for (algorithm, digits) in [("md5", 32), ("sha1", 40), ("sha256", 64), ("sha384", 96), ("sha512", 128)] {
            check(algorithm, &hex[..digits], None).unwrap();
            check(algorithm, &hex[..digits - 1], None).unwrap_err();
            check(algorithm, &hex[..digits], Some(&hex[..31])).unwrap_err();
            check(algorithm, &hex[..digits], Some(&hex[..32])).unwrap();
        }
        check("crc32", "00000000", None).unwrap_err();
    }

    proptest! {
        #[test]
        fn odd_names_round_trip(pool in "[^/@.\\p{Cc}]{1,12}", image in "[^/@.\\p{Cc}]{1,12}") {
            let url = RbdUrl { fsid: "f".into(), pool, image, snapshot: "snap".into() };
            if url.to_string().len() <= 255 {
                assert_eq!(RbdUrl::parse(&url.to_string()), Ok(url));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>(), path in "(rbd|file|http)://[a-z%0-9/@?#.]{0,40}") {
            let _ = RbdUrl::parse(&text);
            if let Ok(url) = RbdUrl::parse(&path) {
                assert_eq!(url.to_string(), path);
            }
        }
    }
}
