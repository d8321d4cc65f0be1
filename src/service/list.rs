//! `GET /v2/images`.

use super::{Error, Services};
use crate::domain::id::ImageId;
use crate::domain::image::{Image, PropertyOperation};
use crate::domain::query::{Filter, ImageQuery};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

/// Most pages of the catalog that one page for a client is picked from, where a policy hides images.
const PAGES_MAX: usize = 10;

/// A page of a list.
#[derive(Debug)]
pub struct Page {
    /// The images on it.
    pub images: Vec<Image>,
    /// The image to go on after. Without one the list is at its end; with one it may be.
    pub next: Option<ImageId>,
}

impl Services {
    /// One page of the images that the caller may list.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a marker that is no image the caller may see.
    pub async fn list(&self, caller: &Caller, query: &ImageQuery) -> Result<Page, Error> {
        // 1. The list is the project's own, whatever is in it.
        self.authorize(Action::GetImages, caller, Target::Project(&caller.project_id)).await?;
        let mut page = Page { images: Vec::new(), next: None };
        // An image that is found by what the caller may not read would tell what it is.
        for filter in &query.filters {
            if let Filter::Property(name, _) = filter
                && self.check_property(caller, PropertyOperation::Read, name).await.is_err()
            {
                return Ok(page);
            }
        }
        if query.limit == 0 {
            return Ok(page);
        }
        // 2. The scope is part of the query; where a policy hides more than the scope does, the gaps are filled.
        let mut query = query.clone();
        for _ in 0..PAGES_MAX {
            let Some(listed) = self.catalog.list(&query, &caller.scope()).await? else {
                let marker = query.marker.map(|id| id.to_string()).unwrap_or_default();
                return Err(Error::Invalid(format!("No image found with ID {marker}")));
            };
            let last = listed.last().map(|image| image.id).filter(|_| listed.len() == query.limit);
            page.next = last;
            for image in listed {
                // A full page may be the last one: the reference does not look further either.
                if page.images.len() == query.limit {
                    page.next = page.images.last().map(|image| image.id);
                    break;
                }
                if self.policy.allows(Action::GetImage, caller, Target::from(&image)).await {
                    page.images.push(image);
                }
            }
            if page.images.len() == query.limit || last.is_none() {
                break;
            }
            query.marker = last;
        }
        self.hide_properties(caller, &mut page.images).await;
        Ok(page)
    }
}
