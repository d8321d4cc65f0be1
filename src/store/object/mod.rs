//! Stores that are reached through Apache OpenDAL: a folder, S3, Swift.
//!
//! | what | where |
//! |---|---|
//! | the bytes of an image | object `<id>.<attempt>` |
//! | its description, which also says that it is sealed, or retired | object `<id>.<attempt>.json` |
//! | an upload under way, or what is left of one | see [`Leftovers`] |
//!
//! The object has the name of its attempt from the beginning, and appears there when it is whole: a late writer of a
//! dead attempt has nothing to write to that another attempt would ever read. What such a writer, or its death, leaves
//! is not seen by anybody, and is found by the attempt's name when that is discarded; an upload in parts that was ended
//! there can also not be completed any more. URLs are `<kind>://<store>/<object>`: they name no server and hold no
//! secret.

mod config;
mod s3;
mod swift;
mod transport;
mod write;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use opendal::{Buffer, ErrorKind, HttpTransporter, OperationContext, Operator, Reader, services};
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;
use uuid::Uuid;

pub use config::{FileConfig, S3Config, SwiftConfig};

use super::{Attempt, BlobReader, BlobWriter, Common, DESCRIPTION_PREFIX, Error, Probe, Purpose, Store};
use crate::domain::location::RbdUrl;
use crate::telemetry::StoreMeter;

/// Longest part that is ever held in memory, in MiB.
const PART_MIB_MAX: u64 = 128;
/// What one upload holds in memory, in bytes, unless its parts alone are longer.
const PARTS_IN_FLIGHT_BYTES: u64 = 48 << 20;
/// Most parts of one object, by the servers' defaults.
const S3_PARTS_MAX: u64 = 10_000;
const SWIFT_SEGMENTS_MAX: u64 = 1_000;

/// Folder below `data_dir` in which files are until they are whole.
const TEMPORARY: &str = ".uploading";
/// Where OpenDAL puts the segments of objects in Swift.
const SEGMENTS: &str = ".segments/";

/// A place for objects.
#[derive(Clone)]
pub struct ObjectStore(Arc<Inner>);

struct Inner {
    common: Common,
    place: Place,
    parts: Parts,
    properties: Map<String, Value>,
    opened: OnceCell<Opened>,
}

/// Where the objects are.
enum Place {
    File(FileConfig),
    S3(S3Config, StoreMeter),
    Swift(SwiftConfig, StoreMeter),
}

/// The way there.
struct Opened {
    operator: Operator,
    leftovers: Leftovers,
}

/// What an attempt may leave besides its objects, and how to find it.
enum Leftovers {
    /// Files in this folder whose names begin with the object's.
    Files(PathBuf),
    /// Uploads in parts.
    Uploads(s3::Uploads),
    /// Objects whose names begin with [`SEGMENTS`] and the object's: those of a whole object, too.
    Segments,
}

/// How long parts are.
struct Parts {
    min_bytes: u64,
    count_max: u64,
}

/// The parts of one object.
struct Plan {
    part_bytes: usize,
    in_flight: usize,
    /// How long the object may become.
    limit_bytes: u64,
}

impl Parts {
    fn largest_bytes(&self) -> u64 {
        self.count_max.saturating_mul(PART_MIB_MAX << 20)
    }

    /// Parts for an object of `size_bytes`, or of any length.
    fn plan(&self, size_bytes: Option<u64>) -> Result<Plan, Error> {
        let needed = size_bytes.unwrap_or(0).div_ceil(self.count_max).next_multiple_of(1 << 20);
        let part_bytes = needed.max(self.min_bytes);
        let limit_bytes = part_bytes.saturating_mul(self.count_max);
        if needed > PART_MIB_MAX << 20 {
            return Err(Error::TooLarge(format!("The store takes images of at most {} bytes.", self.largest_bytes())));
        }
        let in_flight = (PARTS_IN_FLIGHT_BYTES / part_bytes).clamp(2, 8) - 1;
        let number = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Ok(Plan { part_bytes: number(part_bytes), in_flight: number(in_flight), limit_bytes })
    }
}

/// Names of what belongs to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key(String);

impl Key {
    fn of(attempt: Attempt) -> Self {
        let purpose = match attempt.purpose {
            Purpose::Image => "",
            Purpose::Staging => "staging-",
        };
        Self(format!("{purpose}{}.{}", attempt.image, attempt.id.as_simple()))
    }

