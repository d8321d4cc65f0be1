//! `/v2/images/{id}/locations`: bytes that somebody else has put into the pool, as Nova does with snapshots.

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, Foreign, Gateway, Options, TAKEOVER_S, Token, assert_active, await_clean, ceph, eventually, hash,
    left_in_pool, new_user, random_bytes, rbd, rbd_as, run, status_of,
};

/// Longest wait for a small image to be hashed on a busy machine.
const HASHED_S: u64 = 20;

fn path(id: &str) -> String {
    format!("/v2/images/{id}/locations")
}

/// A name that nobody else has.
fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().as_simple())
}

/// What Nova does: the user's token, in the company of its own.
#[track_caller]
fn register(client: &Client, id: &str, body: &Value) -> Answer {
    client.post_for_user(&path(id), body, Token::Service.text())
}

fn digest(command: &str, bytes: &[u8]) -> String {
    let file = std::env::temp_dir().join(unique("rockpool-digest"));
    std::fs::write(&file, bytes).unwrap();
    let line = run(Command::new(command).arg(&file)).unwrap();
    std::fs::remove_file(file).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn nova_snapshots_a_machine_straight_into_the_pool() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    // With what Ceph's documentation gives Nova for this.
    let user = "nova-snapshots";
    new_user(user, "profile rbd", "profile rbd pool=vms, profile rbd pool=images");
    let nova = |arguments: &[&str]| rbd_as(user, arguments).unwrap_or_else(|e| panic!("{e}"));
    let bytes = random_bytes(1, 9_000_000);
    let file = gateway.folder().join("disk");
    std::fs::write(&file, &bytes).unwrap();
    let id =
        demo.post("/v2/images", &json!({"name": "snapshot"})).expect(201).json()["id"].as_str().unwrap().to_owned();
    let (disk, image) = (format!("vms/{id}_disk"), format!("images/{id}"));
    nova(&["import", "--no-progress", file.to_str().unwrap(), &disk]);
    // 1. The machine's disk becomes an image of its own, under the id of the record.
    nova(&["snap", "create", "--no-progress", &format!("{disk}@tmp")]);
    nova(&["snap", "protect", &format!("{disk}@tmp")]);
    nova(&["clone", &format!("{disk}@tmp"), &image]);
    nova(&["flatten", "--no-progress", &image]);
    nova(&["snap", "unprotect", &format!("{disk}@tmp")]);
    nova(&["snap", "rm", "--no-progress", &format!("{disk}@tmp")]);
    nova(&["snap", "create", "--no-progress", &format!("{image}@snap")]);
    nova(&["snap", "protect", &format!("{image}@snap")]);
    // 2. The record learns what it is, and then where it is.
    let add = |path: &str, value: &str| json!({"op": "add", "path": path, "value": value});
    let described = json!([
        add("/disk_format", "raw"),
        add("/container_format", "bare"),
        add("/image_location", "snapshot"),
        add("/image_state", "available"),
        add("/owner_id", "p-demo"),
        add("/instance_uuid", &id),
    ]);
    demo.patch(&format!("/v2/images/{id}"), &described).expect(200);
    let url = format!("rbd://{}/images/{id}/snap", ceph(&["fsid"]));
    let answer = register(&demo, &id, &json!({"url": url}));
    assert_eq!((answer.status, answer.body.len()), (202, 0), "{}", answer.text());
    // 3. It is an image like any other.
    eventually("it is active", HASHED_S, || status_of(&demo, &id) == "active");
    eventually("it is hashed", HASHED_S, || !demo.show(&id)["os_hash_value"].is_null());
    assert_active(&demo, &id, &bytes);
    let shown = demo.show(&id);
    assert_eq!(shown["os_hash_algo"], "sha512");
    assert_eq!(shown["checksum"], digest("md5sum", &bytes));
    assert_eq!((&shown["virtual_size"], &shown["stores"]), (&Value::Null, &"ceph".into()));
    assert_eq!(shown["direct_url"], url);
    assert_eq!(
        gateway.client(Token::Service).get(&path(&id)).expect(200).json(),
        json!([{"url": url, "metadata": {"store": "ceph"}}])
    );
    await_clean(&gateway, &[&id], &[], HASHED_S);
    assert_eq!(nova(&["image-meta", "get", &image, "rockpool.os_hash_value"]), hash(&bytes));
    // 4. A machine boots from it, and it goes when nothing needs it any more.
    let machine = format!("vms/{id}_second");
    nova(&["clone", &format!("{image}@snap"), &machine]);
    let refused = demo.delete(&format!("/v2/images/{id}")).expect(409);
    assert!(refused.text().contains("in use"), "{}", refused.text());
    nova(&["rm", "--no-progress", &machine]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 10);
    assert_eq!(gateway.sql("SELECT (SELECT count(*) FROM images) + (SELECT count(*) FROM image_locations)"), "0");
    nova(&["rm", "--no-progress", &disk]);
}

