//! `GET /v2/images/{id}`.

use super::{Error, Services};
use crate::domain::image::Image;
use crate::identity::Caller;

impl Services {
    /// One image.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an image that does not exist, and for one that the caller may not see.
    pub async fn show(&self, caller: &Caller, id: &str) -> Result<Image, Error> {
        Ok(self.readable(caller, self.visible(caller, id).await?).await)
    }
}
