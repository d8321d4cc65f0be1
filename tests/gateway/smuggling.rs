//! Requests that two parsers would cut up differently, paths that lead elsewhere, and bytes that are no
//! requests at all: on a bare socket, as an attacker writes them.

use serde_json::json;

use crate::harness::{Answer, Gateway, Options, Token, Wire, left_in_pool};

fn head(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\n", Token::Demo.text())
}

/// A body that makes an image, for whoever takes it for chunks.
const SMUGGLED: &str = "14\r\n{\"name\": \"smuggled\"}\r\n0\r\n\r\n";

fn listed(gateway: &Gateway) -> String {
    gateway.sql("SELECT string_agg(name || ':' || status, ',' ORDER BY name) FROM images")
}

/// What comes back for these bytes, until the other side closes or has nothing more to say.
fn answers(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> Vec<Answer> {
    let mut wire = Wire::connect(&gateway.address);
    wire.send(bytes);
    let mut answers: Vec<Answer> = wire.try_answer().into_iter().collect();
    answers.extend(wire.rest());
    answers
}

/// Fails unless the first thing that comes back is a refusal with a request id, and nothing was done.
#[track_caller]
fn refused(gateway: &Gateway, bytes: impl AsRef<[u8]>) {
    let before = listed(gateway);
    let shown =
        String::from_utf8_lossy(&bytes.as_ref()[..bytes.as_ref().len().min(300)]).replace(Token::Demo.text(), "TOKEN");
    let answers = answers(gateway, bytes);
    let first = answers.first().unwrap_or_else(|| panic!("{shown:?}: closed without an answer"));
    assert_eq!(first.status, 400, "{shown:?}: {}", first.text());
    assert!(first.header("x-openstack-request-id").starts_with("req-"), "{shown:?}");
    assert!(!first.body.is_empty(), "{shown:?}: no sentence");
    assert!(
        answers.iter().all(|answer| answer.status == 400),
        "{shown:?}: {:?}",
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>()
    );
    assert_eq!(listed(gateway), before, "{shown:?}");
}

#[test]
fn two_ways_to_frame_a_body_are_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("framed");
    let smuggled = format!("{}\r\n", head("DELETE", &format!("/v2/images/{id}")));
    let chunked = format!("0\r\n\r\n{smuggled}");
    let framings = [
        "content-length: 6\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 6\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "content-length: 6\r\nTRANSFER-ENCODING: Chunked\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5\r\nContent-Length: 5\r\n",
        "content-length: 5, 6\r\n",
        "content-length: 5, 5\r\n",
        "content-length: +5\r\n",
        "content-length: -1\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5 5\r\n",
        "content-length: five\r\n",
        "content-length:\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: identity\r\ncontent-length: 5\r\n",
        "content-length : 5\r\n",
        "content-length: 5\r\n transfer-encoding: chunked\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: gzip, chunked\r\ncontent-length: 3\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding : chunked\r\n",
        "transfer-encoding:\x0bchunked\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        " transfer-encoding: chunked\r\n",
        "x: y\rtransfer-encoding: chunked\r\n",
        "\x00content-length: 5\r\n",
    ];
    for framing in framings {
        for line in [
            head("POST", "/v2/images"),
            head("PUT", &format!("/v2/images/{id}/file")),
            head("GET", "/v2/images"),
            head("GET", "/livez"),
        ] {
            refused(&gateway, format!("{line}content-type: application/octet-stream\r\n{framing}\r\n{chunked}"));
        }
    }
    assert_eq!(demo.show(&id)["status"], "queued");
    assert!(left_in_pool(&[&id]).is_empty());
}

#[test]
fn a_request_behind_another_is_looked_at_as_closely() {
    let gateway = Gateway::start(Options::default());
    gateway.client(Token::Demo).create("pipelined");
    let bad =
        format!("{}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{SMUGGLED}", head("POST", "/v2/images"));
    for first in [
        format!("{}\r\n", head("GET", "/livez")),
        format!("{}\r\n", head("GET", "/v2/images")),
        format!("{}content-length: 2\r\n\r\n[]", head("POST", "/v2/images")),
    ] {
        // In one packet, so that the second head comes with the first.
        let statuses: Vec<u16> =
            answers(&gateway, format!("{first}{bad}")).iter().map(|answer| answer.status).collect();
        assert_eq!(statuses.get(1), Some(&400), "behind {:?}: {statuses:?}", &first[..20]);
        assert_eq!(listed(&gateway), "pipelined:queued");
        // And one after the other.
        let mut wire = Wire::connect(&gateway.address);
        wire.send(&first);
        wire.answer();
        wire.send(&bad);
        assert_eq!(wire.answer().status, 400);
        assert_eq!(listed(&gateway), "pipelined:queued");
    }
}