#[test]
fn a_given_hash_is_compared_before_the_image_is_active() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(2, 5_000_000);
    let data = Foreign::new(&unique("verified"), &bytes);
    for (algorithm, command) in
        [("sha256", "sha256sum"), ("sha512", "sha512sum"), ("sha1", "sha1sum"), ("md5", "md5sum")]
    {
        let right = digest(command, &bytes);
        let id = demo.create(algorithm);
        let validation = json!({"os_hash_algo": algorithm, "os_hash_value": right.to_uppercase()});
        register(&demo, &id, &json!({"url": data.url, "validation_data": validation})).expect(202);
        eventually("it is active", HASHED_S, || status_of(&demo, &id) == "active");
        let image = demo.show(&id);
        assert_eq!((&image["os_hash_algo"], &image["os_hash_value"]), (&algorithm.into(), &right.into()));
        assert_eq!(image["size"], bytes.len());
        assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
        assert_eq!(task_of(&demo, &id), ("location_import".into(), "success".into()));
        // What others made under a name of their own stays theirs.
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        assert!(data.is_whole());
        let id = demo.create("wrong");
        let validation = json!({"os_hash_algo": algorithm, "os_hash_value": "0".repeat(right_length(algorithm))});
        register(&demo, &id, &json!({"url": data.url, "validation_data": validation})).expect(202);
        eventually("it is queued again", HASHED_S, || status_of(&demo, &id) == "queued");
        let image = demo.show(&id);
        for field in ["size", "checksum", "os_hash_algo", "os_hash_value"] {
            assert!(image[field].is_null(), "{image}");
        }
        assert!(image["direct_url"].is_null() && image["stores"].is_null(), "{image}");
        assert_eq!(task_of(&demo, &id), ("location_import".into(), "failure".into()));
        assert!(image["os_glance_upload_failure"].as_str().unwrap().contains(algorithm), "{image}");
        assert_eq!(gateway.sql(&format!("SELECT count(*) FROM image_locations WHERE image_id = '{id}'")), "0");
        assert!(data.is_whole());
        // A retry just works.
        demo.upload(&id, &bytes).expect(204);
        assert_active(&demo, &id, &bytes);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM jobs WHERE kind = 'locate'"), "0");
}

/// Kind and status of the one task of an image, which does not say where its data is.
#[track_caller]
fn task_of(client: &Client, id: &str) -> (Value, Value) {
    let answer = client.get(&format!("/v2/images/{id}/tasks")).expect(200);
    assert!(!answer.text().contains("rbd://"), "{}", answer.text());
    let tasks = answer.json()["tasks"].as_array().unwrap().clone();
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    assert_eq!(tasks[0]["image_id"], id);
    (tasks[0]["type"].clone(), tasks[0]["status"].clone())
}

fn right_length(algorithm: &str) -> usize {
    match algorithm {
        "md5" => 32,
        "sha1" => 40,
        "sha256" => 64,
        _ => 128,
    }
}

#[test]
fn data_under_the_images_own_name_goes_with_a_wrong_hash() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("own");
    let data = Foreign::new(&id, b"not what was promised");
    let validation = json!({"os_hash_algo": "sha1", "os_hash_value": "0".repeat(40)});
    register(&demo, &id, &json!({"url": data.url, "validation_data": validation})).expect(202);
    eventually("it is queued again", HASHED_S, || status_of(&demo, &id) == "queued");
    await_clean(&gateway, &[], &[&id], 10);
    demo.upload(&id, b"what was promised").expect(204);
    assert_active(&demo, &id, b"what was promised");
}

