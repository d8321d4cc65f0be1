//! `PATCH /v2/images/{id}`: both dialects, whole or not at all.

use std::thread;

use serde_json::{Value, json};
use ureq::SendBody;

use crate::harness::{Answer, Client, Gateway, Options, Token, eventually, rbd};

const V21: &str = "application/openstack-images-v2.1-json-patch";
const V20: &str = "application/openstack-images-v2.0-json-patch";

fn send(client: &Client, id: &str, media_type: &str, body: &[u8]) -> Answer {
    client.send(
        "PATCH",
        &format!("/v2/images/{id}"),
        &[("content-type", media_type), ("connection", "close")],
        SendBody::from_reader(&mut &*body),
    )
}

fn patch(client: &Client, id: &str, operations: &Value) -> Answer {
    send(client, id, V21, operations.to_string().as_bytes())
}

fn add(path: &str, value: impl Into<Value>) -> Value {
    json!({"op": "add", "path": path, "value": value.into()})
}

fn replace(path: &str, value: impl Into<Value>) -> Value {
    json!({"op": "replace", "path": path, "value": value.into()})
}

fn remove(path: &str) -> Value {
    json!({"op": "remove", "path": path})
}

/// All that is stored of an image.
fn stored(gateway: &Gateway, id: &str) -> String {
    let table =
        |table: &str, key: &str| gateway.sql(&format!("SELECT * FROM {table} WHERE {key} = '{id}' ORDER BY 1, 2"));
    [table("images", "id"), table("image_properties", "image_id"), table("image_tags", "image_id")].join("\n")
}

/// Fails unless the operations are refused with this status, and change nothing: not even the two good
/// ones around the bad one.
#[track_caller]
fn refused(client: &Client, id: &str, operation: &Value, status: u16) {
    let before = client.show(id);
    let answer = patch(client, id, &json!([replace("/name", "changed"), operation, add("/new", "property")]));
    assert_eq!(answer.status, status, "{operation}: {}", answer.text());
    assert!(answer.header("x-openstack-request-id").starts_with("req-"));
    assert_eq!(client.show(id), before, "{operation}");
}

#[test]
fn every_attribute_can_be_changed_and_is_stored() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id =
        demo.post("/v2/images", &json!({"name": "n", "tags": ["old"], "p": "1", "q": "2"})).expect(201).json()["id"]
            .as_str()
            .unwrap()
            .to_owned();
    let operations = json!([
        replace("/name", "new"),
        add("/visibility", "private"),
        replace("/protected", true),
        replace("/os_hidden", true),
        replace("/disk_format", "raw"),
        add("/container_format", "bare"),
        replace("/min_disk", 3),
        replace("/min_ram", 4),
        replace("/tags", json!(["x", "y", "x"])),
        add("/p", "overwritten"),
        remove("/q"),
        add("/r", "3"),
        replace("/r", "4"),
        add("/a~1b~0c", "escaped"),
    ]);
    let changed = patch(&demo, &id, &operations).expect(200);
    assert_eq!(changed.header("content-type"), "application/json");
    let changed = changed.json();
    assert_eq!(demo.show(&id), changed);
    for (key, value) in [
        ("name", json!("new")),
        ("visibility", json!("private")),
        ("protected", json!(true)),
        ("os_hidden", json!(true)),
        ("disk_format", json!("raw")),
        ("container_format", json!("bare")),
        ("min_disk", json!(3)),
        ("min_ram", json!(4)),
        ("tags", json!(["x", "y"])),
        ("p", json!("overwritten")),
        ("r", json!("4")),
        ("a/b~c", json!("escaped")),
        ("owner", json!("p-demo")),
    ] {
        assert_eq!(changed[key], value, "{key}");
    }
    assert!(changed.get("q").is_none());
    assert_eq!(
        gateway.sql("SELECT string_agg(name || '=' || value, ',' ORDER BY name) FROM image_properties"),
        "a/b~c=escaped,p=overwritten,r=4"
    );
    assert_eq!(
        gateway.sql("SELECT name, visibility, protected, hidden, disk_format, min_disk_gib, min_ram_mib FROM images"),
        "new|private|t|t|raw|3|4"
    );
    // The owner is the administrator's to change, and an image can be given away.
    refused(&demo, &id, &replace("/owner", "p-demo"), 403);
    assert_eq!(patch(&admin, &id, &json!([replace("/owner", "p-alt")])).expect(200).json()["owner"], "p-alt");
    demo.get(&format!("/v2/images/{id}")).expect(404);
    assert_eq!(gateway.client(Token::Alt).show(&id)["owner"], "p-alt");
    assert_eq!(
        patch(&admin, &id, &json!([replace("/name", null()), replace("/owner", null())])).expect(200).json()["name"],
        null()
    );
}

