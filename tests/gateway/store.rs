//! How images lie in the pool, and what the gateway asks of Ceph.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{
    Gateway, Options, SlowUpload, TAKEOVER_S, Token, assert_active, assert_consistent, await_clean, ceph, eventually,
    left_in_pool, random_bytes, rbd, servers, status_of,
};

fn info(id: &str) -> Value {
    serde_json::from_str(&rbd(&["info", "--format", "json", &format!("images/{id}")])).unwrap()
}

/// An image goes in, comes out, is cloned, and goes.
#[track_caller]
fn round_trip(gateway: &Gateway, bytes: &[u8]) {
    let demo = gateway.client(Token::Demo);
    let id = demo.active("round", bytes);
    assert_active(&demo, &id, bytes);
    let clone = format!("vms/{id}");
    rbd(&["clone", "--rbd-default-clone-format", "1", &format!("images/{id}@snap"), &clone]);
    demo.delete(&format!("/v2/images/{id}")).expect(409);
    rbd(&["rm", "--no-progress", &clone]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(gateway, &[], &[&id], 10);
}

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rockpool-test-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_layout_is_that_of_glance() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let fsid = ceph(&["fsid"]);
    // By its length, and grown in steps and cut: both end the same.
    for (length, chunked) in [(20_000_003_usize, false), (20_000_003, true), (16 << 20, true), (8_388_607, false)] {
        let bytes = random_bytes(length as u64, length);
        let id = demo.create("layout");
        let length_text = length.to_string();
        let headers = [("content-length", length_text.as_str())];
        demo.upload_with(&id, if chunked { &[] } else { &headers }, bytes.as_slice()).expect(204);
        let info = info(&id);
        assert_eq!(
            (&info["order"], &info["size"], &info["objects"]),
            (&23.into(), &length.into(), &length.div_ceil(8 << 20).into())
        );
        let features: Vec<&str> =
            info["features"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        // 61: the default of the cluster.
        assert_eq!(features, ["layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten"]);
        assert!(info["data_pool"].is_null() && info["parent"].is_null());
        let snapshots: Value =
            serde_json::from_str(&rbd(&["snap", "ls", "--format", "json", &format!("images/{id}")])).unwrap();
        assert_eq!(snapshots.as_array().unwrap().len(), 1);
        assert_eq!(
            (&snapshots[0]["name"], &snapshots[0]["protected"], &snapshots[0]["size"]),
            (&"snap".into(), &"true".into(), &length.into())
        );
        let image = demo.show(&id);
        assert_eq!(image["direct_url"], format!("rbd://{fsid}/images/{id}/snap"));
        let described: Value =
            serde_json::from_str(&rbd(&["image-meta", "list", "--format", "json", &format!("images/{id}")])).unwrap();
        for (key, expected) in [
            ("state", "ready"),
            ("id", &id),
            ("name", "layout"),
            ("owner", "p-demo"),
            ("disk_format", "raw"),
            ("size", &length_text),
        ] {
            assert_eq!(described[format!("rockpool.{key}")], expected, "{key}");
        }
        for key in ["checksum", "os_hash_algo", "os_hash_value", "created_at"] {
            assert_eq!(described[format!("rockpool.{key}")], image[key], "{key}");
        }
        // What rbd itself reads back.
        let file = gateway.folder().join("exported");
        rbd(&["export", "--no-progress", &format!("images/{id}@snap"), file.to_str().unwrap()]);
        assert!(fs::read(&file).unwrap() == bytes);
        fs::remove_file(file).unwrap();
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn an_upload_under_way_is_recognisable_and_never_has_the_name_of_a_finished_image() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("underway");
    let bytes = random_bytes(1, 20 << 20);
    let mut upload = SlowUpload::begin(&gateway, &id, None);
    assert!(upload.send(&bytes[..1]));
    eventually("the attempt is in the pool", 10, || left_in_pool(&[&id]).len() == 1);
    let name = left_in_pool(&[&id]).remove(0);
    assert!(name.starts_with(&format!("uploading-{id}-")), "{name}");
    let state = || rbd(&["image-meta", "get", &format!("images/{name}"), "rockpool.state"]);
    eventually("it says that it is being uploaded", 5, || {
        crate::harness::try_rbd(&["image-meta", "get", &format!("images/{name}"), "rockpool.state"]).is_ok()
    });
    for part in bytes[1..].chunks(4 << 20) {
        assert!(upload.send(part));
        assert_eq!(state(), "uploading");
        assert_eq!(left_in_pool(&[&id]), [name.as_str()]);
        assert_eq!(status_of(&demo, &id), "saving");
    }
    assert_eq!(upload.finish(), Some(204));
    assert_active(&demo, &id, &bytes);
    assert_eq!(left_in_pool(&[&id]), [id.as_str()]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn chunk_size_and_data_pool_are_as_configured() {
    let bytes = random_bytes(2, 17_000_000);
    for (chunk_size_mib, order) in [(4, 22), (16, 24)] {
        let gateway = Gateway::start(Options::default().set("stores.ceph", "chunk_size_mib", chunk_size_mib));
        let demo = gateway.client(Token::Demo);
        let id = demo.active("order", &bytes);
        assert_eq!(info(&id)["order"], order);
        assert_active(&demo, &id, &bytes);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    let data_pool = format!("data-{}", uuid::Uuid::new_v4());
    let user =
        User::new(&["mon", "profile rbd", "osd", &format!("profile rbd pool=images, profile rbd pool={data_pool}")]);
    ceph(&["osd", "pool", "create", &data_pool, "1"]);
    ceph(&["osd", "pool", "application", "enable", &data_pool, "rbd"]);
    let done = thread::scope(|scope| {
        let test = scope.spawn(|| {
            let gateway =
                Gateway::start(user.options(Options::default()).set("stores.ceph", "data_pool", data_pool.as_str()));
            let demo = gateway.client(Token::Demo);
            let id = demo.active("data", &bytes);
            assert_eq!(info(&id)["data_pool"], data_pool);
            round_trip(&gateway, &bytes);
            demo.delete(&format!("/v2/images/{id}")).expect(204);
        });
        test.join()
    });
    // Whatever happened: nothing of it stays in the cluster.
    ceph(&["osd", "pool", "rm", &data_pool, &data_pool, "--yes-i-really-really-mean-it"]);
    assert!(done.is_ok());
}

#[test]
fn the_classic_caps_suffice_for_the_whole_life_of_an_image_and_for_what_a_dead_gateway_leaves() {
    let gateway = Gateway::start(Options::quick().ceph_user("classic"));
    let victim = gateway.sibling();
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(3, 12 << 20);
    round_trip(&gateway, &bytes);
    let id = demo.create("classic");
    let mut upload = SlowUpload::begin(&victim, &id, Some(bytes.len()));
    assert!(upload.send(&bytes[..bytes.len() - 1]));
    eventually("the attempt is in the pool", 10, || left_in_pool(&[&id]).len() == 1);
    victim.signal("KILL");
    eventually("the record is taken over", TAKEOVER_S, || status_of(&demo, &id) == "queued");
    assert_consistent(&demo, &id, &bytes);
    demo.upload(&id, &bytes).expect(204);
    // A client that goes away needs the same rights again, but nobody else's watch stands in the way.
    let gone = demo.create("gone");
    let mut upload = SlowUpload::begin(&gateway, &gone, None);
    assert!(upload.send(&bytes));
    drop(upload);
    eventually("the record is queued", 3, || status_of(&demo, &gone) == "queued");
    eventually("the attempt is removed", 3, || left_in_pool(&[&gone]).is_empty());
    await_clean(&gateway, &[&id], &[&gone], 75);
    assert_active(&demo, &id, &bytes);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn monitors_are_found_by_addresses_of_either_protocol() {
    let original = fs::read_to_string(servers().ceph.join("ceph.conf")).unwrap();
    let line = original.lines().find(|line| line.starts_with("mon_host")).unwrap();
    let address =
        |version: &str| line.split(&format!("{version}:")).nth(1).unwrap().split([',', ']']).next().unwrap().to_owned();
    let (v1, v2) = (address("v1"), address("v2"));
    let folder = Folder::new();
    let bytes = random_bytes(4, 1_000_000);
    thread::scope(|scope| {
        let variants = [
            format!("v1:{v1}"),
            format!("[v1:{v1}]"),
            format!("[v2:{v2}]"),
            format!("v2:{v2}"),
            format!("[v1:{v1},v2:{v2}]"),
            v1.clone(),
            format!("v2:{v2},v2:127.0.0.1:1"),
        ];
        for (number, mon_host) in variants.into_iter().enumerate() {
            let conf = folder.0.join(format!("{number}.conf"));
            fs::write(&conf, original.replace(line, &format!("mon_host = {mon_host}"))).unwrap();
            let bytes = &bytes;
            scope.spawn(move || {
                let gateway =
                    Gateway::start(Options::default().set("stores.ceph", "ceph_conf", conf.to_str().unwrap()));
                round_trip(&gateway, bytes);
            });
        }
    });
}

/// A cephx user of a test's own.
struct User {
    name: String,
    caps: Vec<String>,
    folder: Folder,
}

impl User {
    fn new(caps: &[&str]) -> Self {
        let user = Self {
            name: format!("test-{}", uuid::Uuid::new_v4()),
            caps: caps.iter().map(|cap| (*cap).to_owned()).collect(),
            folder: Folder::new(),
        };
        user.make_key();
        user
    }

    fn make_key(&self) {
        let entity = format!("client.{}", self.name);
        let mut arguments = vec!["auth", "get-or-create", &entity];
        arguments.extend(self.caps.iter().map(String::as_str));
        fs::write(self.keyring(), ceph(&arguments) + "\n").unwrap();
    }

    /// Replaces its key, in the cluster and then in the file.
    fn rotate(&self) {
        ceph(&["auth", "del", &format!("client.{}", self.name)]);
        self.make_key();
    }

    fn keyring(&self) -> PathBuf {
        self.folder.0.join("keyring")
    }

    fn options(&self, options: Options) -> Options {
        options.set("stores.ceph", "user", self.name.as_str()).set(
            "stores.ceph",
            "keyring",
            self.keyring().to_str().unwrap(),
        )
    }
}

impl Drop for User {
    fn drop(&mut self) {
        ceph(&["auth", "del", &format!("client.{}", self.name)]);
    }
}

/// Shuts a client of Ceph out, and lets it in again.
struct Blocklisted(String);

impl Blocklisted {
    /// The client that has this RBD image open.
    #[track_caller]
    fn watcher_of(name: &str) -> Self {
        let status: Value =
            serde_json::from_str(&rbd(&["status", "--format", "json", &format!("images/{name}")])).unwrap();
        let address = status["watchers"][0]["address"].as_str().unwrap().to_owned();
        ceph(&["osd", "blocklist", "add", &address, "600"]);
        Self(address)
    }
}

impl Drop for Blocklisted {
    fn drop(&mut self) {
        ceph(&["osd", "blocklist", "rm", &self.0]);
    }
}

/// Shuts the gateway out of Ceph in the middle of an upload, and waits until it has found its way back.
#[track_caller]
fn survives_blocklisting(gateway: &Gateway, before: impl FnOnce()) {
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(5, 40 << 20);
    let (id, other) = (demo.create("shut"), demo.active("other", &bytes[..1_000_000]));
    let mut upload = SlowUpload::begin(gateway, &id, Some(bytes.len()));
    assert!(upload.send(&bytes[..20 << 20]));
    eventually("the attempt is in the pool", 10, || left_in_pool(&[&id]).len() == 1);
    let name = left_in_pool(&[&id]).remove(0);
    before();
    let blocklisted = Blocklisted::watcher_of(&name);
    let _ = upload.send(&bytes[20 << 20..]);
    let answer = upload.answer();
    assert!(answer.is_none_or(|status| status >= 500), "{answer:?}");
    eventually("it is ready again", 20, || {
        gateway.anonymous().try_get("/readyz").is_some_and(|answer| answer.status == 200)
    });
    eventually("other images can be read again", 20, || {
        gateway.client(Token::Demo).get(&format!("/v2/images/{other}/file")).status == 200
    });
    assert_active(&demo, &other, &bytes[..1_000_000]);
    eventually("the upload is undone", 10, || status_of(&demo, &id) == "queued");
    demo.upload(&id, &bytes).expect(204);
    assert_active(&demo, &id, &bytes);
    // While the old client is still shut out.
    await_clean(gateway, &[&id, &other], &[], 75);
    drop(blocklisted);
    for id in [id, other] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn a_gateway_that_ceph_shuts_out_finds_its_way_back_without_a_restart() {
    let user = User::new(&["mon", "profile rbd", "osd", "profile rbd pool=images"]);
    thread::scope(|scope| {
        scope.spawn(|| survives_blocklisting(&Gateway::start(Options::quick()), || {}));
        // With another key, which the file has by then.
        scope.spawn(|| survives_blocklisting(&Gateway::start(user.options(Options::quick())), || user.rotate()));
    });
}

#[test]
fn holes_stay_holes_and_read_as_zeros() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let mut bytes = vec![0; 64 << 20];
    for (offset, length) in [(0, 1), (5_000_000, 4096), ((24 << 20) - 1, 2), ((64 << 20) - 1, 1)] {
        bytes[offset..offset + length]
            .copy_from_slice(&random_bytes(6, length).iter().map(|byte| byte | 1).collect::<Vec<u8>>());
    }
    let id = demo.active("sparse", &bytes);
    assert_active(&demo, &id, &bytes);
    let extents: Value =
        serde_json::from_str(&rbd(&["diff", "--format", "json", &format!("images/{id}@snap")])).unwrap();
    // As far as rbd tells it: which objects there are.
    let objects: BTreeSet<u64> =
        extents.as_array().unwrap().iter().map(|extent| extent["offset"].as_u64().unwrap() >> 23).collect();
    assert_eq!(objects, BTreeSet::from([0, 2, 3, 7]), "{extents}");
    let zeros = vec![0; 30_000_000];
    let zero = demo.active("zero", &zeros);
    assert_active(&demo, &zero, &zeros);
    assert_eq!(rbd(&["diff", "--format", "json", &format!("images/{zero}@snap")]), "[]");
    for id in [id, zero] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        await_clean(&gateway, &[], &[&id], 5);
    }
}

#[test]
fn an_empty_image_can_be_downloaded() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("empty", &[]);
    // librbd is not asked for what lies between 0 and 0: it would end the process.
    assert_active(&demo, &id, &[]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

/// A pool of a test's own.
struct Pool(String);

impl Pool {
    fn new() -> Self {
        let pool = Self(format!("test-{}", uuid::Uuid::new_v4()));
        ceph(&["osd", "pool", "create", &pool.0, "1"]);
        rbd(&["pool", "init", &pool.0]);
        pool
    }

    fn remove(&self) {
        ceph(&["osd", "pool", "rm", &self.0, &self.0, "--yes-i-really-really-mean-it"]);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Removing it twice is no error.
        self.remove();
    }
}

#[test]
fn a_full_pool_is_reported_at_once_and_images_can_still_be_deleted() {
    let pool = Pool::new();
    let user = User::new(&["mon", "profile rbd", "osd", &format!("profile rbd pool={}", pool.0)]);
    let gateway = Gateway::start(user.options(Options::quick()).set("stores.ceph", "pool", pool.0.as_str()));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(7, 20 << 20);
    let (stored, refused, running) = (demo.active("stored", &bytes), demo.create("refused"), demo.create("running"));
    let mut upload = SlowUpload::begin(&gateway, &running, Some(bytes.len()));
    assert!(upload.send(&bytes[..9 << 20]));
    eventually("the upload has begun", 5, || rbd(&["ls", &pool.0]).contains(&running));
    ceph(&["osd", "pool", "set-quota", &pool.0, "max_bytes", "1000000"]);
    eventually("the pool is full", 30, || {
        ceph(&["osd", "pool", "ls", "detail"]).lines().any(|line| line.contains(&pool.0) && line.contains("full_quota"))
    });
    // Nothing waits until there is room again, as librados would by itself.
    let start = Instant::now();
    demo.upload(&refused, &bytes).expect(413);
    let _ = upload.send(&bytes[9 << 20..]);
    assert_eq!(upload.answer(), Some(413));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for id in [&refused, &running] {
        eventually("the upload is undone", 5, || status_of(&demo, id) == "queued");
    }
    eventually("nothing is left of them", 10, || rbd(&["ls", &pool.0]) == stored);
    assert!(demo.get(&format!("/v2/images/{stored}/file")).expect(200).body == bytes);
    demo.delete(&format!("/v2/images/{stored}")).expect(204);
    eventually("the pool is empty", 20, || {
        rbd(&["ls", &pool.0]).is_empty() && rbd(&["trash", "ls", "--all", &pool.0]).is_empty()
    });
    ceph(&["osd", "pool", "set-quota", &pool.0, "max_bytes", "0"]);
    eventually("there is room again", 30, || demo.upload(&refused, &bytes).status == 204);
    assert!(demo.get(&format!("/v2/images/{refused}/file")).expect(200).body == bytes);

    // Gone altogether.
    pool.remove();
    eventually("that is noticed", 10, || gateway.anonymous().get("/readyz").status == 503);
    assert!(gateway.anonymous().get("/readyz?verbose").text().contains("store/ceph"));
    assert!(
        demo.try_get(&format!("/v2/images/{refused}/file"))
            .is_none_or(|answer| answer.status >= 500 || answer.status == 410)
    );
    gateway.anonymous().get("/livez").expect(200);
}
