//! `POST /v2/images`: every attribute, and every refusal.

use serde_json::{Map, Value, json};
use ureq::SendBody;

use crate::harness::{Answer, Client, Gateway, Options, Token};

/// Outside of the Basic Multilingual Plane: four bytes of UTF-8.
const PENGUIN: &str = "\u{1F427}";

fn images(gateway: &Gateway) -> String {
    gateway.sql("SELECT count(*) FROM images")
}

fn post(client: &Client, body: &[u8]) -> Answer {
    let length = body.len().to_string();
    let headers = [("content-type", "application/json"), ("content-length", length.as_str()), ("connection", "close")];
    client.send("POST", "/v2/images", &headers, SendBody::from_reader(&mut &*body))
}

/// Fails unless the body is refused with this status and a sentence with `word` in it. That nothing has been
/// stored is for [`images`] to say at the end.
#[track_caller]
fn refused(client: &Client, body: &Value, status: u16, word: &str) {
    let shown: String = body.to_string().chars().take(200).collect();
    let answer = client.post("/v2/images", body);
    assert_eq!(answer.status, status, "{shown}: {}", answer.text());
    assert!(answer.text().contains(word), "{shown}: no {word:?} in {}", answer.text());
    assert!(answer.header("x-openstack-request-id").starts_with("req-"), "{shown}");
}

#[test]
fn every_attribute_is_stored_and_shown() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let body = json!({
        "id": "0b54a1c4-8bb7-4f7b-9a3f-35a1d5b7a111", "name": "Grüße ÿ 漢字", "visibility": "private", "owner": "p-demo",
        "protected": true, "os_hidden": true, "container_format": "bare", "disk_format": "qcow2", "min_disk": 2_147_483_647,
        "min_ram": 512, "tags": ["b", "a", "b", ""], "os_distro": "debian", "empty": "", "text": "two\nlines\tand \u{FFFD}",
        "kernel_id": null, "ramdisk_id": "0B54A1C4-8BB7-4F7B-9A3F-35A1D5B7A111", "Ünïcode Key": "v", "x".repeat(255): "y".repeat(65_535),
    });
    let answer = demo.post("/v2/images", &body).expect(201);
    let id = "0b54a1c4-8bb7-4f7b-9a3f-35a1d5b7a111";
    assert_eq!(answer.header("location"), format!("{}/v2/images/{id}", gateway.url));
    assert_eq!(answer.header("openstack-image-store-ids"), "ceph");
    assert_eq!(answer.header("content-type"), "application/json");
    let mut image = answer.json();
    assert_eq!(demo.show(id), image);
    let mut expected = body;
    expected["tags"] = json!(["", "a", "b"]);
    let more = json!({
        "status": "queued", "size": null, "virtual_size": null, "checksum": null, "os_hash_algo": null, "os_hash_value": null,
        "self": format!("/v2/images/{id}"), "file": format!("/v2/images/{id}/file"), "schema": "/v2/schemas/image",
    });
    expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let times = image.as_object_mut().unwrap();
    let created = times.remove("created_at").unwrap();
    assert_eq!(times.remove("updated_at").unwrap(), created);
    let created = created.as_str().unwrap();
    assert!(created.len() == 20 && created.ends_with('Z') && &created[10..11] == "T", "{created}");
    image["tags"].as_array_mut().unwrap().sort_by_key(ToString::to_string);
    assert_eq!(image, expected);
    let row = gateway.sql("SELECT name, visibility, owner, protected, hidden, container_format, disk_format, min_disk_gib, min_ram_mib, status, size_bytes FROM images");
    assert_eq!(row, "Grüße ÿ 漢字|private|p-demo|t|t|bare|qcow2|2147483647|512|queued|");
    assert_eq!(gateway.sql("SELECT count(*), max(length(value)) FROM image_properties"), "7|65535");
    assert_eq!(gateway.sql("SELECT string_agg(value, ',' ORDER BY value) FROM image_tags"), ",a,b");
}