    fn data(&self) -> String {
        self.0.clone()
    }

    fn description(&self) -> String {
        format!("{}.json", self.0)
    }
}

/// Key of a description that says whether the object is in use.
const STATE: &str = "state";
const READY: &str = "ready";
const RETIRED: &str = "retired";

impl ObjectStore {
    /// A store in a folder; looks at nothing yet.
    #[must_use]
    pub fn file(common: &Common, config: &FileConfig) -> Self {
        let parts = Parts { min_bytes: 4 << 20, count_max: u64::MAX };
        let properties = [
            ("data_dir", json!(config.data_dir)),
            ("chunk_size", json!(parts.min_bytes)),
            ("thin_provisioning", json!(false)),
        ];
        Self::new(common, Place::File(config.clone()), parts, &properties)
    }

    /// A store in a bucket; connects nowhere yet.
    #[must_use]
    pub fn s3(common: &Common, config: &S3Config, meter: StoreMeter) -> Self {
        let parts = Parts { min_bytes: config.part_size_mib << 20, count_max: S3_PARTS_MAX };
        let properties = [
            ("s3_store_large_object_size", json!(config.part_size_mib)),
            ("s3_store_large_object_chunk_size", json!(config.part_size_mib)),
            ("s3_store_thread_pools", json!(parts.plan(None).map_or(1, |plan| plan.in_flight))),
        ];
        Self::new(common, Place::S3(config.clone(), meter), parts, &properties)
    }

    /// A store in a container; connects nowhere yet.
    #[must_use]
    pub fn swift(common: &Common, config: &SwiftConfig, meter: StoreMeter) -> Self {
        let parts = Parts { min_bytes: config.part_size_mib << 20, count_max: SWIFT_SEGMENTS_MAX };
        let properties = [
            ("container", json!(config.container)),
            ("large_object_size", json!(config.part_size_mib)),
            ("large_object_chunk_size", json!(config.part_size_mib)),
        ];
        Self::new(common, Place::Swift(config.clone(), meter), parts, &properties)
    }

    fn new(common: &Common, place: Place, parts: Parts, properties: &[(&str, Value)]) -> Self {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        Self(Arc::new(Inner { common: common.clone(), place, parts, properties, opened: OnceCell::new() }))
    }

    async fn opened(&self) -> Result<&Opened, Error> {
        if let Place::File(config) = &self.0.place {
            // OpenDAL would make it, on whatever disk it is where a mount is missing.
            let folder = tokio::fs::metadata(&config.data_dir).await;
            if !folder.is_ok_and(|folder| folder.is_dir()) {
                return Err(Error::Unavailable(format!("there is no folder {}", config.data_dir.display())));
            }
        }
        self.0.opened.get_or_try_init(async || self.open_place()).await
    }

    async fn operator(&self) -> Result<&Operator, Error> {
        Ok(&self.opened().await?.operator)
    }

    fn open_place(&self) -> Result<Opened, Error> {
        match &self.0.place {
            Place::File(config) => {
                let temporary = config.data_dir.join(TEMPORARY);
                let builder = services::Fs::default()
                    .root(&config.data_dir.to_string_lossy())
                    .atomic_write_dir(&temporary.to_string_lossy());
                let operator = Operator::new(builder).map_err(error)?;
                Ok(Opened { operator, leftovers: Leftovers::Files(temporary) })
            }
            Place::S3(config, meter) => {
                let trust = config::trust(config.cafile.as_deref(), &[&config.endpoint]);
                let transport = transport::Transport::new(trust, config.timeouts(), meter).map_err(Error::Other)?;
                let transport = HttpTransporter::new(transport);
                let secret = config.secret().map_err(|problem| Error::Other(format!("secret_access_key{problem}")))?;
                let mut builder = services::S3::default()
                    .endpoint(&config.endpoint)
                    .region(&config.region)
                    .bucket(&config.bucket)
                    .access_key_id(&config.access_key_id)
                    .secret_access_key(secret.expose())
                    .disable_config_load();
                if config.virtual_host_style {
                    builder = builder.enable_virtual_host_style();
                }
                let operator = Operator::new(builder).map_err(error)?;
                let operator =
                    operator.with_context(OperationContext::default().with_http_transport(transport.clone()));
                let leftovers = Leftovers::Uploads(s3::Uploads::new(transport, config, secret));
                Ok(Opened { operator, leftovers })
            }
            Place::Swift(config, meter) => {
                let trust = config::trust(config.cafile.as_deref(), &[&config.endpoint, &config.auth_url]);
                let transport = transport::Transport::new(trust, config.timeouts(), meter).map_err(Error::Other)?;
                let key = config.secret().map_err(|problem| Error::Other(format!("key{problem}")))?;
                let transport = HttpTransporter::new(swift::Authenticated::new(transport, config, key));
                let builder = services::Swift::default().endpoint(&config.endpoint).container(&config.container);
                let operator = Operator::new(builder).map_err(error)?;
                let operator = operator.with_context(OperationContext::default().with_http_transport(transport));
                Ok(Opened { operator, leftovers: Leftovers::Segments })
            }
        }
    }

