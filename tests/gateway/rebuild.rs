//! `rockpool rebuild`: the catalog is lost, and comes back from the pools.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Options, OwnPool, TAKEOVER_S, Token, eventually, random_bytes, rbd};

fn options(pool: &OwnPool) -> Options {
    Options::quick().ceph_user("admin").set("stores.ceph", "pool", pool.0.as_str())
}

fn await_no_jobs(gateway: &Gateway) {
    eventually("no job is left", TAKEOVER_S + 20, || gateway.sql("SELECT count(*) FROM jobs") == "0");
}

/// Loses the catalog, and makes the schema of an empty one.
fn lose(gateway: &Gateway) {
    gateway.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    let upgraded = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["db", "upgrade", "--config"])
        .arg(gateway.folder().join("rockpool.toml"))
        .output()
        .unwrap();
    assert!(upgraded.status.success(), "{upgraded:?}");
}

/// All that the API says of an image, but for what is counted from the end of its upload.
fn said(client: &Client, id: &str) -> Value {
    let mut image = client.show(id);
    image.as_object_mut().unwrap().retain(|key, _| key != "updated_at" && !key.starts_with("os_glance_"));
    let members = client.get(&format!("/v2/images/{id}/members"));
    if members.status == 200 {
        image["members"] = members.json()["members"].clone();
    }
    image
}

#[test]
fn a_lost_catalog_comes_back_with_every_image_as_it_was() {
    let pool = OwnPool::new();
    let second = OwnPool::new();
    let gateway = Gateway::start(options(&pool).sections(&second.section("far")));
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let mut images = BTreeMap::new();
    let mut image = |seed: u64, length: usize| {
        let bytes = random_bytes(seed, length);
        let id = demo.active(&format!("image {seed}"), &bytes);
        images.insert(id.clone(), bytes);
        id
    };
    let rich = image(1, 9_000_000);
    let path = format!("/v2/images/{rich}");
    demo.patch(
        &path,
        &json!([
            {"op": "replace", "path": "/name", "value": "J\u{fc}rgen's \"disk\", 100%"},
            {"op": "add", "path": "/os_distro", "value": "debian"},
            {"op": "add", "path": "/hw_qemu_guest_agent", "value": "yes"},
            {"op": "replace", "path": "/min_disk", "value": 3},
            {"op": "replace", "path": "/min_ram", "value": 512},
            {"op": "replace", "path": "/protected", "value": true},
            {"op": "replace", "path": "/os_hidden", "value": true},
            {"op": "replace", "path": "/tags", "value": ["a", "b c"]},
        ]),
    )
    .expect(200);
    for member in ["p-alt", "p-third"] {
        demo.post(&format!("{path}/members"), &json!({"member": member})).expect(200);
    }
    gateway.client(Token::Alt).put(&format!("{path}/members/p-alt"), &json!({"status": "accepted"})).expect(200);
    demo.delete(&format!("{path}/members/p-third")).expect(204);
    let off = image(2, 200_000);
    admin.call("POST", &format!("/v2/images/{off}/actions/deactivate")).expect(204);
    let public = image(3, 100_000);
    admin
        .patch(&format!("/v2/images/{public}"), &json!([{"op": "replace", "path": "/visibility", "value": "public"}]))
        .expect(200);
    let twice = image(4, 300_000);
    let copy = json!({"method": {"name": "copy-image"}, "stores": ["far"]});
    admin.post(&format!("/v2/images/{twice}/import"), &copy).expect(202);
    eventually("it is copied", 30, || {
        demo.show(&twice)["stores"].as_str().is_some_and(|stores| stores.contains("far"))
    });
    image(5, 1);
    demo.create("without data");
    await_no_jobs(&gateway);
    let before: BTreeMap<&String, Value> = images.keys().map(|id| (id, said(&admin, id))).collect();
    lose(&gateway);
    assert_eq!(admin.get("/v2/images").expect(200).json()["images"], json!([]));
    // 1. What would be restored is told, and not done.
    let told = gateway.told("rebuild", &["--images-per-s", "0"]);
    let ids: Vec<String> = images.keys().cloned().collect();
    let mut restorable = images_told(&told, "restorable");
    restorable.sort();
    assert_eq!((told.code, &restorable, told.all("restored").len()), (Some(1), &ids, 0), "{told:#?}");
    assert_eq!(gateway.sql("SELECT count(*) FROM images") + &gateway.sql("SELECT count(*) FROM image_ids"), "00");
    // 2. It is done.
    let told = gateway.told("rebuild", &["--images-per-s", "0", "--yes"]);
    assert_eq!((told.code, told.all("restored").len()), (Some(0), ids.len()), "{told:#?}");
    for (id, bytes) in &images {
        assert_eq!(said(&admin, id), before[id], "{id}");
        assert!(admin.get(&format!("/v2/images/{id}/file")).expect(200).body == *bytes, "{id} has other bytes");
    }
    // What was withheld is withheld still.
    assert_eq!(demo.show(&off)["status"], "deactivated");
    demo.get(&format!("/v2/images/{off}/file")).expect(403);
    // 3. A second time there is nothing to do, and fsck agrees.
    await_no_jobs(&gateway);
    let told = gateway.told("rebuild", &["--images-per-s", "0", "--yes"]);
    assert_eq!((told.code, told.all("restored").len()), (Some(0), 0), "{told:#?}");
    gateway.fsck_is_clean();
    // They are images as any other.
    for id in images.keys() {
        admin
            .patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/protected", "value": false}]))
            .expect(200);
        admin.delete(&format!("/v2/images/{id}")).expect(204);
    }
    eventually("they are gone", 30, || rbd(&["ls", &pool.0]).is_empty() && rbd(&["ls", &second.0]).is_empty());
}

