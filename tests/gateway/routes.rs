//! What holds for every route there is, as `/openapi.json` lists them: wrong methods, paths that are almost
//! right, bodies where none belongs, and bodies that make no sense.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{Answer, Gateway, Options, Token, Wire};

/// Where every other method is 404, as in the reference.
const OTHERS_MISSING: [&str; 2] = ["/v2/images/{id}/tasks", "/v2/info/usage"];
/// Where a 405 names fewer methods than there are, as in the reference.
const NAMED: [(&str, &str); 1] = [("/v2/images/{id}/locations", "POST")];
/// All that may be asked, and two that nobody knows.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"];

struct Route {
    path: String,
    /// Method, and whether it takes a body.
    methods: BTreeMap<String, Option<Value>>,
}

/// Every route of the Image API.
fn routes(gateway: &Gateway) -> Vec<Route> {
    let description = gateway.anonymous().get("/openapi.json").expect(200).json();
    let paths = description["paths"].as_object().unwrap();
    let routes = paths.iter().filter(|(path, _)| path.starts_with("/v2"));
    let routes: Vec<Route> = routes
        .map(|(path, item)| {
            let methods = item.as_object().unwrap().iter();
            let methods =
                methods.map(|(method, operation)| (method.to_uppercase(), operation.get("requestBody").cloned()));
            Route { path: path.clone(), methods: methods.collect() }
        })
        .collect();
    assert!(routes.len() > 20, "{}", routes.len());
    routes
}

/// The path with a value for each parameter.
fn filled(path: &str, value: &str) -> String {
    let segments = path.split('/').map(|segment| if segment.starts_with('{') { value } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

const UNKNOWN: &str = "5bb0c1f7-0000-4000-8000-0123456789ab";

fn ask(gateway: &Gateway, method: &str, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
    let mut wire = Wire::connect(&gateway.address);
    let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n");
    wire.send([head.as_bytes(), body.as_ref()].concat());
    if method == "HEAD" { wire.head() } else { wire.answer() }
}

fn token() -> String {
    format!("x-auth-token: {}\r\n", Token::Admin.text())
}

#[test]
fn every_wrong_method_is_told_the_right_ones() {
    let gateway = Gateway::start(Options::default());
    for Route { path, methods } in routes(&gateway) {
        let order = |method: &&str| ["GET", "POST", "PUT", "PATCH", "DELETE"].iter().position(|known| known == method);
        let mut served: Vec<&str> = methods.keys().map(String::as_str).collect();
        served.sort_by_key(order);
        let named =
            NAMED.iter().find(|(known, _)| *known == path).map_or(served.join(", "), |(_, named)| (*named).to_owned());
        let at = filled(&path, UNKNOWN);
        for method in METHODS {
            assert_eq!(ask(&gateway, method, &at, "", "").status, 401, "{method} {path} without a token");
            if methods.contains_key(method) {
                continue;
            }
            let answer = ask(&gateway, method, &at, &token(), "");
            if OTHERS_MISSING.contains(&path.as_str()) {
                assert_eq!((answer.status, answer.header("allow")), (404, ""), "{method} {path}");
            } else {
                assert_eq!((answer.status, answer.header("allow")), (405, named.as_str()), "{method} {path}");
            }
            assert!(answer.header("x-openstack-request-id").starts_with("req-"), "{method} {path}");
            assert!(method == "HEAD" || answer.text().contains(method) || answer.status == 404, "{}", answer.text());
        }
        assert_eq!(ask(&gateway, "OPTIONS", &at, &token(), "").status, 200, "{path}");
    }
}

#[test]
fn what_is_almost_a_path_is_none() {
    let gateway = Gateway::start(Options::default());
    for Route { path, methods } in routes(&gateway).into_iter().filter(|route| route.path != "/v2") {
        for method in methods.keys() {
            let slashed = format!("{}/", filled(&path, UNKNOWN));
            let missing = |at: &str| {
                let answer = ask(&gateway, method, at, &token(), "");
                assert_eq!(answer.status, 404, "{method} {at}: {}", answer.text());
            };
            missing(&slashed);
            missing(&format!("{slashed}nothing/at/all"));
            if path.contains('{') {
                missing(&filled(&path, &format!("{UNKNOWN}%2F")));
                missing(&filled(&path, "a%2fb"));
                let answer = ask(&gateway, method, &filled(&path, "%FF"), &token(), "");
                assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text());
                assert!(answer.text().contains("UTF-8"), "{}", answer.text());
            }
        }
    }
}

#[test]
fn a_body_where_none_belongs_is_refused_everywhere() {
    let gateway = Gateway::start(Options::default());
    for Route { path, methods } in routes(&gateway).into_iter().filter(|route| route.path != "/v2") {
        for method in methods.iter().filter(|(_, body)| body.is_none()).map(|(method, _)| method) {
            for (framing, body) in [("content-length: 2", "{}"), ("transfer-encoding: chunked", "2\r\n{}\r\n0\r\n\r\n")]
            {
                let answer = ask(&gateway, method, &filled(&path, UNKNOWN), &format!("{}{framing}\r\n", token()), body);
                assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text());
                assert!(answer.text().contains("body"), "{}", answer.text());
            }
        }
    }
}