fn null() -> Value {
    Value::Null
}

#[test]
fn both_dialects_change_an_image_and_nothing_else_does() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("dialects");
    let (v20, v21) =
        (json!([{"add": "/a", "value": "1"}, {"replace": "/name", "value": "by 2.0"}]), json!([add("/b", "2")]));
    send(&demo, &id, V20, v20.to_string().as_bytes()).expect(200);
    send(&demo, &id, V21, v21.to_string().as_bytes()).expect(200);
    send(&demo, &id, &format!("{}; charset=utf-8", V21.to_uppercase()), b"[]").expect(200);
    send(&demo, &id, V20, br#"[{"remove": "/a"}]"#).expect(200);
    let image = demo.show(&id);
    assert_eq!((&image["name"], &image["b"], image.get("a")), (&json!("by 2.0"), &json!("2"), None));
    // In the older one, add is for what is not there.
    for present in [json!([{"add": "/b", "value": "3"}]), json!([{"add": "/name", "value": "x"}])] {
        assert_eq!(send(&demo, &id, V20, present.to_string().as_bytes()).status, 409, "{present}");
    }
    // Each media type takes its own operations.
    let before = stored(&gateway, &id);
    assert_eq!(send(&demo, &id, V20, v21.to_string().as_bytes()).status, 400);
    assert_eq!(send(&demo, &id, V21, v20.to_string().as_bytes()).status, 400);
    for two in [
        json!([{"add": "/x", "remove": "/b", "value": "1"}]),
        json!([{"value": "1"}]),
        json!([{"add": 5, "value": "1"}]),
        json!([{"add": "/x"}]),
    ] {
        assert_eq!(send(&demo, &id, V20, two.to_string().as_bytes()).status, 400, "{two}");
    }
    for media_type in [
        "application/json",
        "application/json-patch+json",
        "text/plain",
        "application/openstack-images-v2.2-json-patch",
        "application/openstack-images-v2.1-json-patchy",
        "",
    ] {
        let answer = send(&demo, &id, media_type, v21.to_string().as_bytes());
        assert_eq!(answer.status, 415, "{media_type}");
        assert_eq!(answer.header("accept-patch"), format!("{V21}, {V20}"), "{media_type}");
    }
    assert_eq!(stored(&gateway, &id), before);
}

