//! Imports by URL: a real web server, and one that leads astray.

use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, Gateway, Nginx, Options, Token, assert_active, await_clean, eventually, hash, random_bytes,
    status_of,
};

const MIB: usize = 1 << 20;

/// A gateway that may fetch from loopback, on any port, in small ranges.
fn options() -> Options {
    let methods = ["glance-direct", "web-download"].map(toml::Value::from).to_vec();
    Options::quick()
        .sections("[fetch]\nallowed_hosts = [\"localhost\"]\nallowed_ports = []\nrange_mib = 1\ntries_max = 2\n")
        .set("import", "methods", methods)
}

fn import(client: &Client, id: &str, uri: &str) -> Answer {
    import_with(client, id, json!({"name": "web-download", "uri": uri}))
}

fn import_with(client: &Client, id: &str, method: Value) -> Answer {
    client.post(&format!("/v2/images/{id}/import"), &json!({"method": method}))
}

/// The message of the last task of an image, once it has failed.
#[track_caller]
fn failure(gateway: &Gateway, id: &str) -> String {
    let tasks = || gateway.client(Token::Admin).get(&format!("/v2/images/{id}/tasks")).expect(200).json();
    let last = || {
        let all = tasks()["tasks"].as_array().unwrap().clone();
        all.into_iter().max_by_key(|task| task["updated_at"].as_str().unwrap().to_owned()).unwrap()
    };
    eventually("the import fails", 60, || last()["status"] == "failure");
    last()["message"].as_str().unwrap().to_owned()
}

#[test]
fn an_image_is_fetched_in_ranges() {
    let Some(nginx) = Nginx::start("location = /moved { return 302 disk.raw; }") else { return };
    let bytes = random_bytes(31, 5 * MIB + 123);
    nginx.serve("disk.raw", &bytes);
    let gateway = Gateway::start(options());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("fetched");
    import(&demo, &id, &nginx.url("moved")).expect(202);
    eventually("the image is active", 60, || status_of(&demo, &id) == "active");
    assert_active(&demo, &id, &bytes);
    let asked = nginx.asked();
    assert_eq!(asked.iter().filter(|line| line.starts_with("206 /disk.raw bytes=")).count(), 6, "{asked:?}");
    await_clean(&gateway, &[&id], &[], 20);
    // With the hash that somebody knows, and with another.
    let expect = |value: &str| {
        let validation = json!({"os_hash_algo": "sha512", "os_hash_value": value});
        json!({"name": "web-download", "uri": nginx.url("disk.raw"), "validation_data": validation})
    };
    let checked = demo.create("checked");
    import_with(&demo, &checked, expect(&hash(b"other"))).expect(202);
    let message = failure(&gateway, &checked);
    assert!(message.contains(&hash(&bytes)) && message.contains("not what was expected"), "{message}");
    assert_eq!(status_of(&demo, &checked), "queued");
    await_clean(&gateway, &[&id], &[&checked], 20);
    import_with(&demo, &checked, expect("12")).expect(400);
    import_with(&demo, &checked, expect(&hash(&bytes))).expect(202);
    eventually("the image is active", 60, || status_of(&demo, &checked) == "active");
    // Clients that know no such member say it by a property.
    let property = |value: &str| json!([{"op": "add", "path": "/rockpool_expected_hash", "value": value}]);
    let told = demo.create("told");
    demo.patch(&format!("/v2/images/{told}"), &property("sha512:12")).expect(200);
    let refused = import(&demo, &told, &nginx.url("disk.raw")).expect(400).text();
    assert!(refused.contains("rockpool_expected_hash"), "{refused}");
    demo.patch(&format!("/v2/images/{told}"), &property(&format!("sha512:{}", hash(b"x")))).expect(200);
    import(&demo, &told, &nginx.url("disk.raw")).expect(202);
    assert!(failure(&gateway, &told).contains("not what was expected"));
    await_clean(&gateway, &[&id, &checked], &[&told], 20);
}

#[test]
fn no_url_leads_into_the_house() {
    let methods = vec![toml::Value::from("web-download")];
    let strict = Gateway::start(Options::quick().set("import", "methods", methods));
    let demo = strict.client(Token::Demo);
    let id = demo.create("astray");
    for uri in [
        "http://127.0.0.1/disk.raw?secret",
        "http://localhost/disk.raw?secret",
        "http://169.254.169.254/latest/meta-data/?secret",
        "http://2130706433/?secret",
        "http://0x7f.1/?secret",
        "http://0177.0.0.1/?secret",
        "http://[::1]/?secret",
        "http://[::ffff:127.0.0.1]/?secret",
        "http://[64:ff9b::7f00:1]/?secret",
        "http://0.0.0.0/?secret",
        "http://100.64.0.1/?secret",
        "http://example.org:22/?secret",
        "http://user:secret@example.org/",
        "file:///etc/passwd?secret",
        "ftp://example.org/secret",
        "secret",
        "",
    ] {
        let answer = import(&demo, &id, uri).expect(400).text();
        assert!(!answer.contains("secret"), "{answer}");
    }
    assert_eq!(status_of(&demo, &id), "queued");
    assert_eq!(strict.sql(&format!("SELECT count(*) FROM tasks WHERE image_id = '{id}'")), "0");
    assert!(!strict.log().contains("secret"));
    // Where the first hop may be asked, the next is looked at like the first.
    let lines = "location = /inner { return 302 http://169.254.169.254/latest/; }\nlocation = /loop { return 302 /loop; }\n\
        location = /file { return 302 file:///etc/passwd; }";
    let Some(nginx) = Nginx::start(lines) else { return };
    let gateway = Gateway::start(options());
    let demo = gateway.client(Token::Demo);
    for (path, expected) in
        [("inner", "not allowed"), ("loop", "more than 5 times"), ("file", "not allowed"), ("none", "404")]
    {
        let id = demo.create(path);
        import(&demo, &id, &nginx.url(&format!("{path}?signature=canary"))).expect(202);
        let message = failure(&gateway, &id);
        assert!(message.contains(expected) && !message.contains("canary"), "{message}");
        assert_eq!(status_of(&demo, &id), "queued");
        await_clean(&gateway, &[], &[&id], 20);
    }
    assert!(!gateway.log().contains("canary"));
}
