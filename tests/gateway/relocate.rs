//! `locations` in a PATCH: the table of rules, and what is stored.

use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, FAR_POOL, Foreign, Gateway, Options, Token, await_clean, ceph, hash, left_in_pool, random_bytes,
    rbd,
};

fn visible() -> Options {
    Options::default().set("images", "show_multiple_locations", true)
}

fn unique(what: &str) -> String {
    format!("{what}-{}", uuid::Uuid::new_v4().as_simple())
}

fn patch(client: &Client, id: &str, operations: &Value) -> Answer {
    client.patch(&format!("/v2/images/{id}"), operations)
}

fn add(position: &str, url: &str) -> Value {
    json!({"op": "add", "path": format!("/locations/{position}"), "value": {"url": url, "metadata": {}}})
}

fn remove(position: &str) -> Value {
    json!({"op": "remove", "path": format!("/locations/{position}")})
}

fn replace(urls: &[&str]) -> Value {
    let list: Vec<Value> = urls.iter().map(|url| json!({"url": url, "metadata": {}})).collect();
    json!({"op": "replace", "path": "/locations", "value": list})
}

fn urls(image: &Value) -> Vec<&str> {
    image["locations"].as_array().unwrap().iter().map(|location| location["url"].as_str().unwrap()).collect()
}

/// Fails unless an operation is refused with this status and changes nothing.
#[track_caller]
fn refused(client: &Client, id: &str, operation: &Value, status: u16, rule: &str) {
    let before = client.show(id);
    let rename = json!({"op": "replace", "path": "/name", "value": "changed"});
    let answer = patch(client, id, &json!([rename, operation]));
    assert_eq!(answer.status, status, "{operation}: {}", answer.text());
    assert!(answer.text().contains(rule), "{operation}: {}", answer.text());
    assert_eq!(client.show(id), before, "{operation}");
}

#[test]
fn a_queued_image_becomes_active_with_its_first_location() {
    let gateway = Gateway::start(visible());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 400_000);
    let (first, second) = (Foreign::new(&unique("first"), &bytes), Foreign::new(&unique("second"), &bytes));
    let queued = demo.create("queued");
    assert_eq!(demo.show(&queued)["locations"], json!([]));
    let value = hash(&bytes);
    let validated = json!({"op": "add", "path": "/locations/-", "value": {
        "url": first.url, "metadata": {"zone": {"rack": 5}, "store": "made-up"},
        "validation_data": {"checksum": "A".repeat(32), "os_hash_algo": "sha512", "os_hash_value": value},
    }});
    let image = patch(&demo, &queued, &json!([validated])).expect(200).json();
    assert_eq!((&image["status"], &image["size"]), (&"active".into(), &bytes.len().into()));
    assert_eq!(image["locations"], json!([{"url": first.url, "metadata": {"zone": {"rack": 5}, "store": "ceph"}}]));
    assert_eq!((&image["os_hash_value"], &image["checksum"]), (&value.into(), &"a".repeat(32).into()));
    assert_eq!((&image["virtual_size"], &image["stores"]), (&Value::Null, &"ceph".into()));
    assert_eq!(demo.show(&queued), image);
    assert!(demo.get(&format!("/v2/images/{queued}/file")).expect(200).body == bytes);
    // In the other dialect, and without a hash.
    let queued = demo.create("replaced");
    let list = json!([{"url": second.url, "metadata": {}}, {"url": first.url, "metadata": {}}]);
    let body = json!([{"replace": "/locations", "value": list}]).to_string();
    let media_type = [("content-type", "application/openstack-images-v2.0-json-patch")];
    let path = format!("/v2/images/{queued}");
    let sent = demo.send("PATCH", &path, &media_type, ureq::SendBody::from_reader(&mut body.as_bytes()));
    let image = sent.expect(200).json();
    assert_eq!((&image["status"], &image["os_hash_algo"]), (&"active".into(), &Value::Null));
    assert_eq!(urls(&image), [second.url.as_str(), first.url.as_str()]);
    // What is not its own stays when the image goes, and bears no mark of it.
    demo.delete(&path).expect(204);
    await_clean(&gateway, &[], &[&queued], 10);
    assert!(first.is_whole() && second.is_whole());
    assert!(!rbd(&["image-meta", "list", &second.spec]).contains("rockpool"));
}