#[test]
fn a_head_with_bare_line_feeds_hides_nothing() {
    let gateway = Gateway::start(Options::default());
    gateway.client(Token::Demo).create("line feeds");
    let bad = format!("{}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n", head("POST", "/v2/images"));
    for bad in [
        bad.replace("\r\n", "\n"),
        bad.replace("\r\n\r\n", "\n\n"),
        bad.replace("\r\n\r\n", "\r\n\n"),
        bad.replace("\r\n\r\n", "\n\r\n"),
    ] {
        // The head alone first: what ends it must not come with the body.
        let mut wire = Wire::connect(&gateway.address);
        wire.send(&bad);
        std::thread::sleep(std::time::Duration::from_millis(100));
        wire.send(SMUGGLED);
        assert_eq!(wire.answer().status, 400, "{bad:?}");
        assert_eq!(listed(&gateway), "line feeds:queued");
    }
}

#[test]
fn a_body_that_looks_like_a_bad_head_does_no_harm() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("bodies");
    let body = "POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n";
    for (media_type, status) in [("text/plain", 415), ("application/octet-stream", 204)] {
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!(
            "{}content-type: {media_type}\r\ncontent-length: {}\r\n\r\n",
            head("PUT", &format!("/v2/images/{id}/file")),
            body.len()
        ));
        if status == 415 {
            // The refusal comes first, the body after it.
            assert_eq!(wire.answer().status, status);
            wire.send(body);
        } else {
            wire.send(body);
            assert_eq!(wire.answer().status, status);
        }
        wire.send(format!("{}\r\n", head("GET", "/v2/images")));
        if let Some(answer) = wire.try_answer() {
            assert_eq!(answer.status, 200, "a good request behind a refused one: {}", answer.text());
        }
    }
    assert_eq!(demo.get(&format!("/v2/images/{id}/file")).expect(200).text(), body);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn chunks_that_are_none_are_refused_and_leave_nothing() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("chunks");
    let put = format!(
        "{}content-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        head("PUT", &format!("/v2/images/{id}/file"))
    );
    for chunks in [
        "x\r\n",
        "-1\r\ndata\r\n0\r\n\r\n",
        "0x4\r\ndata\r\n0\r\n\r\n",
        "+4\r\ndata\r\n0\r\n\r\n",
        "\r\ndata",
        "4\r\ndataX0\r\n\r\n",
        "4\r\ndata0\r\n\r\n",
        "ffffffffffffffffff\r\nd",
        "4 4\r\ndata\r\n0\r\n\r\n",
        "4\rdata\r\n0\r\n\r\n",
        "2\r\ndata\r\n0\r\n\r\n",
        ";\r\n",
    ] {
        refused(&gateway, format!("{put}{chunks}"));
        assert!(left_in_pool(&[&id]).is_empty(), "{chunks:?}");
        refused(&gateway, format!("{}transfer-encoding: chunked\r\n\r\n{chunks}", head("POST", "/v2/images")));
    }
    // A valid stream with extensions and trailers is one.
    let mut wire = Wire::connect(&gateway.address);
    wire.send(format!("{put}4;name=value\r\ndata\r\n00000\r\nx-trailer: y\r\n\r\n"));
    assert_eq!(wire.answer().status, 204);
    assert_eq!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body, b"data");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn heads_beyond_the_limits_are_refused() {
    let gateway = Gateway::start(Options::default().set("server", "header_bytes_max", 16_384));
    let many = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    let ask = |bytes: String| {
        let answers = answers(&gateway, bytes);
        assert_eq!(answers.len(), 1);
        let answer = answers.into_iter().next().unwrap();
        assert!(answer.header("x-openstack-request-id").starts_with("req-"));
        answer.status
    };
    assert_eq!(ask(format!("{}{}\r\n", head("GET", "/v2/images"), many(100))), 200);
    assert_eq!(ask(format!("{}{}\r\n", head("GET", "/v2/images"), many(200))), 431);
    assert_eq!(ask(format!("{}x: {}\r\n\r\n", head("GET", "/v2/images"), "y".repeat(12_000))), 200);
    assert_eq!(ask(format!("{}x: {}\r\n\r\n", head("GET", "/v2/images"), "y".repeat(17_000))), 431);
    assert_eq!(ask(format!("{}x: {}", head("GET", "/v2/images"), "y".repeat(300_000))), 431, "without an end");
    let status = ask(format!("{}\r\n", head("GET", &format!("/v2/images/{}", "a".repeat(20_000)))));
    assert!(matches!(status, 414 | 431), "{status}");
    assert_eq!(ask(format!("{}\r\n", head("GET", &format!("/v2/images/{}", "a".repeat(10_000))))), 404);
    let status = ask(format!("{}\r\n", head("GET", &format!("/v2/images/{}", "a".repeat(70_000)))));
    assert!(matches!(status, 414 | 431), "{status}");
    gateway.client(Token::Demo).get("/v2/images").expect(200);
}

