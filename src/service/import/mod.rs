//! `POST /v2/images/{id}/import`: an image is filled while its client does not wait.
//!
//! One transaction says what is to be done: the image's state, the task that clients see, and the job that any gateway
//! takes up (`run`).

mod new;
mod progress;
mod region;
mod run;
mod source;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::region::Region;
use super::quota::Account;
use super::stage::{STAGED, Staged};
use super::upload::{WRITING, check_formats};
use super::{Error, Services, conclude, lock};
use crate::catalog::{Charge, JobKind, NewJob, NewTask, Tx};
use crate::domain::content::Content;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Image, Import};
use crate::domain::import::{EXPECTED_HASH, Method, Request, expected_hash};
use crate::domain::limits::Resource;
use crate::domain::location::Validation;
use crate::domain::status::{BEGIN_FETCH, BEGIN_IMPORT, Status};
use crate::domain::task::{TaskKind, TaskStatus};
use crate::identity::policy::{Action, Target};
use crate::identity::{Caller, Identity};

/// An import that may begin: what was found out before its transaction.
struct Order {
    /// Of the task and of its job.
    id: Uuid,
    kind: TaskKind,
    /// What was asked for, as the task shows it.
    input: Value,
    request: Request,
    /// Where the image is, for [`Method::GlanceDownload`].
    region: Option<Region>,
    /// Stores to bring it to.
    stores: Vec<String>,
}

/// What the job of an import carries; its id is that of the task.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Work {
    method: Method,
    /// Where to fetch the data.
    #[serde(default)]
    uri: Option<String>,
    /// Or whom to ask for it.
    #[serde(default)]
    region: Option<Region>,
    /// What it must be.
    #[serde(default)]
    expected: Option<Validation>,
    /// Stores to bring it to.
    stores: Vec<String>,
    all_must_succeed: bool,
    /// Who asked for it.
    asker: Caller,
    /// What is to be imported, once it is staged: by the client, or by this job.
    #[serde(default)]
    staged: Option<Source>,
    /// Attempts in the stores that are not known to be gone.
    #[serde(default)]
    litter: Vec<Uuid>,
    /// Staging attempts of this job, as `(store, attempt)`; the same.
    #[serde(default)]
    staging_litter: Vec<(String, Uuid)>,
    /// What is left in stores that failed while others did not, as `(store, attempt)`.
    #[serde(default)]
    abandoned: Vec<(String, Uuid)>,
    /// What is known of the bytes, when they are all there.
    #[serde(default)]
    written: Option<Written>,
    /// Why the last try failed.
    #[serde(default)]
    last_error: Option<String>,
}

impl Work {
    /// Gives the token up that another region is asked with: nobody has to be asked any more.
    fn forget_token(&mut self) {
        if let Some(region) = &mut self.region {
            region.forget_token();
        }
    }

    /// What an image of another region is called there it is called here, too.
    fn take_over(&self, attributes: &mut Attributes) {
        if let Some(region) = &self.region {
            region.take_over(attributes);
        }
    }
}

/// Staged data.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Source {
    id: Uuid,
    #[serde(flatten)]
    staged: Staged,
}

/// What an import has written.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Written {
    attempt: Uuid,
    content: Content,
    /// Stores that have it.
    stores: Vec<String>,
    /// Stores that failed, and why.
    failed: Vec<(String, String)>,
    /// What the image is now, where that has changed.
    disk_format: Option<String>,
    /// The version of the record that the description beside the bytes tells of.
    version: i64,
}