#[test]
fn a_refused_operation_changes_nothing() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id = demo.post("/v2/images", &json!({"name": "n", "tags": ["t"], "there": "1"})).expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = stored(&gateway, &id);
    for key in [
        "created_at",
        "updated_at",
        "status",
        "checksum",
        "size",
        "virtual_size",
        "direct_url",
        "self",
        "file",
        "schema",
        "id",
        "os_hash_algo",
        "os_hash_value",
    ] {
        for client in [&demo, &admin] {
            refused(client, &id, &replace(&format!("/{key}"), "x"), 403);
            refused(client, &id, &add(&format!("/{key}"), "x"), 403);
            refused(client, &id, &remove(&format!("/{key}")), 403);
        }
    }
    for key in ["location", "deleted", "deleted_at", "os_glance", "os_glance_import_task"] {
        refused(&admin, &id, &add(&format!("/{key}"), "x"), 403);
    }
    // Invisible locations cannot be changed.
    for path in ["/locations/0", "/locations/-"] {
        refused(&admin, &id, &add(path, json!({"url": "rbd://a/b/c/d", "metadata": {}})), 403);
    }
    refused(&admin, &id, &replace("/locations", json!([])), 403);
    for key in [
        "name",
        "visibility",
        "owner",
        "protected",
        "os_hidden",
        "disk_format",
        "container_format",
        "min_disk",
        "min_ram",
        "tags",
    ] {
        refused(&admin, &id, &remove(&format!("/{key}")), 403);
    }
    for operation in [remove("/missing"), replace("/missing", "x"), replace("/stores", "x"), remove("/stores")] {
        refused(&demo, &id, &operation, 409);
    }
    refused(&demo, &id, &replace("/visibility", "public"), 403);
    for (path, value) in [
        ("/name", json!(1)),
        ("/name", json!("n".repeat(256))),
        ("/name", json!("a\0b")),
        ("/name", json!("\u{1F427}")),
        ("/visibility", json!("secret")),
        ("/visibility", null()),
        ("/protected", json!("yes")),
        ("/os_hidden", null()),
        ("/disk_format", json!("floppy")),
        ("/min_disk", json!(-1)),
        ("/min_ram", json!(2_147_483_648_u64)),
        ("/min_ram", json!("1")),
        ("/tags", json!("t")),
        ("/tags", json!([1])),
        ("/tags", json!(["t".repeat(256)])),
        ("/there", null()),
        ("/there", json!(1)),
        ("/there", json!({"a": 1})),
        ("/there", json!(["a"])),
    ] {
        refused(&demo, &id, &replace(path, value.clone()), 400);
        refused(&demo, &id, &add(path, value), 400);
    }
    refused(&demo, &id, &add(&format!("/{}", "k".repeat(256)), "v"), 400);
    refused(&demo, &id, &add("/k\u{1b}", "v"), 400);
    assert_eq!(stored(&gateway, &id), before);
}

#[test]
fn a_malformed_patch_is_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.post("/v2/images", &json!({"name": "n", "tags": ["t"], "there": "1"})).expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = stored(&gateway, &id);
    for path in [
        "",
        "/",
        "name",
        "//name",
        "/name/",
        "/ /x",
        "/ ",
        "/name/x",
        "/tags/-",
        "/tags/0",
        "/there/x",
        "/~",
        "/~2",
        "/a~",
        "/locations/0/x",
        "#/name",
    ] {
        refused(&demo, &id, &add(path, "x"), 400);
    }
    for op in ["test", "move", "copy", "", "ADD", "delete"] {
        refused(&demo, &id, &json!({"op": op, "path": "/there", "value": "1", "from": "/name"}), 400);
        refused(&demo, &id, &json!({"op": op, "path": "/there", "value": "1"}), 400);
    }
    for operation in [
        json!({"op": "add", "path": "/x"}),
        json!({"op": "replace", "path": "/name"}),
        json!({"path": "/x", "value": "1"}),
        json!({"op": "add", "value": "1"}),
        json!({"op": 1, "path": "/x", "value": "1"}),
        json!({"op": "add", "path": null, "value": "1"}),
        json!({}),
        json!([]),
        json!("add"),
        json!(1),
        null(),
    ] {
        refused(&demo, &id, &operation, 400);
    }
    let deep = format!("[{{\"op\": \"add\", \"path\": \"/x\", \"value\": {}}}]", "[".repeat(50_000));
    let many = json!(vec![replace("/name", "changed"); 10_000]).to_string();
    for body in [&b""[..], b"null", b"{}", b"\"x\"", b"[", b"[{]", b"[\xff]", deep.as_bytes(), many.as_bytes()] {
        let answer = send(&demo, &id, V21, body);
        assert_eq!(answer.status, 400, "{}: {}", String::from_utf8_lossy(&body[..body.len().min(60)]), answer.text());
    }
    assert_eq!(send(&demo, &id, V21, " ".repeat(5 << 20).as_bytes()).status, 413);
    assert_eq!(stored(&gateway, &id), before);
    // An empty list asks for nothing.
    assert_eq!(patch(&demo, &id, &json!([])).expect(200).json()["name"], "n");
}

