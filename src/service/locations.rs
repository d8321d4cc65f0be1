//! `POST` and `GET /v2/images/{id}/locations`: bytes that somebody else has put into the store.
//!
//! Nova makes `<pool>/<image id>` and its snapshot itself, and then says where it is. With `do_secure_hash` a job
//! reads what is there (see `locate`); a hash that was given is compared before the image is active.

use std::time::Duration;

use serde_json::{Map, json};
use uuid::Uuid;

use super::quota::Account;
use super::upload::check_formats;
use super::{Error, Services, conclude, locate, lock};
use crate::catalog::{JobKind, NewJob, NewTask, Tx};
use crate::domain::content::Content;
use crate::domain::id::ImageId;
use crate::domain::image::{Image, Location};
use crate::domain::limits::Resource;
use crate::domain::location::{Found, RbdUrl, Registration};
use crate::domain::query::Scope;
use crate::domain::status::{BEGIN_VERIFY, LOCATE, Status};
use crate::domain::task::{TaskKind, TaskStatus};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};
use crate::store::{self, Store};

/// The role of services that act for users, such as Nova.
const SERVICE_ROLE: &str = "service";

impl Services {
    /// Says where the bytes of a queued image are.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for whoever is no service, [`Error::Conflict`] for an image that is not queued,
    /// [`Error::Invalid`] for a location that is not one of ours or holds nothing.
    pub async fn add_location(&self, caller: &Caller, id: &str, body: &Registration) -> Result<(), Error> {
        // 1. May the caller say where the data is, and is the image waiting for it?
        note_missing_service(caller);
        let image = self.permitted_to_service(Action::AddImageLocation, caller, id).await?;
        // As the reference has it: whatever else the caller may.
        let anybodys = is_http(&body.url) && self.stores.http().is_some();
        if !is_service(caller) && !anybodys {
            return Err(Error::Forbidden(
                "Locations are registered by services (role service); a user may register data of http and https, where a store of that type is configured.".into(),
            ));
        }
        check_queued(&image)?;
        check_formats(&image.attributes)?;
        self.settings.quotas.check_locations(1)?;
        // 2. Is there anything?
        let found = self.find_data(caller, &image, &body.url).await?;
        // 3. Write it down; what is left to do is a job.
        let account = self.account(caller, image.attributes.owner.as_deref()).await?;
        let tx = self.catalog.begin("location_add").await?;
        let added = self.try_add_location(&tx, caller, image.id, &found, body, account.as_ref()).await;
        conclude(tx, added).await?;
        self.job_bell.notify_one();
        self.long_job_bell.notify_one();
        Ok(())
    }

    async fn try_add_location(
        &self,
        tx: &Tx,
        caller: &Caller,
        id: ImageId,
        found: &Found,
        body: &Registration,
        account: Option<&Account>,
    ) -> Result<(), Error> {
        let image = lock(tx, id).await?;
        check_queued(&image)?;
        check_formats(&image.attributes)?;
        self.take_up(tx, &found.location.url).await?;
        let verify = self.settings.do_secure_hash && body.validation.is_some();
        let given = body.validation.as_ref().filter(|_| !verify);
        let content = Content {
            os_hash_algo: given.map(|given| given.os_hash_algo.clone()),
            os_hash_value: given.map(|given| given.os_hash_value.to_ascii_lowercase()),
            ..Content::of_size(found.size_bytes)
        };
        tx.set_content(id, &content).await?;
        tx.set_locations(id, &image.locations, std::slice::from_ref(&found.location)).await?;
        tx.transition(id, if verify { &BEGIN_VERIFY } else { &LOCATE }).await?;
        // Where the data is stays out of what users see of the task.
        let task = NewTask {
            id: Uuid::new_v4(),
            kind: TaskKind::LocationImport,
            status: if verify { TaskStatus::Processing } else { TaskStatus::Success },
            owner: &caller.project_id,
            user_id: &caller.user_id,
            request_id: caller.own_request_id.as_deref(),
            image: id,
            input: &json!({"image_id": id.to_string(), "validation_data": body.validation}),
        };
        tx.insert_task(&task).await?;
        if verify || self.settings.do_secure_hash && self.hashes_anything() {
            let work = locate::Work::new(&found.location.url, body.validation.clone());
            let job = NewJob {
                id: task.id,
                kind: JobKind::Locate,
                image: id,
                state: locate::HASHING,
                payload: &json!(work),
                owner: None,
                lease: Duration::ZERO,
                charge: None,
            };
            tx.enqueue(&job).await?;
        }
        if !verify {
            tx.image_event("image.activate", id, &json!({})).await?;
            tx.leave_describe_job(id).await?;
        }
        match account {
            Some(account) => account.admit(tx, &[(Resource::ImageSizeTotal, found.size_bytes)]).await,
            None => Ok(()),
        }
    }

    /// Makes sure that data which an image is about to refer to is not on its way out, until the transaction ends.
    pub(super) async fn take_up(&self, tx: &Tx, url: &str) -> Result<(), Error> {
        tx.lock_urls(std::iter::once(url)).await?;
        if tx.is_doomed(url).await? {
            return Err(Error::Conflict("Invalid location: the data that the url names is being removed.".into()));
        }
        Ok(())
    }

