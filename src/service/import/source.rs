//! What an import fetches, as a stream for the pump.

use futures_util::StreamExt as _;

use crate::domain::content::Extent;
use crate::fetch;
use crate::service::Error;
use crate::service::ingest::Extents;

/// A download. Who looks at its first bytes may ask for more after its end.
pub(super) fn body(body: fetch::Body) -> Extents {
    Box::pin(body.fuse().map(|frame| frame.map(Extent::Data).map_err(fetched)))
}

/// Why a download failed, in this service's terms: what may pass is [`Error::Busy`], because it tells what it is.
pub(super) fn fetched(error: fetch::Error) -> Error {
    let text = error.to_string();
    match error {
        fetch::Error::Refused(_) | fetch::Error::Unusable(_) => Error::Invalid(text),
        fetch::Error::Unavailable(_) | fetch::Error::Busy(..) => Error::Busy(text),
        fetch::Error::TooSlow(_) => Error::TooSlow(text),
        fetch::Error::TooLarge(_) => Error::TooLarge(text),
    }
}