#[test]
fn locations_of_an_active_image_are_added_described_put_in_order_and_removed() {
    let gateway = Gateway::start(visible());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let bytes = random_bytes(2, 300_000);
    let id = demo.active("active", &bytes);
    let own = urls(&demo.show(&id))[0].to_owned();
    let (a, b) = (Foreign::new(&unique("a"), &bytes), Foreign::new(&unique("b"), &bytes));
    let image = patch(&demo, &id, &json!([add("-", &a.url), add("0", &b.url)])).expect(200).json();
    assert_eq!(urls(&image), [b.url.as_str(), &own, &a.url]);
    assert_eq!(image["stores"], "ceph,ceph,ceph");
    // The size and the hash of an image never change.
    assert_eq!((&image["size"], &image["os_hash_value"]), (&bytes.len().into(), &hash(&bytes).into()));
    let described = json!([{"op": "replace", "path": "/locations", "value": [
        {"url": own, "metadata": {"k": "v"}}, {"url": a.url, "metadata": {}}, {"url": b.url, "metadata": {}},
    ]}]);
    let image = patch(&demo, &id, &described).expect(200).json();
    assert_eq!(urls(&image), [own.as_str(), &a.url, &b.url]);
    assert_eq!(image["locations"][0]["metadata"], json!({"k": "v", "store": "ceph"}));
    assert_eq!(demo.show(&id), image);
    // Removing is for administrators; a foreign copy goes without its data, the own one with it.
    refused(&demo, &id, &remove("1"), 403, "delete_image_location");
    let image = patch(&admin, &id, &json!([remove("1")])).expect(200).json();
    assert_eq!(urls(&image), [own.as_str(), &b.url]);
    assert!(a.is_whole());
    rbd(&["clone", &format!("images/{id}@snap"), &format!("vms/{id}")]);
    refused(&admin, &id, &remove("0"), 409, "in use");
    rbd(&["rm", "--no-progress", &format!("vms/{id}")]);
    let image = patch(&admin, &id, &json!([remove("0")])).expect(200).json();
    assert_eq!(urls(&image), [b.url.as_str()]);
    await_clean(&gateway, &[], &[&id], 10);
    assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
    // The last one stays, also for whoever would like to put other bytes there.
    refused(&admin, &id, &remove("0"), 403, "last location");
    refused(&admin, &id, &replace(&[]), 403, "empty");
    demo.upload(&id, b"other").expect(409);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert!(a.is_whole() && b.is_whole());
}