    fn url(&self, key: &Key) -> String {
        format!("{}://{}/{}", self.0.common.kind.as_str(), self.0.common.name, key.0)
    }

    /// The object that a URL of this store names.
    fn locate(&self, url: &str) -> Result<Key, Error> {
        let prefix = self.url(&Key(String::new()));
        let name = url.strip_prefix(&prefix).filter(|name| {
            // Written by us: what is not cannot lead anywhere else.
            name.split_once('.')
                .is_some_and(|(image, attempt)| Uuid::try_parse(image).is_ok() && Uuid::try_parse(attempt).is_ok())
        });
        name.map(|name| Key(name.to_owned()))
            .ok_or_else(|| Error::NotFound(format!("{url} names nothing in store {}", self.0.common.name)))
    }

    /// What stands beside an object; `None`: it is not there, or was never sealed.
    async fn read_description(&self, key: &Key) -> Result<Option<BTreeMap<String, String>>, Error> {
        match self.operator().await?.read(&key.description()).await {
            Ok(text) => serde_json::from_slice(&text.to_bytes())
                .map(Some)
                .map_err(|e| Error::Other(format!("{} is no description: {e}", key.description()))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(error(e)),
        }
    }

    async fn write_description(&self, key: &Key, description: &BTreeMap<String, String>) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(description).map_err(|e| Error::Other(e.to_string()))?;
        self.operator().await?.write(&key.description(), Buffer::from(text)).await.map_err(error)?;
        Ok(())
    }

    /// Opens an object that is sealed and in use.
    async fn read(&self, key: &Key) -> Result<Arc<dyn BlobReader>, Error> {
        let description = self.read_description(key).await?;
        let state = description.as_ref().and_then(|keys| keys.get(&format!("{DESCRIPTION_PREFIX}{STATE}")));
        if state.is_none_or(|state| state == RETIRED) {
            return Err(Error::NotFound(key.data()));
        }
        let operator = self.operator().await?;
        let size_bytes = operator.stat(&key.data()).await.map_err(error)?.content_length();
        let reader = operator.reader(&key.data()).await.map_err(error)?;
        Ok(Arc::new(ObjectReader { reader, size_bytes, name: key.data() }))
    }

    /// Says whether the object is in use.
    async fn set_state(&self, key: &Key, state: &str) -> Result<(), Error> {
        let Some(mut description) = self.read_description(key).await? else { return Ok(()) };
        let state_key = format!("{DESCRIPTION_PREFIX}{STATE}");
        if description.insert(state_key, state.to_owned()).as_deref() == Some(state) {
            return Ok(());
        }
        self.write_description(key, &description).await?;
        self.sync().await
    }

    /// Makes what happened in a folder last.
    async fn sync(&self) -> Result<(), Error> {
        let Place::File(config) = &self.0.place else { return Ok(()) };
        let folder = config.data_dir.clone();
        let synced = tokio::task::spawn_blocking(move || std::fs::File::open(folder)?.sync_all()).await;
        synced.map_err(|panic| Error::Other(panic.to_string()))?.map_err(|e| Error::Other(format!("not synced: {e}")))
    }