#[test]
fn quotas_hold_for_what_a_patch_adds() {
    let gateway =
        Gateway::start(Options::default().set("images", "image_property_quota", 3).set("images", "image_tag_quota", 2));
    let demo = gateway.client(Token::Demo);
    let id =
        demo.post("/v2/images", &json!({"a": "1", "b": "2"})).expect(201).json()["id"].as_str().unwrap().to_owned();
    patch(&demo, &id, &json!([add("/c", "3"), replace("/tags", json!(["x", "y"]))])).expect(200);
    refused(&demo, &id, &add("/d", "4"), 413);
    refused(&demo, &id, &replace("/tags", json!(["x", "y", "z"])), 413);
    // Only the end counts, and what is there already may change.
    patch(&demo, &id, &json!([add("/d", "4"), remove("/a"), replace("/b", "x")])).expect(200);
    // A quota that was lowered does not lock an image that is over it.
    gateway.sql(&format!("INSERT INTO image_properties SELECT '{id}', 'old' || n, 'v' FROM generate_series(1, 5) n"));
    patch(&demo, &id, &json!([remove("/old1"), replace("/name", "still")])).expect(200);
    assert_eq!(patch(&demo, &id, &json!([add("/e", "5")])).status, 413);
}

#[test]
fn formats_are_fixed_once_there_is_data() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id = demo.active("fixed", b"bytes");
    let before = stored(&gateway, &id);
    for client in [&demo, &admin] {
        for (path, value) in [("/disk_format", "qcow2"), ("/container_format", "ovf"), ("/disk_format", "raw")] {
            refused(client, &id, &replace(path, value), 403);
            refused(client, &id, &add(path, value), 403);
        }
    }
    assert_eq!(stored(&gateway, &id), before);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn parallel_patches_of_different_properties_all_survive() {
    const THREADS: usize = 64;
    let gateway = Gateway::start(Options::default().set("images", "image_property_quota", -1));
    let sibling = gateway.sibling();
    let id = gateway.client(Token::Demo).create("contended");
    thread::scope(|scope| {
        for n in 0..THREADS {
            let client = if n % 2 == 0 { gateway.client(Token::Demo) } else { sibling.client(Token::Demo) };
            let id = &id;
            scope.spawn(move || {
                let answer = patch(
                    &client,
                    id,
                    &json!([add(&format!("/key_{n}"), format!("value {n}")), replace("/min_ram", n)]),
                );
                assert_eq!(answer.status, 200, "{}", answer.text());
                assert_eq!(answer.json()[format!("key_{n}")], format!("value {n}"));
            });
        }
    });
    let image = gateway.client(Token::Demo).show(&id);
    for n in 0..THREADS {
        assert_eq!(image[format!("key_{n}")], format!("value {n}"));
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM image_properties"), THREADS.to_string());
}

#[test]
fn the_image_metadata_in_the_pool_follows_a_patch() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("before", b"bytes");
    let spec = format!("images/{id}");
    let meta = |key: &str| crate::harness::try_rbd(&["image-meta", "get", &spec, &format!("rockpool.{key}")]).ok();
    assert_eq!(meta("name").as_deref(), Some("before"));
    assert_eq!(meta("size").as_deref(), Some("5"));
    rbd(&["image-meta", "set", &spec, "somebody.else", "kept"]);
    let operations = json!([
        replace("/name", "after ü"),
        replace("/visibility", "private"),
        add("/os_distro", "debian"),
        replace("/tags", json!(["t"])),
        replace("/protected", true)
    ]);
    patch(&demo, &id, &operations).expect(200);
    eventually("the metadata follows", 10, || {
        meta("name").as_deref() == Some("after ü") && meta("protected").as_deref() == Some("true")
    });
    assert_eq!(meta("visibility").as_deref(), Some("private"));
    assert_eq!(meta("properties").as_deref(), Some(r#"{"os_distro":"debian"}"#));
    assert_eq!(meta("tags").as_deref(), Some(r#"["t"]"#));
    assert_eq!(rbd(&["image-meta", "get", &spec, "somebody.else"]), "kept");
    patch(&demo, &id, &json!([replace("/name", null()), remove("/os_distro"), replace("/protected", false)]))
        .expect(200);
    eventually("a name that is gone is gone there too", 10, || {
        meta("name").is_none() && meta("protected").as_deref() == Some("false")
    });
    assert_eq!(gateway.sql("SELECT count(*) FROM jobs"), "0", "nothing is left to do");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn a_patch_of_an_image_that_is_gone_finds_nothing() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("gone");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert_eq!(patch(&demo, &id, &json!([replace("/name", "x")])).status, 404);
    assert_eq!(patch(&demo, &id, &json!([])).status, 404);
}