#[test]
fn every_other_change_of_locations_is_refused() {
    let gateway = Gateway::start(visible().set("images", "image_location_quota", 3));
    let [admin, demo, alt, reader] =
        [Token::Admin, Token::Demo, Token::Alt, Token::Reader].map(|token| gateway.client(token));
    let fsid = ceph(&["fsid"]);
    let bytes = random_bytes(3, 100_000);
    let data: Vec<Foreign> = (0..4).map(|_| Foreign::new(&unique("data"), &bytes)).collect();
    let (other, empty) = (Foreign::new(&unique("other"), b"longer"), Foreign::sparse(&unique("empty"), 0));
    let active = demo.active("active", &bytes);
    let own = urls(&demo.show(&active))[0].to_owned();
    let (queued, unformatted) = (
        demo.create("queued"),
        demo.post("/v2/images", &json!({})).expect(201).json()["id"].as_str().unwrap().to_owned(),
    );
    let hashed = |algorithm: &str, value: &str| {
        json!({"op": "add", "path": "/locations/-", "value": {"url": data[0].url, "metadata": {},
            "validation_data": {"os_hash_algo": algorithm, "os_hash_value": value}}})
    };
    let sha = "a".repeat(128);
    for (id, operation, status, rule) in [
        (&active, replace(&[&data[0].url]), 400, "Original locations"),
        (&active, replace(&[&own, &data[0].url]), 400, "Original locations"),
        (&active, replace(&[&own, &own]), 400, "Duplicate"),
        (&active, add("-", &own), 400, "Duplicate"),
        (&active, add("2", &data[0].url), 400, "position"),
        (&active, add("x", &data[0].url), 400, "position"),
        (&active, add("-1", &data[0].url), 400, "position"),
        (&active, add("-", &other.url), 400, "holds 6 bytes"),
        (&active, hashed("sha512", &sha), 409, "already set"),
        (&queued, add("1", &data[0].url), 400, "position"),
        (&queued, add("-", &empty.url), 400, "no bytes"),
        (&queued, add("-", &format!("rbd://{fsid}/images/{}/snap", unique("none"))), 400, "no such RBD image"),
        (&queued, add("-", &format!("rbd://{fsid}/vms/x/snap")), 400, "no store"),
        (&queued, add("-", &format!("rbd://{}/images/x/snap", uuid::Uuid::new_v4())), 400, "no store"),
        (&queued, add("-", "file:///etc/passwd"), 400, "scheme"),
        (&queued, add("-", "http://127.0.0.1:1/image"), 400, "http store"),
        (&queued, add("-", "swift+config://ref/c/o"), 400, "swift+config"),
        (&queued, add("-", &"x".repeat(300)), 400, "255"),
        (&queued, replace(&[]), 403, "empty"),
        (&queued, replace(&[&data[0].url, &data[0].url]), 400, "Duplicate"),
        (&queued, replace(&[&data[0].url, &other.url]), 400, "bytes"),
        (&queued, replace(&data.iter().map(|data| data.url.as_str()).collect::<Vec<_>>()), 413, "locations"),
        (&queued, hashed("sha256", &sha[..64]), 409, "must be sha512"),
        (&queued, hashed("sha512", "aa"), 409, "size"),
        (&queued, hashed("sha512", &"g".repeat(128)), 409, "hexadecimal"),
        (
            &queued,
            json!({"op": "add", "path": "/locations", "value": {"url": data[0].url, "metadata": {}}}),
            400,
            "pointer",
        ),
        (
            &queued,
            json!({"op": "replace", "path": "/locations/0", "value": {"url": data[0].url, "metadata": {}}}),
            400,
            "pointer",
        ),
        (&queued, json!({"op": "replace", "path": "/locations", "value": data[0].url}), 400, "list"),
        (&queued, json!({"op": "add", "path": "/locations/-", "value": data[0].url}), 400, "object"),
        (&queued, json!({"op": "add", "path": "/locations/-", "value": {"url": data[0].url}}), 400, "metadata"),
        (&queued, json!({"op": "add", "path": "/locations/-", "value": {"url": 1, "metadata": {}}}), 400, "url"),
        (
            &queued,
            json!({"op": "add", "path": "/locations/-", "value": {"url": data[0].url, "metadata": []}}),
            400,
            "metadata",
        ),
        (
            &queued,
            json!({"op": "add", "path": "/locations/-", "value": {"url": data[0].url, "metadata": {"k": "\u{0}"}}}),
            400,
            "control",
        ),
        (&queued, json!({"op": "remove", "path": "/locations"}), 400, "pointer"),
        (&queued, json!({"op": "remove", "path": "/locations/0/url"}), 400, "deep"),
        (&unformatted, add("-", &data[0].url), 400, "disk_format"),
    ] {
        refused(&demo, id, &operation, status, rule);
    }
    refused(&admin, &queued, &remove("0"), 409, "queued");
    refused(&reader, &active, &add("-", &data[0].url), 403, "_image");
    assert_eq!(patch(&alt, &active, &json!([add("-", &data[0].url)])).status, 404);
    gateway.sql(&format!("UPDATE images SET status = 'deactivated' WHERE id = '{active}'"));
    for operation in [add("-", &data[0].url), replace(&[&own])] {
        refused(&demo, &active, &operation, 409, "deactivated");
    }
    assert!(data.iter().all(Foreign::is_whole));
    // Where nobody sees locations nobody changes them.
    let blind = gateway.sibling_with(Options::default());
    for (client, operation) in [(Token::Demo, add("-", &data[0].url)), (Token::Admin, remove("0"))] {
        refused(&blind.client(client), &queued, &operation, 403, "invisible");
    }
    assert!(blind.client(Token::Admin).show(&active).get("locations").is_none());
}

#[test]
fn nobody_reads_another_projects_data_by_calling_it_his_own() {
    let gateway = Gateway::start(visible());
    let (demo, alt, admin) = (gateway.client(Token::Demo), gateway.client(Token::Alt), gateway.client(Token::Admin));
    let secret = demo.active("secret", b"the secrets of demo");
    let url = urls(&demo.show(&secret))[0].to_owned();
    let thief = alt.create("thief");
    refused(&alt, &thief, &add("-", &url), 403, "another image");
    // Neither while its record waits for data, nor by the data that others have borrowed.
    let waiting = demo.create("waiting");
    let early = Foreign::new(&waiting, b"not registered yet");
    refused(&alt, &thief, &add("-", &early.url), 403, "another image");
    let unknown = Foreign::new(&unique("borrowed"), b"borrowed");
    patch(&demo, &waiting, &json!([add("-", &unknown.url)])).expect(200);
    refused(&alt, &thief, &add("-", &unknown.url), 403, "another image");
    assert_eq!(left_in_pool(&[&thief]), Vec::<String>::new());
    // What one may download one may refer to; what is deactivated one may not.
    admin
        .patch(&format!("/v2/images/{secret}"), &json!([{"op": "replace", "path": "/visibility", "value": "public"}]))
        .expect(200);
    gateway.sql(&format!("UPDATE images SET status = 'deactivated' WHERE id = '{secret}'"));
    refused(&alt, &thief, &add("-", &url), 403, "another image");
    gateway.sql(&format!("UPDATE images SET status = 'active' WHERE id = '{secret}'"));
    patch(&alt, &thief, &json!([add("-", &url)])).expect(200);
    alt.delete(&format!("/v2/images/{thief}")).expect(204);
    assert_eq!(demo.get(&format!("/v2/images/{secret}/file")).expect(200).body, b"the secrets of demo");
}

