//! Web pages that call the API from a browser: what a browser asks first, and what it lets the page see.

use serde_json::json;
use ureq::SendBody;

use crate::harness::{Answer, Client, Gateway, Options, Token, Wire, assert_active};

const DASHBOARD: &str = "https://dashboard.example.org";

fn dashboard() -> Gateway {
    Gateway::start(Options::default().set("cors", "allowed_origin", vec![DASHBOARD, "http://localhost:8080"]))
}

/// What a browser asks before the page's own request: without a token.
fn preflight(gateway: &Gateway, origin: &str, path: &str, method: &str, headers: &str) -> Answer {
    let asked =
        [("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", headers)];
    gateway.anonymous().send("OPTIONS", path, &asked, SendBody::none())
}

/// Whether a browser would send the page's request after that answer.
fn permits(answer: &Answer, origin: &str, method: &str, headers: &[&str]) -> bool {
    let list = |name: &str| answer.header(name).split(',').map(|item| item.trim().to_lowercase()).collect::<Vec<_>>();
    (200..300).contains(&answer.status)
        && answer.header("access-control-allow-origin") == origin
        && list("access-control-allow-methods").contains(&method.to_lowercase())
        && headers.iter().all(|name| list("access-control-allow-headers").contains(&name.to_lowercase()))
}

/// Whether a browser would show the page that answer.
fn shows(answer: &Answer, origin: &str) -> bool {
    answer.header("access-control-allow-origin") == origin
        && answer.header("vary").to_lowercase().contains("origin")
        && answer.headers.get_all("access-control-allow-origin").iter().count() == 1
}

#[test]
fn a_page_uploads_an_image() {
    let gateway = dashboard();
    let demo = gateway.client(Token::Demo);
    // Horizon makes the record itself; the page sends the data.
    let id = demo.create("from the browser");
    let path = format!("/v2/images/{id}/file");
    let wanted = ["content-type", "x-auth-token", "x-openstack-image-size", "x-image-meta-store"];
    let asked = preflight(&gateway, DASHBOARD, &path, "PUT", &wanted.join(","));
    assert!(permits(&asked, DASHBOARD, "PUT", &wanted), "{:?}", asked.headers);
    assert_eq!(asked.header("access-control-max-age"), "3600");
    assert_eq!(asked.header("access-control-allow-credentials"), "true");
    assert!(asked.body.is_empty());
    let headers = [("origin", DASHBOARD), ("content-length", "10"), ("x-openstack-image-size", "10")];
    let answer = demo.upload_with(&id, &headers, &b"0123456789"[..]).expect(204);
    assert!(shows(&answer, DASHBOARD), "{:?}", answer.headers);
    assert_active(&demo, &id, b"0123456789");
    // Every other call is asked for in the same way.
    for (method, path) in
        [("POST", "/v2/images"), ("PATCH", &format!("/v2/images/{id}")), ("DELETE", &format!("/v2/images/{id}"))]
    {
        assert!(permits(
            &preflight(&gateway, DASHBOARD, path, method, "x-auth-token"),
            DASHBOARD,
            method,
            &["x-auth-token"]
        ));
    }
    let other = "http://localhost:8080";
    assert!(permits(&preflight(&gateway, other, &path, "PUT", "x-auth-token"), other, "PUT", &["x-auth-token"]));
}

#[test]
fn a_page_can_read_refusals_too() {
    let gateway = dashboard();
    let demo = gateway.client(Token::Demo);
    let from = |client: &Client, method: &str, path: &str| {
        client.send(method, path, &[("origin", DASHBOARD), ("content-length", "0")], SendBody::none())
    };
    for (answer, status) in [
        (from(&gateway.anonymous(), "GET", "/v2/images"), 401),
        (from(&demo, "GET", "/v2/images?limit=x"), 400),
        (from(&demo, "GET", "/v2/cache"), 403),
        (from(&demo, "GET", "/v2/nothing"), 404),
        (from(&demo, "PUT", "/v2/images"), 405),
        (from(&demo, "PATCH", "/v2/images/x"), 415),
        (from(&demo, "GET", "/"), 300),
        (from(&demo, "GET", "/versions"), 200),
        (from(&demo, "GET", "/v2/images"), 200),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(shows(&answer, DASHBOARD), "{status}: {:?}", answer.headers);
        let exposed = answer.header("access-control-expose-headers").to_lowercase();
        for name in ["x-openstack-request-id", "location", "content-md5", "openstack-image-store-ids", "x-auth-token"] {
            assert!(exposed.contains(name), "{name}: {exposed}");
        }
    }
    let created = demo
        .send("POST", "/v2/images", &[("origin", DASHBOARD)], SendBody::from_json(&json!({"name": "n"})).unwrap())
        .expect(201);
    assert!(shows(&created, DASHBOARD) && !created.header("location").is_empty());
}

#[test]
fn other_pages_see_nothing() {
    let gateway = dashboard();
    let demo = gateway.client(Token::Demo);
    for origin in [
        "https://evil.example",
        "http://dashboard.example.org",
        "https://dashboard.example.org:8443",
        "https://dashboard.example.org.evil.example",
        "https://DASHBOARD.example.org",
        "null",
        "*",
    ] {
        let asked = preflight(&gateway, origin, "/v2/images", "GET", "x-auth-token");
        assert_eq!(asked.header("access-control-allow-origin"), "", "{origin}");
        let answer = demo.get_with("/v2/images", &[("origin", origin)]).expect(200);
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
    }
    // Without an origin it is no page that asks.
    assert_eq!(demo.get("/v2/images").expect(200).header("access-control-allow-origin"), "");
    // A token is needed as ever: the preflight alone opens nothing.
    assert_eq!(gateway.anonymous().get_with("/v2/images", &[("origin", DASHBOARD)]).status, 401);
}

#[test]
fn pages_are_not_known_by_default() {
    let gateway = Gateway::start(Options::default());
    let asked = preflight(&gateway, DASHBOARD, "/v2/images", "GET", "x-auth-token");
    let answer = gateway.client(Token::Demo).get_with("/v2/images", &[("origin", DASHBOARD)]).expect(200);
    for answer in [asked, answer] {
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control")), "{:?}", answer.headers);
    }
}

#[test]
fn every_page_may_be_let_in_without_credentials() {
    let options = Options::default().set("cors", "allowed_origin", vec!["*"]).set("cors", "allow_credentials", false);
    let gateway = Gateway::start(options);
    let answer = gateway.client(Token::Demo).get_with("/v2/images", &[("origin", "https://any.example")]).expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let mut wire = Wire::connect(&gateway.address);
    wire.send("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire.answer().status, 200);
}
