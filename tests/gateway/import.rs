//! `POST /v2/images/{id}/import`: images that are filled while their clients do not wait.

use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, Gateway, Options, Token, assert_active, await_clean, eventually, left_in_pool, random_bytes, rbd,
    status_of,
};

const MIB: usize = 1 << 20;
/// Longest that an import of some MiB takes on a busy machine.
const IMPORTED_S: u64 = 60;
/// How long a dead client of Ceph counts as a user of what it had open, and the retries on top of it.
const DATA_GONE_S: u64 = 75;

#[track_caller]
fn import(client: &Client, id: &str, body: &Value) -> Answer {
    client.post(&format!("/v2/images/{id}/import"), body)
}

fn direct() -> Value {
    json!({"method": {"name": "glance-direct"}})
}

#[track_caller]
fn await_status(client: &Client, id: &str, status: &str) {
    eventually(&format!("{id} is {status}"), IMPORTED_S, || status_of(client, id) == status);
}

/// The last task of an image.
#[track_caller]
fn task(client: &Client, id: &str) -> Value {
    let tasks = client.get(&format!("/v2/images/{id}/tasks")).expect(200).json();
    tasks["tasks"].as_array().unwrap().last().unwrap().clone()
}

#[track_caller]
fn await_task(client: &Client, id: &str, status: &str) -> Value {
    let ended = || ["success", "failure"].contains(&task(client, id)["status"].as_str().unwrap());
    eventually("the task ends", IMPORTED_S, ended);
    let task = task(client, id);
    assert_eq!(task["status"], status, "{task}");
    task
}

fn qcow2(bytes: &[u8]) -> Vec<u8> {
    let folder = std::env::temp_dir().join(format!("rockpool-qcow2-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).unwrap();
    let (raw, packed) = (folder.join("raw"), folder.join("qcow2"));
    std::fs::write(&raw, bytes).unwrap();
    let arguments = ["convert", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), packed.to_str().unwrap()];
    assert!(std::process::Command::new("qemu-img").args(arguments).status().unwrap().success());
    let made = std::fs::read(&packed).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    made
}

/// Makes a queued image of this format.
#[track_caller]
fn create(client: &Client, disk_format: &str) -> String {
    let document = json!({"name": disk_format, "disk_format": disk_format, "container_format": "bare"});
    client.post("/v2/images", &document).expect(201).json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn staged_data_becomes_the_image() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("imported");
    let mut bytes = random_bytes(1, 20 * MIB + 7);
    bytes[9 * MIB..15 * MIB].fill(0);
    demo.stage(&id, &bytes).expect(204);
    let size = demo.show(&id)["size"].clone();
    let begun = import(&demo, &id, &direct()).expect(202);
    await_status(&demo, &id, "active");
    assert_active(&demo, &id, &bytes);
    let image = demo.show(&id);
    assert_eq!((&image["size"], &image["virtual_size"], &image["stores"]), (&size, &size, &"ceph".into()));
    assert_eq!((&image["os_glance_importing_to_stores"], &image["os_glance_failed_import"]), (&"".into(), &"".into()));
    assert!(image.get("os_glance_import_task").is_none() && image["checksum"].is_string(), "{image}");
    let task = task(&demo, &id);
    assert_eq!(
        (&task["type"], &task["status"], &task["message"]),
        (&"api_image_import".into(), &"success".into(), &"".into())
    );
    assert_eq!(task["input"]["import_req"], direct());
    assert_eq!(task["result"]["image_id"], id);
    assert_eq!(task["request_id"], begun.header("x-openstack-request-id"));
    await_clean(&gateway, &[&id], &[], 15);
    let about = rbd(&["image-meta", "list", &format!("images/{id}")]);
    assert!(about.contains("ready") && !about.contains("staged"), "{about}");
    import(&demo, &id, &direct()).expect(409);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 15);
}

