//! What every store promises, asked of every kind of store on real servers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rockpool::domain::id::ImageId;
use rockpool::fetch::{self, Fetcher};
use rockpool::store::{Attempt, BlobReader, BlobWriter, Common, Config, Error, Specific, Store};
use rockpool::telemetry::Telemetry;
use serde::de::DeserializeOwned;
use toml::Table;
use uuid::Uuid;

use crate::harness::{FAR_POOL, Objects, OwnServers, far_keyring, random_bytes, rbd, run, servers};

/// How long a busy server works on a request of a client that has gone.
const IN_FLIGHT: Duration = Duration::from_secs(3);

/// A store under test, and what is in it.
struct Subject {
    store: Arc<dyn Store>,
    /// Names of everything that a store holds for an image.
    left: Box<dyn Fn(ImageId) -> Vec<String>>,
}

type Description = BTreeMap<String, String>;

impl Subject {
    /// Whatever lies under a name that has the image's id in it.
    fn new(store: Arc<dyn Store>, list: impl Fn() -> Vec<String> + 'static) -> Self {
        let left = move |image: ImageId| list().into_iter().filter(|name| name.contains(&image.to_string())).collect();
        Self { store, left: Box::new(left) }
    }

    fn attempt(&self) -> Attempt {
        Attempt::upload(ImageId::from(Uuid::new_v4()), Uuid::new_v4())
    }

