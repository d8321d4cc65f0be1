//! Copies between two pools of one cluster, made by the store itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rockpool::domain::id::ImageId;
use rockpool::store::rbd::RbdStore;
use rockpool::store::{Attempt, Common, Error, Store};
use rockpool::telemetry::Telemetry;
use serde_json::Value;
use uuid::Uuid;

use crate::harness::{FAR_POOL, Foreign, ceph, new_user, random_bytes, rbd, rbd_as, servers, try_rbd};

/// May write to [`FAR_POOL`] and read `images`.
const COPIER: &str = "rockpool-copier";
/// May only write to [`FAR_POOL`].
const LONER: &str = "rockpool-loner";

/// Keyring of a user. The first call makes the users and the pool.
fn keyring(user: &str) -> PathBuf {
    static KEYRINGS: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let [copier, loner] = KEYRINGS.get_or_init(|| {
        ceph(&["osd", "pool", "create", FAR_POOL, "8"]);
        rbd(&["pool", "init", FAR_POOL]);
        let own = format!("profile rbd pool={FAR_POOL}, profile rbd pool=vms");
        [
            new_user(COPIER, "profile rbd", &format!("{own}, profile rbd-read-only pool=images")),
            new_user(LONER, "profile rbd", &own),
        ]
    });
    if user == COPIER { copier.clone() } else { loner.clone() }
}

/// The store of [`FAR_POOL`] as one of these users, with 4 MiB objects and its data in another pool.
fn far(user: &str) -> RbdStore {
    let keyring = keyring(user);
    let section = format!(
        "ceph_conf = \"{}\"\nuser = \"{user}\"\nkeyring = \"{}\"\npool = \"{FAR_POOL}\"\ndata_pool = \"vms\"\nchunk_size_mib = 4\n",
        servers().ceph.join("ceph.conf").display(),
        keyring.display(),
    );
    let common = Common { name: "far".into(), ..Common::default() };
    RbdStore::new(&common, &toml::from_str(&section).unwrap(), Telemetry::new().unwrap().store("far"))
}

fn attempt() -> Attempt {
    Attempt::upload(ImageId::from(Uuid::new_v4()), Uuid::new_v4())
}

/// What `rbd info` says of an image of [`FAR_POOL`].
fn info(name: &str) -> Value {
    serde_json::from_str(&rbd(&["info", "--format", "json", &format!("{FAR_POOL}/{name}")])).unwrap()
}

fn export(spec: &str) -> Vec<u8> {
    let file = std::env::temp_dir().join(format!("rockpool-copies-{}", Uuid::new_v4()));
    rbd(&["export", "--no-progress", spec, file.to_str().unwrap()]);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    bytes
}

/// 20 MiB with data at both ends only, and not a multiple of any object size.
fn holed() -> Vec<u8> {
    let mut bytes = vec![0; 20 * 1024 * 1024 + 512];
    bytes[..1000].copy_from_slice(&random_bytes(1, 1000));
    let end = bytes.len() - 5000;
    bytes[end..].copy_from_slice(&random_bytes(2, 5000));
    bytes
}