#[test]
fn what_is_not_said_has_its_default() {
    let gateway = Gateway::start(Options::default());
    for token in [Token::Demo, Token::Admin] {
        let image = gateway.client(token).post("/v2/images", &json!({})).expect(201).json();
        let project = if token == Token::Admin { "p-admin" } else { "p-demo" };
        for (key, value) in [
            ("name", json!(null)),
            ("visibility", json!("shared")),
            ("owner", json!(project)),
            ("protected", json!(false)),
            ("os_hidden", json!(false)),
            ("container_format", json!(null)),
            ("disk_format", json!(null)),
            ("min_disk", json!(0)),
            ("min_ram", json!(0)),
            ("tags", json!([])),
            ("status", json!("queued")),
        ] {
            assert_eq!(image[key], value, "{key}");
        }
        for absent in ["direct_url", "locations", "stores"] {
            assert!(image.get(absent).is_none(), "{absent}");
        }
        let id = image["id"].as_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 4);
    }
}

#[test]
fn every_format_of_the_reference_is_accepted_and_no_other() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for format in ["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"] {
        assert_eq!(demo.post("/v2/images", &json!({"disk_format": format})).expect(201).json()["disk_format"], format);
    }
    for format in ["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"] {
        assert_eq!(
            demo.post("/v2/images", &json!({"container_format": format})).expect(201).json()["container_format"],
            format
        );
    }
    demo.post("/v2/images", &json!({"disk_format": null, "container_format": null})).expect(201);
    for bad in [json!("RAW"), json!("bare"), json!(""), json!("raw "), json!(1), json!(["raw"])] {
        refused(&demo, &json!({"disk_format": bad}), 400, "disk_format");
    }
    for bad in [json!("raw"), json!("Bare"), json!(false)] {
        refused(&demo, &json!({"container_format": bad}), 400, "container_format");
    }
    assert_eq!(images(&gateway), "20", "a refused image is stored");
}

#[test]
fn a_value_of_the_wrong_type_or_size_is_refused_by_name() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let long = "n".repeat(256);
    // 255 characters, not bytes, are the limit.
    demo.post("/v2/images", &json!({"name": "ü".repeat(255), "tags": ["ü".repeat(255)], "ü".repeat(255): "v"}))
        .expect(201);
    gateway.client(Token::Admin).post("/v2/images", &json!({"owner": "o".repeat(255)})).expect(201);
    for (key, values) in [
        ("name", vec![json!(1), json!(true), json!(["a"]), json!({}), json!(long), json!("ü".repeat(256))]),
        ("owner", vec![json!(1), json!(long), json!(["p-demo"])]),
        ("visibility", vec![json!("secret"), json!("Public"), json!(null), json!(1), json!("")]),
        ("protected", vec![json!("true"), json!(0), json!(null)]),
        ("os_hidden", vec![json!("false"), json!(1), json!(null)]),
        (
            "min_disk",
            vec![
                json!(-1),
                json!(2_147_483_648_u64),
                json!(u64::MAX),
                json!(1.5),
                json!(1e10),
                json!("1"),
                json!(null),
            ],
        ),
        ("min_ram", vec![json!(-1), json!(i64::MIN), json!(2_147_483_648_u64), json!(0.5), json!("512"), json!([])]),
        ("tags", vec![json!("a"), json!({"a": "b"}), json!([1]), json!([null]), json!(null), json!(["ok", long])]),
        ("os_distro", vec![json!(null), json!(1), json!(true), json!({}), json!([]), json!("v".repeat(65_536))]),
        ("kernel_id", vec![json!("abc"), json!(1), json!("")]),
    ] {
        for value in values {
            refused(&demo, &json!({"name": "n", key: value}), 400, key);
        }
    }
    refused(&demo, &json!({long: "v"}), 400, "255");
    assert_eq!(images(&gateway), "2", "a refused image is stored");
}

