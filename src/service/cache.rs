//! The calls of the image cache (`image-api.md` 2.6): there is none, Ceph's own caches do its work.

use super::{Error, Services};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

impl Services {
    /// The refusal of a call to the image cache, as of a Glance that has none: what the caller may not see or
    /// do is said first. `image` is the one that the call names.
    pub async fn no_cache(&self, caller: &Caller, action: Action, image: Option<&str>) -> Error {
        match self.check_cache_call(caller, action, image).await {
            Ok(()) => Error::NotFound("Caching via API is not supported at this site.".into()),
            Err(refused) => refused,
        }
    }

    async fn check_cache_call(&self, caller: &Caller, action: Action, image: Option<&str>) -> Result<(), Error> {
        match image {
            Some(id) => self.permitted(action, caller, id).await.map(|_| ()),
            None => self.authorize(action, caller, Target::Nothing).await,
        }
    }
}