/// Whatever stands before it: what is beyond the limit is not looked at, so the request must go.
#[test]
fn a_head_just_over_the_limit_is_refused() {
    let gateway = Gateway::start(Options::default());
    let padding = format!("x: {}\r\n", "y".repeat(70_000));
    let answer = &answers(&gateway, format!("{}{padding}\r\n", head("GET", "/v2/images")))[0];
    assert_eq!(answer.status, 431, "{}", answer.text());
    let framing = "content-length: 3\r\ntransfer-encoding: chunked\r\n";
    let answer = &answers(&gateway, format!("{}{padding}{framing}\r\n{SMUGGLED}", head("POST", "/v2/images")))[0];
    assert!(matches!(answer.status, 400 | 431), "{}: {}", answer.status, answer.text());
    assert_eq!(listed(&gateway), "");
}

#[test]
fn a_path_leads_nowhere_else() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("path");
    let ask = |path: &str| {
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!("{}\r\n", head("GET", path)));
        wire.answer()
    };
    for path in [
        "/v2/images/..",
        "/v2/images/../..",
        "/v2/images/../../etc/passwd",
        "/v2/images/.",
        "/v2/images/%2e%2e",
        "/v2/images/%2e%2e/%2e%2e/etc/passwd",
        "/v2/images/%2E%2E%2Fimages",
        "/v2/images/..%2f..%2fversions",
        "/v2/../versions",
        "/v2/%2e%2e/versions",
        "/v2.5/../versions",
        "/v2/images//",
        "/v2/./images",
        "/v2/images%00",
        "/v2/images/%00",
        "/v2/images%2f",
        "/v2%2fimages/x/../y",
        "/v2/images;x=y",
        &format!("/v2/images/{id}/../{id}"),
        &format!("/v2/images/{id}%00"),
        &format!("/v2/images/{id}/file/.."),
        &format!("/v2/images/{id}%2ffile"),
        &format!("/v2/images/{id};/file"),
        &format!("/v2/images/{id}%0d%0aset-cookie:x"),
        "/v2/images/%ff%fe",
        "/v2/images/%",
        "/v2/images/%zz",
        "/v2/images/%u0041",
    ] {
        let answer = ask(path);
        // As it stands it names nothing: neither is it resolved nor does it reach another resource.
        let fine = matches!(answer.status, 300 | 400 | 404);
        assert!(fine, "{path}: {} {}", answer.status, answer.text());
        assert!(!answer.headers.contains_key("set-cookie"), "{path}");
        assert!(answer.header("x-openstack-request-id").starts_with("req-"), "{path}");
        assert!(!answer.text().contains("root:"), "{path}");
    }
    // The same by absolute URI, with a percent-encoded letter, and a question mark without a query.
    assert_eq!(ask(&format!("http://x/v2/images/{id}")).status, 200);
    assert_eq!(ask(&format!("/v2/images/{id}?")).status, 200);
    assert_eq!(ask(&format!("/v2/images/{id}?a=%00")).status, 200);
    for target in ["v2/images", "*", "x:1", ""] {
        let answer = ask(target);
        assert!(matches!(answer.status, 300 | 400 | 404), "{target:?}: {}", answer.status);
    }
}