/// The ids of the images that are told of.
fn images_told(told: &crate::harness::Told, sort: &str) -> Vec<String> {
    told.all(sort).iter().map(|restored| restored["image"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_older_catalog_keeps_its_records_unless_told_otherwise() {
    let pool = OwnPool::new();
    let gateway = Gateway::start(options(&pool));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 100_000);
    let (newer, same) = (demo.active("as of then", &bytes), demo.active("same", &bytes));
    let (queued, deleted) = (demo.active("queued then", &bytes), demo.active("deleted", &bytes));
    await_no_jobs(&gateway);
    let rename = |id: &str, name: &str| {
        demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": name}]))
            .expect(200);
    };
    rename(&newer, "as of now");
    await_no_jobs(&gateway);
    // As a restored backup has them: what happened since then is not in it.
    gateway.sql(&format!(
        "UPDATE images SET name = 'as of then', updated_at = updated_at - interval '1 hour' WHERE id = '{newer}'"
    ));
    gateway.sql(&format!("DELETE FROM image_locations WHERE image_id = '{queued}'"));
    gateway.sql(&format!(
        "UPDATE images SET status = 'queued', size_bytes = NULL, os_hash_value = NULL, updated_at = updated_at - interval '1 hour' WHERE id = '{queued}'"
    ));
    gateway.sql(&format!("DELETE FROM images WHERE id = '{deleted}'"));
    // fsck does not make the newer description older.
    let told = gateway.fsck(&["--repair"]);
    let found = told.all("found").into_iter().find(|finding| finding["image"] == newer.as_str()).unwrap();
    assert!(
        found.get("repair").is_none() && found["advice"].as_str().unwrap().contains("rebuild --overwrite"),
        "{found}"
    );
    // 1. Not told to, it leaves them.
    let told = gateway.told("rebuild", &["--yes"]);
    assert_eq!((told.code, told.all("restored").len()), (Some(1), 0), "{told:#?}");
    let why: Vec<_> = told.lines.iter().filter_map(|line| line["why"].as_str()).collect();
    assert!(why.len() == 2 && why.iter().all(|why| why.contains("--overwrite")), "{why:?}");
    assert_eq!(demo.show(&newer)["name"], "as of then");
    assert_eq!(demo.show(&queued)["status"], "queued");
    // 2. Told to, it takes what is newer.
    let told = gateway.told("rebuild", &["--yes", "--overwrite"]);
    let mut restored = images_told(&told, "restored");
    restored.sort();
    let mut expected = vec![newer.clone(), queued.clone(), deleted.clone()];
    expected.sort();
    assert_eq!((told.code, restored), (Some(0), expected), "{told:#?}");
    assert_eq!(demo.show(&newer)["name"], "as of now");
    for id in [&newer, &same, &queued, &deleted] {
        assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes, "{id}");
    }
    await_no_jobs(&gateway);
    let told = gateway.fsck(&[]);
    assert_eq!((told.code, told.all("found").len()), (Some(0), 0), "{told:#?}");
    // 3. A record that is newer stays.
    rbd(&["image-meta", "set", &format!("{}/{same}", pool.0), "rockpool.name", "of old"]);
    rbd(&["image-meta", "set", &format!("{}/{same}", pool.0), "rockpool.updated_at", "2020-01-01T00:00:00Z"]);
    let told = gateway.told("rebuild", &["--yes", "--overwrite"]);
    assert!(told.lines.iter().any(|line| line["why"].as_str().is_some_and(|why| why.contains("newer"))), "{told:#?}");
    assert_eq!(demo.show(&same)["name"], "same");
}

#[test]
fn what_is_not_described_whole_is_told_and_left() {
    let pool = OwnPool::new();
    let gateway = Gateway::start(options(&pool));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 50_000);
    let ids: Vec<String> = ["name", "owner", "visibility", "size", "id", "snapshot"]
        .iter()
        .map(|name| demo.active(name, &bytes))
        .collect();
    await_no_jobs(&gateway);
    let spec = |id: &str| format!("{}/{id}", pool.0);
    rbd(&["image-meta", "set", &spec(&ids[2]), "rockpool.visibility", "secret"]);
    rbd(&["image-meta", "set", &spec(&ids[3]), "rockpool.size", "49999"]);
    rbd(&["image-meta", "set", &spec(&ids[4]), "rockpool.id", &ids[0]]);
    rbd(&["snap", "unprotect", &format!("{}@snap", spec(&ids[5]))]);
    rbd(&["snap", "rm", "--no-progress", &format!("{}@snap", spec(&ids[5]))]);
    rbd(&["create", "--size", "1M", &spec(&uuid::Uuid::new_v4().to_string())]);
    rbd(&["create", "--size", "1M", &spec("golden")]);
    lose(&gateway);
    let told = gateway.told("rebuild", &["--yes"]);
    let (restored, skipped) = (images_told(&told, "restored"), told.all("skipped").len());
    assert_eq!((told.code, restored.len(), skipped), (Some(1), 2, 5), "{told:#?}");
    let why: String = told.lines.iter().filter_map(|line| line["why"].as_str()).collect();
    for word in ["visibility", "size", "described as image", "no snapshot", "schema"] {
        assert!(why.contains(word), "{word} is not in {why}");
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "2");
}
