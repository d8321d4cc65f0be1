//! `GET /v2/images`.

use super::{Error, Services};
use crate::domain::image::{Image, PropertyOperation};
use crate::domain::query::{Filter, ImageQuery};
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
        // An image that is found by what the caller may not read would tell what it is.
        let hidden = |filter: &Filter| matches!(filter, Filter::Property(name, _) if self.check_property(caller, PropertyOperation::Read, name).is_err());
        if query.filters.iter().any(hidden) {
            return Ok(Vec::new());
        }
        let page = self.catalog.list(query, &caller.scope()).await?;
        let mut page = page.ok_or_else(|| {
            Error::Invalid(format!(
                "No image found with ID {}",
                query.marker.map(|id| id.to_string()).unwrap_or_default()
            ))
        })?;
        self.hide_properties(caller, &mut page);
        Ok(page)
    }
}
