//! Why a request fails, by meaning; `api` turns it into a status.

use crate::domain::Refusal;
use crate::{catalog, identity, store};

/// Failure of a service call. Texts of the first group are for the client; those of `Unavailable` and
/// `Internal` are for the log alone.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is malformed.
    #[error("{0}")]
    Invalid(String),
    /// The caller may not do that.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such thing, or the caller may not know of it.
    #[error("{0}")]
    NotFound(String),
    /// The client was too slow.
    #[error("{0}")]
    TooSlow(String),
    /// The state of things does not permit it.
    #[error("{0}")]
    Conflict(String),
    /// What was there has gone meanwhile.
    #[error("{0}")]
    Gone(String),
    /// A limit or quota is exceeded, or the store is full.
    #[error("{0}")]
    TooLarge(String),
    /// The data is not what it should be, or is dangerous.
    #[error("{0}")]
    Unsupported(String),
    /// The client went away in the middle of a request.
    #[error("the client went away: {0}")]
    ClientGone(String),
    /// Too much is going on; the text is for the client.
    #[error("{0}")]
    Busy(String),
    /// Something that this service needs does not work at present.
    #[error("{0}")]
    Unavailable(String),
    /// A fault of this service.
    #[error("{0}")]
    Internal(String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(text) => Self::Invalid(text),
            Refusal::Forbidden(text) => Self::Forbidden(text),
            Refusal::Conflict(text) => Self::Conflict(text),
            Refusal::TooLarge(text) => Self::TooLarge(text),
            Refusal::Unsupported(text) => Self::Unsupported(text),
        }
    }
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        let text = error.to_string();
        match error {
            catalog::Error::Unavailable(_) | catalog::Error::ConnectionLost(_) => Self::Unavailable(text),
            catalog::Error::Conflict(_) => {
                Self::Conflict("Another request changed the same thing at the same time; try again.".into())
            }
            catalog::Error::Unstorable { what, .. } => {
                tracing::warn!(error = %text, "a value got as far as the catalog that should have been refused before");
                Self::Invalid(format!("The request has a value that cannot be stored: {what}."))
            }
            catalog::Error::Exists(_)
            | catalog::Error::Inconsistent { .. }
            | catalog::Error::Query { .. }
            | catalog::Error::Schema(_)
            | catalog::Error::Config(_) => Self::Internal(text),
        }
    }
}

impl From<identity::Unavailable> for Error {
    fn from(error: identity::Unavailable) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let text = error.to_string();
        match error {
            store::Error::InUse(by) | store::Error::Busy(by) => Self::Conflict(by),
            store::Error::TooLarge(why) => Self::TooLarge(why),
            // Which pool is full is not the client's business.
            store::Error::NoSpace(_) => Self::TooLarge("There is not enough space left in the image store.".into()),
            store::Error::Unavailable(_) | store::Error::Denied(_) => Self::Unavailable(text),
            store::Error::NotFound(_) | store::Error::Other(_) => Self::Internal(text),
        }
    }
}