#[test]
fn without_do_secure_hash_what_is_said_is_believed() {
    let gateway = Gateway::start(Options::default().set("images", "do_secure_hash", false));
    let demo = gateway.client(Token::Demo);
    let data = Foreign::new(&unique("believed"), &[7; 1000]);
    let claimed = "ab".repeat(32);
    let validation = json!({"os_hash_algo": "sha256", "os_hash_value": claimed});
    for (body, algorithm, value) in [
        (json!({"url": data.url}), Value::Null, Value::Null),
        (json!({"url": data.url, "validation_data": {}}), Value::Null, Value::Null),
        (json!({"url": data.url, "validation_data": validation}), json!("sha256"), json!(claimed)),
    ] {
        let id = demo.create("believed");
        register(&demo, &id, &body).expect(202);
        eventually("it is active", HASHED_S, || status_of(&demo, &id) == "active");
        let image = demo.show(&id);
        assert_eq!((&image["os_hash_algo"], &image["os_hash_value"]), (&algorithm, &value), "{body}");
        assert_eq!((&image["checksum"], &image["size"]), (&Value::Null, &1000.into()));
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM jobs WHERE kind = 'locate'"), "0");
}

#[test]
fn locations_are_for_services() {
    let gateway = Gateway::start(Options::default());
    let [admin, demo, alt, reader, service] =
        [Token::Admin, Token::Demo, Token::Alt, Token::Reader, Token::Service].map(|token| gateway.client(token));
    let data = Foreign::new(&unique("shared"), &[1; 100]);
    let body = json!({"url": data.url});
    let private = || {
        let body = json!({"visibility": "private", "disk_format": "raw", "container_format": "bare"});
        demo.post("/v2/images", &body).expect(201).json()["id"].as_str().unwrap().to_owned()
    };
    // Who may say where the data is.
    let id = private();
    for (client, status) in [(&demo, 403), (&admin, 403), (&reader, 403), (&alt, 404)] {
        assert_eq!(client.post(&path(&id), &body).status, status);
    }
    for (client, status) in [(&reader, 403), (&alt, 404)] {
        assert_eq!(client.post_for_user(&path(&id), &body, Token::Service.text()).status, status);
    }
    let not_a_service = demo.post_for_user(&path(&id), &body, Token::Alt.text());
    assert!([401, 403].contains(&not_a_service.status), "{}", not_a_service.text());
    demo.post_for_user(&path(&id), &body, "no-token").expect(401);
    gateway.anonymous().post(&path(&id), &body).expect(401);
    assert_eq!(status_of(&demo, &id), "queued");
    // A service by itself reaches every project's images, private ones too.
    service.post(&path(&id), &body).expect(202);
    eventually("it is active", HASHED_S, || status_of(&demo, &id) == "active");
    // Who may not is told so, whatever state the image is in.
    for (client, status) in [(&demo, 403), (&reader, 403), (&alt, 404), (&service, 409)] {
        assert_eq!(client.post(&path(&id), &body).status, status);
    }
    register(&admin, &private(), &body).expect(202);
    register(&demo, &private(), &body).expect(202);
    // Who may know where it is.
    let expected = json!([{"url": data.url, "metadata": {"store": "ceph"}}]);
    for client in [&service, &admin] {
        assert_eq!(client.get(&path(&id)).expect(200).json(), expected);
    }
    for (client, status) in [(&demo, 403), (&reader, 403), (&alt, 404)] {
        assert_eq!(client.get(&path(&id)).status, status);
        // The roles of the user count, as in Glance.
        assert_eq!(client.get_with(&path(&id), &[("x-service-token", Token::Service.text())]).status, status);
    }
    assert_eq!(service.get(&path(&demo.create("empty"))).expect(200).json(), json!([]));
    for missing in [&uuid::Uuid::new_v4().to_string(), "not-an-id"] {
        assert_eq!(service.get(&path(missing)).status, 404);
        assert_eq!(service.post(&path(missing), &body).status, 404);
    }
    // A deactivated image is nobody's to clone.
    gateway.sql(&format!("UPDATE images SET status = 'deactivated' WHERE id = '{id}'"));
    assert_eq!(service.get(&path(&id)).expect(200).json(), json!([]));
    assert_eq!(admin.get(&path(&id)).expect(200).json(), expected);
    assert!(demo.show(&id)["direct_url"].is_null() && admin.show(&id)["direct_url"] == data.url);
    // Nothing else is there.
    for method in ["PUT", "DELETE", "PATCH"] {
        let answer = service.send(method, &path(&id), &[], ureq::SendBody::none()).expect(405);
        assert_eq!(answer.header("allow"), "POST", "as in the reference");
    }
}

#[test]
fn an_image_gets_its_data_once() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let data = Foreign::new(&unique("once"), &[1; 100]);
    let body = json!({"url": data.url});
    let active = demo.active("active", b"bytes");
    let refused = register(&demo, &active, &body).expect(409);
    assert!(refused.text().contains("active"), "{}", refused.text());
    let unformatted = demo.post("/v2/images", &json!({})).expect(201).json()["id"].as_str().unwrap().to_owned();
    let refused = register(&demo, &unformatted, &body).expect(400);
    assert!(refused.text().contains("disk_format"), "{}", refused.text());
    // Of many at once, one wins.
    let id = demo.create("many");
    let answers: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..6).map(|_| scope.spawn(|| register(&demo, &id, &body).status)).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(answers.iter().filter(|status| **status == 202).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|status| **status == 409).count(), 5, "{answers:?}");
    assert_eq!(gateway.sql(&format!("SELECT count(*) FROM image_locations WHERE image_id = '{id}'")), "1");
    demo.upload(&id, b"other bytes").expect(409);
    let none = gateway.sibling_with(Options::default().set("images", "image_location_quota", 0));
    let refused = register(&none.client(Token::Demo), &demo.create("quota"), &body).expect(413);
    assert!(refused.text().contains("locations"), "{}", refused.text());
}

