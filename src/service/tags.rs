//! `PUT` and `DELETE /v2/images/{id}/tags/{tag}`.

use super::{Error, Services, conclude, lock};
use crate::domain::image::{Attributes, check_tag};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

impl Services {
    /// Tags an image; one that has the tag is left alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what cannot be a tag, [`Error::NotFound`], [`Error::Forbidden`], [`Error::TooLarge`]
    /// beyond the quota.
    pub async fn add_tag(&self, caller: &Caller, id: &str, tag: &str) -> Result<(), Error> {
        check_tag(tag)?;
        self.change_tags(caller, id, |next| {
            if !next.tags.insert(tag.to_owned()) {
                return Ok(());
            }
            Ok(next.check_tag_quota(&self.settings.quotas)?)
        })
        .await
    }

    /// Takes a tag off an image.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a missing image or tag, [`Error::Forbidden`].
    pub async fn remove_tag(&self, caller: &Caller, id: &str, tag: &str) -> Result<(), Error> {
        self.change_tags(caller, id, |next| {
            if next.tags.remove(tag) {
                return Ok(());
            }
            Err(Error::NotFound(format!("Image {id} has no tag '{tag}'.")))
        })
        .await
    }

    async fn change_tags(
        &self,
        caller: &Caller,
        id: &str,
        change: impl FnOnce(&mut Attributes) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let image = self.permitted(Action::ModifyImage, caller, id).await?;
        // Under a row lock, so that parallel changes follow each other and none is lost.
        let tx = self.catalog.begin("image_tags").await?;
        let changed = async {
            let image = lock(&tx, image.id).await?;
            self.authorize(Action::ModifyImage, caller, Target::from(&image)).await?;
            let mut next = image.attributes.clone();
            change(&mut next)?;
            if next != image.attributes {
                self.write_attributes(&tx, image, next).await?;
            }
            Ok(())
        };
        let changed = changed.await;
        conclude(tx, changed).await?;
        self.job_bell.notify_one();
        Ok(())
    }
}