#[test]
fn a_body_that_makes_no_sense_is_refused_everywhere() {
    let gateway = Gateway::start(Options::default());
    // Where something is, what comes is looked at.
    let id = gateway.client(Token::Admin).create("nonsense");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(500), "}".repeat(500));
    let bodies: [(&str, &[u8]); 16] = [
        ("nothing", b""),
        ("a word", b"word"),
        ("an open object", b"{"),
        ("null", b"null"),
        ("a number", b"5"),
        ("a huge number", b"1e999"),
        ("a text", b"\"text\""),
        ("a list of everything", b"[null, 1, \"x\", [], {}]"),
        ("nested lists", deep.as_bytes()),
        ("nested objects", deep_object.as_bytes()),
        ("no UTF-8", b"{\"name\": \"\xff\"}"),
        ("half a surrogate", br#"{"name": "\ud800"}"#),
        ("a key twice", br#"{"name": "a", "name": "b"}"#),
        ("a key twice, further down", br#"[{"op": "add", "op": "remove", "path": "/x"}]"#),
        ("two documents", b"{} {}"),
        ("a byte order mark", b"\xef\xbb\xbf{}"),
    ];
    for Route { path, methods } in routes(&gateway) {
        for (method, body) in methods.iter().filter_map(|(method, body)| Some((method, body.as_ref()?))) {
            for media_type in body["content"].as_object().unwrap().keys().filter(|name| name.contains("json")) {
                for (what, bytes) in bodies {
                    let headers =
                        format!("{}content-type: {media_type}\r\ncontent-length: {}\r\n", token(), bytes.len());
                    let answer = ask(&gateway, method, &filled(&path, &id), &headers, bytes);
                    assert!((400..500).contains(&answer.status), "{method} {path} with {what}: {}", answer.text());
                    if what.starts_with("a key twice") {
                        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.text());
                        let key = if what.ends_with("down") { "op" } else { "name" };
                        assert!(
                            answer.text().contains(&format!("&#x27;{key}&#x27;"))
                                || answer.text().contains(&format!("'{key}'")),
                            "{method} {path}: {}",
                            answer.text()
                        );
                    }
                }
            }
        }
    }
    assert_eq!(gateway.client(Token::Admin).show(&id)["name"], "nonsense");
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "1");
}

#[test]
fn odd_names_in_paths_are_refused_or_missing_and_never_a_failure() {
    let gateway = Gateway::start(Options::default());
    let odd = [
        "%00",
        "%0A",
        "%27%20OR%201=1--",
        "%3Cscript%3Ealert(1)%3C/script%3E".split('/').next().unwrap(),
        "%F0%9F%90%A7",
        &"x".repeat(3000),
        "..%5C..",
        "%20",
        "null",
        "%7B%7D",
        "%E2%80%AE",
    ];
    for Route { path, methods } in routes(&gateway).into_iter().filter(|route| route.path.contains('{')) {
        for (method, body) in &methods {
            let sent = if body.is_some() { "{}" } else { "" };
            let media_type = body.as_ref().and_then(|body| body["content"].as_object()?.keys().next().cloned());
            for name in odd {
                let headers = format!(
                    "{}accept: text/html\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
                    token(),
                    media_type.as_deref().unwrap_or("text/plain"),
                    sent.len()
                );
                let answer = ask(&gateway, method, &filled(&path, name), &headers, sent);
                assert!(
                    (400..500).contains(&answer.status),
                    "{method} {path} with {name}: {} {}",
                    answer.status,
                    answer.text()
                );
                assert!(!answer.text().contains("<script>"), "{method} {path}: {}", answer.text());
            }
        }
    }
}