#[test]
fn a_location_that_cannot_be_one_is_refused_with_the_rule() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let fsid = ceph(&["fsid"]);
    let name = unique("refused");
    let data = Foreign::new(&name, &[1; 100]);
    let empty = Foreign::sparse(&unique("empty"), 0);
    let id = demo.create("queued");
    // A server that must not hear of it.
    let trap = TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let port = trap.local_addr().unwrap().port();
    let canary = gateway.folder().join("canary").display().to_string();
    std::fs::write(&canary, "canary").unwrap();
    let other_fsid = uuid::Uuid::new_v4();
    for (url, rule) in [
        (String::new(), "url"),
        (format!("http://127.0.0.1:{port}/image"), "http store"),
        (format!("HTTP://127.0.0.1:{port}/image"), "HTTP"),
        (format!("https://user:hunter2@127.0.0.1:{port}/image"), "http store"),
        (format!("ftp://127.0.0.1:{port}/image"), "ftp"),
        (format!("s3://key:hunter2@127.0.0.1:{port}/bucket/object"), "s3"),
        (format!("s3+https://key:hunter2@127.0.0.1:{port}/bucket/object"), "s3+https"),
        (format!("swift+http://user:hunter2@127.0.0.1:{port}/v1/c/o"), "swift+http"),
        ("swift+config://ref1/container/object".into(), "swift+config"),
        ("cinder://store/volume".into(), "cinder"),
        ("vsphere://host/folder".into(), "vsphere"),
        (format!("file://{canary}"), "file"),
        (format!("FILE://{canary}"), "FILE"),
        (format!("file:/{canary}"), "file"),
        (format!("filesystem://{canary}"), "filesystem"),
        (format!("//{canary}"), "scheme"),
        (canary.clone(), "scheme"),
        (format!("RBD://{fsid}/images/{name}/snap"), "lower case"),
        (format!("rbd://{name}"), "four parts"),
        (format!("rbd://{fsid}/images/{name}"), "four parts"),
        (format!("rbd://{fsid}/images/{name}/snap/x"), "four parts"),
        (format!("rbd://{fsid}//{name}/snap"), "empty part"),
        (format!("rbd://{fsid}/images/{name}/"), "empty part"),
        (format!("rbd://{fsid}/images/{name}/other"), "snapshot"),
        (format!("rbd://{fsid}/images/{name}/snap?x"), "snapshot"),
        (format!("rbd://{fsid}/images/{name}%00/snap"), "control character"),
        (format!("rbd://{fsid}/images/%2e%2e/snap"), "has a part"),
        (format!("rbd://{fsid}/images/..%2fvms%2fdisk/snap"), "in one of its parts"),
        (format!("rbd://{fsid}/im%61ges/{name}/snap"), "percent-encoded"),
        (format!("rbd://{fsid}/images/%ff/snap"), "UTF-8"),
        (format!("rbd://{fsid}/images/{name}%zz/snap"), "percent-encoded"),
        (format!("rbd://{fsid}/images/;$(touch {canary}.x)/snap"), "four parts"),
        (format!("rbd://{fsid}/images/{}/snap", "x".repeat(300)), "255"),
        (format!("rbd://{other_fsid}/images/{name}/snap"), "no store"),
        (format!("rbd://{}/images/{name}/snap", fsid.to_uppercase()), "no store"),
        (format!("rbd://{fsid}/vms/{name}/snap"), "no store"),
        (format!("rbd://{fsid}/images/uploading-{id}-x/snap"), "no store"),
        (format!("rbd://{fsid}/images/{name}-missing/snap"), "no such RBD image"),
        (format!("rbd://{fsid}/images/a%0Ab/snap"), "control character"),
        (empty.url.clone(), "no bytes"),
    ] {
        let refused = register(&demo, &id, &json!({"url": url})).expect(400);
        assert!(refused.text().contains(rule), "{url}: {}", refused.text());
        assert!(!refused.text().contains("hunter2"), "{}", refused.text());
    }
    let sha = "a".repeat(64);
    for (body, rule) in [
        (json!({"url": data.url, "validation_data": {"os_hash_algo": "sha256"}}), "os_hash_value"),
        (json!({"url": data.url, "validation_data": {"os_hash_value": sha}}), "os_hash_algo"),
        (json!({"url": data.url, "validation_data": {"os_hash_algo": "crc32", "os_hash_value": "aa"}}), "one of"),
        (json!({"url": data.url, "validation_data": {"os_hash_algo": "sha256", "os_hash_value": "aa"}}), "size"),
        (
            json!({"url": data.url, "validation_data": {"os_hash_algo": "sha256", "os_hash_value": "g".repeat(64)}}),
            "hexadecimal",
        ),
        (
            json!({"url": data.url, "validation_data": {"os_hash_algo": "sha256", "os_hash_value": sha, "checksum": sha}}),
            "unknown",
        ),
        (json!({"url": data.url, "validation_data": [sha]}), "object"),
        (json!({"url": data.url, "metadata": {}}), "unknown"),
        (json!({"url": 7}), "string"),
        (json!({"url": "rbd://a\u{0}b"}), "control character"),
        (json!({"url": ["a"]}), "string"),
        (json!({}), "url"),
        (json!([data.url]), "object"),
        (json!("x"), "object"),
        (json!(null), "object"),
    ] {
        let refused = register(&demo, &id, &body).expect(400);
        assert!(refused.text().contains(rule), "{body}: {}", refused.text());
    }
    // A snapshot that is not there.
    let bare = unique("bare");
    rbd(&["create", "--size", "1M", &format!("images/{bare}")]);
    let refused = register(&demo, &id, &json!({"url": format!("rbd://{fsid}/images/{bare}/snap")})).expect(400);
    assert!(refused.text().contains("snapshot"), "{}", refused.text());
    rbd(&["rm", "--no-progress", &format!("images/{bare}")]);
    // None of it has left a trace, and nobody was called.
    assert_eq!(status_of(&demo, &id), "queued");
    assert_eq!(gateway.sql("SELECT (SELECT count(*) FROM image_locations) + (SELECT count(*) FROM jobs)"), "0");
    assert!(trap.accept().is_err(), "the gateway connected to where a client said");
    assert!(!std::path::Path::new(&format!("{canary}.x")).exists());
    let children = run(Command::new("pgrep").args(["-P", &gateway.pid().to_string()]));
    assert!(children.is_err(), "the gateway has child processes: {children:?}");
    // To whoever is no service everything is as forbidden.
    for url in [format!("file://{canary}"), format!("http://127.0.0.1:{port}/"), data.url.clone()] {
        let refused = demo.post(&path(&id), &json!({"url": url})).expect(403);
        assert!(refused.text().contains("service"), "{}", refused.text());
    }
    assert!(!gateway.log().contains("hunter2"));
    assert!(data.is_whole());
}

