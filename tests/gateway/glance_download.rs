//! Imports from another region of the same cloud: two real gateways, and a Keystone whose catalog names both.

use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, FakeKeystone, Gateway, Nginx, Options, Token, assert_active, await_clean, eventually, hash,
    left_in_pool, project_token, random_bytes, status_of,
};

const MIB: usize = 1 << 20;
/// Longest that an import of some MiB takes on a busy machine.
const IMPORTED_S: u64 = 60;
/// How long a dead client of Ceph counts as a user of what it had open, and the retries on top of it.
const DATA_GONE_S: u64 = 75;

/// A Keystone that knows these regions' image services, and sends everybody's token with them.
fn cloud(regions: &[(&str, &str)]) -> FakeKeystone {
    let keystone = FakeKeystone::start();
    tell(&keystone, regions);
    keystone
}

/// Lets the catalog of two projects' tokens name these regions.
fn tell(keystone: &FakeKeystone, regions: &[(&str, &str)]) {
    let endpoint = |(region, url): &(&str, &str)| json!({"id": format!("e-{region}"), "interface": "public", "region": region, "region_id": region, "url": url});
    for (token, project) in [(Token::Demo, "demo"), (Token::Alt, "alt")] {
        let mut body = project_token(project, project, &["member", "reader"], 3600);
        let endpoints: Vec<Value> = regions.iter().map(endpoint).collect();
        body["token"]["catalog"] =
            json!([{"type": "image", "id": "s-image", "name": "glance", "endpoints": endpoints}]);
        keystone.know(token.text(), body);
    }
}

/// A gateway of this cloud that notices dead ones soon, and fetches in small ranges.
fn options(keystone: &FakeKeystone) -> Options {
    Options::quick().keystone(&keystone.url).sections("[fetch]\nrange_mib = 1\ntries_max = 2\n")
}

/// Lets an image come slowly from the first of these gateways that lives.
fn slowly(first: &Gateway, second: &Gateway) -> Option<Nginx> {
    let pass = |gateway: &Gateway| format!("proxy_pass {}; proxy_buffering off; limit_rate 400k;", gateway.url);
    Nginx::start(&format!(
        "location / {{ {} error_page 502 504 = @second; }}\nlocation @second {{ {} }}",
        pass(first),
        pass(second)
    ))
}

fn far(region: &str, id: &str) -> Value {
    json!({"method": {"name": "glance-download", "glance_region": region, "glance_image_id": id}})
}

#[track_caller]
fn import(client: &Client, id: &str, body: &Value) -> Answer {
    client.post(&format!("/v2/images/{id}/import"), body)
}

#[track_caller]
fn await_active(client: &Client, id: &str) {
    eventually(&format!("{id} is active"), IMPORTED_S, || status_of(client, id) == "active");
}

/// The last task of an image.
#[track_caller]
fn task(client: &Client, id: &str) -> Value {
    let tasks = client.get(&format!("/v2/images/{id}/tasks")).expect(200).json();
    tasks["tasks"].as_array().unwrap().last().unwrap().clone()
}