#[test]
fn read_only_and_reserved_names_are_forbidden() {
    let gateway = Gateway::start(Options::default());
    for token in [Token::Demo, Token::Admin] {
        let client = gateway.client(token);
        for (key, value) in [
            ("status", json!("active")),
            ("size", json!(1)),
            ("virtual_size", json!(1)),
            ("checksum", json!("x")),
            ("created_at", json!("2020-01-01T00:00:00Z")),
            ("updated_at", json!("2020-01-01T00:00:00Z")),
            ("direct_url", json!("rbd://a/b/c/d")),
            ("self", json!("/")),
            ("file", json!("/")),
            ("schema", json!("/")),
            ("stores", json!("ceph")),
            ("os_hash_algo", json!("md5")),
            ("os_hash_value", json!("0")),
            ("locations", json!([])),
            ("locations", json!([{"url": "rbd://a/b/c/d", "metadata": {}}])),
            ("location", json!("x")),
            ("deleted", json!("x")),
            ("deleted_at", json!("x")),
            ("os_glance", json!("x")),
            ("os_glance_import_task", json!("x")),
            ("os_glanceful", json!("x")),
        ] {
            refused(&client, &json!({"name": "n", key: value}), 403, key);
        }
    }
    assert_eq!(images(&gateway), "0", "a refused image is stored");
}

#[test]
fn an_id_names_one_image_for_ever() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id = uuid::Uuid::new_v4().to_string();
    let upper = id.to_uppercase();
    let image = demo.post("/v2/images", &json!({"id": upper, "name": "upper"})).expect(201).json();
    assert_eq!(image["id"], json!(id), "an id is kept in lower case: it names the RBD image");
    assert_eq!(demo.get(&format!("/v2/images/{upper}")).expect(200).json()["id"], json!(id));
    for client in [&demo, &admin, &gateway.client(Token::Alt)] {
        for spelling in [&id, &upper] {
            refused(client, &json!({"id": spelling}), 409, "exists");
        }
    }
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    for client in [&demo, &admin] {
        refused(client, &json!({"id": id}), 409, "exists");
    }
    // The same after an image with data, and for another gateway.
    let id = demo.active("gone", b"bytes");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    let sibling = gateway.sibling();
    refused(&sibling.client(Token::Admin), &json!({"id": id}), 409, "exists");
    // A refused creation takes no id.
    let id = uuid::Uuid::new_v4().to_string();
    refused(&demo, &json!({"id": id, "visibility": "public"}), 403, "publicize_image");
    refused(&demo, &json!({"id": id, "min_ram": -1}), 400, "min_ram");
    demo.post("/v2/images", &json!({"id": id})).expect(201);
    assert_eq!(images(&gateway), "1", "a refused image is stored");
}

#[test]
fn a_malformed_id_is_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for bad in [
        json!(""),
        json!("abc"),
        json!(null),
        json!(7),
        json!("6d0b3d2e07d44a4f9d0e3f4f0f6f1a2b"),
        json!("{6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b}"),
        json!("urn:uuid:6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b"),
        json!("6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2g"),
        json!("6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b\n"),
        json!(" 6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b"),
        json!("../../../../../../../../../etc/passwd"),
        json!("6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2\u{662}"),
    ] {
        refused(&demo, &json!({"id": bad}), 400, "id");
    }
    assert_eq!(images(&gateway), "0", "a refused image is stored");
}

#[test]
fn owner_and_visibility_follow_the_policy() {
    let gateway = Gateway::start(Options::default());
    let [admin, demo, alt, reader, ..] = Token::ALL.map(|token| gateway.client(token));
    for owner in [json!("p-alt"), json!(null), json!(""), json!("P-DEMO")] {
        refused(&demo, &json!({"owner": owner}), 403, "owned by");
    }
    refused(&demo, &json!({"visibility": "public"}), 403, "publicize_image");
    for visibility in ["private", "shared", "community"] {
        demo.post("/v2/images", &json!({"visibility": visibility})).expect(201);
        refused(&reader, &json!({"visibility": visibility}), 403, "add_image");
    }
    let foreign = admin.post("/v2/images", &json!({"owner": "p-alt", "visibility": "private"})).expect(201).json();
    assert_eq!(foreign["owner"], "p-alt");
    assert_eq!(alt.show(foreign["id"].as_str().unwrap())["owner"], "p-alt");
    assert_eq!(
        admin.post("/v2/images", &json!({"visibility": "public", "owner": null})).expect(201).json()["owner"],
        json!(null)
    );
    assert_eq!(images(&gateway), "5", "a refused image is stored");
}

