//! Data on servers of http, which users register as locations.

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Options, Token, Web, eventually, hash, random_bytes, status_of};

fn options(web: &Web) -> Options {
    Options::default().sections(&format!(
        "[stores.web]\ntype = \"http\"\n[fetch]\nallowed_hosts = [\"127.0.0.1\"]\nallowed_ports = [{}]\n",
        web.port
    ))
}

fn path(id: &str) -> String {
    format!("/v2/images/{id}/locations")
}

fn register(client: &Client, id: &str, body: &Value) -> crate::harness::Answer {
    client.post(&path(id), body)
}

#[test]
fn a_user_registers_data_on_a_web_server_and_it_stays_there() {
    let Some(web) = Web::start() else { return };
    let gateway = Gateway::start(options(&web));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(31, 9_000_001);
    let url = web.put("disk.raw", &bytes);
    let stores = demo.get("/v2/info/stores").expect(200).json();
    assert_eq!(stores["stores"][1], json!({"id": "web", "read-only": "true"}));
    let id = demo.create("web");
    register(&demo, &id, &json!({"url": url})).expect(202);
    eventually("it is hashed", 20, || demo.show(&id)["os_hash_value"] == hash(&bytes));
    let image = demo.show(&id);
    assert_eq!(
        (&image["status"], &image["stores"], &image["size"]),
        (&json!("active"), &json!("web"), &json!(bytes.len()))
    );
    let file = format!("/v2/images/{id}/file");
    assert!(demo.get(&file).expect(200).body == bytes);
    assert!(
        demo.get_with(&file, &[("range", "bytes=4194303-4194305")]).expect(206).body == bytes[4_194_303..4_194_306]
    );
    // With a hash that is right, and one that is not.
    let (right, wrong) = (demo.create("right"), demo.create("wrong"));
    for (id, value) in [(&right, hash(&bytes)), (&wrong, "0".repeat(128))] {
        let validation = json!({"os_hash_algo": "sha512", "os_hash_value": value});
        register(&demo, id, &json!({"url": url, "validation_data": validation})).expect(202);
    }
    eventually("the right one is active", 20, || status_of(&demo, &right) == "active");
    eventually("the wrong one is queued", 20, || status_of(&demo, &wrong) == "queued");
    // What is on the server changes: no byte of it is taken for the image's.
    web.put("disk.raw", &random_bytes(32, bytes.len() + 1));
    demo.get(&file).expect(500);
    std::fs::remove_file(web.folder.join("disk.raw")).unwrap();
    demo.get(&file).expect(410);
    web.put("disk.raw", &bytes);
    for id in [&id, &right, &wrong] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    assert!(web.folder.join("disk.raw").exists());
    // Nothing is stored there.
    let id = demo.create("up");
    demo.upload_with(&id, &[("x-image-meta-store", "web")], &b"x"[..]).expect(410);
}

#[test]
fn what_the_rules_do_not_allow_is_no_location() {
    let Some(web) = Web::start() else { return };
    let gateway = Gateway::start(options(&web).set("images", "show_multiple_locations", true));
    let demo = gateway.client(Token::Demo);
    let good = web.put("good", b"bytes");
    web.put("empty", b"");
    let id = demo.create("web");
    let port = web.port;
    for (url, word) in [
        (format!("http://127.0.0.1:{port}/missing"), "404"),
        (format!("http://127.0.0.1:{port}/empty"), "The server"),
        (format!("http://127.0.0.1:{port}/whole/good"), "ranges"),
        ("http://127.0.0.1:1/x".to_owned(), "port"),
        (format!("http://localhost:{port}/good"), "localhost"),
        (format!("http://2130706433:{port}/good"), "encoded"),
        (format!("http://[::1]:{port}/good"), "::1"),
        (format!("http://user:hunter2@127.0.0.1:{port}/good"), "Invalid"),
    ] {
        let refused = register(&demo, &id, &json!({ "url": url })).expect(400);
        assert!(refused.text().contains(word) && !refused.text().contains("hunter2"), "{url}: {}", refused.text());
        let patched = demo.patch(
            &format!("/v2/images/{id}"),
            &json!([{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]),
        );
        assert_eq!(patched.status, 400, "{url}: {}", patched.text());
    }
    // Whatever else is a service's to say.
    for url in ["file:///etc/passwd", "rbd://a/b/c/snap", "s3://web/x"] {
        register(&demo, &id, &json!({ "url": url })).expect(403);
    }
    assert_eq!(status_of(&demo, &id), "queued");
    demo.patch(
        &format!("/v2/images/{id}"),
        &json!([{"op": "add", "path": "/locations/-", "value": {"url": good, "metadata": {"a": 1}}}]),
    )
    .expect(200);
    let image = demo.show(&id);
    assert_eq!((&image["status"], &image["locations"][0]["url"]), (&json!("active"), &json!(good)));
    assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == b"bytes");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert!(web.folder.join("good").exists());
}