#[test]
fn old_and_odd_protocols_are_answered_or_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("old", b"bytes");
    let token = Token::Demo.text();
    // HTTP/1.0: answered once, without chunks, then closed.
    for path in ["/v2/images", "/versions", &format!("/v2/images/{id}/file")] {
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!("GET {path} HTTP/1.0\r\nx-auth-token: {token}\r\n\r\n"));
        let answer = wire.answer();
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("transfer-encoding").is_empty() && !answer.header("content-length").is_empty(), "{path}");
        wire.expect_closed();
    }
    refused(
        &gateway,
        format!(
            "POST /v2/images HTTP/1.0\r\nx-auth-token: {token}\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        ),
    );
    // An unknown version of the protocol, and no protocol at all.
    for line in [
        "GET /v2/images HTTP/3.0\r\n\r\n",
        "GET /v2/images HTTP/1.9\r\n\r\n",
        "GET /v2/images\r\n\r\n",
        "GET  /v2/images HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v2/images HTTP/1.1 x\r\nhost: x\r\n\r\n",
        "G\0T /v2/images HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v2/im\0ages HTTP/1.1\r\nhost: x\r\n\r\n",
        "GET /v2/images HTTP/1.1\r\nhost x\r\n\r\n",
        "GET /v2/images HTTP/1.1\r\n: x\r\n\r\n",
        "GET /v2/images HTTP/1.1\r\nx: \0\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03\r\n\r\n",
    ] {
        refused(&gateway, line);
    }
    let garbage: Vec<u8> = crate::harness::random_bytes(5, 5000).into_iter().chain(*b"\r\n\r\n").collect();
    refused(&gateway, garbage);
    // HTTP/2 is not spoken here.
    assert!(answers(&gateway, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").iter().all(|answer| answer.status == 400));
    // A method in lower case is another method.
    for method in ["get", "Get", "GETS", "x"] {
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!("{}\r\n", head(method, "/v2/images")));
        assert_eq!(wire.answer().status, 405, "{method}");
    }
    // CONNECT and an upgrade lead nowhere.
    for bytes in [
        format!("CONNECT 10.0.0.1:6789 HTTP/1.1\r\nhost: 10.0.0.1:6789\r\nx-auth-token: {token}\r\n\r\n"),
        format!("{}connection: upgrade\r\nupgrade: h2c\r\n\r\n", head("TRACE", "/v2/images")),
    ] {
        let status = answers(&gateway, bytes)[0].status;
        assert!((300..500).contains(&status), "{status}");
    }
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn requests_in_one_packet_are_answered_one_by_one() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("in line", b"bytes");
    let create = json!({"name": "piped"}).to_string();
    let bytes = [
        format!("{}\r\n", head("GET", "/livez")),
        format!("{}content-length: {}\r\n\r\n{create}", head("POST", "/v2/images"), create.len()),
        format!("{}range: bytes=1-2\r\n\r\n", head("GET", &format!("/v2/images/{id}/file"))),
        format!("{}\r\n", head("GET", "/v2/nothing")),
        format!("{}\r\n", head("GET", "/v2/images?name=piped")),
        // The last one: a connection is closed after a chunked body.
        format!(
            "{}transfer-encoding: chunked\r\n\r\n{:x}\r\n{create}\r\n0\r\n\r\n",
            head("POST", "/v2/images"),
            create.len()
        ),
        format!("{}\r\n", head("GET", "/livez")),
    ];
    let mut wire = Wire::connect(&gateway.address);
    wire.send(bytes.concat());
    let answers: Vec<Answer> = std::iter::from_fn(|| wire.try_answer()).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 201, 206, 404, 200, 201]);
    assert_eq!(answers[2].body, b"yt");
    assert_eq!(answers[4].json()["images"].as_array().unwrap().len(), 1);
    assert_eq!(answers[5].header("connection"), "close");
    // An expectation is met before the body is sent.
    let second = demo.create("expecting");
    let mut wire = Wire::connect(&gateway.address);
    wire.send(format!(
        "{}content-type: application/octet-stream\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n",
        head("PUT", &format!("/v2/images/{second}/file"))
    ));
    assert_eq!(wire.answer().status, 100);
    wire.send("data");
    assert_eq!(wire.answer().status, 204);
    for id in [id, second] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}
