//! Proxies in front: what they say of their clients counts only where the operator trusts them.

use serde_json::json;

use crate::harness::{Answer, Gateway, Options, Token, Wire, eventually};

fn behind(networks: &[&str]) -> Gateway {
    Gateway::start(Options::default().set("server", "trusted_proxies", networks.to_vec()))
}

fn ask(gateway: &Gateway, headers: &str) -> Answer {
    let mut wire = Wire::connect(&gateway.address);
    wire.send(format!("GET /versions HTTP/1.1\r\nhost: internal.example:9292\r\n{headers}connection: close\r\n\r\n"));
    wire.answer()
}

fn base(answer: &Answer) -> String {
    let document = answer.json();
    let href = document["versions"][0]["links"][0]["href"].as_str().unwrap();
    href.strip_suffix("/v2/").unwrap().to_owned()
}

#[test]
fn a_trusted_proxy_says_how_its_client_came() {
    let gateway = behind(&["127.0.0.0/8"]);
    for (headers, expected) in [
        ("", "http://internal.example:9292"),
        ("x-forwarded-proto: https\r\n", "https://internal.example:9292"),
        ("x-forwarded-proto: https\r\nx-forwarded-host: image.example.org\r\n", "https://image.example.org"),
        ("forwarded: for=192.0.2.7;proto=https;host=image.example.org\r\n", "https://image.example.org"),
        (
            "forwarded: for=192.0.2.7;proto=https;host=\"image.example.org:8443\"\r\nx-forwarded-proto: http\r\n",
            "https://image.example.org:8443",
        ),
        // What came from beyond the proxy.
        ("forwarded: for=6.6.6.6;host=evil.example, for=192.0.2.7;proto=https\r\n", "https://internal.example:9292"),
        // What makes no link.
        ("x-forwarded-proto: javascript\r\n", "http://internal.example:9292"),
        ("x-forwarded-host: \"><script>\r\n", "http://localhost"),
        ("x-forwarded-host: a/../b\r\n", "http://localhost"),
    ] {
        assert_eq!(base(&ask(&gateway, headers).expect(200)), expected, "{headers}");
    }
    let mut wire = Wire::connect(&gateway.address);
    let body = json!({"name": "proxied"}).to_string();
    wire.send(format!("POST /v2/images HTTP/1.1\r\nhost: x\r\nx-forwarded-proto: https\r\nx-forwarded-host: image.example.org\r\nx-auth-token: {}\r\ncontent-length: {}\r\n\r\n{body}", Token::Demo.text(), body.len()));
    let created = wire.answer().expect(201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), format!("https://image.example.org/v2/images/{id}"));
}

#[test]
fn anybody_else_says_it_in_vain() {
    let forged = "x-forwarded-proto: https\r\nx-forwarded-host: evil.example\r\nx-forwarded-for: 6.6.6.6\r\nforwarded: for=6.6.6.6;proto=https;host=evil.example\r\n";
    for gateway in [Gateway::start(Options::default()), behind(&["10.0.0.0/8", "::1"])] {
        assert_eq!(base(&ask(&gateway, forged).expect(200)), "http://internal.example:9292");
        eventually("the request is logged", 5, || gateway.log().contains("path=/versions"));
        assert!(!gateway.log().contains("6.6.6.6") && gateway.log().contains("client=127.0.0.1"), "{}", gateway.log());
    }
}

#[test]
fn the_log_names_the_client_and_not_the_proxy() {
    let gateway = behind(&["127.0.0.1"]);
    for (headers, client) in [
        ("x-forwarded-for: 6.6.6.6, 192.0.2.1\r\n", "192.0.2.1"),
        ("x-forwarded-for: 192.0.2.2, 127.0.0.1\r\n", "192.0.2.2"),
        ("forwarded: for=\"[2001:db8::3]:4711\"\r\n", "2001:db8::3"),
    ] {
        ask(&gateway, headers).expect(200);
        eventually("the client is logged", 5, || {
            gateway.log().contains(&format!("client={client} method=GET path=/versions"))
        });
    }
    assert!(!gateway.log().contains("6.6.6.6"));
}

#[test]
fn a_public_endpoint_stands_above_every_proxy() {
    let options = Options::default().set("server", "trusted_proxies", vec!["127.0.0.1"]);
    let gateway = Gateway::start(options.set("server", "public_endpoint", "https://image.example.org"));
    let answer = ask(&gateway, "x-forwarded-proto: http\r\nx-forwarded-host: other.example\r\n").expect(200);
    assert_eq!(base(&answer), "https://image.example.org");
}
