//! Version discovery, and which paths and methods there are.

use serde_json::{Value, json};
use ureq::SendBody;

use crate::harness::{Answer, Gateway, Options, Token, Wire};

/// What is advertised: all but what the cache API brought.
const MINORS: [u32; 16] = [17, 15, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
const VENDOR: &str = "application/vnd.openstack.images-v2";

fn check_document(answer: &Answer, base: &str) {
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.header("x-openstack-request-id").starts_with("req-"));
    let document = answer.json();
    let versions = document["versions"].as_array().unwrap();
    let ids: Vec<&str> = versions.iter().map(|version| version["id"].as_str().unwrap()).collect();
    let expected: Vec<String> = MINORS.map(|minor| format!("v2.{minor}")).to_vec();
    assert_eq!(ids, expected);
    for (n, version) in versions.iter().enumerate() {
        assert_eq!(version["status"], if n == 0 { "CURRENT" } else { "SUPPORTED" });
        assert_eq!(version["links"], json!([{"rel": "self", "href": format!("{base}/v2/")}]));
    }
}

#[test]
fn the_version_documents_are_served_to_everybody() {
    let gateway = Gateway::start(Options::default());
    let anonymous = gateway.anonymous();
    for path in ["/versions", "/versions/", "/versions?x=1"] {
        check_document(&anonymous.get(path).expect(200), &gateway.url);
        check_document(&anonymous.send("POST", path, &[], SendBody::none()).expect(200), &gateway.url);
    }
    for path in [
        "/",
        "/foo",
        "/v1",
        "/v1/images",
        "/v3",
        "/v3/images",
        "/v2.14/images",
        "/v2.16/images",
        "/v2.18/images",
        "/v2.19/images",
        "/v2.99/",
        "/v2.00/images",
        "/V2/images",
        "/images",
        "/healthcheck/x",
        "/versions/v2",
    ] {
        check_document(&anonymous.get(path).expect(300), &gateway.url);
    }
    // Also with the token of somebody, and with any method.
    check_document(&gateway.client(Token::Demo).get("/nothing").expect(300), &gateway.url);
    check_document(&anonymous.send("DELETE", "/nothing", &[], SendBody::none()).expect(300), &gateway.url);
}

#[test]
fn links_carry_the_host_of_the_request_and_no_forged_one() {
    let gateway = Gateway::start(Options::default());
    let ask = |headers: &str| {
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!("GET /versions HTTP/1.1\r\n{headers}connection: close\r\n\r\n"));
        wire.answer()
    };
    check_document(&ask("host: image.example.org:9292\r\n"), "http://image.example.org:9292");
    let forwarded = "host: a.example\r\nx-forwarded-host: evil.example\r\nx-forwarded-proto: https\r\nforwarded: host=evil.example\r\n";
    check_document(&ask(forwarded), "http://a.example");
    for odd in ["host: a b\r\n", "host: \"><script>\r\n", "host: a/../b\r\n"] {
        let answer = ask(odd);
        assert!(!answer.text().contains("script") && !answer.text().contains(".."), "{}", answer.text());
    }
    assert_eq!(ask("host: a.example\r\nhost: b.example\r\n").status, 400);
}

#[test]
fn a_public_endpoint_is_the_base_of_every_absolute_link() {
    let gateway = Gateway::start(Options::default().set("server", "public_endpoint", "https://image.example.org/"));
    check_document(&gateway.anonymous().get("/versions"), "https://image.example.org");
    let created = gateway.client(Token::Demo).post("/v2/images", &json!({"name": "a"})).expect(201);
    let image = created.json();
    assert_eq!(
        created.header("location"),
        format!("https://image.example.org/v2/images/{}", image["id"].as_str().unwrap())
    );
    assert_eq!(image["self"], format!("/v2/images/{}", image["id"].as_str().unwrap()));
}

#[test]
fn every_minor_version_selects_the_same_api() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("versioned");
    for minor in MINORS {
        assert_eq!(demo.get(&format!("/v2.{minor}/images/{id}")).expect(200).json()["id"], json!(id));
        assert_eq!(gateway.anonymous().get(&format!("/v2.{minor}/images")).status, 401);
        let accept = format!("{VENDOR}.{minor}");
        let answer = demo.get_with(&format!("/images/{id}?x=1"), &[("accept", &accept)]).expect(200);
        assert_eq!(answer.json()["id"], json!(id));
        assert_eq!(gateway.anonymous().get_with("/images", &[("accept", &accept)]).status, 401);
    }
    for unknown in [
        "application/vnd.openstack.images-v2.18",
        "application/vnd.openstack.images-v2.19",
        "application/vnd.openstack.images-v1",
        "application/vnd.openstack.images-v2",
        "application/vnd.openstack.images-",
    ] {
        check_document(&demo.get_with("/images", &[("accept", unknown)]).expect(300), &gateway.url);
    }
    // What a client makes of an endpoint that ends in a slash.
    for path in ["//v2/images", "/v2//images", "//v2.7///images"] {
        assert_eq!(demo.get(&format!("{path}/{id}?x=1")).expect(200).json()["id"], json!(id));
        assert_eq!(gateway.anonymous().get(&format!("{path}/{id}")).status, 401);
    }
    // The query survives the rewriting.
    let listed: Value = demo.get("/v2.7/images?limit=1&name=versioned").expect(200).json();
    assert_eq!(listed["images"].as_array().unwrap().len(), 1);
    assert_eq!(listed["first"], "/v2/images?limit=1&name=versioned");
}

