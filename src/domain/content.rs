//! Facts about an image's bytes.

use std::fmt;

use bytes::Bytes;

/// A piece of an image's bytes, one after the other: the one currency of what moves them. A run of zeros costs nothing
/// to pass on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Bytes.
    Data(Bytes),
    /// So many zeros.
    Zero(u64),
}

/// Hash algorithms that `os_hash_algo` may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// MD5: what others may say of bytes that they register, and too weak for anything else.
    Md5,
    /// SHA-1, for old consumers only.
    Sha1,
    /// SHA-256: twice as fast as SHA-512 on processors with SHA extensions.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512, Glance's default.
    Sha512,
}

impl HashAlgorithm {
    /// Those that images can be hashed with.
    pub const ALL: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha384, Self::Sha512];
    /// Those that `validation_data` of the locations call may name.
    pub const VALIDATION: [Self; 4] = [Self::Sha1, Self::Sha256, Self::Sha512, Self::Md5];

    /// The name in `os_hash_algo` (Python's hashlib spelling, which clients feed to hashlib).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    /// The algorithm of that name, if images can be hashed with it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// The algorithm of that name, whatever it is good for.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::parse(name).or((name == Self::Md5.as_str()).then_some(Self::Md5))
    }

    /// Length of a hash, in bytes.
    #[must_use]
    pub fn digest_bytes(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known about the bytes of an image once they are stored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Content {
    /// Number of bytes.
    pub size_bytes: u64,
    /// Size of the disk that a machine would see, where known.
    pub virtual_size_bytes: Option<u64>,
    /// MD5 of the bytes received, lower-case hex.
    pub checksum: Option<String>,
    /// Algorithm of `os_hash_value`.
    pub os_hash_algo: Option<String>,
    /// Hash of the bytes stored, lower-case hex.
    pub os_hash_value: Option<String>,
    /// Whether the bytes stored are other ones than those received.
    #[serde(default)]
    pub converted: bool,
}

impl Content {
    /// So many bytes of which nothing else is known.
    #[must_use]
    pub fn of_size(size_bytes: u64) -> Self {
        Self {
            size_bytes,
            virtual_size_bytes: None,
            checksum: None,
            os_hash_algo: None,
            os_hash_value: None,
            converted: false,
        }
    }
}
