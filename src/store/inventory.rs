//! What is in a store, for whoever compares it with the catalog.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use time::OffsetDateTime;

use super::{Attempt, BlobReader, Error};
use crate::domain::id::ImageId;

/// What a name in a store says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A published blob.
    Image(ImageId),
    /// A try at writing one, or data that an import reads.
    Attempt(Attempt),
    /// The write test of a gateway that starts.
    StartupCheck,
    /// Somebody else's.
    Foreign,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// What it says.
    pub meaning: Meaning,
}

/// One line of the list of what is being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// By which it is asked for.
    pub id: String,
    /// The name that it had.
    pub name: String,
    /// What that says.
    pub meaning: Meaning,
    /// When it went there.
    pub deleted_at: OffsetDateTime,
    /// Whether somebody wants it kept for a while.
    pub is_kept: bool,
}

/// A blob as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its length.
    pub size_bytes: u64,
    /// Length of what is published of it.
    pub published_bytes: Option<u64>,
    /// Whether what is published is protected; `None` where nothing is.
    pub snapshot: Option<bool>,
    /// Size of its RADOS objects.
    pub object_bytes: u64,
    /// What stands beside it, as far as it is this service's.
    pub description: BTreeMap<String, String>,
    /// When it was made, by the cluster's clock.
    pub created_at: OffsetDateTime,
    /// As long as it stays the same, so does what is published.
    pub identity: String,
}

/// A store whose content can be listed.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Size of the RADOS objects that new blobs get.
    fn object_bytes(&self) -> u64;

    /// At most `limit` names after `after`, in order. Empty: there are no more.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`].
    async fn names(&self, after: &str, limit: u32) -> Result<Vec<Listed>, Error>;

    /// What has been taken out of use and is still there.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`].
    async fn trashed(&self) -> Result<Vec<Trashed>, Error>;

    /// The URL of a name, as locations have it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn url(&self, name: &str) -> Result<String, Error>;

    /// The name that a URL of this store means.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a URL that lies elsewhere.
    async fn name(&self, url: &str) -> Result<String, Error>;

    /// Looks at a name; `None`: there is nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Denied`].
    async fn examine(&self, name: &str) -> Result<Option<Stored>, Error>;

    /// Who uses something in the trash, in words; `None`: nobody.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn users_of_trashed(&self, id: &str) -> Result<Option<String>, Error>;

    /// Opens a blob as it stands, published or not. Callers know that nobody writes to it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn open_unpublished(&self, name: &str) -> Result<Arc<dyn BlobReader>, Error>;

    /// Publishes a blob of its image's name as it stands: takes the snapshot that consumers clone, unless it is there,
    /// and protects it. May be repeated.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    async fn secure(&self, name: &str) -> Result<(), Error>;

    /// Removes what an attempt or the test of a start has left, in use or in the trash. May be repeated.
    ///
    /// # Errors
    /// [`Error::Busy`] while somebody has it open; [`Error::Denied`] for any other name.
    async fn sweep(&self, name: &str) -> Result<(), Error>;
}