impl Services {
    /// Names of the methods that are offered.
    #[must_use]
    pub fn import_methods(&self) -> Vec<&'static str> {
        self.offered_methods().into_iter().map(Method::as_str).collect()
    }

    /// The methods of the settings. Where the other regions are, Keystone alone can tell.
    fn offered_methods(&self) -> Vec<Method> {
        let wanted = self.settings.import.methods.iter().copied();
        let alone = matches!(*self.identity, Identity::Local(_));
        wanted.filter(|method| !(alone && *method == Method::GlanceDownload)).collect()
    }

    /// Takes an import on; `header_store` is the store that a header names, `token` what the caller was identified by.
    ///
    /// # Errors
    /// As `image-api.md` 4.3, in that order.
    pub async fn import(
        &self,
        caller: &Caller,
        token: &str,
        id: &str,
        body: &Map<String, Value>,
        header_store: Option<&str>,
    ) -> Result<(), Error> {
        // 1. Is it something that is done here?
        let mut request = Request::parse(body, &self.offered_methods())?;
        self.check_own_room(caller).await?;
        // 2. May it be done to this image, by this caller?
        let image = self.visible(caller, id).await?;
        check_status(&image, request.method)?;
        if let Err(Error::Invalid(why)) = check_formats(&image.attributes) {
            return Err(Error::Conflict(why));
        }
        let action = if request.method == Method::CopyImage { Action::CopyImage } else { Action::ModifyImage };
        self.authorize(action, caller, Target::from(&image)).await?;
        check_lock(&image)?;
        // 3. Where to?
        let Some(stores) = self.choose_stores(&image, &request, header_store)? else { return Ok(()) };
        // 4. From where?
        if let Some(uri) = &request.uri {
            self.fetcher.check(uri).await?;
            if let (None, Some(told)) = (&request.expected, image.attributes.properties.get(EXPECTED_HASH)) {
                request.expected = Some(expected_hash(told)?);
            }
        }
        let task = Uuid::new_v4();
        let region = match &request.remote {
            Some(wanted) => Some(self.find_region(caller, token, wanted, task).await?),
            None => None,
        };
        // 5. Write it down; the rest is a job.
        let account = self.account(caller, image.attributes.owner.as_deref()).await?;
        let input = json!({"image_id": image.id.to_string(), "import_req": body, "backend": stores});
        let order = Order { id: task, kind: TaskKind::ImageImport, input, request, region, stores };
        let tx = self.catalog.begin("import_begin").await?;
        let begun = self.begin_import(&tx, caller, image.id, order, account.as_ref()).await;
        conclude(tx, begun).await?;
        self.long_job_bell.notify_one();
        Ok(())
    }

    /// Refuses a caller whose own project has used all its room.
    async fn check_own_room(&self, caller: &Caller) -> Result<(), Error> {
        let Some(account) = self.account(caller, Some(&caller.project_id)).await? else { return Ok(()) };
        let tx = self.catalog.begin("import_room").await?;
        let admitted = account.admit(&tx, &[(Resource::ImageSizeTotal, 0)]).await;
        tx.rollback().await?;
        admitted
    }

    /// The stores that an import is to bring an image to. `None`: it is in all of them.
    fn choose_stores(
        &self,
        image: &Image,
        request: &Request,
        header_store: Option<&str>,
    ) -> Result<Option<Vec<String>>, Error> {
        let named: Option<Vec<String>> =
            request.stores.clone().or_else(|| header_store.map(|store| vec![store.to_owned()]));
        for name in named.iter().flatten() {
            match self.stores.get(Some(name)) {
                Err(_) => {
                    return Err(Error::Conflict(format!(
                        "Store '{name}' is not configured; GET /v2/info/stores lists those that are."
                    )));
                }
                Ok(store) if store.is_read_only() => {
                    return Err(Error::Conflict(format!("Store '{name}' is read-only.")));
                }
                Ok(_) => {}
            }
        }
        if request.all_stores && named.is_some() {
            return Err(Error::Invalid(
                "'all_stores' is true, so that neither 'stores' nor the header X-Image-Meta-Store may name some."
                    .into(),
            ));
        }
        if request.stores.is_some() && header_store.is_some() {
            return Err(Error::Invalid(
                "Stores are named by 'stores' or by the header X-Image-Meta-Store, not by both.".into(),
            ));
        }
        let mut stores = match named {
            Some(named) => named,
            None if request.all_stores => {
                let writable = self.stores.iter().filter(|store| !store.is_read_only());
                writable.map(|store| store.name().to_owned()).collect()
            }
            None => vec![self.stores.default_name().to_owned()],
        };
        if request.method == Method::CopyImage {
            let there = |name: &String| image.locations.iter().any(|location| location.store == *name);
            if request.all_stores {
                stores.retain(|name| !there(name));
                if stores.is_empty() {
                    return Ok(None);
                }
            } else if let Some(name) = stores.iter().find(|name| there(name)) {
                return Err(Error::Invalid(format!("Image {} is already present at store '{name}'.", image.id)));
            }
            self.settings.quotas.check_locations(image.locations.len() + stores.len())?;
        } else {
            self.settings.quotas.check_locations(stores.len())?;
        }
        Ok(Some(stores))
    }

    /// Writes down that an image is to be filled: its state, the task and the job.
    async fn begin_import(
        &self,
        tx: &Tx,
        caller: &Caller,
        image: ImageId,
        order: Order,
        account: Option<&Account>,
    ) -> Result<(), Error> {
        let Order { id, kind, input, request, region, stores } = order;
        let image = lock(tx, image).await?;
        check_status(&image, request.method)?;
        check_lock(&image)?;
        let staged = match request.method {
            Method::GlanceDirect => Some(staged(tx, &image).await?),
            Method::WebDownload | Method::GlanceDownload | Method::CopyImage => None,
        };
        match request.method {
            Method::GlanceDirect => tx.transition(image.id, &BEGIN_IMPORT).await?,
            Method::WebDownload | Method::GlanceDownload => tx.transition(image.id, &BEGIN_FETCH).await?,
            Method::CopyImage => true,
        };
        let mut failed = image.import.failed.clone().unwrap_or_default();
        failed.retain(|name| !stores.contains(name));
        tx.set_import(image.id, &Import { task: Some(id), to: Some(stores.clone()), failed: Some(failed) }).await?;
        let task = NewTask {
            id,
            kind,
            status: TaskStatus::Pending,
            owner: &caller.project_id,
            user_id: &caller.user_id,
            request_id: caller.own_request_id.as_deref(),
            image: image.id,
            input: &input,
        };
        tx.insert_task(&task).await?;
        // What is not known yet is reserved as it comes.
        let known = match &staged {
            Some(source) => source.staged.size_bytes,
            None => image.content.as_ref().map_or(0, |content| content.size_bytes),
        };
        let bytes = known.saturating_mul(stores.len() as u64);
        let work = Work {
            method: request.method,
            uri: request.uri,
            region,
            expected: request.expected,
            stores,
            all_must_succeed: request.all_must_succeed,
            asker: caller.clone(),
            staged,
            litter: Vec::new(),
            staging_litter: Vec::new(),
            abandoned: Vec::new(),
            written: None,
            last_error: None,
        };
        let job = NewJob {
            id,
            kind: JobKind::Import,
            image: image.id,
            state: WRITING,
            payload: &json!(work),
            owner: None,
            lease: Duration::ZERO,
            charge: image.attributes.owner.as_deref().map(|project| Charge { project, bytes }),
        };
        tx.enqueue(&job).await?;
        let Some(account) = account else { return Ok(()) };
        let uploading = u64::from(matches!(request.method, Method::WebDownload | Method::GlanceDownload));
        account.admit(tx, &[(Resource::ImageSizeTotal, bytes), (Resource::ImageCountUploading, uploading)]).await
    }
}

