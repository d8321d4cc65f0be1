//! What a caller may ask for: one use-case per file, each a story of numbered steps.

mod activation;
mod adopt;
mod cache;
mod checkpoint;
mod clones;
mod convert;
mod create;
mod delete;
mod digest;
mod download;
mod error;
pub mod fsck;
mod gather;
mod health;
mod import;
mod ingest;
mod inspection;
mod lease;
mod list;
mod locate;
mod locations;
mod members;
mod metadefs;
mod pace;
mod protect;
mod quota;
mod readiness;
pub mod rebuild;
mod receive;
mod recover;
mod relocate;
pub mod scrub;
mod show;
mod stage;
mod stores;
mod tags;
mod tasks;
mod transfer;
mod unlocate;
mod update;
mod upload;
mod usage;
mod zeros;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{Notify, Semaphore};
use tokio_util::task::TaskTracker;

use crate::catalog::{Catalog, Tx};
use crate::domain::content::HashAlgorithm;
use crate::domain::id::ImageId;
use crate::domain::image::{Formats, Image, Location};
use crate::domain::import::Method;
use crate::domain::limits::Quotas;
use crate::domain::query::PageSizes;
use crate::domain::status::Status;
use crate::fetch::Fetcher;
use crate::format::inspect;
use crate::identity::limits::Limits;
use crate::identity::policy::{Action, Target};
use crate::identity::protection::Protections;
use crate::identity::{Caller, Identity, Policy};
use crate::store::{Store, Stores};
use crate::telemetry::Telemetry;

pub use adopt::Adoption;
pub use clones::{CloneUse, CloneUses};
pub use download::{Download, Fetched};
pub use error::Error;
pub use health::{Check, Health};
pub use ingest::{BodyError, ByteStream};
pub use metadefs::{NamespacePage, definitions};
pub use readiness::{Copy, Finding, Readiness, Shown, Verdict};
pub use recover::Line;
pub use stores::StoreInfo;
pub use transfer::Transfers;
pub use upload::Upload;
pub use usage::Usage;

/// What the services need to know of the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Names this gateway in leases.
    pub gateway: String,
    /// Accepted formats.
    pub formats: Formats,
    /// Quotas of one image.
    pub quotas: Quotas,
    /// Who may see and change which additional properties; without, whoever may see and change the image.
    pub protections: Option<Arc<Protections>>,
    /// Page sizes of lists.
    pub page_sizes: PageSizes,
    /// Largest image, in bytes.
    pub image_size_cap_bytes: u64,
    /// Whether uploads get an MD5 `checksum`.
    pub checksum: bool,
    /// Algorithm of `os_hash_value`, if any.
    pub hashing_algorithm: Option<HashAlgorithm>,
    /// Whether clients see `locations`, and so may change them.
    pub show_multiple_locations: bool,
    /// Whether registered bytes are read and hashed.
    pub do_secure_hash: bool,
    /// Most bytes that one hashing reads in a second while nobody waits for it; 0: no limit.
    pub secure_hash_rate_bytes: u64,
    /// Blocks of one upload in memory at once.
    pub upload_blocks_in_flight: usize,
    /// What images' bytes may be.
    pub inspection: Arc<inspect::Rules>,
    /// How long a lease lasts without being renewed.
    pub lease: Duration,
    /// Longest wait for a client that takes no bytes of a download.
    pub client_idle_timeout: Duration,
    /// Most uploads and downloads at once.
    pub transfers_max: usize,
    /// How long a task is shown after its end.
    pub task_time_to_live: Duration,
    /// Whether uploads are converted.
    pub convert_on_upload: ConvertOnUpload,
    /// How images are imported.
    pub import: ImportSettings,
    /// How long events stay in the outbox, in days.
    pub event_retention_days: u32,
    /// Whether `/metrics` has the names of the public OpenStack exporter, too, with a series for each image.
    pub openstack_exporter_names: bool,
}

/// Whether images become raw that are uploaded to a store that can be cloned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConvertOnUpload {
    /// They are stored as they come.
    Never,
    /// Those whose property asks for it.
    OnRequest,
    /// All that are in a format that is converted.
    Always,
}

/// How images are imported.
#[derive(Debug, Clone)]
pub struct ImportSettings {
    /// Methods that are offered.
    pub methods: Vec<Method>,
    /// How long staged data waits to be imported.
    pub staging_time: Duration,
    /// What is done to imported data.
    pub plugins: Vec<Plugin>,
    /// Properties of every imported image.
    pub inject: BTreeMap<String, String>,
    /// Who has one of these roles gets images without them.
    pub inject_ignored_roles: Vec<String>,
    /// Most bytes that one packed byte may stand for.
    pub decompression_ratio_max: u64,
}

/// What is done to imported data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// The operator's properties are added.
    InjectImageMetadata,
    /// gzip, xz, zstd and bzip2 are unpacked.
    Decompression,
    /// Other formats than raw are converted, on the way to a store that can be cloned from.
    Conversion,
}

impl Plugin {
    /// All of them, in the one order in which they work.
    pub const ALL: [Self; 3] = [Self::InjectImageMetadata, Self::Decompression, Self::Conversion];

    /// The name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InjectImageMetadata => "inject_image_metadata",
            Self::Decompression => "decompression",
            Self::Conversion => "conversion",
        }
    }

    /// The plugin of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plugin| plugin.as_str() == name)
    }
}

