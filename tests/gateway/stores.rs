//! Several stores: what is said of them, and which copy is read.

use serde_json::{Value, json};

use crate::harness::{
    FAR_POOL, Gateway, Objects, Options, SlowUpload, TAKEOVER_S, Token, ceph, eventually, new_user, random_bytes, rbd,
    status_of,
};

fn two_stores() -> Options {
    Options::default().far_store().set("stores.far", "description", "far away").set("stores.far", "weight", -5).set(
        "stores.ceph",
        "weight",
        100,
    )
}

#[test]
fn everybody_may_list_the_stores() {
    let gateway = Gateway::start(two_stores());
    let expected = json!({"stores": [{"id": "ceph", "default": "true"}, {"id": "far", "description": "far away"}]});
    for token in Token::ALL {
        assert_eq!(gateway.client(token).get("/v2/info/stores").expect(200).json(), expected, "{token:?}");
    }
    gateway.anonymous().get("/v2/info/stores").expect(401);
    gateway.client(Token::Demo).delete("/v2/info/stores").expect(405);
    let created = gateway.client(Token::Demo).post("/v2/images", &json!({})).expect(201);
    assert_eq!(created.header("openstack-image-store-ids"), "ceph,far");
}

#[test]
fn the_details_are_for_operators_and_services() {
    let gateway = Gateway::start(two_stores().set("stores.far", "chunk_size_mib", 4));
    for token in [Token::Demo, Token::Alt, Token::Reader] {
        let refused = gateway.client(token).get("/v2/info/stores/detail").expect(403);
        assert!(refused.text().contains("stores_info_detail"), "{}", refused.text());
    }
    let fsid = ceph(&["fsid"]);
    let properties =
        |pool, chunk_size| json!({"chunk_size": chunk_size, "pool": pool, "thin_provisioning": true, "fsid": fsid});
    let expected = json!({"stores": [
        {"id": "ceph", "default": "true", "type": "rbd", "weight": 100, "properties": properties("images", 8_388_608)},
        {"id": "far", "description": "far away", "type": "rbd", "weight": -5, "properties": properties(FAR_POOL, 4_194_304)},
    ]});
    for token in [Token::Admin, Token::Service] {
        assert_eq!(gateway.client(token).get("/v2/info/stores/detail").expect(200).json(), expected, "{token:?}");
    }
}

#[test]
fn an_upload_goes_to_the_store_that_it_names() {
    let gateway = Gateway::start(two_stores());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(5, 100_000);
    let id = demo.create("far");
    demo.upload_with(&id, &[("x-image-meta-store", "far")], bytes.as_slice()).expect(204);
    let image = demo.show(&id);
    assert_eq!(image["stores"], "far");
    assert_eq!(image["direct_url"], format!("rbd://{}/{FAR_POOL}/{id}/snap", ceph(&["fsid"])));
    assert!(rbd(&["ls", FAR_POOL]).contains(&id) && !rbd(&["ls", "images"]).contains(&id));
    assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert!(!rbd(&["ls", FAR_POOL]).contains(&id));
    let refused = demo.upload_with(&demo.create("nowhere"), &[("x-image-meta-store", "tape")], &b"x"[..]);
    assert!(refused.status == 400 && refused.text().contains("tape"), "{}", refused.text());
}