#[test]
fn quotas_bound_properties_and_tags() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let properties =
        |count: usize| Value::Object((0..count).map(|n| (format!("key_{n}"), json!("v"))).collect::<Map<_, _>>());
    let tags = |count: usize| json!({"tags": (0..count).map(|n| format!("tag-{n}")).collect::<Vec<_>>()});
    demo.post("/v2/images", &properties(128)).expect(201);
    demo.post("/v2/images", &tags(128)).expect(201);
    refused(&demo, &properties(129), 413, "Maximum: 128");
    refused(&demo, &properties(10_000), 413, "Attempted: 10000");
    refused(&demo, &tags(129), 413, "Maximum: 128");
    // The same tag twice is one tag.
    demo.post("/v2/images", &json!({"tags": vec!["same"; 500]})).expect(201);
    assert_eq!(images(&gateway), "3", "a refused image is stored");
    drop(gateway);
    let gateway = Gateway::start(Options::default().set("images", "image_property_quota", 0).set(
        "images",
        "image_tag_quota",
        -1,
    ));
    let demo = gateway.client(Token::Demo);
    refused(&demo, &properties(1), 413, "Maximum: 0");
    demo.post("/v2/images", &tags(1000)).expect(201);
}

#[test]
fn control_and_four_byte_characters_are_refused_everywhere() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    for bad in ["a\0b", "\u{1b}[31m", "a\u{7f}", "a\u{85}b", "line\nbreak", "tab\t", PENGUIN] {
        refused(&demo, &json!({"name": bad}), 400, "name");
        refused(&admin, &json!({"owner": bad}), 400, "owner");
        refused(&demo, &json!({"tags": [bad]}), 400, "tags");
        refused(&demo, &json!({bad: "v"}), 400, "property name");
    }
    for bad in ["a\0b", "\u{1b}[31m", PENGUIN] {
        refused(&demo, &json!({"os_distro": bad}), 400, "os_distro");
    }
    // Also written as escapes, half a pair included, and as bytes that are no UTF-8.
    for body in [
        &br#"{"name": "\u0000"}"#[..],
        br#"{"name": "\ud83d\udc27"}"#,
        br#"{"name": "\ud83d"}"#,
        br#"{"name": "\udc27\ud83d"}"#,
        b"{\"name\": \"\xff\xfe\"}",
        b"{\"name\": \"\xc0\x80\"}",
        b"{\"name\": \"raw \x01 control\"}",
        b"\xef\xbb\xbf{\"name\": \"byte order mark\"}",
    ] {
        assert_eq!(post(&demo, body).status, 400, "{}", String::from_utf8_lossy(body));
    }
    assert_eq!(images(&gateway), "0", "a refused image is stored");
}

#[test]
fn a_body_that_is_no_object_is_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let nested =
        |open: &str, close: &str| format!("{{\"a\": {}1{}}}", open.repeat(100_000), close.repeat(100_000)).into_bytes();
    for body in [
        &b""[..],
        b" ",
        b"null",
        b"[]",
        b"[{}]",
        b"\"name\"",
        b"1",
        b"true",
        b"{",
        b"{\"name\": }",
        b"{\"name\": \"a\",}",
        b"{'name': 'a'}",
        b"{name: 1}",
        b"{} {}",
        b"{\"a\": NaN}",
        b"{\"min_ram\": 01}",
        b"name=a",
        b"<image/>",
        &nested("[", "]"),
        &nested("{\"a\":", "}"),
    ] {
        let answer = post(&demo, body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert!(answer.text().contains("JSON") || answer.text().contains("body"), "{shown}: {}", answer.text());
    }
    // No body at all, and a chunked one that is empty.
    assert_eq!(demo.send("POST", "/v2/images", &[("content-type", "application/json")], SendBody::none()).status, 400);
    assert_eq!(demo.send("POST", "/v2/images", &[], SendBody::from_reader(&mut std::io::empty())).status, 400);
    let huge = format!("{{\"name\": \"{}\"}}", "n".repeat(5 * 1024 * 1024));
    let answer = post(&demo, huge.as_bytes());
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(
        gateway.client(Token::Demo).send("POST", "/v2/images", &[], SendBody::from_reader(&mut huge.as_bytes())).status,
        413
    );
    assert_eq!(images(&gateway), "0");
    assert_eq!(gateway.sql("SELECT count(*) FROM image_ids"), "0");
}