#[tokio::test]
async fn a_copy_is_an_image_of_its_own_in_the_layout_of_its_store() {
    let (store, attempt, bytes) = (far(COPIER), attempt(), holed());
    let source = Foreign::new(&Uuid::new_v4().to_string(), &bytes);
    rbd(&["image-meta", "set", &source.spec, "rockpool.id", "of the source"]);
    rbd(&["image-meta", "set", &source.spec, "conf_rbd_cache", "true"]);
    let heard = AtomicU64::new(0);
    let copied = |bytes| heard.store(bytes, Ordering::Relaxed);
    let copy = store.copy_from(&source.url, attempt, &copied).await.unwrap().expect("this user may read the source");
    assert_eq!(heard.into_inner(), bytes.len() as u64);
    let described = BTreeMap::from([("rockpool.state".to_owned(), "ready".to_owned())]);
    copy.seal(bytes.len() as u64, &described).await.unwrap();
    let name = format!("uploading-{}-{}", attempt.image, attempt.id.as_simple());
    let found = info(&name);
    assert_eq!((&found["size"], &found["order"]), (&Value::from(bytes.len()), &Value::from(22)));
    assert_eq!(found["data_pool"], "vms");
    assert!(found["parent"].is_null(), "{found}");
    assert!(found["features"].as_array().unwrap().contains(&"layering".into()), "{found}");
    let kept = rbd(&["image-meta", "list", "--format", "json", &format!("{FAR_POOL}/{name}")]);
    assert_eq!(kept, r#"{"rockpool.state":"ready"}"#, "nothing of the source's is left");
    let used = |spec: &str| {
        let used: Value = serde_json::from_str(&rbd(&["du", "--exact", "--format", "json", spec])).unwrap();
        used["images"][0]["used_size"].as_u64().unwrap()
    };
    let copied = used(&format!("{FAR_POOL}/{name}@snap"));
    assert!(copied <= used(&format!("{}@snap", source.spec)), "holes stayed holes: {copied}");
    // The source may go, and it is clonable as any other.
    drop(source);
    store.discard(attempt).await.unwrap();
    assert!(try_rbd(&["info", &format!("{FAR_POOL}/{name}")]).is_err());
}

#[tokio::test]
async fn a_copy_that_was_cut_off_goes_on_where_it_was() {
    let (store, attempt, bytes) = (far(COPIER), attempt(), holed());
    let source = Foreign::new(&Uuid::new_v4().to_string(), &bytes);
    let name = format!("uploading-{}-{}", attempt.image, attempt.id.as_simple());
    let spec = format!("{FAR_POOL}/{name}");
    let again = async || {
        let copy = store.copy_from(&source.url, attempt, &|_| {}).await.unwrap().unwrap();
        assert!(info(&name)["parent"].is_null());
        copy.abandon().await;
        // Not export: it must not be open while it is.
        assert!(export(&spec) == bytes, "the copy is whole");
    };
    // Right after the clone was made: as the gateway's user, whose caps suffice for it.
    rbd_as(COPIER, &["clone", "--rbd-default-clone-format", "2", &format!("{}@snap", source.spec), &spec]).unwrap();
    again().await;
    // Complete, with the mark still there.
    rbd(&["image-meta", "set", &spec, "rockpool.source", &source.url]);
    let before = info(&name)["id"].clone();
    again().await;
    assert_eq!(info(&name)["id"], before, "what is complete is kept");
    // Of another origin: nothing of it is trusted.
    again().await;
    assert_ne!(info(&name)["id"], before, "written by whomever, so made anew");
    store.discard(attempt).await.unwrap();
}

#[tokio::test]
async fn where_there_is_no_way_the_bytes_must_be_pumped() {
    let bytes = random_bytes(3, 10_000);
    let source = Foreign::new(&Uuid::new_v4().to_string(), &bytes);
    let none = async |store: &RbdStore, url: &str| {
        let attempt = attempt();
        let copy = store.copy_from(url, attempt, &|_| {}).await.unwrap();
        assert!(copy.is_none(), "{url}");
        let name = format!("uploading-{}-{}", attempt.image, attempt.id.as_simple());
        assert!(try_rbd(&["info", &format!("{FAR_POOL}/{name}")]).is_err(), "nothing is left");
    };
    none(&far(LONER), &source.url).await;
    let store = far(COPIER);
    none(&store, &source.url.replace(&ceph(&["fsid"]), &Uuid::new_v4().to_string())).await;
    none(&store, &source.url.replace("/images/", "/no-such-pool/")).await;
    none(&store, "http://example.com/image").await;
    let empty = Foreign::sparse(&Uuid::new_v4().to_string(), 0);
    none(&store, &empty.url).await;
    let missing = format!("rbd://{}/images/{}/snap", ceph(&["fsid"]), Uuid::new_v4());
    let gone = store.copy_from(&missing, attempt(), &|_| {}).await;
    assert!(matches!(gone.map(drop), Err(Error::NotFound(_))));
}

#[tokio::test]
async fn an_image_whose_copy_is_under_way_can_be_deleted() {
    let (store, attempt) = (far(COPIER), attempt());
    let bytes = holed();
    let source = Foreign::new(&attempt.image.to_string(), &bytes);
    let name = format!("uploading-{}-{}", attempt.image, attempt.id.as_simple());
    let clone = ["clone", "--rbd-default-clone-format", "2", &format!("{}@snap", source.spec)];
    rbd(&[&clone[..], &[&format!("{FAR_POOL}/{name}")]].concat());
    let section = format!(
        "ceph_conf = \"{}\"\nuser = \"admin\"\nkeyring = \"{}\"\n",
        servers().ceph.join("ceph.conf").display(),
        servers().ceph.join("client.admin.keyring").display(),
    );
    let near =
        RbdStore::new(&Common::default(), &toml::from_str(&section).unwrap(), Telemetry::new().unwrap().store("near"));
    near.retire(&source.url).await.unwrap();
    near.purge(&source.url).await.expect_err("the copy still needs it");
    store.discard(attempt).await.unwrap();
    near.purge(&source.url).await.unwrap();
    assert!(!rbd(&["trash", "ls", "--all", "images"]).contains(&attempt.image.to_string()));
}