#[test]
fn a_download_prefers_the_stores_asked_for_and_those_of_more_weight() {
    let gateway = Gateway::start(two_stores());
    let demo = gateway.client(Token::Demo);
    // The copies differ, so that one can tell them apart.
    let (near, far) = (vec![b'n'; 5000], vec![b'f'; 5000]);
    let id = demo.active("twice", &near);
    let path = format!("/v2/images/{id}/file");
    let other = demo.create("other");
    demo.upload_with(&other, &[("x-image-meta-store", "far")], far.as_slice()).expect(204);
    gateway.sql(&format!("UPDATE image_locations SET image_id = '{id}', position = -1 WHERE image_id = '{other}'"));
    let served = |query: &str| demo.get(&format!("{path}{query}")).expect(200).body[0];
    let image = demo.show(&id);
    assert_eq!(image["stores"], "far,ceph");
    assert!(image["direct_url"].as_str().unwrap().contains("/images/"), "{image}");
    for (query, expected) in [
        ("", b'n'),
        ("?prefer=", b'n'),
        ("?prefer=far", b'f'),
        ("?prefer=ceph", b'n'),
        ("?prefer=far,ceph", b'f'),
        ("?prefer=%20ceph%20,,far", b'n'),
    ] {
        assert_eq!(served(query), expected, "{query}");
    }
    let unknown = demo.get(&format!("{path}?prefer=far,tape")).expect(400);
    assert!(unknown.text().contains("tape") && unknown.text().contains("prefer"), "{}", unknown.text());
    let unknown: Value = demo
        .get_with(&format!("{path}?prefer=os_glance_staging_store"), &[("accept", "application/json")])
        .expect(400)
        .json();
    assert_eq!(unknown["code"], "400 Bad Request");
    // Another copy is as good when the preferred one is lost.
    rbd(&["snap", "unprotect", &format!("{FAR_POOL}/{other}@snap")]);
    rbd(&["snap", "rm", "--no-progress", &format!("{FAR_POOL}/{other}@snap")]);
    rbd(&["rm", "--no-progress", &format!("{FAR_POOL}/{other}")]);
    assert_eq!(served("?prefer=far"), b'n');
}

#[test]
fn nothing_is_written_to_a_read_only_store_or_removed_from_it() {
    let gateway = Gateway::start(two_stores());
    let demo = gateway.client(Token::Demo);
    let (one, two) = (demo.create("one"), demo.create("two"));
    demo.upload_with(&one, &[("x-image-meta-store", "far")], &b"kept"[..]).expect(204);
    let frozen = gateway.sibling_with(two_stores().set("stores.far", "read_only", true));
    let demo = frozen.client(Token::Demo);
    let stores = demo.get("/v2/info/stores").expect(200).json();
    assert_eq!(stores["stores"][1], json!({"id": "far", "description": "far away", "read-only": "true"}));
    let refused = demo.upload_with(&two, &[("x-image-meta-store", "far")], &b"new"[..]).expect(410);
    assert!(refused.text().contains("far is read-only"), "{}", refused.text());
    assert_eq!(status_of(&demo, &two), "queued");
    assert!(demo.get(&format!("/v2/images/{one}/file")).expect(200).body == b"kept");
    let refused = demo.delete(&format!("/v2/images/{one}")).expect(403);
    assert!(refused.text().contains("far, which is read-only"), "{}", refused.text());
    assert_eq!(status_of(&demo, &one), "active");
    // The record is no data: it can be changed.
    demo.patch(&format!("/v2/images/{one}"), &json!([{"op": "replace", "path": "/name", "value": "new"}])).expect(200);
    demo.upload(&two, b"new").expect(204);
    demo.delete(&format!("/v2/images/{two}")).expect(204);
    gateway.client(Token::Demo).delete(&format!("/v2/images/{one}")).expect(204);
}