    /// Where the bytes of an image are, for services.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn locations(&self, caller: &Caller, id: &str) -> Result<Vec<Location>, Error> {
        note_missing_service(caller);
        let image = self.permitted_to_service(Action::FetchImageLocation, caller, id).await?;
        // Whoever knows where the data of a deactivated image is could clone it all the same.
        if image.status == Status::Deactivated && !caller.is_admin() {
            return Ok(Vec::new());
        }
        Ok(image.locations)
    }

    /// The image, if the caller may do that to it. A service need not see it besides: it works for projects that it
    /// is no member of.
    async fn permitted_to_service(&self, action: Action, caller: &Caller, id: &str) -> Result<Image, Error> {
        match self.permitted(action, caller, id).await {
            Err(Error::NotFound(missing)) if caller.has_role(SERVICE_ROLE) => {
                let image = match ImageId::parse(id) {
                    Some(id) => self.catalog.image(id, &Scope::Everything(None)).await?,
                    None => None,
                };
                match image {
                    Some(image) if self.policy.allows(action, caller, Target::from(&image)).await => Ok(image),
                    Some(_) | None => Err(Error::NotFound(missing)),
                }
            }
            other => other,
        }
    }

    /// Looks at the data that a URL names, for `image`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a URL that is malformed, outside of our stores, or leads to nothing;
    /// [`Error::Forbidden`] for the data of an image that the caller may not have; [`Error::Unsupported`] for data that is
    /// not what the image says, or is dangerous.
    pub(super) async fn find_data(&self, caller: &Caller, image: &Image, url: &str) -> Result<Found, Error> {
        let invalid = |why: &str| Error::Invalid(format!("Invalid location: {why}."));
        // 1. Where is it? Nothing is ever looked at but our own pools, and what the rules for fetching allow.
        if let Some(store) = self.stores.http().filter(|_| is_http(url)) {
            return self.find_remote(store.as_ref(), url).await;
        }
        let parsed = RbdUrl::parse(url)?;
        let store = self.stores.holding(&parsed).ok_or_else(|| {
            invalid("no store of this service holds that url: its cluster or pool is not configured here")
        })?;
        let own = parsed.image == image.id.to_string();
        // 2. Is it the data of somebody else?
        if !own && !is_service(caller) && !caller.is_admin() {
            self.check_others_data(caller, image.id, &parsed, url).await?;
        }
        // 3. Is it there?
        let reader = match store.open(url).await {
            Err(store::Error::NotFound(_)) => {
                return Err(invalid("there is no such RBD image, or it has no snapshot called snap"));
            }
            other => other?,
        };
        if reader.size_bytes() == 0 {
            return Err(invalid("it holds no bytes"));
        }
        // 4. Is it what the image says it is?
        let facts = self.inspect(reader.as_ref(), &image.attributes).await?;
        if let Some(warning) = &facts.warning {
            tracing::warn!(image = %image.id, warning, "an image is not what it is called");
        }
        let location =
            Location { store: store.name().to_owned(), url: url.to_owned(), metadata: Map::new(), owned: own };
        Ok(Found { location, size_bytes: reader.size_bytes() })
    }

    /// Looks at data on somebody else's server, which is never ours to remove.
    async fn find_remote(&self, store: &dyn Store, url: &str) -> Result<Found, Error> {
        let size_bytes = match store.open(url).await {
            Err(store::Error::NotFound(why) | store::Error::Unavailable(why)) => {
                return Err(Error::Invalid(format!("Invalid location: {why}")));
            }
            other => other?.size_bytes(),
        };
        self.check_size(Some(size_bytes))?;
        let location =
            Location { store: store.name().to_owned(), url: url.to_owned(), metadata: Map::new(), owned: false };
        Ok(Found { location, size_bytes })
    }

    /// Refuses the data of images that the caller may not download.
    async fn check_others_data(&self, caller: &Caller, id: ImageId, parsed: &RbdUrl, url: &str) -> Result<(), Error> {
        let mut holders = self.catalog.other_holders(id, url).await?;
        // Also under its own name, when nobody has said so yet.
        holders.extend(ImageId::parse(&parsed.image));
        let mut held = false;
        for holder in holders {
            if self.catalog.status(holder).await?.is_none() {
                continue;
            }
            held = true;
            if let Some(other) = self.catalog.image(holder, &caller.scope()).await?
                && other.status == Status::Active
                && other.locations.iter().any(|location| location.url == url)
                && self.policy.allows(Action::DownloadImage, caller, Target::from(&other)).await
            {
                return Ok(());
            }
        }
        if held {
            return Err(Error::Forbidden(
                "Invalid location: the url names the data of another image, which you may not use.".into(),
            ));
        }
        Ok(())
    }

    /// Whether images get any digest here.
    pub(super) fn hashes_anything(&self) -> bool {
        self.settings.checksum || self.settings.hashing_algorithm.is_some()
    }
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// Whether a service asks, for itself or for a user.
fn is_service(caller: &Caller) -> bool {
    caller.has_role(SERVICE_ROLE) || caller.service_roles.contains(SERVICE_ROLE)
}

/// Location calls are Nova's and Cinder's. Without a service token they depend on rules for users.
fn note_missing_service(caller: &Caller) {
    if !is_service(caller) {
        tracing::warn!(
            user = %caller.user_id,
            "a location call came without a service token; Nova and Cinder need [service_user] send_service_user_token = true"
        );
    }
}

fn check_queued(image: &Image) -> Result<(), Error> {
    if LOCATE.allows(image.status) {
        return Ok(());
    }
    Err(Error::Conflict(format!("It's not allowed to add locations if image status is {}.", image.status)))
}
