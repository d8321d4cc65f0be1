//! A Keystone that does not do what it should.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{start, start_with};
use crate::harness::{
    Client, FakeKeystone, Fault, Gateway, Options, SlowUpload, Token, eventually, project_token, rbd,
};

#[test]
fn without_keystone_known_tokens_go_on_and_others_get_503() {
    let (keystone, gateway) = start_with(Options::default());
    let demo = gateway.client(Token::Demo);
    demo.get("/v2/images").expect(200);
    for fault in [
        Fault::Down,
        Fault::Cut,
        Fault::Status(500),
        Fault::Status(503),
        Fault::Status(429),
        Fault::Status(403),
        Fault::Status(400),
        Fault::Status(302),
        Fault::Body("<html>404 not found</html>".into()),
        Fault::Body("{}".into()),
        Fault::Body(r#"{"token": {"expires_at": "soon", "issued_at": "now"}}"#.into()),
        Fault::Huge(2 << 20),
    ] {
        keystone.fault(fault.clone());
        demo.get("/v2/images").expect(200);
        let answer = gateway.client(Token::Alt).get("/v2/images");
        assert_eq!(answer.status, 503, "{fault:?}: {}", answer.text());
        assert_eq!(answer.header("retry-after"), "5", "{fault:?}");
        assert_eq!(answer.header("www-authenticate"), "", "{fault:?}");
    }
    // Back again, at once.
    keystone.fault(Fault::None);
    eventually("Alt is let in", 5, || gateway.client(Token::Alt).get("/v2/images").status == 200);
}

#[test]
fn a_slow_keystone_holds_nobody_up_for_long() {
    let (keystone, gateway) = start_with(Options::default().set("identity.keystone", "http_request_timeout_s", 1));
    let demo = gateway.client(Token::Demo);
    demo.get("/v2/images").expect(200);
    keystone.fault(Fault::Slow(Duration::from_secs(60)));
    let began = Instant::now();
    gateway.client(Token::Alt).get("/v2/images").expect(503);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    demo.get("/v2/images").expect(200);
    // Slow is not down: what comes within the time is taken.
    keystone.fault(Fault::None);
    eventually("the slow questions are over", 5, || gateway.client(Token::Admin).get("/v2/images").status == 200);
    keystone.fault(Fault::Slow(Duration::from_millis(400)));
    gateway.client(Token::Reader).get("/v2/images").expect(200);
}

#[test]
fn a_question_is_asked_again_if_that_may_help() {
    let (keystone, gateway) = start();
    keystone.fault(Fault::Flaky);
    for token in [Token::Admin, Token::Demo, Token::Alt, Token::Reader] {
        gateway.client(token).get("/v2/images").expect(200);
    }
}

#[test]
fn a_gateway_without_keystone_stays_ready_and_says_so() {
    let (keystone, gateway) = start();
    let state = || {
        let body = gateway.anonymous().get("/readyz?verbose").expect(200).json();
        assert_eq!(body["ready"], true);
        body["checks"].as_array().unwrap().iter().find(|check| check["name"] == "keystone").unwrap().clone()
    };
    assert_eq!(state()["state"], "ok");
    keystone.fault(Fault::Down);
    let check = state();
    assert_eq!(check["state"], "degraded");
    assert!(check["problem"].as_str().unwrap().contains("Keystone"), "{check}");
    assert_eq!(gateway.anonymous().get("/readyz").expect(200).text(), "ok\n");
    keystone.fault(Fault::Slow(Duration::from_secs(60)));
    let began = Instant::now();
    assert_eq!(state()["state"], "degraded");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    keystone.fault(Fault::None);
    eventually("it is back", 5, || state()["state"] == "ok");
}

#[test]
fn a_gateway_starts_without_keystone_and_serves_when_it_comes() {
    let keystone = FakeKeystone::start();
    keystone.fault(Fault::Down);
    let gateway = Gateway::start(Options::default().keystone(&keystone.url));
    eventually("it is said", 10, || gateway.log().contains("until that changes tokens cannot be validated"));
    gateway.client(Token::Demo).get("/v2/images").expect(503);
    keystone.fault(Fault::None);
    eventually("it serves", 5, || gateway.client(Token::Demo).get("/v2/images").status == 200);
    // Nobody listens at all: the same, at once.
    let nobody = Gateway::start(Options::default().keystone("http://127.0.0.1:1"));
    nobody.client(Token::Demo).get("/v2/images").expect(503);
}

#[test]
fn an_upload_is_authorised_once_at_its_start() {
    let (keystone, gateway) = start();
    let admin = gateway.client(Token::Admin);
    admin.get("/v2/images").expect(200);
    let id = admin
        .post("/v2/images", &json!({"owner": "p-demo", "disk_format": "raw", "container_format": "bare"}))
        .expect(201)
        .json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    keystone.know(Token::Demo.text(), project_token("demo", "demo", &["member", "reader"], 5));
    let mut upload = SlowUpload::begin(&gateway, &id, Some(2000));
    assert!(upload.send(&[1; 1000]));
    // Half-way the token ends, and so does Keystone.
    eventually("it has begun", 5, || gateway.sql("SELECT status FROM images") == "saving");
    eventually("the token has ended", 30, || gateway.client(Token::Demo).get("/v2/images").status == 401);
    keystone.fault(Fault::Down);
    assert!(upload.send(&[2; 1000]));
    assert_eq!(upload.finish(), Some(204));
    let image = admin.show(&id);
    assert_eq!((&image["status"], &image["size"]), (&json!("active"), &json!(2000)));
    assert!(rbd(&["info", &format!("images/{id}")]).contains("size 2"));
    let data = admin.get(&format!("/v2/images/{id}/file")).expect(200);
    assert!(data.body[..1000].iter().all(|byte| *byte == 1) && data.body[1000..].iter().all(|byte| *byte == 2));
    // A second one with the same token does not begin.
    assert!(matches!(SlowUpload::begin(&gateway, &id, Some(1)).answer(), Some(401 | 503)));
}

#[test]
fn keystone_is_not_asked_more_than_it_can_bear() {
    let (keystone, gateway) = start_with(Options::default().set("identity.keystone", "http_request_timeout_s", 5));
    gateway.client(Token::Demo).get("/v2/images").expect(200);
    keystone.fault(Fault::Slow(Duration::from_secs(60)));
    std::thread::scope(|scope| {
        for n in 0..150 {
            let url = &gateway.url;
            scope.spawn(move || Client::new(url, Some(&format!("guess-{n}"))).get("/v2/images").expect(503));
        }
        // Among them those whose token is known are served as ever.
        for _ in 0..20 {
            gateway.client(Token::Demo).get("/v2/images").expect(200);
        }
    });
    assert!(keystone.running_max() <= 64, "{}", keystone.running_max());
    assert!(keystone.running_max() > 10, "{}", keystone.running_max());
}

#[test]
fn answers_that_make_no_sense_are_not_believed() {
    let (keystone, gateway) = start();
    let good = project_token("demo", "demo", &["admin"], 3600);
    let mut bad: Vec<serde_json::Value> = Vec::new();
    for field in ["expires_at", "issued_at", "user"] {
        let mut body = good.clone();
        body["token"].as_object_mut().unwrap().remove(field);
        bad.push(body);
        let mut body = good.clone();
        body["token"][field] = json!(1);
        bad.push(body);
    }
    bad.extend([json!([]), json!(null), json!({"token": null}), json!({"token": {"user": {"id": ["x"]}}})]);
    for body in bad {
        keystone.fault(Fault::Body(body.to_string()));
        let answer = gateway.client(Token::Demo).get("/v2/images");
        assert_eq!(answer.status, 503, "{body}: {}", answer.text());
    }
    // What says that it has ended is no good, whoever says so.
    keystone.fault(Fault::None);
    eventually("it works", 5, || gateway.client(Token::Alt).get("/v2/images").status == 200);
    keystone.fault(Fault::Body(project_token("demo", "demo", &["admin"], -1).to_string()));
    gateway.client(Token::Demo).get("/v2/images").expect(401);
}