#[test]
fn a_qcow2_image_becomes_raw_on_its_way_to_ceph() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let mut disk = random_bytes(2, 12 * MIB);
    disk[2 * MIB..7 * MIB].fill(0);
    let packed = qcow2(&disk);
    let id = create(&demo, "qcow2");
    demo.stage(&id, &packed).expect(204);
    import(&demo, &id, &direct()).expect(202);
    await_status(&demo, &id, "active");
    assert_active(&demo, &id, &disk);
    let image = demo.show(&id);
    assert_eq!((&image["disk_format"], &image["virtual_size"]), (&"raw".into(), &disk.len().into()));
    let digest = openssl_md5(&packed);
    assert_eq!(image["checksum"], digest, "the MD5 is that of what was sent");
    // It is not that of what is served.
    assert_eq!(demo.get(&format!("/v2/images/{id}/file")).expect(200).header("content-md5"), "");
    await_clean(&gateway, &[&id], &[], 15);
    // Left as it is where the operator wants that.
    let other = gateway.sibling_with(Options::quick().set("import", "plugins", toml::Value::Array(Vec::new())));
    gateway.signal("STOP");
    let demo = other.client(Token::Demo);
    let id = create(&demo, "qcow2");
    demo.stage(&id, &packed).expect(204);
    import(&demo, &id, &direct()).expect(202);
    await_status(&demo, &id, "active");
    assert_active(&demo, &id, &packed);
    assert_eq!(demo.show(&id)["disk_format"], "qcow2");
    gateway.signal("CONT");
}

fn openssl_md5(bytes: &[u8]) -> String {
    let digest = openssl::hash::hash(openssl::hash::MessageDigest::md5(), bytes).unwrap();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_broken_image_is_said_to_be_and_can_be_tried_again() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let mut packed = qcow2(&random_bytes(3, 2 * MIB));
    // The header is in order, but the first table of clusters lies beyond the end.
    let tables = u64::from_be_bytes(packed[40..48].try_into().unwrap()) as usize;
    packed[tables..tables + 8].copy_from_slice(&(1_u64 << 63 | 1 << 40).to_be_bytes());
    let id = create(&demo, "qcow2");
    demo.stage(&id, &packed).expect(204);
    import(&demo, &id, &direct()).expect(202);
    let message = await_task(&demo, &id, "failure")["message"].as_str().unwrap().to_owned();
    let image = demo.show(&id);
    assert_eq!((&image["status"], &image["size"]), (&"uploading".into(), &packed.len().into()), "{image}");
    assert_eq!(image["os_glance_upload_failure"], message);
    assert_eq!(image["os_glance_failed_import"], "ceph");
    eventually("only the staged data is left", 15, || {
        let left = left_in_pool(&[&id]);
        left.len() == 1 && left[0].starts_with("staging-")
    });
    import(&demo, &id, &direct()).expect(202);
    await_task(&demo, &id, "failure");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 15);
}

