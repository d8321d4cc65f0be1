//! `PATCH /v2/images/{id}`.

use std::sync::Arc;

use serde_json::json;

use super::{Error, Services, conclude, lock};
use crate::catalog::Tx;
use crate::domain::image::{Attributes, Image, Visibility};
use crate::domain::limits::Resource;
use crate::domain::patch::Patch;
use crate::domain::status::Status;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

impl Services {
    /// Applies a patch whole or not at all, and returns the image after it.
    ///
    /// # Errors
    /// The first operation that cannot be applied.
    pub async fn update(self: &Arc<Self>, caller: &Caller, id: &str, patch: &Patch) -> Result<Image, Error> {
        // 1. Who may?
        let image = self.permitted(Action::ModifyImage, caller, id).await?;
        if patch.is_empty() {
            return Ok(self.readable(caller, image).await);
        }
        let survey = self.survey(caller, &image, patch).await?;
        let account = match patch.location_changes() {
            [] => None,
            _ => self.account(caller, image.attributes.owner.as_deref()).await?,
        };
        let id = image.id;
        // 2. Under a row lock, so that parallel patches follow each other and none is lost.
        let tx = self.catalog.begin("image_update").await?;
        let updated = async {
            let image = lock(&tx, id).await?;
            let next = self.patched(caller, &image, patch).await?;
            // 3. Write the difference, and see whether there is room for it.
            let copies = image.locations.len();
            let (image, removals) = self.relocate(&tx, image, patch, &next, &survey).await?;
            let image = self.write_attributes(&tx, image, next).await?;
            if let (Some(account), Some(content)) = (&account, &image.content)
                && image.locations.len() > copies
            {
                let bytes = content.size_bytes.saturating_mul((image.locations.len() - copies) as u64);
                account.admit(&tx, &[(Resource::ImageSizeTotal, bytes)]).await?;
            }
            Ok((image, removals))
        };
        let updated = updated.await;
        let (image, removals) = conclude(tx, updated).await?;
        self.job_bell.notify_one();
        // 4. Data that the image has given up; to the end even if the client does not wait.
        self.remove_data(id, removals).await;
        Ok(self.readable(caller, image).await)
    }

    /// Writes what differs in a locked image, and leaves word for the store's copy of the description. Whoever
    /// commits rings the bell.
    pub(super) async fn write_attributes(&self, tx: &Tx, image: Image, next: Attributes) -> Result<Image, Error> {
        let now = tx.now().await?;
        tx.update_attributes(image.id, &image.attributes, &next, now).await?;
        if matches!(image.status, Status::Active | Status::Deactivated) {
            tx.leave_describe_job(image.id).await?;
        }
        tx.image_event("image.update", image.id, &json!({})).await?;
        Ok(Image { attributes: next, updated_at: now, version: image.version + 1, ..image })
    }

    /// The attributes after the patch, if the caller may make it.
    async fn patched(&self, caller: &Caller, image: &Image, patch: &Patch) -> Result<Attributes, Error> {
        let target = Target::from(image);
        if patch.touches_members() {
            self.authorize(Action::ModifyImage, caller, target).await?;
        }
        if patch.touches_owner() && !caller.is_admin() {
            return Err(Error::Forbidden("Attribute 'owner' can only be changed by an administrator.".into()));
        }
        for (operation, name) in patch.property_operations(&image.attributes) {
            self.check_property(caller, operation, name).await?;
        }
        let next = patch.apply(&image.attributes, image.status, &self.settings.formats)?;
        if next.visibility != image.attributes.visibility {
            match next.visibility {
                Visibility::Public => self.authorize(Action::PublicizeImage, caller, target).await?,
                Visibility::Community => self.authorize(Action::CommunitizeImage, caller, target).await?,
                Visibility::Shared | Visibility::Private => {}
            }
        }
        // Images from before a quota was lowered can still be changed otherwise.
        let adds = next.properties.keys().any(|name| !image.attributes.properties.contains_key(name));
        if adds || next.tags.len() > image.attributes.tags.len() {
            next.check_quotas(&self.settings.quotas)?;
        }
        Ok(next)
    }
}
