//! Where bytes are.
//!
//! A [`Store`] keeps blobs. A blob is written under the name of its *attempt*, which no other attempt
//! ever uses, sealed, and only then given the name of its image: a half-written blob cannot be taken
//! for a finished one, and a late writer of a dead attempt cannot touch the new one.

mod config;
pub mod description;
pub mod fan;
pub mod http;
pub mod inventory;
pub mod object;
pub mod rbd;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::domain::id::ImageId;
use crate::domain::image::Location;
use crate::domain::location::RbdUrl;

pub use config::{Common, Config, Kind, Specific};
pub use description::{DESCRIPTION_PREFIX, description, staged_description, whole_description};
pub use inventory::Inventory;

/// One try at storing an image's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The image.
    pub image: ImageId,
    /// The try; known to the job that owns it.
    pub id: Uuid,
    /// What the bytes are for.
    pub purpose: Purpose,
}

/// What the bytes of an attempt are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// They become the image's data.
    Image,
    /// An import reads them; they are never published.
    Staging,
}

impl Attempt {
    /// A try at making an image's data.
    #[must_use]
    pub fn upload(image: ImageId, id: Uuid) -> Self {
        Self { image, id, purpose: Purpose::Image }
    }

    /// A try at keeping what an import reads.
    #[must_use]
    pub fn staging(image: ImageId, id: Uuid) -> Self {
        Self { image, id, purpose: Purpose::Staging }
    }
}

/// Failure of a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such blob.
    #[error("{0}: no such data in the store")]
    NotFound(String),
    /// The blob has users: clones or foreign snapshots; the text says which.
    #[error("{0}")]
    InUse(String),
    /// Somebody has the blob open, or died with it open a moment ago.
    #[error("{0}")]
    Busy(String),
    /// The pool or its quota is full.
    #[error("the store is full: {0}")]
    NoSpace(String),
    /// The blob is longer than the store takes; the text is for the client.
    #[error("{0}")]
    TooLarge(String),
    /// The store cannot be reached or does not answer in time.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store's user may not do that.
    #[error("the store refused: {0}")]
    Denied(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Health of a store.
#[derive(Debug, Clone)]
pub struct Probe {
    /// Time of one small operation.
    pub latency: Duration,
    /// Bytes stored, if the store can tell.
    pub used_bytes: Option<u64>,
    /// Bytes that still fit, if the store can tell.
    pub available_bytes: Option<u64>,
}

/// Hears from time to time how many bytes of a copy are there.
pub type Copied<'c> = &'c (dyn Fn(u64) + Send + Sync);

/// An image that somebody else has made.
#[derive(Debug, Clone)]
pub struct Foreign {
    /// Where it is, as a location would say it.
    pub url: String,
    /// Its length.
    pub size_bytes: u64,
    /// Whether it is taken as of the snapshot that consumers clone, because it has that already.
    pub snapped: bool,
}

/// A published blob as whoever clones it meets it.
#[derive(Debug, Clone)]
pub struct CloneSource {
    /// Cluster.
    pub fsid: String,
    /// Pool.
    pub pool: String,
    /// Name in it.
    pub image: String,
    /// Length of what is cloned.
    pub size_bytes: u64,
    /// Size of its RADOS objects.
    pub object_bytes: u64,
    /// Whether it has the feature without which there are no clones.
    pub layering: bool,
    /// Whether the snapshot that is cloned is protected; `None` without one.
    pub snapshot: Option<bool>,
    /// What it is itself a clone of.
    pub parent: Option<String>,
}

/// Something that was cloned from a published blob.
#[derive(Debug, Clone)]
pub struct Cloned {
    /// Its pool.
    pub pool: String,
    /// Its name in it, behind its namespace if it has one.
    pub image: String,
    /// Whether it is in the pool's trash.
    pub trash: bool,
    /// What it takes, or why that is not known.
    pub room: Result<Room, String>,
}

/// What a clone takes.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Its length.
    pub size_bytes: u64,
    /// What is stored for it alone, in whole objects.
    pub own_bytes: u64,
    /// What it still has from the blob.
    pub shared_bytes: u64,
}