    /// Removes all that belongs to an attempt.
    async fn remove(&self, key: &Key) -> Result<(), Error> {
        let Opened { operator, leftovers } = self.opened().await?;
        // 1. What a writer may still be at: it cannot end well from now on.
        match leftovers {
            Leftovers::Files(folder) => remove_files(folder, &key.data()).await?,
            Leftovers::Uploads(uploads) => uploads.abort(&key.data()).await?,
            Leftovers::Segments => {}
        }
        // 2. The bytes, then what says that they are there.
        operator.delete(&key.data()).await.map_err(error)?;
        if let Leftovers::Segments = leftovers {
            let prefix = format!("{SEGMENTS}{}", key.data());
            for entry in operator.list_with(&prefix).recursive(true).await.map_err(error)? {
                operator.delete(entry.path()).await.map_err(error)?;
            }
        }
        operator.delete(&key.description()).await.map_err(error)?;
        self.sync().await
    }
}

/// Removes the files of a folder whose names are `name` and something that makes them unique.
async fn remove_files(folder: &PathBuf, name: &str) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::Other(format!("{}: {e}", folder.display()));
    let mut entries = tokio::fs::read_dir(folder).await.map_err(failed)?;
    let prefix = format!("{name}.");
    while let Some(entry) = entries.next_entry().await.map_err(failed)? {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            match tokio::fs::remove_file(entry.path()).await {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
                Ok(()) | Err(_) => {}
            }
        }
    }
    Ok(())
}

#[async_trait]
impl Store for ObjectStore {
    fn common(&self) -> &Common {
        &self.0.common
    }

    fn holds(&self, _url: &RbdUrl) -> bool {
        // Nobody but this service writes URLs of its objects.
        false
    }

    fn properties(&self) -> Map<String, Value> {
        self.0.properties.clone()
    }

    async fn check(&self) -> Result<(), String> {
        let tried = async {
            if self.is_read_only() {
                return self.probe().await.map(drop);
            }
            let operator = self.operator().await?;
            let name = format!("startup-check-{}", Uuid::new_v4());
            operator.write(&name, "rockpool").await.map_err(error)?;
            operator.delete(&name).await.map_err(error)
        };
        let (name, kind) = (&self.0.common.name, self.0.common.kind.as_str());
        tried.await.map_err(|e| {
            let advice = match (&e, &self.0.place) {
                (_, Place::File(_)) => "check that data_dir is mounted, and that this user may write there",
                (Error::NotFound(_), Place::S3(..)) => "make the bucket",
                (Error::NotFound(_), Place::Swift(..)) => "make the container",
                (Error::Denied(_), _) => "check the key, and what it permits",
                _ => "check the endpoint, and that the server runs",
            };
            format!("store {name}: nothing could be stored by {kind}: {e}; {advice}")
        })
    }

    async fn probe(&self) -> Result<Probe, Error> {
        let start = Instant::now();
        let mut entries = self.operator().await?.lister_with("").limit(1).await.map_err(error)?;
        futures_util::TryStreamExt::try_next(&mut entries).await.map_err(error)?;
        Ok(Probe { latency: start.elapsed(), used_bytes: None, available_bytes: None })
    }

    async fn create(&self, attempt: Attempt, size_bytes: Option<u64>) -> Result<Box<dyn BlobWriter>, Error> {
        let operator = self.operator().await?;
        let key = Key::of(attempt);
        // The writer asks the server for nothing until it has a whole part: a client is not to wait for that.
        match operator.stat(&key.data()).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(error(e)),
            Ok(_) => return Err(Error::Other(format!("{} is there already", key.data()))),
        }
        Ok(Box::new(write::ObjectWriter::create(self.clone(), operator, key, size_bytes).await?))
    }

    async fn publish(&self, attempt: Attempt) -> Result<String, Error> {
        let key = Key::of(attempt);
        match self.read_description(&key).await? {
            Some(_) => Ok(self.url(&key)),
            None => Err(Error::NotFound(key.data())),
        }
    }

    async fn discard(&self, attempt: Attempt) -> Result<(), Error> {
        self.remove(&Key::of(attempt)).await
    }

    async fn open_attempt(&self, attempt: Attempt) -> Result<Arc<dyn BlobReader>, Error> {
        self.read(&Key::of(attempt)).await
    }

    async fn open(&self, url: &str) -> Result<Arc<dyn BlobReader>, Error> {
        self.read(&self.locate(url)?).await
    }

    async fn users(&self, _url: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn retire(&self, url: &str) -> Result<(), Error> {
        self.set_state(&self.locate(url)?, RETIRED).await
    }

    async fn restore(&self, url: &str) -> Result<(), Error> {
        self.set_state(&self.locate(url)?, READY).await
    }

    async fn purge(&self, url: &str) -> Result<(), Error> {
        self.remove(&self.locate(url)?).await
    }

    async fn describe(&self, url: &str, description: &BTreeMap<String, String>) -> Result<(), Error> {
        let key = self.locate(url)?;
        let missing = || Error::NotFound(url.to_owned());
        let known = self.read_description(&key).await?.ok_or_else(missing)?;
        let mut next = description.clone();
        // Which attempt it came from, and whether it is in use, is no description.
        for name in [STATE, "attempt"] {
            let name = format!("{DESCRIPTION_PREFIX}{name}");
            if let Some(value) = known.get(&name) {
                next.insert(name, value.clone());
            }
        }
        self.write_description(&key, &next).await?;
        // Removed meanwhile: then this goes, too.
        let operator = self.operator().await?;
        if !operator.exists(&key.data()).await.map_err(error)? {
            operator.delete(&key.description()).await.map_err(error)?;
            return Err(missing());
        }
        Ok(())
    }
}