#[test]
fn the_bare_version_leads_to_the_one_with_a_slash() {
    let gateway = Gateway::start(Options::default());
    assert_eq!(gateway.anonymous().get("/v2").status, 401);
    assert_eq!(gateway.anonymous().get("/v2/").status, 401);
    let demo = gateway.client(Token::Demo);
    let answer = demo.get("/v2").expect(302);
    assert!(answer.header("location").ends_with("/v2/"), "{}", answer.header("location"));
    demo.get("/v2/").expect(404);
}

#[test]
fn unknown_paths_of_the_api_are_not_found() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("paths");
    for path in [
        "/v2/nothing".to_owned(),
        "/v2/images/".to_owned(),
        "/v2/images/x/y/z".to_owned(),
        format!("/v2/images/{id}/"),
        format!("/v2/images/{id}/file/"),
        format!("/v2/images/{id}/nothing"),
        format!("/v2/images//{id}"),
        format!("/v2/Images/{id}"),
        format!("/v2/images/{id}%2Ffile"),
        format!("/v2/images%2F{id}"),
        "/v2/schemas/nothing".to_owned(),
    ] {
        let answer = demo.get(&path);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(answer.header("x-openstack-request-id").starts_with("req-"), "{path}");
        assert_eq!(gateway.anonymous().get(&path).status, 401, "{path}");
    }
}

#[test]
fn a_wrong_method_is_refused_with_the_right_ones() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("methods");
    let (image, file) = (format!("/v2/images/{id}"), format!("/v2/images/{id}/file"));
    let known: [(&str, &[&str]); 5] = [
        ("/v2/images", &["GET", "POST"]),
        (&image, &["GET", "PATCH", "DELETE"]),
        (&file, &["GET", "PUT"]),
        ("/v2/schemas/image", &["GET"]),
        ("/v2/schemas/images", &["GET"]),
    ];
    for (path, allowed) in known {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"] {
            if allowed.contains(&method) {
                continue;
            }
            let mut wire = Wire::connect(&gateway.address);
            wire.send(format!("{method} {path} HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\n\r\n", Token::Demo.text()));
            let answer = if method == "HEAD" { wire.head() } else { wire.answer() };
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(answer.header("x-openstack-request-id").starts_with("req-"), "{method} {path}");
            assert_eq!(answer.header("allow"), allowed.join(", "), "Allow of {method} {path}");
        }
    }
    assert_eq!(demo.show(&id)["status"], "queued");
}

#[test]
fn a_method_that_nobody_knows_is_not_implemented_where_nothing_is() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for path in ["/v2/nothing", "/v2/images/x/nothing", "/v2/"] {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(demo.send(method, path, &[], SendBody::none()).status, 404, "{method} {path}");
        }
        for method in ["TRACE", "PROPFIND", "BREW"] {
            let ask = |headers: &str| {
                let mut wire = Wire::connect(&gateway.address);
                wire.send(format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n"));
                wire.answer()
            };
            let answer = ask(&format!("x-auth-token: {}\r\n", Token::Demo.text())).expect(501);
            assert!(answer.text().contains(method) && answer.header("allow").is_empty(), "{}", answer.text());
            assert_eq!(ask("").status, 401, "{method} {path}");
        }
    }
}

#[test]
fn options_is_answered_to_everybody() {
    let gateway = Gateway::start(Options::default());
    let (demo, anonymous) = (gateway.client(Token::Demo), gateway.anonymous());
    for path in ["/v2/images", "/v2/images/x/file", "/v2/nothing", "/", "/healthcheck", "/nothing"] {
        for client in [&demo, &anonymous] {
            let answer = client.send("OPTIONS", path, &[], SendBody::none()).expect(200);
            assert!(answer.body.is_empty(), "{path}: {}", answer.text());
            assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{path}");
        }
    }
    assert_eq!(demo.send("OPTIONS", "/v2/images", &[], SendBody::none()).header("allow"), "GET, POST");
}