/// A place for blobs.
#[async_trait]
pub trait Store: Send + Sync {
    /// What the configuration says of every store.
    fn common(&self) -> &Common;

    /// Name in the configuration, and in an image's `stores`.
    fn name(&self) -> &str {
        &self.common().name
    }

    /// Whether nothing may be written to it or removed from it. Callers see to that.
    fn is_read_only(&self) -> bool {
        self.common().read_only
    }

    /// Whether a URL that somebody else wrote can name a published blob of this store. Looks at the name alone, and
    /// connects nowhere.
    fn holds(&self, url: &RbdUrl) -> bool;

    /// What it says about itself, by Glance's names for its kind and in Glance's units, without secrets; waits for
    /// no server.
    fn properties(&self) -> Map<String, Value>;

    /// Finds out whether the store can do what it is configured for, as a gateway does when it starts.
    ///
    /// # Errors
    /// A sentence that names what is missing and how to make it.
    async fn check(&self) -> Result<(), String>;

    /// Asks the store for one small answer.
    ///
    /// # Errors
    /// What keeps the store from working.
    async fn probe(&self) -> Result<Probe, Error>;

    /// Makes an empty blob for `attempt`. With `size_bytes` it has room for exactly that; without, it
    /// grows.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Unavailable`], [`Error::Denied`]; nothing is left behind.
    async fn create(&self, attempt: Attempt, size_bytes: Option<u64>) -> Result<Box<dyn BlobWriter>, Error>;

    /// Makes a blob for `attempt` that holds what the published blob at `source` holds, wherever that is, without its
    /// bytes passing through this process's pump: it is only left to be sealed. `None`: there is no such way from
    /// there to here, or this store's user may not take it; copy the bytes. May be repeated after a crash, and goes
    /// on then. Ends soon when the future is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the source is gone, [`Error::NoSpace`], [`Error::Unavailable`]; what there is of the
    /// copy is left to [`Store::discard`].
    async fn copy_from(
        &self,
        _source: &str,
        _attempt: Attempt,
        _copied: Copied<'_>,
    ) -> Result<Option<Box<dyn BlobWriter>>, Error> {
        Ok(None)
    }

    /// Looks at an image that somebody else has made, in a pool of this store's cluster; with `place` as one to be
    /// adopted in place under this id.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NotFound`], [`Error::Denied`], [`Error::Other`], in sentences for an operator.
    async fn survey_foreign(&self, _pool: &str, _image: &str, _place: Option<ImageId>) -> Result<Foreign, Error> {
        Err(not_rbd(self.name()))
    }

    /// Opens an image that was surveyed. Nothing keeps others from writing to it.
    ///
    /// # Errors
    /// As [`Store::survey_foreign`].
    async fn open_foreign(&self, _foreign: &Foreign) -> Result<Arc<dyn BlobReader>, Error> {
        Err(not_rbd(self.name()))
    }

    /// Makes a blob for `attempt` that is a copy of an image that was surveyed; it is only left to be sealed.
    ///
    /// # Errors
    /// As [`Store::survey_foreign`]; the image is as it was.
    async fn adopt_copy(
        &self,
        _pool: &str,
        _image: &str,
        _attempt: Attempt,
        _copied: Copied<'_>,
    ) -> Result<Box<dyn BlobWriter>, Error> {
        Err(not_rbd(self.name()))
    }

    /// Makes an image of the store's own pool that was surveyed the published blob of `id`, and returns its URL. May
    /// be repeated.
    ///
    /// # Errors
    /// As [`Store::survey_foreign`].
    async fn adopt_in_place(&self, _image: &str, _id: ImageId) -> Result<String, Error> {
        Err(not_rbd(self.name()))
    }