/// An object, which never changes.
struct ObjectReader {
    reader: Reader,
    size_bytes: u64,
    name: String,
}

#[async_trait]
impl BlobReader for ObjectReader {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn data(&self, start: u64, end: u64) -> Result<Vec<(u64, u64)>, Error> {
        // Nobody tells what of it is zeros.
        Ok(if start < end { vec![(start, end - start)] } else { Vec::new() })
    }

    async fn read(&self, offset: u64, mut buffer: Vec<u8>) -> Result<Vec<u8>, Error> {
        let wanted = buffer.len();
        buffer.clear();
        self.reader.read_into(&mut buffer, offset..offset + wanted as u64).await.map_err(error)?;
        if buffer.len() != wanted {
            return Err(Error::Other(format!("{}: {} bytes at {offset}, not {wanted}", self.name, buffer.len())));
        }
        Ok(buffer)
    }
}

/// A failure of OpenDAL in the store's terms. Its own text also tells of what was sent: only what was answered is kept.
fn error(failure: opendal::Error) -> Error {
    use std::error::Error as _;
    let mut text = failure.message().to_owned();
    if let Some(source) = failure.source() {
        text = format!("{text}: {source}");
    }
    let full = failure.source().and_then(|source| source.downcast_ref::<std::io::Error>()).is_some_and(|e| {
        matches!(
            e.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge
        )
    });
    match failure.kind() {
        _ if full => Error::NoSpace(text),
        // S3's and Swift's words for a quota.
        _ if ["QuotaExceeded", "EntityTooLarge", "status: 413"].iter().any(|word| text.contains(word)) => {
            Error::NoSpace(text)
        }
        ErrorKind::NotFound => Error::NotFound(text),
        ErrorKind::PermissionDenied => Error::Denied(text),
        ErrorKind::RateLimited => Error::Unavailable(text),
        _ if failure.is_temporary() => Error::Unavailable(text),
        _ => Error::Other(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{PART_MIB_MAX, Parts};

    #[test]
    fn parts_are_as_long_as_the_image_needs() {
        const MIB: u64 = 1 << 20;
        let parts = Parts { min_bytes: 16 * MIB, count_max: 10_000 };
        for (size, expected) in [(None, 16), (Some(0), 16), (Some(160_000 * MIB), 16), (Some(160_000 * MIB + 1), 17)] {
            let plan = parts.plan(size).unwrap();
            assert_eq!(plan.part_bytes as u64, expected * MIB, "{size:?}");
            assert!(plan.limit_bytes >= size.unwrap_or(0) && plan.in_flight >= 1);
        }
        assert_eq!(parts.largest_bytes(), 10_000 * PART_MIB_MAX * MIB);
        assert!(parts.plan(Some(parts.largest_bytes())).is_ok());
        assert!(parts.plan(Some(parts.largest_bytes() + 1)).is_err());
        let file = Parts { min_bytes: 4 * MIB, count_max: u64::MAX };
        assert_eq!(file.plan(Some(1 << 50)).unwrap().part_bytes as u64, 4 * MIB);
    }
}
