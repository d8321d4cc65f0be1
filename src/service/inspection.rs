//! A look at bytes that are in a store already: a few reads tell what they are.

use super::{Error, Services};
use crate::domain::image::Attributes;
use crate::format::inspect::{Facts, Inspection};
use crate::store::BlobReader;

impl Services {
    /// Says what a blob is that an image with these attributes is to refer to.
    ///
    /// # Errors
    /// [`Error::Unsupported`] and [`Error::TooLarge`] as for an upload of the same bytes; what keeps it from being read.
    pub(super) async fn inspect(&self, reader: &dyn BlobReader, attributes: &Attributes) -> Result<Facts, Error> {
        let mut inspection = Inspection::new(self.expected(attributes));
        while let Some(range) = inspection.wanted(reader.size_bytes()) {
            let buffer = vec![0; usize::try_from(range.end - range.start).unwrap_or(0)];
            let bytes = reader.read(range.start, buffer).await?;
            inspection.skip_to(range.start);
            inspection.feed(&bytes);
        }
        Ok(inspection.finish()?)
    }
}