    /// Discards an attempt, with the patience that the trait asks for.
    async fn discard(&self, attempt: Attempt) {
        for _ in 0..80 {
            match self.store.discard(attempt).await {
                Ok(()) => return,
                Err(Error::Busy(_)) => tokio::time::sleep(Duration::from_millis(500)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("still busy");
    }

    #[track_caller]
    fn assert_nothing_left(&self, image: ImageId) {
        assert_eq!((self.left)(image), Vec::<String>::new(), "{}", self.store.name());
    }
}

fn description(attempt: Attempt) -> Description {
    let pairs =
        [("state", "ready"), ("id", &attempt.image.to_string()), ("attempt", &attempt.id.as_simple().to_string())];
    pairs.map(|(key, value)| (format!("rockpool.{key}"), value.to_owned())).into()
}

async fn write(writer: &mut Box<dyn BlobWriter>, bytes: &[u8], runs: &[(usize, usize)]) {
    let mut writes = Vec::new();
    for (offset, length) in runs {
        let end = offset + length;
        writer.reserve(end as u64).await.unwrap();
        let (one, two) = bytes[*offset..end].split_at(length / 2);
        writes.push(writer.write(*offset as u64, vec![Bytes::copy_from_slice(one), Bytes::copy_from_slice(two)]));
    }
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
}

async fn store_whole(subject: &Subject, attempt: Attempt, bytes: &[u8]) -> String {
    let mut writer = subject.store.create(attempt, Some(bytes.len() as u64)).await.unwrap();
    write(&mut writer, bytes, &[(0, bytes.len())]).await;
    writer.seal(bytes.len() as u64, &description(attempt)).await.unwrap();
    subject.store.publish(attempt).await.unwrap()
}

async fn read_all(reader: &dyn BlobReader) -> Vec<u8> {
    let size = usize::try_from(reader.size_bytes()).unwrap();
    if size == 0 { Vec::new() } else { reader.read(0, vec![1; size]).await.unwrap() }
}

async fn is_missing(store: &dyn Store, url: &str) -> bool {
    matches!(store.open(url).await, Err(Error::NotFound(_)))
}

/// The list of checks.
async fn conform(subject: &Subject) {
    let name = subject.store.name().to_owned();
    subject.store.check().await.unwrap_or_else(|e| panic!("{name}: {e}"));
    subject.store.probe().await.unwrap();
    assert!(!subject.store.properties().values().any(|value| value.to_string().contains("canary")));
    what_is_written_is_read(subject).await;
    what_is_empty_is_stored(subject).await;
    what_is_not_sealed_is_not_there(subject).await;
    attempts_do_not_meet(subject).await;
    what_is_retired_comes_back_or_goes(subject).await;
}

async fn what_is_written_is_read(subject: &Subject) {
    const MIB: usize = 1 << 20;
    let store = &subject.store;
    // Across the parts and objects of every kind, with holes at the start, in the middle and at the end.
    let runs = [(4096, 100), (MIB - 1, 2), (3 * MIB, 6 * MIB + 5), (12 * MIB, MIB)];
    let size = 14 * MIB + 77;
    let random = random_bytes(9, size);
    let mut bytes = vec![0; size];
    for (offset, length) in runs {
        bytes[offset..offset + length].copy_from_slice(&random[offset..offset + length]);
    }
    for declared in [None, Some(size as u64)] {
        let attempt = subject.attempt();
        let mut writer = store.create(attempt, declared).await.unwrap();
        assert!(writer.block_bytes() >= 1 << 20);
        write(&mut writer, &bytes, &runs).await;
        writer.seal(size as u64, &description(attempt)).await.unwrap();
        let url = store.publish(attempt).await.unwrap();
        assert_eq!(store.publish(attempt).await.unwrap(), url);
        assert!(!url.contains("canary") && url.starts_with(&format!("{}://", store.common().kind.as_str())), "{url}");
        let reader = store.open(&url).await.unwrap();
        assert_eq!(reader.size_bytes(), size as u64);
        for (start, end) in
            [(0, 1), (0, size), (4095, 4197), (5 * MIB - 1, 5 * MIB + 1), (size - 1, size), (13 * MIB, size)]
        {
            let read = reader.read(start as u64, vec![1; end - start]).await.unwrap();
            assert!(read == bytes[start..end], "{} {start}..{end}", store.name());
            let mut at = start as u64;
            for (offset, length) in reader.data(start as u64, end as u64).await.unwrap() {
                assert!(
                    at <= offset && length > 0 && offset + length <= end as u64,
                    "{offset} {length} of {start}..{end}"
                );
                assert!(
                    bytes[usize::try_from(at).unwrap()..usize::try_from(offset).unwrap()].iter().all(|byte| *byte == 0)
                );
                at = offset + length;
            }
            assert!(bytes[usize::try_from(at).unwrap()..end].iter().all(|byte| *byte == 0), "{start}..{end}");
        }
        assert!(reader.read(size as u64 - 1, vec![1; 2]).await.is_err());
        drop(reader);
        let mut next = description(attempt);
        next.insert("rockpool.name".into(), "new".into());
        store.describe(&url, &next).await.unwrap();
        assert!(read_all(&*store.open(&url).await.unwrap()).await == bytes);
        assert_eq!(store.users(&url).await.unwrap(), None);
        store.retire(&url).await.unwrap();
        store.purge(&url).await.unwrap();
        subject.assert_nothing_left(attempt.image);
    }
}

async fn what_is_empty_is_stored(subject: &Subject) {
    for declared in [None, Some(0)] {
        let attempt = subject.attempt();
        let writer = subject.store.create(attempt, declared).await.unwrap();
        writer.seal(0, &description(attempt)).await.unwrap();
        let url = subject.store.publish(attempt).await.unwrap();
        assert_eq!(subject.store.open(&url).await.unwrap().size_bytes(), 0);
        // An upload that cannot be recorded is discarded although it is published.
        subject.discard(attempt).await;
        assert!(is_missing(&*subject.store, &url).await);
        subject.assert_nothing_left(attempt.image);
    }
}

async fn what_is_not_sealed_is_not_there(subject: &Subject) {
    let store = &subject.store;
    let bytes = random_bytes(10, 12 << 20);
    for abandoned in [true, false] {
        let attempt = subject.attempt();
        let mut writer = store.create(attempt, None).await.unwrap();
        write(&mut writer, &bytes, &[(0, 11 << 20)]).await;
        assert!(store.open_attempt(attempt).await.is_err(), "{}", store.name());
        if abandoned {
            writer.abandon().await;
        } else {
            drop(writer);
            // What a killed gateway leaves is discarded when its lease is over: by then the server is done with the part
            // that was on its way.
            tokio::time::sleep(IN_FLIGHT).await;
        }
        assert!(matches!(store.open_attempt(attempt).await, Err(Error::NotFound(_))), "{}", store.name());
        subject.discard(attempt).await;
        subject.discard(attempt).await;
        assert!(matches!(store.publish(attempt).await, Err(Error::NotFound(_))), "{}", store.name());
        subject.assert_nothing_left(attempt.image);
    }
}

async fn attempts_do_not_meet(subject: &Subject) {
    let store = &subject.store;
    let first = subject.attempt();
    let second = Attempt { id: Uuid::new_v4(), ..first };
    let (old, new) = (random_bytes(11, 7 << 20), random_bytes(12, 7 << 20));
    // Both write at the same time; then the first is given up, and its writer is still there.
    let mut late = store.create(first, None).await.unwrap();
    let mut writer = store.create(second, None).await.unwrap();
    write(&mut late, &old, &[(0, 6 << 20)]).await;
    write(&mut writer, &new, &[(0, new.len())]).await;
    writer.seal(new.len() as u64, &description(second)).await.unwrap();
    let url = store.publish(second).await.unwrap();
    write(&mut late, &old, &[(6 << 20, 1 << 20)]).await;
    let sealed = late.seal(old.len() as u64, &description(first)).await;
    if sealed.is_ok() {
        // To publish it would be to overwrite: nobody may read anything else for that.
        let _ = store.publish(first).await;
    }
    assert!(read_all(&*store.open(&url).await.unwrap()).await == new, "{}", store.name());
    subject.discard(first).await;
    assert!(read_all(&*store.open(&url).await.unwrap()).await == new, "{}", store.name());
    assert!((subject.left)(first.image).iter().all(|name| !name.contains(&first.id.as_simple().to_string())));
    subject.discard(second).await;
    subject.assert_nothing_left(first.image);
}

async fn what_is_retired_comes_back_or_goes(subject: &Subject) {
    let store = &subject.store;
    let attempt = subject.attempt();
    let bytes = random_bytes(13, 100_000);
    let url = store_whole(subject, attempt, &bytes).await;
    store.restore(&url).await.unwrap();
    for _ in 0..2 {
        store.retire(&url).await.unwrap();
        assert!(is_missing(&**store, &url).await);
        store.retire(&url).await.unwrap();
        store.restore(&url).await.unwrap();
        store.restore(&url).await.unwrap();
        assert!(read_all(&*store.open(&url).await.unwrap()).await == bytes);
    }
    let reader = store.open(&url).await.unwrap();
    store.retire(&url).await.unwrap();
    store.purge(&url).await.unwrap();
    // Right bytes or none.
    if let Ok(read) = reader.read(0, vec![1; bytes.len()]).await {
        assert!(read == bytes);
    }
    drop(reader);
    store.purge(&url).await.unwrap();
    store.retire(&url).await.unwrap();
    assert!(is_missing(&**store, &url).await);
    assert!(matches!(store.describe(&url, &description(attempt)).await, Err(Error::NotFound(_))));
    subject.assert_nothing_left(attempt.image);
    for foreign in [url.replace("://", "://x"), format!("{url}x")] {
        assert!(store.open(&foreign).await.is_err(), "{foreign}");
    }
}

fn run_on(subject: &Subject) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(conform(subject));
}

fn section<T: DeserializeOwned>(text: &str) -> (Common, T) {
    let mut table: Table = text.parse().unwrap();
    let kind = table.remove("type");
    let common = kind.into_iter().map(|kind| ("type".to_owned(), kind)).collect::<Table>();
    let common = Common { name: "subject".into(), ..common.try_into().unwrap() };
    (common, table.try_into().unwrap())
}

fn build<T: DeserializeOwned>(text: &str, specific: impl Fn(T) -> Specific) -> Arc<dyn Store> {
    let (common, own) = section(text);
    let config = Config { common, specific: specific(own) };
    assert_eq!(config.problems(), Vec::<String>::new());
    let fetcher = Fetcher::new(&fetch::Config::default()).map_err(|problems| problems.join("; ")).unwrap();
    config.build(&Arc::new(fetcher), &Telemetry::new().unwrap())
}

fn rbd_section(folder: &Path, user: &str, keyring: &Path, pool: &str) -> String {
    format!(
        "ceph_conf = \"{}\"\nuser = \"{user}\"\nkeyring = \"{}\"\npool = \"{pool}\"\nop_timeout_s = 10\nchunk_size_mib = 4\n",
        folder.join("ceph.conf").display(),
        keyring.display()
    )
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_pool() {
    let (ceph, keyring) = (servers().ceph, far_keyring());
    let store = build(&rbd_section(&ceph, "rockpool-far", &keyring, FAR_POOL), Specific::Rbd);
    let list = || [lines(&rbd(&["ls", FAR_POOL])), lines(&rbd(&["trash", "ls", "--all", FAR_POOL]))].concat();
    run_on(&Subject::new(store, list));
}

#[test]
fn a_pool_of_another_cluster() {
    let own = OwnServers::start("up");
    let folder = own.folder.clone();
    let store =
        build(&rbd_section(&folder, "rockpool", &folder.join("client.rockpool.keyring"), "images"), Specific::Rbd);
    let list = move || {
        let rbd = |arguments: &[&str]| {
            let mut command = std::process::Command::new("rbd");
            lines(
                &run(command.arg("-c").arg(folder.join("ceph.conf")).args(["--id", "admin"]).args(arguments)).unwrap(),
            )
        };
        [rbd(&["ls", "images"]), rbd(&["trash", "ls", "--all", "images"])].concat()
    };
    run_on(&Subject::new(store, list));
}

#[test]
fn a_folder() {
    let folder = std::env::temp_dir().join(format!("rockpool-folder-{}", Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let store = build(&format!("type = \"file\"\ndata_dir = \"{}\"\n", folder.display()), Specific::File);
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    };
    let listed = folder.clone();
    run_on(&Subject::new(store, move || [names(&listed), names(&listed.join(".uploading"))].concat()));
    assert_eq!(names(&folder), [".uploading"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_bucket_and_a_container() {
    let Some(objects) = Objects::start() else { return };
    let objects = Arc::new(objects);
    let list = || {
        let objects = Arc::clone(&objects);
        move || objects.list()
    };
    run_on(&Subject::new(build(&objects.s3(), Specific::S3), list()));
    assert_eq!(objects.list(), Vec::<String>::new());
    run_on(&Subject::new(build(&objects.swift(), Specific::Swift), list()));
    assert_eq!(objects.list(), Vec::<String>::new());
}