#[test]
fn data_that_several_images_refer_to_goes_with_the_last_of_them() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(3, 300_000);
    let first = demo.active("first", &bytes);
    let url = demo.show(&first)["direct_url"].as_str().unwrap().to_owned();
    let borrow = || {
        let id = demo.create("borrower");
        register(&demo, &id, &json!({"url": url})).expect(202);
        eventually("it is hashed", HASHED_S, || demo.show(&id)["os_hash_value"] == hash(&bytes));
        id
    };
    let owned = || gateway.sql("SELECT count(*) FROM image_locations WHERE owned");
    let (second, third) = (borrow(), borrow());
    assert_eq!(owned(), "1");
    // A borrower goes without the data.
    demo.delete(&format!("/v2/images/{second}")).expect(204);
    assert_active(&demo, &first, &bytes);
    // So does the lender, while somebody refers to it.
    demo.delete(&format!("/v2/images/{first}")).expect(204);
    assert_eq!(status_of(&demo, &first), "gone");
    await_clean(&gateway, &[&first], &[&second, &third], 10);
    assert!(demo.get(&format!("/v2/images/{third}/file")).expect(200).body == bytes);
    assert_eq!(owned(), "1");
    // The last one takes it along.
    demo.delete(&format!("/v2/images/{third}")).expect(204);
    await_clean(&gateway, &[], &[&first, &second, &third], 10);
}

