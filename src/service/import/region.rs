//! `glance-download`: the image service of another region is asked in the name of whoever asked for the import.
//!
//! For that the job keeps the token, sealed by the credentials that the gateways of this site alone have, until the data
//! is here. What the image is called there it is called here, too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::Work;
use super::source::fetched;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, PropertyOperation};
use crate::domain::import::RemoteImage;
use crate::domain::location::Validation;
use crate::fetch::{Fetched, Remote};
use crate::identity::Caller;
use crate::service::upload::check_formats;
use crate::service::{Error, Services};

/// An image of another region.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Region {
    /// The image service there, as the catalog of the token has it.
    endpoint: String,
    image: ImageId,
    /// The token; `None` when nobody has to be asked any more.
    sealed_token: Option<String>,
    /// What the image was when it was last asked about.
    remote: Option<Remote>,
}

impl Region {
    /// Gives the token up: everything is here, or will never be.
    pub(super) fn forget_token(&mut self) {
        self.sealed_token = None;
    }

    /// The attributes of the image there, in the place of those here.
    pub(super) fn take_over(&self, attributes: &mut Attributes) {
        let Some(remote) = &self.remote else { return };
        attributes.disk_format.clone_from(&remote.disk_format);
        attributes.container_format.clone_from(&remote.container_format);
        attributes.properties.extend(remote.properties.clone());
    }
}

/// What a token of this task is sealed for.
fn purpose(task: Uuid) -> String {
    format!("import {task}")
}

impl Services {
    /// Where the image is that the caller wants, as the catalog of the caller's token says.
    pub(super) async fn find_region(
        &self,
        caller: &Caller,
        token: &str,
        wanted: &RemoteImage,
        task: Uuid,
    ) -> Result<Region, Error> {
        let place = (wanted.region.as_str(), wanted.interface);
        let endpoint = self.identity.image_service(token, place, caller.request_id.as_deref()).await?;
        let endpoint = endpoint.ok_or_else(|| {
            Error::Invalid(format!(
                "The catalog of your token has no image service in the region '{}' with the interface '{}': check 'glance_region' and 'glance_service_interface'.",
                wanted.region,
                wanted.interface.as_str()
            ))
        })?;
        let sealed_token = Some(self.identity.seal(token, purpose(task)).await?);
        Ok(Region { endpoint, image: wanted.id, sealed_token, remote: None })
    }

    /// Asks what the image is, and notes it where it can be one here as well.
    pub(super) async fn ask_region(&self, task: Uuid, work: &mut Work, attributes: &Attributes) -> Result<(), Error> {
        let Some(region) = &mut work.region else { return Ok(()) };
        // 1. What does the other region say?
        let token = self.identity.unseal(region.sealed_token.clone().unwrap_or_default(), purpose(task)).await?;
        let token = token.ok_or_else(unreadable)?;
        let mut remote = self.fetcher.remote_image(&region.endpoint, &token, region.image).await.map_err(fetched)?;
        // 2. Properties that whoever asks may not write stay there.
        let mut copied = BTreeMap::new();
        for (name, value) in remote.properties {
            if self.check_property(&work.asker, PropertyOperation::Create, &name).await.is_ok() {
                copied.insert(name, value);
            }
        }
        remote.properties = copied;
        // 3. Could it have been made here?
        let mut taken = attributes.clone();
        let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
        let formats = &self.settings.formats;
        let set = |name: &str, value: Value, taken: &mut Attributes| {
            taken.set(name, &value, formats).map_err(|refused| {
                Error::Invalid(format!("The image of the other region cannot be one here: {refused}"))
            })
        };
        set("disk_format", text(&remote.disk_format), &mut taken)?;
        set("container_format", text(&remote.container_format), &mut taken)?;
        for (name, value) in &remote.properties {
            set(name, Value::String(value.clone()), &mut taken)?;
        }
        check_formats(&taken)?;
        taken.check_quotas(&self.settings.quotas)?;
        // 4. It is to arrive as it is there.
        work.expected = remote.hash.clone().map(|(os_hash_algo, os_hash_value)| Validation {
            checksum: None,
            os_hash_algo,
            os_hash_value,
        });
        region.remote = Some(remote);
        Ok(())
    }

    /// Begins to get its data.
    pub(super) async fn open_region(&self, task: Uuid, region: &Region) -> Result<Fetched, Error> {
        let token = self.identity.unseal(region.sealed_token.clone().unwrap_or_default(), purpose(task)).await?;
        let token = token.ok_or_else(unreadable)?;
        let size_bytes = region.remote.as_ref().map_or(0, |remote| remote.size_bytes);
        if size_bytes > self.settings.image_size_cap_bytes {
            return Err(Error::TooLarge(format!(
                "The image has {size_bytes} bytes; images here have {} at most.",
                self.settings.image_size_cap_bytes
            )));
        }
        self.fetcher.open_remote(&region.endpoint, &token, region.image, size_bytes).await.map_err(fetched)
    }
}

fn unreadable() -> Error {
    Error::Invalid("The token of the request cannot be read any more: the credentials of this service have changed since. Ask for the import again.".into())
}