    /// Gives a sealed attempt the name of its image and returns its URL. May be repeated, by any
    /// gateway. Callers see to it that the attempt is sealed: not every store looks.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the attempt is gone.
    async fn publish(&self, attempt: Attempt) -> Result<String, Error>;

    /// Removes whatever `attempt` left, sealed or not, published or not. May be repeated.
    ///
    /// # Errors
    /// [`Error::Busy`] while a dead writer still counts as a user of the blob: try again later.
    async fn discard(&self, attempt: Attempt) -> Result<(), Error>;

    /// Opens a published blob.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn open(&self, url: &str) -> Result<Arc<dyn BlobReader>, Error>;

    /// Opens a sealed attempt that is not published.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it was never sealed or is gone.
    async fn open_attempt(&self, attempt: Attempt) -> Result<Arc<dyn BlobReader>, Error>;

    /// Who uses a published blob besides us, in words; `None`: nobody. Only a hint, the answer may be old
    /// when it arrives: [`Store::retire`] decides.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn users(&self, url: &str) -> Result<Option<String>, Error>;

    /// Takes a published blob out of use: nobody can open or clone it any more. Nothing is lost yet;
    /// with an error everything is as it was. May be repeated. A blob that is gone already is no error.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Busy`].
    async fn retire(&self, url: &str) -> Result<(), Error>;

    /// Takes [`Store::retire`] back. A blob that is not retired is left as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn restore(&self, url: &str) -> Result<(), Error>;

    /// Removes a retired blob for good. May be repeated.
    ///
    /// # Errors
    /// Whatever keeps it from being removed now.
    async fn purge(&self, url: &str) -> Result<(), Error>;

    /// Whether consumers clone its blobs instead of copying them.
    fn can_clone(&self) -> bool {
        false
    }

    /// What is in it, if that can be listed.
    fn inventory(&self) -> Option<&dyn Inventory> {
        None
    }

    /// What a consumer meets who clones a published blob; `None` where nobody can.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn clone_source(&self, _url: &str) -> Result<Option<CloneSource>, Error> {
        Ok(None)
    }

    /// All that was cloned from a published blob and still depends on it; `None`: something is, but where we may not
    /// look.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn clones(&self, _url: &str) -> Result<Option<Vec<Cloned>>, Error> {
        Ok(Some(Vec::new()))
    }

    /// Writes the description of an image beside its published blob.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    async fn describe(&self, url: &str, description: &BTreeMap<String, String>) -> Result<(), Error>;
}

fn not_rbd(store: &str) -> Error {
    Error::Other(format!("store {store} is not of RBD: nothing can be adopted into it"))
}

/// A blob that is being written. Dropped without [`BlobWriter::seal`] it stays behind half-written:
/// [`Store::discard`] removes it.
#[async_trait]
pub trait BlobWriter: Send {
    /// Writes are most efficient when they are this long and aligned to it, in bytes.
    fn block_bytes(&self) -> usize;

    /// Makes sure that bytes up to `end` can be written.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Unavailable`].
    async fn reserve(&mut self, end: u64) -> Result<(), Error>;

    /// Writes `pieces` one after the other from `offset`, within what is reserved. Writes are begun in ascending order of
    /// offsets and do not overlap; any number of them may run at once. What is never written reads as zeros. A store
    /// may answer before the bytes are safe: [`BlobWriter::seal`] has the last word. The future may be dropped.
    fn write(&self, offset: u64, pieces: Vec<Bytes>) -> BoxFuture<'static, Result<(), Error>>;

    /// Ends the blob at `size_bytes`, with its description, immutable and clonable. All writes have
    /// been awaited.
    ///
    /// # Errors
    /// Whatever kept the blob from being complete; it is useless then.
    async fn seal(self: Box<Self>, size_bytes: u64, description: &BTreeMap<String, String>) -> Result<(), Error>;