#[test]
fn data_on_its_way_out_cannot_be_referred_to() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let first = demo.active("leaving", b"bytes");
    let body = json!({"url": demo.show(&first)["direct_url"]});
    gateway.sql(&format!("UPDATE images SET status = 'deleted' WHERE id = '{first}'"));
    let second = demo.create("late");
    let refused = register(&demo, &second, &body).expect(409);
    assert!(refused.text().contains("being removed"), "{}", refused.text());
    gateway.sql(&format!("UPDATE images SET status = 'active' WHERE id = '{first}'"));
    register(&demo, &second, &body).expect(202);
}

/// MD5 of 512 MiB of zeros.
const ZEROS_MD5: &str = "aa559b4e3523a6c931f08f4df52d58f2";

/// A queued image, and a blob of zeros that takes seconds to hash.
fn slow(demo: &Client) -> (String, Foreign) {
    let id = demo.create("slow");
    let data = Foreign::sparse(&id, 512);
    (id, data)
}

#[test]
fn another_gateway_finishes_the_hashing_of_one_that_died() {
    let survivor = Gateway::start(Options::quick());
    let demo = survivor.client(Token::Demo);
    let (id, data) = slow(&demo);
    survivor.signal("STOP");
    let mut victim = survivor.sibling();
    let client = victim.client(Token::Demo);
    let validation = json!({"os_hash_algo": "md5", "os_hash_value": ZEROS_MD5});
    register(&client, &id, &json!({"url": data.url, "validation_data": validation})).expect(202);
    eventually("the victim hashes", 10, || {
        survivor.sql("SELECT count(lease_owner) FROM jobs WHERE kind = 'locate'") == "1"
    });
    let image = client.show(&id);
    assert_eq!((&image["status"], &image["size"]), (&"importing".into(), &(1_u64 << 29).into()));
    assert!(image["direct_url"].is_null() && image["os_hash_value"].is_null(), "{image}");
    // What is not verified is nobody's to read or to replace.
    client.get(&format!("/v2/images/{id}/file")).expect(204);
    client.upload(&id, b"other").expect(409);
    register(&client, &id, &json!({"url": data.url})).expect(409);
    victim.signal("KILL");
    victim.wait(5);
    survivor.signal("CONT");
    eventually("the survivor has hashed it", TAKEOVER_S + 60, || status_of(&demo, &id) == "active");
    let image = demo.show(&id);
    assert_eq!((&image["os_hash_algo"], &image["os_hash_value"]), (&"md5".into(), &ZEROS_MD5.into()));
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&survivor, &[], &[&id], 20);
}