/// The services; one per process.
pub struct Services {
    catalog: Catalog,
    stores: Stores,
    identity: Arc<Identity>,
    policy: Arc<Policy>,
    limits: Limits,
    fetcher: Arc<Fetcher>,
    settings: Settings,
    /// Tasks that must not be cut off when the process stops.
    tasks: TaskTracker,
    transfers: Transfers,
    /// A permit for each staged image that is being converted.
    conversions: Arc<Semaphore>,
    telemetry: Arc<Telemetry>,
    /// Rings when a job has been left for the worker.
    job_bell: Notify,
    /// The same for jobs that take long.
    long_job_bell: Notify,
}

/// What the services work with.
pub struct Parts {
    /// What is known of images.
    pub catalog: Catalog,
    /// Where their bytes are.
    pub stores: Stores,
    /// Who asks.
    pub identity: Arc<Identity>,
    /// What callers may do.
    pub policy: Arc<Policy>,
    /// How much projects may have.
    pub limits: Limits,
    /// What gets data from elsewhere.
    pub fetcher: Arc<Fetcher>,
    /// What is counted.
    pub telemetry: Arc<Telemetry>,
}

impl Services {
    /// Puts the services together.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> Arc<Self> {
        let Parts { catalog, stores, identity, policy, limits, fetcher, telemetry } = parts;
        Arc::new(Self {
            catalog,
            stores,
            identity,
            policy,
            limits,
            fetcher,
            tasks: TaskTracker::new(),
            transfers: Transfers::new(settings.transfers_max, &telemetry),
            telemetry,
            conversions: Arc::new(Semaphore::new(convert::CONVERSIONS_MAX)),
            settings,
            job_bell: Notify::new(),
            long_job_bell: Notify::new(),
        })
    }

    /// Room for data transfers.
    #[must_use]
    pub fn transfers(&self) -> &Transfers {
        &self.transfers
    }

    /// Settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Names of the stores, in order.
    pub fn store_names(&self) -> impl Iterator<Item = &str> {
        self.stores.iter().map(|store| store.name())
    }

    /// Waits until every task that was begun has ended. New ones may still begin.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Resolves when a job has been left for the worker since the last call.
    pub async fn job_left(&self, line: Line) {
        match line {
            Line::Short => self.job_bell.notified().await,
            Line::Long => self.long_job_bell.notified().await,
        }
    }

    /// The store that data is to go to; `None` names the default one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an unknown one, [`Error::Gone`] for one that takes no data, as the reference has it.
    fn target(&self, name: Option<&str>) -> Result<&Arc<dyn Store>, Error> {
        let store = self.stores.get(name).map_err(|e| Error::Invalid(format!("{e} does not exist")))?;
        if store.is_read_only() {
            return Err(Error::Gone(format!("Store {} is read-only: it takes no data.", store.name())));
        }
        Ok(store)
    }

    /// The store of a location.
    fn store_of(&self, location: &Location) -> Result<&Arc<dyn Store>, Error> {
        self.stores.get(Some(&location.store)).map_err(|_| {
            Error::Conflict(format!("Store {} holds the data, and is not configured on this gateway.", location.store))
        })
    }

    /// The image with the id that a client wrote, if the caller may see it.
    async fn visible(&self, caller: &Caller, id: &str) -> Result<Image, Error> {
        self.permitted(Action::GetImage, caller, id).await
    }

    /// The image with the id that a client wrote, if the caller may do that to it.
    async fn permitted(&self, action: Action, caller: &Caller, id: &str) -> Result<Image, Error> {
        let parsed = ImageId::parse(id).ok_or_else(|| no_image(id))?;
        let image = self.catalog.image(parsed, &caller.scope()).await?.ok_or_else(|| no_image(id))?;
        self.authorize(action, caller, Target::from(&image)).await?;
        Ok(image)
    }

    /// Refuses what the policy does not allow, naming the rule. To one who may not even see it, an image does not
    /// exist.
    async fn authorize(&self, action: Action, caller: &Caller, target: Target<'_>) -> Result<(), Error> {
        if self.policy.allows(action, caller, target).await {
            return Ok(());
        }
        if let Target::Image { image: Some(image), .. } = target
            && !self.policy.allows(Action::GetImage, caller, target).await
        {
            return Err(no_image(&image.id.to_string()));
        }
        Err(Error::Forbidden(format!("You are not authorized to complete {} action.", action.rule())))
    }
}

fn no_image(id: &str) -> Error {
    Error::NotFound(format!("No image found with ID {id}"))
}

/// Locks an image for a change of its record, whoever asks.
///
/// # Errors
/// [`Error::NotFound`] for one that was deleted meanwhile.
async fn lock(tx: &Tx, id: ImageId) -> Result<Image, Error> {
    let locked = tx.lock_image(id).await?.filter(|image| image.status != Status::Deleted);
    locked.ok_or_else(|| no_image(&id.to_string()))
}

/// Ends a transaction as its work has ended: with a commit, or without a trace.
async fn conclude<T>(tx: Tx, outcome: Result<T, Error>) -> Result<T, Error> {
    match outcome {
        Ok(value) => {
            tx.commit().await?;
            Ok(value)
        }
        Err(refused) => {
            // What cannot be rolled back any more has ended with its connection.
            let _ = tx.rollback().await;
            Err(refused)
        }
    }
}