    /// Lets go of the blob, so that it can be discarded at once. Writes may still be under way.
    async fn abandon(self: Box<Self>);
}

/// A sealed blob, open for reading.
#[async_trait]
pub trait BlobReader: Send + Sync {
    /// Length of the blob.
    fn size_bytes(&self) -> u64;

    /// Runs `(offset, length)` within `start..end` that may hold anything but zeros, in order.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn data(&self, start: u64, end: u64) -> Result<Vec<(u64, u64)>, Error>;

    /// Fills `buffer` with the bytes from `offset` and gives it back.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the blob has been retired or discarded: bytes read after that would be worthless,
    /// so none are returned.
    async fn read(&self, offset: u64, buffer: Vec<u8>) -> Result<Vec<u8>, Error>;
}

/// Ends the process without running destructors under the threads of the C++ libraries.
pub fn exit(code: u8) -> ! {
    ceph::exit(code)
}

/// Gives memory that finished transfers have freed back to the system. Blocks for milliseconds.
pub fn release_memory() {
    ceph::trim_malloc();
}

/// Keeps the allocator from spreading freed blocks over an arena per thread (`ceph.md` 2.3). To be called
/// before threads are started.
pub fn limit_memory_arenas() {
    const ARENAS: usize = 2;
    ceph::limit_malloc_arenas(ARENAS);
}

/// The stores of this deployment.
#[derive(Clone)]
pub struct Stores {
    stores: BTreeMap<String, Arc<dyn Store>>,
    default: String,
}

impl Stores {
    /// A set of stores of which `default` takes uploads that name none.
    #[must_use]
    pub fn new(stores: Vec<Arc<dyn Store>>, default: String) -> Self {
        Self { stores: stores.into_iter().map(|store| (store.name().to_owned(), store)).collect(), default }
    }

    /// The store of that name; `None` names the default one.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown name.
    pub fn get(&self, name: Option<&str>) -> Result<&Arc<dyn Store>, Error> {
        let name = name.unwrap_or(&self.default);
        self.stores.get(name).ok_or_else(|| Error::NotFound(format!("store '{name}'")))
    }

    /// The store that a URL lies in.
    #[must_use]
    pub fn holding(&self, url: &RbdUrl) -> Option<&Arc<dyn Store>> {
        self.stores.values().find(|store| store.holds(url))
    }

    /// The store that keeps staged data: the default one, or else the first that is a pool of RBD images. Others
    /// cannot be read at random while nothing is published.
    #[must_use]
    pub fn staging(&self) -> Option<&Arc<dyn Store>> {
        let fit = |store: &&Arc<dyn Store>| store.common().kind == Kind::Rbd && !store.is_read_only();
        self.stores.get(&self.default).filter(fit).or_else(|| self.stores.values().find(fit))
    }

    /// The store that data of others on http servers counts as.
    #[must_use]
    pub fn http(&self) -> Option<&Arc<dyn Store>> {
        self.stores.values().find(|store| store.common().kind == Kind::Http)
    }

    /// Name of the store that takes uploads which name none.
    #[must_use]
    pub fn default_name(&self) -> &str {
        &self.default
    }

    /// The locations in the order in which to try them: those in the `preferred` stores in the order given, then
    /// the others by the weight of their stores, then as they stand.
    #[must_use]
    pub fn in_order<'l>(&self, locations: &'l [Location], preferred: &[String]) -> Vec<&'l Location> {
        let weight = |location: &Location| self.stores.get(&location.store).map_or(0, |store| store.common().weight);
        let rank = |location: &Location| preferred.iter().position(|name| *name == location.store);
        let mut ordered: Vec<&Location> = locations.iter().collect();
        ordered.sort_by_key(|location| (rank(location).unwrap_or(preferred.len()), Reverse(weight(location))));
        ordered
    }

    /// Every store, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Store>> {
        self.stores.values()
    }
}