#[test]
fn a_copy_is_taken_out_of_one_store() {
    let gateway = Gateway::start(visible().far_store());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let bytes = random_bytes(4, 200_000);
    let id = demo.active("twice", &bytes);
    let copy = Foreign::in_pool(FAR_POOL, &id, &bytes);
    let path = |store: &str| format!("/v2/stores/{store}/{id}");
    for (store, status) in [("tape", 409), ("os_glance_staging_store", 409), ("far", 403), ("ceph", 403)] {
        assert_eq!(admin.delete(&path(store)).status, status, "{store}");
    }
    patch(&demo, &id, &json!([add("-", &copy.url)])).expect(200);
    let foreign = Foreign::new(&unique("foreign"), &bytes);
    patch(&demo, &id, &json!([add("-", &foreign.url)])).expect(200);
    assert_eq!(demo.show(&id)["stores"], "ceph,far,ceph");
    // Who may.
    assert!(demo.delete(&path("far")).expect(403).text().contains("delete_image_location"));
    assert_eq!(gateway.client(Token::Alt).delete(&path("far")).status, 404);
    assert_eq!(admin.delete(&format!("/v2/stores/far/{}", uuid::Uuid::new_v4())).status, 404);
    admin.get(&path("far")).expect(405);
    // Not while a machine runs from it.
    let machine = format!("vms/{id}-far");
    rbd(&["clone", &format!("{FAR_POOL}/{id}@snap"), &machine]);
    let busy = admin.delete(&path("far")).expect(409);
    assert!(busy.text().contains("in use"), "{}", busy.text());
    assert!(copy.is_whole());
    rbd(&["rm", "--no-progress", &machine]);
    admin.delete(&path("far")).expect(204);
    assert!(!rbd(&["ls", FAR_POOL]).contains(&id), "the copy under the image's own name goes");
    assert_eq!(demo.show(&id)["stores"], "ceph,ceph");
    admin.delete(&path("far")).expect(404);
    // The first of two in one store, then the last one of all.
    admin.delete(&path("ceph")).expect(204);
    assert_eq!(urls(&demo.show(&id)), [foreign.url.as_str()]);
    assert_eq!(left_in_pool(&[&id]), Vec::<String>::new());
    assert!(admin.delete(&path("ceph")).expect(403).text().contains("only store"));
    gateway.sql(&format!("UPDATE images SET status = 'deactivated' WHERE id = '{id}'"));
    admin.delete(&path("ceph")).expect(409);
    assert!(admin.show(&id)["stores"] == "ceph" && foreign.is_whole());
    assert_eq!(gateway.sql("SELECT count(*) FROM jobs WHERE kind = 'unlocate'"), "0");
}

#[test]
fn an_image_with_several_copies_goes_whole_or_not_at_all() {
    let gateway = Gateway::start(visible().far_store());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(5, 200_000);
    let id = demo.active("twice", &bytes);
    let copy = Foreign::in_pool(FAR_POOL, &id, &bytes);
    patch(&demo, &id, &json!([add("-", &copy.url)])).expect(200);
    // The second copy is in use: the first one is not touched either.
    let machine = format!("vms/{id}-far");
    rbd(&["clone", &format!("{FAR_POOL}/{id}@snap"), &machine]);
    demo.delete(&format!("/v2/images/{id}")).expect(409);
    assert!(copy.is_whole() && demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
    rbd(&["rm", "--no-progress", &machine]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 10);
    for listing in [&["ls", FAR_POOL][..], &["trash", "ls", FAR_POOL][..]] {
        assert!(!rbd(listing).contains(&id));
    }
}