#[test]
fn what_cannot_be_imported_is_refused_in_the_order_of_the_reference() {
    let gateway = Gateway::start(Options::quick());
    let (demo, alt) = (gateway.client(Token::Demo), gateway.client(Token::Alt));
    let methods = demo.get("/v2/info/import").expect(200).json();
    assert_eq!(methods["import-methods"]["value"], json!(["glance-direct", "web-download", "copy-image"]));
    let id = demo.create("refused");
    let download = |uri: &str| json!({"method": {"name": "web-download", "uri": uri}});
    for (body, status, words) in [
        (json!({}), 400, "method"),
        (json!([1]), 400, "object"),
        (json!({"method": "glance-direct"}), 400, "method"),
        (json!({"method": {}}), 400, "name"),
        (json!({"method": {"name": "tape"}}), 400, "tape"),
        (json!({"method": {"name": "glance-direct"}, "all_stores": "yes"}), 400, "all_stores"),
        (json!({"method": {"name": "glance-direct", "uri": "file:///etc/passwd"}}), 400, "uri"),
        (direct(), 409, "uploading"),
        (json!({"method": {"name": "copy-image"}}), 409, "active"),
        (download("file:///etc/passwd"), 400, "uri"),
        (download("http://127.0.0.1/"), 400, "URL"),
        (json!({"method": {"name": "web-download", "uri": "http://example.org/x"}, "stores": ["tape"]}), 409, "tape"),
        (
            json!({"method": {"name": "web-download", "uri": "http://example.org/x"}, "stores": ["ceph"], "all_stores": true}),
            400,
            "all_stores",
        ),
    ] {
        let text = import(&demo, &id, &body).expect(status).text();
        assert!(text.contains(words), "{body}: {text}");
    }
    import(&alt, &id, &direct()).expect(404);
    let none = demo.post("/v2/images", &json!({"name": "formless"})).expect(201).json();
    let text = import(&demo, none["id"].as_str().unwrap(), &download("http://example.org/x")).expect(409).text();
    assert!(text.contains("disk_format"), "{text}");
    assert_eq!(gateway.sql("SELECT count(*) FROM tasks"), "0");
    let active = demo.active("active", b"data");
    let copy = json!({"method": {"name": "copy-image"}, "stores": ["ceph"]});
    import(&demo, &active, &copy).expect(403);
    let text = import(&gateway.client(Token::Admin), &active, &copy).expect(400).text();
    assert!(text.contains("already present"), "{text}");
    let everywhere = json!({"method": {"name": "copy-image"}, "all_stores": true});
    import(&gateway.client(Token::Admin), &active, &everywhere).expect(202);
    assert_eq!(gateway.sql("SELECT count(*) FROM tasks"), "0");
}

#[test]
fn an_import_brings_an_image_to_several_stores_and_copies_to_more() {
    let gateway = Gateway::start(Options::quick().far_store());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let bytes = random_bytes(4, 9 * MIB);
    let both = demo.create("both");
    demo.stage(&both, &bytes).expect(204);
    import(&demo, &both, &json!({"method": {"name": "glance-direct"}, "all_stores": true})).expect(202);
    await_status(&demo, &both, "active");
    let mut stores: Vec<String> = demo.show(&both)["stores"].as_str().unwrap().split(',').map(str::to_owned).collect();
    stores.sort();
    assert_eq!(stores, ["ceph", "far"]);
    for store in ["ceph", "far"] {
        assert!(demo.get(&format!("/v2/images/{both}/file?prefer={store}")).expect(200).body == bytes);
    }
    let one = demo.active("one", &bytes);
    import(&admin, &one, &json!({"method": {"name": "copy-image"}, "stores": ["far"]})).expect(202);
    // A task is seen by those who asked for it.
    await_task(&admin, &one, "success");
    let image = demo.show(&one);
    assert_eq!((&image["stores"], &image["status"]), (&"ceph,far".into(), &"active".into()));
    assert_eq!(image["os_glance_importing_to_stores"], "");
    assert!(demo.get(&format!("/v2/images/{one}/file?prefer=far")).expect(200).body == bytes);
    for id in [&both, &one] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    await_clean(&gateway, &[], &[&both, &one], 20);
}

#[test]
fn an_import_whose_gateway_is_killed_is_done_by_another() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let victim = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let bytes = random_bytes(5, 64 * MIB);
    let (id, gone) = (demo.create("killed"), demo.create("gone"));
    for id in [&id, &gone] {
        demo.stage(id, &bytes).expect(204);
    }
    // So that the victim takes them up.
    survivor.signal("STOP");
    let through = victim.client(Token::Demo);
    for id in [&id, &gone] {
        import(&through, id, &direct()).expect(202);
    }
    let writing = |id: &str| left_in_pool(&[id]).iter().any(|name| name.starts_with("uploading-"));
    eventually("they are being written", 20, || writing(&id) && writing(&gone));
    victim.signal("KILL");
    survivor.signal("CONT");
    demo.delete(&format!("/v2/images/{gone}")).expect(204);
    await_status(&demo, &id, "active");
    assert_active(&demo, &id, &bytes);
    await_clean(&survivor, &[&id], &[&gone], DATA_GONE_S);
    survivor.fsck_is_clean();
    assert_eq!(task(&demo, &id)["status"], "success");
}
