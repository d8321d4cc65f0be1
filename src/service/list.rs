//! `GET /v2/images`.

use super::{Error, Services};
use crate::domain::image::Image;
use crate::domain::query::ImageQuery;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

impl Services {
    /// One page of the images that the caller may list.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a marker that is no image the caller may see.
    pub async fn list(&self, caller: &Caller, query: &ImageQuery) -> Result<Vec<Image>, Error> {
        // The list is the project's own, whatever is in it.
        self.authorize(Action::GetImages, caller, Target::Project(&caller.project_id))?;
        let page = self.catalog.list(query, &caller.scope()).await?;
        page.ok_or_else(|| {
            Error::Invalid(format!(
                "No image found with ID {}",
                query.marker.map(|id| id.to_string()).unwrap_or_default()
            ))
        })
    }
}