#[test]
fn a_gateway_that_stops_leaves_its_hashing_to_others_at_once() {
    let mut gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let (id, data) = slow(&demo);
    register(&demo, &id, &json!({"url": data.url})).expect(202);
    eventually("it hashes", 10, || gateway.sql("SELECT count(lease_owner) FROM jobs WHERE kind = 'locate'") == "1");
    let begun = Instant::now();
    gateway.signal("TERM");
    assert_eq!(gateway.wait(20), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(gateway.sql("SELECT count(*) FROM jobs WHERE kind = 'locate' AND lease_owner IS NULL"), "1");
    let next = gateway.sibling();
    let demo = next.client(Token::Demo);
    eventually("the next one hashes it", 60, || !demo.show(&id)["checksum"].is_null());
    assert_eq!(demo.show(&id)["checksum"], ZEROS_MD5);
}

#[test]
fn an_image_can_be_deleted_while_it_is_hashed() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for validation in [json!({}), json!({"os_hash_algo": "sha1", "os_hash_value": "0".repeat(40)})] {
        let (id, data) = slow(&demo);
        register(&demo, &id, &json!({"url": data.url, "validation_data": validation})).expect(202);
        eventually("it hashes", 10, || gateway.sql("SELECT count(lease_owner) FROM jobs WHERE kind = 'locate'") == "1");
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        assert_eq!(left_in_pool(&[&id]), Vec::<String>::new());
        await_clean(&gateway, &[], &[&id], 40);
    }
    // Memory stays bounded whatever is hashed.
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 300 * 1024, "{peak}");
}

#[test]
fn a_hashing_keeps_its_rate_and_goes_on_where_it_was_cut_off() {
    const MIB: usize = 1 << 20;
    let slow = Options::quick().set("images", "secure_hash_rate_mib_s", 4);
    let mut first = Gateway::start(slow);
    let bytes = [random_bytes(20, 20 * MIB), vec![0; 60 * MIB], random_bytes(21, 4 * MIB + 5)].concat();
    let data = Foreign::new(&unique("slow"), &bytes);
    let demo = first.client(Token::Demo);
    let id = demo.create("slow");
    register(&demo, &id, &json!({"url": data.url})).expect(202);
    // 1. Active at once, hashed in its own time: that of the bytes that are read.
    assert_eq!(status_of(&demo, &id), "active");
    let at = "SELECT coalesce(max((payload -> 'so_far' ->> 'at')::bigint), 0) FROM jobs WHERE kind = 'locate'";
    eventually("it is written down how far it has come", HASHED_S, || first.sql(at) != "0");
    assert!(demo.show(&id)["os_hash_value"].is_null(), "24 MiB take 6 s");
    // 2. Another gateway goes on, and does not begin again.
    let second = first.sibling_with(Options::quick());
    first.signal("KILL");
    assert_eq!(first.wait(10), None);
    let demo = second.client(Token::Demo);
    eventually("it is hashed", TAKEOVER_S + HASHED_S, || !demo.show(&id)["os_hash_value"].is_null());
    assert!(second.log().contains("a hashing goes on where it was cut off"), "{}", second.log());
    assert_eq!(demo.show(&id)["os_hash_value"], hash(&bytes));
    assert_eq!(demo.show(&id)["checksum"], digest("md5sum", &bytes));
    await_clean(&second, &[], &[], HASHED_S);
    assert!(data.is_whole());
}
