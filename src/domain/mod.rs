//! What the words mean: images, their states, their bytes, and what a caller may ask of them.
//!
//! Pure: no I/O, no SQL, no HTTP. Everything here can be tested without a server.

pub mod consumer;
pub mod content;
pub mod custom;
pub mod endpoint;
pub mod id;
pub mod image;
pub mod import;
pub mod limits;
pub mod location;
pub mod member;
pub mod metadef;
pub mod patch;
pub mod query;
pub mod range;
pub mod relocate;
pub mod status;
pub mod task;

/// A value that a client sent and that cannot be accepted; the text names the field and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is malformed (HTTP 400).
    #[error("{0}")]
    Invalid(String),
    /// The field exists and may not be set by a client (HTTP 403).
    #[error("{0}")]
    Forbidden(String),
    /// The request contradicts what is there (HTTP 409).
    #[error("{0}")]
    Conflict(String),
    /// A configured limit is exceeded (HTTP 413).
    #[error("{0}")]
    TooLarge(String),
    /// The bytes of an image are not what they should be, or are dangerous (HTTP 415).
    #[error("{0}")]
    Unsupported(String),
}