#[test]
fn a_store_that_is_down_keeps_no_gateway_from_starting_and_no_copy_from_being_read() {
    let first = Gateway::start(two_stores());
    let demo = first.client(Token::Demo);
    let (id, other) = (demo.active("twice", b"both"), demo.create("other"));
    demo.upload_with(&other, &[("x-image-meta-store", "far")], &b"both"[..]).expect(204);
    first.sql(&format!("UPDATE image_locations SET image_id = '{id}', position = -1 WHERE image_id = '{other}'"));
    let conf = first.folder().join("down.conf");
    std::fs::write(&conf, "[global]\nmon_host = 127.0.0.1:1\n").unwrap();
    let down = two_stores()
        .set("stores.far", "ceph_conf", conf.to_str().unwrap())
        .set("stores.far", "connect_timeout_s", 1)
        .set("stores.far", "weight", 1000);
    let gateway = first.sibling_with(down);
    assert!(gateway.log().contains("no monitor answers"), "{}", gateway.log());
    let health = gateway.anonymous().get("/readyz?verbose").expect(200).json();
    let states: Vec<_> =
        health["checks"].as_array().unwrap().iter().map(|check| (&check["name"], &check["state"])).collect();
    let text = |name: &str| Value::from(name);
    assert_eq!(
        states,
        [(&text("postgres"), &text("ok")), (&text("store/ceph"), &text("ok")), (&text("store/far"), &text("degraded"))]
    );
    let demo = gateway.client(Token::Demo);
    assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == b"both");
    assert!(demo.get(&format!("/v2/images/{id}/file?prefer=far")).expect(200).body == b"both");
    let new = demo.create("new");
    demo.upload_with(&new, &[("x-image-meta-store", "far")], &b"new"[..]).expect(503);
    assert_eq!(status_of(&demo, &new), "queued");
    demo.upload(&new, b"new").expect(204);
    demo.delete(&format!("/v2/images/{new}")).expect(204);
    first.client(Token::Demo).delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn another_copy_is_taken_when_the_first_bytes_of_one_cannot_be_read() {
    let first = Gateway::start(two_stores());
    let demo = first.client(Token::Demo);
    let (id, other) = (demo.active("twice", b"both"), demo.create("other"));
    demo.upload_with(&other, &[("x-image-meta-store", "far")], &b"both"[..]).expect(204);
    first.sql(&format!("UPDATE image_locations SET image_id = '{id}', position = -1 WHERE image_id = '{other}'"));
    // It may open images there, and read nothing in them.
    let parts = ["rbd_id", "rbd_header", "rbd_object_map", "rbd_directory", "rbd_info", "rbd_trash", "rbd_children"];
    let caps = parts.map(|part| format!("allow rwx pool={FAR_POOL} object_prefix {part}")).join(", ");
    let keyring = new_user("blind", "profile rbd", &caps);
    let blind = two_stores()
        .set("stores.far", "user", "blind")
        .set("stores.far", "keyring", keyring.to_str().unwrap())
        .set("stores.far", "weight", 1000);
    let gateway = first.sibling_with(blind);
    assert!(gateway.client(Token::Demo).get(&format!("/v2/images/{id}/file")).expect(200).body == b"both");
    assert!(gateway.log().contains("a copy could not be read"), "{}", gateway.log());
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn a_copy_leaves_one_store_and_stays_in_the_other() {
    let gateway = Gateway::start(two_stores());
    let demo = gateway.client(Token::Demo);
    let (id, other) = (demo.active("twice", b"both"), demo.create("other"));
    demo.upload_with(&other, &[("x-image-meta-store", "far")], &b"both"[..]).expect(204);
    gateway.sql(&format!("UPDATE image_locations SET image_id = '{id}', position = -1 WHERE image_id = '{other}'"));
    let admin = gateway.client(Token::Admin);
    admin.delete(&format!("/v2/stores/far/{id}")).expect(204);
    assert!(!rbd(&["ls", FAR_POOL]).contains(&other) && rbd(&["ls", "images"]).contains(&id));
    assert_eq!(demo.show(&id)["stores"], "ceph");
    assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == b"both");
    admin.delete(&format!("/v2/stores/far/{id}")).expect(403);
    admin.delete(&format!("/v2/stores/tape/{id}")).expect(409);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

/// A store in a folder, one in a bucket and one in a container.
fn object_stores(objects: &Objects, folder: &std::path::Path) -> Options {
    let folder = format!("type = \"file\"\ndata_dir = \"{}\"\n", folder.display());
    Options::quick().sections(&format!(
        "[stores.folder]\n{folder}[stores.bucket]\n{}[stores.container]\n{}",
        objects.s3(),
        objects.swift()
    ))
}

fn files(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn images_live_in_folders_and_buckets_and_leave_nothing_behind() {
    let Some(objects) = Objects::start() else { return };
    let folder = std::env::temp_dir().join(format!("rockpool-folder-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let options = object_stores(&objects, &folder);
    let gateway = Gateway::start(options.clone());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(21, 12_000_001);
    for (store, kind) in [("folder", "file"), ("bucket", "s3"), ("container", "swift")] {
        let id = demo.create(store);
        demo.upload_with(&id, &[("x-image-meta-store", store)], bytes.as_slice()).expect(204);
        let image = demo.show(&id);
        assert_eq!((&image["stores"], &image["size"]), (&json!(store), &json!(bytes.len())));
        let url = image["direct_url"].as_str().unwrap();
        assert!(url.starts_with(&format!("{kind}://{store}/{id}.")) && !url.contains(objects.secret()), "{url}");
        let file = format!("/v2/images/{id}/file");
        assert!(demo.get(&file).expect(200).body == bytes);
        for (range, start, end) in [
            ("bytes=5-9", 5, 10),
            ("bytes=-1", 12_000_000, 12_000_001),
            ("bytes=5242879-5242880", 5_242_879, 5_242_881),
        ] {
            assert!(demo.get_with(&file, &[("range", range)]).expect(206).body == bytes[start..end], "{store} {range}");
        }
        // The description follows.
        demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": "renamed"}]))
            .expect(200);
        if store == "folder" {
            let name = files(&folder).into_iter().find(|name| name.ends_with(".json")).unwrap();
            eventually("the description follows", 10, || {
                std::fs::read_to_string(folder.join(&name)).unwrap().contains("renamed")
            });
        }
        gateway.client(Token::Alt).get(&file).expect(404);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        eventually("nothing is left", 10, || objects.list().is_empty() && files(&folder) == [".uploading"]);
    }
    // A gateway that dies in the middle, behind a part that is there already.
    let bytes = random_bytes(22, 20_000_001);
    for store in ["bucket", "container", "folder"] {
        let victim = gateway.sibling_with(options.clone().set("images", "default_store", store));
        let id = demo.create("dies");
        let mut upload = SlowUpload::begin(&victim, &id, Some(bytes.len()));
        assert!(upload.send(&bytes[..bytes.len() - 1]));
        eventually("a part is there", 10, || {
            !objects.list().is_empty() || !files(&folder.join(".uploading")).is_empty()
        });
        victim.signal("KILL");
        eventually("the record is taken over", TAKEOVER_S + 5, || status_of(&demo, &id) == "queued");
        eventually("nothing is left", 20, || objects.list().is_empty() && files(&folder.join(".uploading")).is_empty());
        demo.upload_with(&id, &[("x-image-meta-store", store)], bytes.as_slice()).expect(204);
        assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    eventually("nothing is left", 10, || objects.list().is_empty() && files(&folder) == [".uploading"]);
    // What operators see, and what nobody does.
    let detail = gateway.client(Token::Admin).get("/v2/info/stores/detail").expect(200);
    let stores = detail.json();
    let of =
        |name: &str| stores["stores"].as_array().unwrap().iter().find(|store| store["id"] == name).unwrap().clone();
    assert_eq!(
        of("folder")["properties"],
        json!({"data_dir": folder, "chunk_size": 4_194_304, "thin_provisioning": false})
    );
    assert_eq!(
        of("container")["properties"],
        json!({"container": objects.bucket, "large_object_size": 5, "large_object_chunk_size": 5})
    );
    assert_eq!(of("bucket")["type"], "s3");
    for text in [detail.text(), gateway.log(), gateway.anonymous().get("/readyz?verbose").text()] {
        assert!(!text.contains(objects.secret()), "{text}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_folder_that_is_not_mounted_and_a_server_that_is_down_are_named() {
    let gateway = Gateway::start(Options::default().sections(
        "[stores.folder]\ntype = \"file\"\ndata_dir = \"/nonexistent/images\"\n[stores.bucket]\ntype = \"s3\"\nendpoint = \"http://127.0.0.1:1\"\nbucket = \"images\"\naccess_key_id = \"a\"\nsecret_access_key = \"canary\"\nconnect_timeout_s = 1\n",
    ));
    let log = gateway.log();
    for words in ["there is no folder /nonexistent/images", "store bucket", "check the endpoint"] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let demo = gateway.client(Token::Demo);
    for store in ["folder", "bucket"] {
        let id = demo.create(store);
        let refused = demo.upload_with(&id, &[("x-image-meta-store", store)], &b"x"[..]).expect(503);
        assert!(!refused.text().contains("127.0.0.1") && !refused.text().contains("nonexistent"), "{}", refused.text());
        assert_eq!(status_of(&demo, &id), "queued");
    }
    assert!(!std::path::Path::new("/nonexistent").exists());
    assert!(!gateway.log().contains("canary"));
}
