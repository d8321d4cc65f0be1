//! Refusals in general: their form, their request id, and clients that misbehave.

use std::time::{Duration, Instant};

use serde_json::json;
use ureq::SendBody;

use crate::harness::{Answer, Gateway, Options, Token, Wire, eventually, left_in_pool};

fn request(gateway: &Gateway, line: &str, headers: &str, body: &str) -> Answer {
    let mut wire = Wire::connect(&gateway.address);
    wire.send(format!("{line} HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\n{headers}\r\n{body}", Token::Demo.text()));
    wire.answer()
}

#[test]
fn an_error_is_told_in_the_form_that_the_client_accepts() {
    let gateway = Gateway::start(Options::default());
    let missing = uuid::Uuid::new_v4();
    let ask = |accept: &str| request(&gateway, &format!("GET /v2/images/{missing}"), accept, "");
    let sentence = format!("No image found with ID {missing}");
    for accept in ["", "accept: text/plain\r\n", "accept: image/png\r\n"] {
        let answer = ask(accept);
        assert_eq!((answer.status, answer.header("content-type")), (404, "text/plain; charset=UTF-8"));
        assert!(answer.text().starts_with(&format!("404 Not Found\n\n{sentence}")), "{}", answer.text());
    }
    for accept in ["accept: */*\r\n", "accept: text/html,application/xhtml+xml\r\n"] {
        let answer = ask(accept);
        assert_eq!((answer.status, answer.header("content-type")), (404, "text/html; charset=UTF-8"));
        assert!(
            answer.text().contains("<title>404 Not Found</title>") && answer.text().contains(&sentence),
            "{}",
            answer.text()
        );
    }
    let answer = ask("accept: application/json\r\n");
    assert_eq!((answer.status, answer.header("content-type")), (404, "application/json"));
    let body = answer.json();
    assert_eq!((&body["code"], &body["title"]), (&json!("404 Not Found"), &json!("Not Found")));
    assert!(body["message"].as_str().unwrap().starts_with(&sentence), "{body}");
    // What the client said is shown back escaped.
    let answer = request(&gateway, "GET /v2/images?sort_key=%3Cscript%3E", "accept: text/html\r\n", "");
    assert!(
        answer.status == 400 && !answer.text().contains("<script>") && answer.text().contains("&lt;script&gt;"),
        "{}",
        answer.text()
    );
}

#[test]
fn every_answer_has_a_request_id_of_its_own() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("ids");
    let mut seen = std::collections::BTreeSet::new();
    let mut note = |answer: Answer, status: u16| {
        assert_eq!(answer.status, status, "{}", answer.text());
        let id = answer.header("x-openstack-request-id").to_owned();
        assert_eq!(answer.headers.get_all("x-openstack-request-id").iter().count(), 1);
        let uuid = id.strip_prefix("req-").unwrap_or_else(|| panic!("{status}: {id:?}"));
        uuid::Uuid::parse_str(uuid).unwrap();
        assert!(seen.insert(id), "{status}: the same id twice");
    };
    note(demo.get("/v2/images"), 200);
    note(demo.get("/v2/images?limit=x"), 400);
    note(gateway.anonymous().get("/v2/images"), 401);
    note(demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "remove", "path": "/name"}])), 403);
    note(demo.get("/v2/nothing"), 404);
    note(demo.send("PUT", "/v2/images", &[], SendBody::none()), 405);
    note(demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "remove", "path": "/nothing"}])), 409);
    note(demo.send("PATCH", &format!("/v2/images/{id}"), &[], SendBody::none()), 415);
    note(demo.get_with("/v2/images", &[("x-openstack-request-id", &"r".repeat(65))]), 431);
    note(demo.get("/nothing"), 300);
    note(demo.get("/versions"), 200);
    note(demo.get("/healthcheck"), 200);
    note(demo.get("/livez"), 200);
    note(demo.get("/readyz"), 200);
    note(demo.get(&format!("/v2/images/{id}/file")), 204);
    note(demo.delete(&format!("/v2/images/{id}")), 204);
    note(request(&gateway, "GET /v2/images", &format!("x: {}\r\n", "y".repeat(300_000)), ""), 431);
    note(request(&gateway, "GET /v2/images", "broken\r\n", ""), 400);
    // The client's own id goes into the log beside ours.
    note(demo.get_with("/v2/images", &[("x-openstack-request-id", "req-mine-0001")]), 200);
    eventually("the line is written", 5, || gateway.log().contains("req-mine-0001"));
    let line = gateway.log().lines().find(|line| line.contains("req-mine-0001")).unwrap().to_owned();
    assert!(line.contains("u-demo") && line.contains("p-demo") && line.contains("200"), "{line}");
}

