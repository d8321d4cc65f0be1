//! `[flood]`: one address or project that asks for too much is told to wait, and nobody else is.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Answer, Gateway, Options, SlowUpload, Token, Wire, eventually, run};

/// Asks so often at once, and says how many were told to wait.
#[track_caller]
fn ask(count: usize, mut one: impl FnMut() -> Answer, served: u16) -> usize {
    let answers: Vec<Answer> = (0..count).map(|_| one()).collect();
    let (refused, others): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.status == 429);
    for answer in &refused {
        let seconds: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=5).contains(&seconds), "{seconds}");
        assert!(answer.text().contains("Too Many Requests"), "{}", answer.text());
        assert!(answer.header("x-openstack-request-id").starts_with("req-"));
    }
    assert!(others.iter().all(|answer| answer.status == served));
    refused.len()
}

#[test]
fn an_address_that_asks_too_often_is_told_to_wait() {
    let options = Options::default().set("flood", "requests_per_address_per_s", 4).set(
        "server",
        "trusted_proxies",
        vec!["127.0.0.1".to_owned()],
    );
    let gateway = Gateway::start(options);
    let client = gateway.anonymous();
    let from = |address: &str| client.get_with("/v2/images", &[("x-forwarded-for", address)]);
    // 20 at once, and what comes along while they are asked.
    let start = Instant::now();
    let refused = ask(60, || from("192.0.2.1"), 401);
    let most = 20 + 4 * (start.elapsed().as_secs() + 1);
    assert!(refused <= 40 && refused as u64 >= 60_u64.saturating_sub(most), "{refused} of 60 were refused");
    // Others are served, and so is whoever watches.
    assert_eq!(ask(10, || from("192.0.2.2"), 401), 0);
    for path in ["/readyz", "/metrics", "/healthcheck"] {
        assert_eq!(ask(30, || client.get_with(path, &[("x-forwarded-for", "192.0.2.1")]), 200), 0);
    }
    // Whoever waits is served.
    let wait: u64 = loop {
        let answer = from("192.0.2.1");
        if answer.status == 429 {
            break answer.header("retry-after").parse().unwrap();
        }
    };
    std::thread::sleep(Duration::from_secs(wait));
    assert_eq!(from("192.0.2.1").status, 401);
}

#[test]
fn a_project_that_asks_too_often_is_told_to_wait() {
    let gateway = Gateway::start(Options::default().set("flood", "requests_per_project_per_s", 4));
    let [demo, alt, reader] = [Token::Demo, Token::Alt, Token::Reader].map(|token| gateway.client(token));
    assert!(ask(60, || demo.get("/v2/images"), 200) > 0);
    // The same project, and another one.
    assert!(ask(20, || reader.get("/v2/images"), 200) > 0);
    assert_eq!(ask(10, || alt.get("/v2/images"), 200), 0);
}

#[test]
fn a_project_cannot_have_all_transfers() {
    let gateway = Gateway::start(Options::default().set("flood", "transfers_per_project_max", 1));
    let (demo, alt) = (gateway.client(Token::Demo), gateway.client(Token::Alt));
    let (slow, other, theirs) = (demo.create("slow"), demo.create("other"), alt.create("theirs"));
    let mut upload = SlowUpload::begin(&gateway, &slow, Some(1000));
    assert!(upload.send(&[7; 500]));
    eventually("it has begun", 10, || demo.show(&slow)["status"] == "saving");
    let refused = demo.upload(&other, b"data").expect(429);
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(demo.show(&other)["status"], "queued");
    demo.stage(&other, b"data").expect(429);
    alt.upload(&theirs, b"data").expect(204);
    assert!(upload.send(&[7; 500]));
    assert_eq!(upload.answer(), Some(204));
    eventually("the place is free again", 10, || demo.upload(&other, b"data").status == 204);
    let file = format!("/v2/images/{other}/file");
    eventually("downloads take one, too", 10, || demo.get(&file).status == 200);
}

#[test]
fn an_address_cannot_have_all_connections() {
    let gateway = Gateway::start(Options::default().set("flood", "connections_per_address_max", 3));
    // What was open before has been closed.
    let mut held = Vec::new();
    eventually("three are open", 10, || {
        let mut wire = Wire::connect(&gateway.address);
        wire.send("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
        if wire.try_answer().is_some_and(|answer| answer.status == 200) {
            held.push(wire);
        }
        held.len() == 3
    });
    let mut wire = Wire::connect(&gateway.address);
    wire.send("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = wire.answer();
    assert_eq!((answer.status, answer.header("retry-after")), (429, "5"));
    wire.expect_closed();
    // Another address has its own.
    let url = format!("http://{}/livez", gateway.address);
    let other = run(Command::new("curl").args(["-sS", "--fail", "--noproxy", "*", "--interface", "127.0.0.2", &url]));
    assert_eq!(other.unwrap(), "ok");
    // Those that are open go on.
    for wire in &mut held {
        wire.send("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(wire.answer().status, 200);
    }
    held.pop();
    eventually("a place is free again", 10, || gateway.anonymous().try_get("/livez").is_some_and(|a| a.status == 200));
}