/// What a client has staged for an image.
async fn staged(tx: &Tx, image: &Image) -> Result<Source, Error> {
    let parked = tx.parked_job(image.id, JobKind::Stage, STAGED).await?;
    let (id, payload) = parked
        .ok_or_else(|| Error::Conflict(format!("The data of image {} has not been staged whole yet.", image.id)))?;
    let staged = serde_json::from_value(payload).map_err(|e| Error::Internal(format!("stage job {id}: {e}")))?;
    Ok(Source { id, staged })
}

fn check_status(image: &Image, method: Method) -> Result<(), Error> {
    let (wanted, right) = match method {
        Method::CopyImage => ("active", image.status == Status::Active),
        Method::GlanceDirect => ("uploading", BEGIN_IMPORT.allows(image.status)),
        Method::WebDownload | Method::GlanceDownload => ("queued", BEGIN_FETCH.allows(image.status)),
    };
    if right {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "Image status is {}; the import method {} is for images with status {wanted}.",
        image.status,
        method.as_str()
    )))
}

/// Refuses an image that an import is at work on. Its job is never dead for longer than a lease.
fn check_lock(image: &Image) -> Result<(), Error> {
    match image.import.task {
        None => Ok(()),
        Some(_) => Err(Error::Conflict("Image has active task.".into())),
    }
}