#[test]
fn a_body_where_none_belongs_is_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("bodies");
    for path in ["/v2/images".to_owned(), format!("/v2/images/{id}"), format!("/v2/images/{id}/file")] {
        for (headers, body) in
            [("content-length: 2\r\n", "{}"), ("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")]
        {
            let answer = request(&gateway, &format!("GET {path}"), headers, body);
            assert_eq!(answer.status, 400, "GET {path}: {}", answer.text());
        }
    }
    for (headers, body) in [("content-length: 2\r\n", "{}"), ("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n")]
    {
        let answer = request(&gateway, &format!("DELETE /v2/images/{id}"), headers, body);
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    // The length of nothing is fine.
    assert_eq!(request(&gateway, "GET /v2/images", "content-length: 0\r\n", "").status, 200);
    assert_eq!(demo.show(&id)["name"], "bodies");
    assert_eq!(request(&gateway, &format!("DELETE /v2/images/{id}"), "content-length: 0\r\n", "").status, 204);
}

/// Clients keep connections: an answer given before the body was read must say that the connection ends, or
/// else the next request on it is lost.
#[test]
fn the_next_request_after_a_refused_body_is_not_lost() {
    let gateway = Gateway::start(Options::default());
    let id = gateway.client(Token::Demo).create("kept alive");
    let token = format!("x-auth-token: {}\r\n", Token::Demo.text());
    let image = format!("/v2/images/{id}");
    for (line, headers, status) in [
        ("POST /v2/images".to_owned(), "", 401),
        (format!("PATCH {image}"), "", 401),
        (format!("PUT {image}/file"), "", 401),
        (format!("PATCH {image}"), token.as_str(), 415),
        (format!("PUT {image}/file"), &token, 415),
        ("POST /v2/nothing".to_owned(), &token, 404),
        ("PUT /v2/images".to_owned(), &token, 405),
        (format!("DELETE {image}"), &token, 400),
        ("GET /v2/images".to_owned(), &token, 400),
        ("POST /nothing".to_owned(), "", 300),
    ] {
        for (framing, body) in [("content-length: 4", "data"), ("transfer-encoding: chunked", "4\r\ndata\r\n0\r\n\r\n")]
        {
            let mut wire = Wire::connect(&gateway.address);
            wire.send(format!("{line} HTTP/1.1\r\nhost: x\r\n{headers}content-type: text/plain\r\n{framing}\r\n\r\n"));
            // As most clients do it: head and body in two packets.
            std::thread::sleep(Duration::from_millis(20));
            wire.send(body);
            let answer = wire.answer();
            assert_eq!(answer.status, status, "{line}: {}", answer.text());
            if answer.header("connection") == "close" {
                continue;
            }
            wire.send("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
            let next = wire.try_answer();
            assert_eq!(next.map(|answer| answer.status), Some(200), "{line} with {framing}: closed without a word");
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("contradictory");
    let put = format!("PUT /v2/images/{id}/file");
    for twice in [
        "content-type: application/octet-stream\r\ncontent-type: text/plain\r\n",
        "content-type: application/octet-stream\r\ncontent-type: application/octet-stream\r\n",
        "content-type: application/octet-stream\r\nx-openstack-image-size: 4\r\nx-openstack-image-size: 5\r\n",
        "content-type: application/octet-stream\r\nx-image-meta-store: ceph\r\nx-image-meta-store: other\r\n",
        "content-type: application/octet-stream\r\nhost: y\r\n",
    ] {
        let answer = request(&gateway, &put, &format!("{twice}content-length: 4\r\n"), "data");
        assert_eq!(answer.status, 400, "{twice}: {}", answer.text());
        assert!(answer.text().contains("more than once"), "{}", answer.text());
    }
    for header in ["x-openstack-image-size: \u{e9}\r\n", "x-image-meta-store: \u{e9}\r\n"] {
        let answer = request(
            &gateway,
            &put,
            &format!("content-type: application/octet-stream\r\n{header}content-length: 4\r\n"),
            "data",
        );
        assert_eq!(answer.status, 400, "{header}: {}", answer.text());
    }
    assert_eq!(demo.show(&id)["status"], "queued");
    assert!(left_in_pool(&[&id]).is_empty());
}

#[test]
fn a_client_that_stalls_is_given_up_and_its_upload_undone() {
    let gateway = Gateway::start(Options::default().set("server", "body_idle_timeout_s", 1));
    let demo = gateway.client(Token::Demo);
    for (framing, begun) in [
        ("content-length: 30000000", "data"),
        ("transfer-encoding: chunked", "4\r\ndata\r\n"),
        ("transfer-encoding: chunked", "fff"),
        ("content-length: 5", ""),
    ] {
        let id = demo.create("stalled");
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!("PUT /v2/images/{id}/file HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\ncontent-type: application/octet-stream\r\n{framing}\r\n\r\n{begun}", Token::Demo.text()));
        let start = Instant::now();
        let answer = wire.answer();
        assert_eq!(answer.status, 408, "{framing}: {}", answer.text());
        assert!(answer.text().contains("no data for 1 s"), "{}", answer.text());
        assert!(
            start.elapsed() > Duration::from_millis(900) && start.elapsed() < Duration::from_secs(6),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(demo.show(&id)["status"], "queued");
        assert!(demo.show(&id)["size"].is_null());
        eventually("nothing is left in the pool", 5, || left_in_pool(&[&id]).is_empty());
        eventually("no job is left", 5, || gateway.sql("SELECT count(*) FROM jobs") == "0");
        demo.upload(&id, b"data").expect(204);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    for line in ["POST /v2/images", &format!("PATCH /v2/images/{}", demo.create("p"))] {
        let headers = "content-type: application/openstack-images-v2.1-json-patch\r\ncontent-length: 10\r\n";
        let answer = request(&gateway, line, headers, "[");
        assert_eq!(answer.status, 408, "{line}: {}", answer.text());
    }
}

#[test]
fn a_slow_client_that_keeps_sending_is_served() {
    let gateway =
        Gateway::start(Options::default().set("server", "body_idle_timeout_s", 1).set("server", "header_timeout_s", 1));
    let demo = gateway.client(Token::Demo);
    let id = demo.create("slow");
    let mut wire = Wire::connect(&gateway.address);
    wire.send(format!("PUT /v2/images/{id}/file HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\ncontent-type: application/octet-stream\r\ncontent-length: 10\r\n\r\n", Token::Demo.text()));
    for byte in b"0123456789" {
        std::thread::sleep(Duration::from_millis(300));
        wire.send([*byte]);
    }
    assert_eq!(wire.answer().status, 204);
    assert_eq!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body, b"0123456789");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn a_body_that_breaks_off_leaves_the_image_queued() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for (framing, begun) in [
        ("content-length: 30000000", "x".repeat(9 << 20)),
        ("transfer-encoding: chunked", format!("{:x}\r\n{}\r\n", 9 << 20, "x".repeat(9 << 20))),
        ("transfer-encoding: chunked", "5\r\nda".to_owned()),
    ] {
        let id = demo.create("broken");
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!("PUT /v2/images/{id}/file HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\ncontent-type: application/octet-stream\r\n{framing}\r\n\r\n{begun}", Token::Demo.text()));
        eventually("it is being stored", 10, || demo.show(&id)["status"] == "saving");
        drop(wire);
        eventually("it is queued again", 3, || demo.show(&id)["status"] == "queued");
        eventually("nothing is left in the pool", 5, || left_in_pool(&[&id]).is_empty());
        demo.upload(&id, b"data").expect(204);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn a_head_that_takes_too_long_ends_the_connection() {
    let gateway = Gateway::start(Options::default().set("server", "header_timeout_s", 1));
    // Nothing, half a line, and a byte now and then: none of them holds a connection.
    for begun in ["", "GE", "GET /v2/images HTTP/1.1\r\nhost: x\r\n"] {
        let mut wire = Wire::connect(&gateway.address);
        wire.send(begun);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) && (begun.len() < 10 || wire.try_send("x")) {
            if begun.len() < 10 {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if let Some(answer) = wire.try_answer() {
            assert_eq!(answer.status, 408, "{begun:?}");
            wire.expect_closed();
        }
        assert!(start.elapsed() < Duration::from_secs(4), "{begun:?}: open after {:?}", start.elapsed());
    }
    // An idle connection between two requests as well.
    let mut wire = Wire::connect(&gateway.address);
    wire.send("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    assert_eq!(wire.answer().status, 200);
    let start = Instant::now();
    assert!(wire.try_answer().is_none());
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    gateway.client(Token::Demo).get("/v2/images").expect(200);
}

/// What Glance 33 answers with 500 (as measured): the request's fault, and said so.
#[test]
fn what_the_reference_fails_at_is_refused_by_name() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let id = demo.create("sound");
    let image = format!("/v2/images/{id}");
    let refused = |answer: Answer, status: u16, word: &str| {
        assert_eq!(answer.status, status, "{word}: {}", answer.text());
        assert!(answer.text().contains(word), "{word}: {}", answer.text());
    };
    refused(demo.get_with("/v2/images", &[("x-openstack-request-id", &"r".repeat(256))]), 431, "Request-ID");
    refused(demo.post("/v2/images", &json!({"name": "a\u{0}b"})), 400, "name");
    refused(demo.post("/v2/images", &json!([{"name": "a"}])), 400, "JSON object");
    refused(
        demo.patch(&image, &json!([{"op": "add", "path": format!("/{}", "k".repeat(256)), "value": "v"}])),
        400,
        "255",
    );
    for (query, word) in [
        ("visibility=", "visibility"),
        ("min_ram=abc", "min_ram"),
        ("min_ram=in:1,2", "min_ram"),
        ("locations=x", "locations"),
        ("name=%00", "name"),
    ] {
        refused(demo.get(&format!("/v2/images?{query}")), 400, word);
    }
    assert!(demo.get("/v2/images?min_ram=99999999999999999999999").status < 500);
    for member in [json!(5), json!("m".repeat(256)), json!({"a": 1})] {
        refused(demo.post(&format!("{image}/members"), &json!({"member": member})), 400, "member");
    }
    refused(admin.get("/v2/metadefs/namespaces?limit=abc"), 400, "limit");
    refused(admin.get("/v2/metadefs/namespaces?sort_key=foo"), 400, "sort");
    admin.post("/v2/metadefs/namespaces", &json!({"namespace": "N"})).expect(201);
    refused(admin.post("/v2/metadefs/namespaces/N/tags", &json!({"tags": {}})), 400, "tags");
    assert_eq!(gateway.sql("SELECT string_agg(name, ',') FROM images"), "sound");
    assert!(!gateway.log().contains("status=500"), "{}", gateway.log());
}

/// Text is data: stored and given back as it came, found by the filter for it, and harmless in a page.
#[test]
fn sql_and_markup_are_text_like_any_other() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let texts = [
        "'; DROP TABLE images; --",
        "\" OR 1=1 --",
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "%s %(x)s {0} ${x} $1 \\",
        "_%\u{e9}\u{4e2d}",
    ];
    for text in texts {
        let made = demo
            .post("/v2/images", &json!({"name": text, "tags": [text], text: text, "os_distro": text}))
            .expect(201)
            .json();
        let id = made["id"].as_str().unwrap();
        let changed = demo
            .patch(
                &format!("/v2/images/{id}"),
                &json!([{"op": "replace", "path": "/name", "value": format!("{text}{text}")}, {"op": "replace", "path": "/name", "value": text}]),
            )
            .expect(200)
            .json();
        demo.post(&format!("/v2/images/{id}/members"), &json!({"member": text})).expect(200);
        for image in [&made, &changed, &demo.show(id)] {
            assert_eq!(
                (&image["name"], &image["tags"], &image[text], &image["os_distro"]),
                (&json!(text), &json!([text]), &json!(text), &json!(text))
            );
        }
        let members = demo.get(&format!("/v2/images/{id}/members")).expect(200).json();
        assert_eq!(members["members"][0]["member_id"], text);
        for field in ["name", "tag", "os_distro", text] {
            let value = if field == "name" { format!("eq:{text}") } else { text.to_owned() };
            let query = form_urlencoded::Serializer::new(String::new()).append_pair(field, &value).finish();
            let found = demo.get(&format!("/v2/images?{query}")).expect(200).json();
            assert_eq!(found["images"].as_array().unwrap().len(), 1, "{query}");
            assert_eq!(found["images"][0]["id"], id);
        }
        // A refusal that quotes it, as a browser would get it.
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("sort_key", text).finish();
        let page = demo.get_with(&format!("/v2/images?{query}"), &[("accept", "text/html")]).expect(400);
        assert!(!page.text().contains("<script") && !page.text().contains("<img"), "{}", page.text());
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), texts.len().to_string());
}

/// What one may not see is not there: the same answer, after the same time.
#[test]
fn images_of_others_are_like_none_at_all() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let others = gateway.client(Token::Alt).create("of others");
    let unknown = uuid::Uuid::new_v4().to_string();
    let calls: [(&str, &str, &str, &str); 12] = [
        ("GET", "", "text/plain", ""),
        (
            "PATCH",
            "",
            "application/openstack-images-v2.1-json-patch",
            r#"[{"op":"replace","path":"/name","value":"x"}]"#,
        ),
        ("DELETE", "", "text/plain", ""),
        ("GET", "/file", "text/plain", ""),
        ("PUT", "/file", "application/octet-stream", "data"),
        ("GET", "/members", "text/plain", ""),
        ("POST", "/members", "application/json", r#"{"member":"p"}"#),
        ("PUT", "/members/p-demo", "application/json", r#"{"status":"accepted"}"#),
        ("PUT", "/tags/t", "text/plain", ""),
        ("DELETE", "/tags/t", "text/plain", ""),
        ("POST", "/actions/deactivate", "text/plain", ""),
        ("GET", "/tasks", "text/plain", ""),
    ];
    for (method, rest, media_type, body) in calls {
        let ask = |id: &str| {
            let headers = format!("content-type: {media_type}\r\ncontent-length: {}\r\n", body.len());
            request(&gateway, &format!("{method} /v2/images/{id}{rest}"), &headers, body)
        };
        let (theirs, none) = (ask(&others), ask(&unknown));
        assert_eq!((theirs.status, none.status), (404, 404), "{method} {rest}: {} {}", theirs.text(), none.text());
        assert_eq!(theirs.text().replace(&others, "ID"), none.text().replace(&unknown, "ID"), "{method} {rest}");
    }
    let marker = |id: &str| demo.get(&format!("/v2/images?marker={id}")).expect(400).text().replace(id, "ID");
    assert_eq!(marker(&others), marker(&unknown));
    // Taken by turns, so that whatever else the machine does befalls both.
    let mut times: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        for (id, times) in [&others, &unknown].into_iter().zip(&mut times) {
            let start = Instant::now();
            demo.get(&format!("/v2/images/{id}")).expect(404);
            times.push(start.elapsed());
        }
    }
    let [theirs, none] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    let slack = Duration::from_millis(5);
    assert!(theirs < none * 2 + slack && none < theirs * 2 + slack, "theirs {theirs:?}, none {none:?}");
    assert_eq!(gateway.client(Token::Alt).show(&others)["name"], "of others");
}
