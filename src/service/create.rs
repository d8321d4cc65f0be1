//! `POST /v2/images`: a record without data.

use serde_json::{Map, Value, json};

use super::quota::Account;
use super::{Error, Services, conclude};
use crate::catalog::Tx;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Image, Import, PropertyOperation, Visibility, check_writable};
use crate::domain::limits::Resource;
use crate::domain::status::Status;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

/// An image that is not written down yet.
pub(super) struct NewImage {
    pub(super) id: ImageId,
    pub(super) attributes: Attributes,
    /// Who pays for it.
    account: Option<Account>,
}

impl Services {
    /// Makes an image record from the members of a JSON object.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Forbidden`] naming the member; [`Error::Conflict`] for an id that
    /// is or ever was in use; [`Error::TooLarge`] for one image too many.
    pub async fn create(&self, caller: &Caller, body: &Map<String, Value>) -> Result<Image, Error> {
        let new = self.new_image(caller, body).await?;
        let tx = self.catalog.begin("image_create").await?;
        let recorded = self.record_image(&tx, new).await;
        let image = conclude(tx, recorded).await?;
        Ok(self.readable(caller, image).await)
    }

    /// What an image will be, if the caller may have it.
    pub(super) async fn new_image(&self, caller: &Caller, body: &Map<String, Value>) -> Result<NewImage, Error> {
        // 1. What the caller wants.
        let mut attributes = Attributes::new(Some(caller.project_id.clone()));
        let mut id = None;
        for (key, value) in body {
            match key.as_str() {
                "id" => {
                    let parsed = value.as_str().and_then(ImageId::parse);
                    id = Some(parsed.ok_or_else(|| {
                        Error::Invalid(format!(
                            "Provided object does not match schema 'image': 'id' must be a UUID like {}, not {value}.",
                            ImageId::random()
                        ))
                    })?);
                }
                _ => {
                    check_writable(key)?;
                    attributes.set(key, value, &self.settings.formats)?;
                }
            }
        }
        self.settings.formats.properties.check_required(body)?;
        // 2. May they have it?
        let target = Target::from(&attributes);
        if !caller.is_admin() && attributes.owner.as_ref() != Some(&caller.project_id) {
            return Err(Error::Forbidden(format!(
                "You are not permitted to create images owned by '{}'.",
                attributes.owner.as_deref().unwrap_or("nobody")
            )));
        }
        self.authorize(Action::AddImage, caller, target).await?;
        match attributes.visibility {
            Visibility::Public => self.authorize(Action::PublicizeImage, caller, target).await?,
            Visibility::Community => self.authorize(Action::CommunitizeImage, caller, target).await?,
            Visibility::Shared | Visibility::Private => {}
        }
        for name in attributes.properties.keys() {
            self.check_property(caller, PropertyOperation::Create, name).await?;
        }
        attributes.check_quotas(&self.settings.quotas)?;
        let account = self.account(caller, attributes.owner.as_deref()).await?;
        Ok(NewImage { id: id.unwrap_or_else(ImageId::random), attributes, account })
    }

    /// Writes a new image down.
    pub(super) async fn record_image(&self, tx: &Tx, new: NewImage) -> Result<Image, Error> {
        // 3. The id is taken for ever from now on.
        let NewImage { id, attributes, account } = new;
        let now = tx.now().await?;
        if !tx.reserve_id(id).await? {
            return Err(Error::Conflict(format!("Image ID {id} already exists!")));
        }
        let image = Image {
            id,
            status: Status::Queued,
            attributes,
            content: None,
            locations: Vec::new(),
            upload_failure: None,
            import: Import::default(),
            created_at: now,
            updated_at: now,
            version: 1,
        };
        tx.insert_image(&image).await?;
        tx.image_event("image.create", id, &json!({})).await?;
        // 4. Has its owner room for one more?
        if let Some(account) = account {
            account.admit(tx, &[(Resource::ImageCountTotal, 1)]).await?;
        }
        Ok(image)
    }
}