/// Makes an image with these members and returns its id.
#[track_caller]
fn create(client: &Client, members: &Value) -> String {
    client.post("/v2/images", members).expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// Fails if the token of the project `p-demo` is to be read anywhere.
#[track_caller]
fn assert_secret(gateway: &Gateway) {
    let stored = gateway
        .sql("SELECT t::text FROM jobs t UNION ALL SELECT t::text FROM tasks t UNION ALL SELECT t::text FROM events t");
    assert!(!stored.contains(Token::Demo.text()), "{stored}");
    assert!(!gateway.log().contains(Token::Demo.text()), "{}", gateway.log());
}

#[test]
fn an_image_of_another_region_becomes_one_here() {
    let keystone = cloud(&[]);
    let (here, there) = (Gateway::start(options(&keystone)), Gateway::start(options(&keystone)));
    tell(&keystone, &[("here", &here.url), ("there", &format!("{}/v2/", there.url))]);
    let (demo, over_there) = (here.client(Token::Demo), there.client(Token::Demo));
    let methods = ["glance-direct", "web-download", "copy-image", "glance-download"];
    assert_eq!(demo.get("/v2/info/import").expect(200).json()["import-methods"]["value"], json!(methods));
    let bytes = random_bytes(41, 5 * MIB + 123);
    let original = create(
        &over_there,
        &json!({"name": "original", "disk_format": "raw", "container_format": "bare", "min_disk": 7, "tags": ["t"],
            "hw_disk_bus": "scsi", "os_distro": "debian", "trait:CUSTOM_X": "required", "kept_there": "x"}),
    );
    over_there.upload(&original, &bytes).expect(204);
    let copy = create(
        &demo,
        &json!({"name": "copy", "disk_format": "iso", "container_format": "bare", "os_distro": "fedora", "own": "y"}),
    );
    import(&demo, &copy, &far("there", &original)).expect(202);
    await_active(&demo, &copy);
    assert_active(&demo, &copy, &bytes);
    let image = demo.show(&copy);
    for (name, value) in [
        ("name", json!("copy")),
        ("disk_format", json!("raw")),
        ("container_format", json!("bare")),
        ("min_disk", json!(0)),
        ("tags", json!([])),
        ("hw_disk_bus", json!("scsi")),
        ("os_distro", json!("debian")),
        ("trait:CUSTOM_X", json!("required")),
        ("own", json!("y")),
        ("virtual_size", json!(bytes.len())),
    ] {
        assert_eq!(image[name], value, "{name}: {image}");
    }
    assert!(image.get("kept_there").is_none(), "{image}");
    let task = task(&demo, &copy);
    assert_eq!(
        (&task["type"], &task["status"], &task["message"]),
        (&json!("api_image_import"), &json!("success"), &json!(""))
    );
    assert_eq!(task["result"], json!({"image_id": copy}));
    await_clean(&here, &[&copy, &original], &[], 20);
    // The format there counts for what becomes of it here; and other prefixes may be copied.
    let folder = here.folder().join("disk");
    std::fs::write(&folder, random_bytes(42, 3 * MIB)).unwrap();
    let packed = here.folder().join("disk.qcow2");
    let arguments = ["convert", "-f", "raw", "-O", "qcow2", folder.to_str().unwrap(), packed.to_str().unwrap()];
    assert!(std::process::Command::new("qemu-img").args(arguments).status().unwrap().success());
    let packed = std::fs::read(packed).unwrap();
    let original = create(
        &over_there,
        &json!({"disk_format": "qcow2", "container_format": "bare", "kept_there": "x", "hw_disk_bus": "scsi"}),
    );
    over_there.upload(&original, &packed).expect(204);
    assert_eq!(over_there.show(&original)["disk_format"], "qcow2");
    let other = here.sibling_with(
        Options::quick().keystone(&keystone.url).sections("[fetch]\nglance_download_properties = [\"kept\"]\n"),
    );
    here.signal("STOP");
    let demo = other.client(Token::Demo);
    let copy = demo.create("converted");
    import(&demo, &copy, &far("there", &original)).expect(202);
    await_active(&demo, &copy);
    assert_active(&demo, &copy, &random_bytes(42, 3 * MIB));
    let image = demo.show(&copy);
    assert_eq!((&image["disk_format"], &image["kept_there"]), (&json!("raw"), &json!("x")));
    assert!(image.get("hw_disk_bus").is_none(), "{image}");
    here.signal("CONT");
    await_clean(&other, &[&copy, &original], &[], 20);
    for gateway in [&here, &other] {
        assert_secret(gateway);
    }
}

#[test]
fn what_cannot_come_from_another_region_is_said() {
    let keystone = cloud(&[]);
    let here = Gateway::start(options(&keystone).set("images", "image_property_quota", 2));
    let there = Gateway::start(Options::default().keystone(&keystone.url));
    // A region that knows nobody's token, and one where nobody listens any more.
    let other_keystone = FakeKeystone::start();
    let strangers = Gateway::start(Options::default().keystone(&other_keystone.url));
    other_keystone.revoke(Token::Demo.text());
    tell(&keystone, &[("there", &there.url), ("strangers", &strangers.url)]);
    let (demo, over_there) = (here.client(Token::Demo), there.client(Token::Demo));
    let original = over_there.active("original", b"what is there");
    let id = demo.create("here");
    for (body, word) in [
        (far("nowhere", &original), "nowhere"),
        (far("", &original), "glance_region"),
        (far("there", "x"), "glance_image_id"),
        (json!({"method": {"name": "glance-download", "glance_region": "there"}}), "glance_image_id"),
        (
            json!({"method": {"name": "glance-download", "glance_region": "there", "glance_image_id": original, "glance_service_interface": "internal"}}),
            "internal",
        ),
        (
            json!({"method": {"name": "glance-download", "glance_region": "there", "glance_image_id": original, "glance_service_interface": "x"}}),
            "public, internal, admin",
        ),
        (
            json!({"method": {"name": "glance-download", "glance_region": "there", "glance_image_id": original, "uri": there.url}}),
            "uri",
        ),
    ] {
        let text = import(&demo, &id, &body).expect(400).text();
        assert!(text.contains(word), "{body}: {text}");
    }
    import(&here.client(Token::Alt), &id, &far("there", &original)).expect(404);
    assert_eq!(here.sql("SELECT count(*) FROM tasks"), "0");
    let active = demo.active("active", b"data");
    import(&demo, &active, &far("there", &original)).expect(409);
    demo.delete(&format!("/v2/images/{active}")).expect(204);
    // Without Keystone nobody knows where other regions are.
    let alone = Gateway::start(Options::default());
    let text = import(&alone.client(Token::Demo), &alone.client(Token::Demo).create("alone"), &far("there", &original))
        .expect(400)
        .text();
    assert!(text.contains("is not a valid import method"), "{text}");
    // What only the other region can tell.
    let queued = over_there.create("queued");
    let private = there.client(Token::Alt).active("private", b"another's");
    let changed = over_there.active("changed", b"what is there");
    there.sql(&format!("UPDATE images SET os_hash_value = '{}' WHERE id = '{changed}'", hash(b"other")));
    let rich = create(
        &over_there,
        &json!({"disk_format": "raw", "container_format": "bare", "hw_a": "1", "hw_b": "2", "hw_c": "3"}),
    );
    over_there.upload(&rich, b"data").expect(204);
    let missing = uuid::Uuid::new_v4().to_string();
    for (region, remote, words) in [
        ("there", &missing, "no such image"),
        ("there", &private, "no such image"),
        ("there", &queued, "not active"),
        ("there", &changed, "not what was expected"),
        ("there", &rich, "image properties"),
        ("strangers", &original, "does not accept the token"),
    ] {
        import(&demo, &id, &far(region, remote)).expect(202);
        eventually("the import fails", IMPORTED_S, || status_of(&demo, &id) == "queued");
        let (task, image) = (task(&demo, &id), demo.show(&id));
        let message = task["message"].as_str().unwrap();
        assert!(task["status"] == "failure" && message.contains(words), "{words}: {task}");
        assert_eq!((&image["os_glance_upload_failure"], &image["size"]), (&json!(message), &Value::Null));
        assert!(image.get("hw_a").is_none(), "{image}");
        await_clean(&here, &[], &[&id], 20);
    }
    // Nothing of that is in the way.
    import(&demo, &id, &far("there", &original)).expect(202);
    await_active(&demo, &id);
    assert_active(&demo, &id, b"what is there");
    assert_secret(&here);
}

#[test]
fn another_gateway_goes_on_with_the_token_of_a_killed_one() {
    let keystone = cloud(&[]);
    let there = Gateway::start(Options::default().keystone(&keystone.url));
    let Some(nginx) = slowly(&there, &there) else { return };
    tell(&keystone, &[("there", &nginx.url(""))]);
    let mut gateways = Gateway::start_all(&options(&keystone), 2);
    let (victim, survivor) = (gateways.pop().unwrap(), gateways.pop().unwrap());
    let bytes = random_bytes(43, 16 * MIB);
    let original = there.client(Token::Demo).active("original", &bytes);
    let demo = survivor.client(Token::Demo);
    let id = demo.create("killed");
    // So that the victim takes it up.
    survivor.signal("STOP");
    import(&victim.client(Token::Demo), &id, &far("there", &original)).expect(202);
    eventually("it is being written", 20, || left_in_pool(&[&id]).iter().any(|name| name.starts_with("uploading-")));
    assert!(victim.sql("SELECT payload->'region'->>'sealed_token' FROM jobs WHERE kind = 'import'").len() > 40);
    assert_secret(&victim);
    victim.signal("KILL");
    survivor.signal("CONT");
    await_active(&demo, &id);
    assert_active(&demo, &id, &bytes);
    assert_eq!(task(&demo, &id)["status"], "success");
    assert_secret(&survivor);
    await_clean(&survivor, &[&id], &[], DATA_GONE_S);
}

#[test]
fn a_region_whose_gateway_dies_goes_on_by_another_or_is_waited_for() {
    let keystone = cloud(&[]);
    let first = Gateway::start(Options::default().keystone(&keystone.url));
    let second = first.sibling();
    let Some(nginx) = slowly(&first, &second) else { return };
    tell(&keystone, &[("there", &nginx.url(""))]);
    let here = Gateway::start(options(&keystone));
    let bytes = random_bytes(44, 16 * MIB);
    let original = second.client(Token::Demo).active("original", &bytes);
    let demo = here.client(Token::Demo);
    let begin = |name: &str| {
        let id = demo.create(name);
        import(&demo, &id, &far("there", &original)).expect(202);
        id
    };
    let id = begin("goes on");
    let written = || left_in_pool(&[&id]).iter().any(|name| name.starts_with("uploading-"));
    eventually("it is being written", 20, written);
    first.signal("KILL");
    await_active(&demo, &id);
    assert_active(&demo, &id, &bytes);
    // When there is no other, the task says what it waits for, and nobody has to wait with it.
    second.signal("KILL");
    let waits = begin("waits");
    let last_error = || task(&demo, &waits)["result"]["progress"]["last_error"].as_str().map(str::to_owned);
    eventually("it says why it is tried again", IMPORTED_S, || last_error().is_some_and(|text| text.contains("502")));
    assert_eq!(
        (status_of(&demo, &waits), task(&demo, &waits)["status"].clone()),
        ("importing".into(), json!("processing"))
    );
    demo.delete(&format!("/v2/images/{waits}")).expect(204);
    await_clean(&here, &[&id], &[&waits], 30);
}
