//! `[identity] mode = "local"`: a token is all that says who is asking.

use serde_json::json;
use ureq::SendBody;

use crate::harness::{Answer, Client, Gateway, Options, Token, Wire, random_bytes};

/// A GET of the list with these raw header lines.
fn ask(gateway: &Gateway, headers: &str) -> Answer {
    let mut wire = Wire::connect(&gateway.address);
    wire.send(format!("GET /v2/images HTTP/1.1\r\nhost: x\r\n{headers}\r\n"));
    wire.answer()
}

#[test]
fn without_a_known_token_there_is_nothing_but_401() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.post("/v2/images", &json!({"visibility": "community", "name": "open"})).expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let image = format!("/v2/images/{id}");
    let file = format!("{image}/file");
    let digest = {
        use sha2::Digest as _;
        sha2::Sha256::digest(Token::Demo.text().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let upper = Token::Demo.text().to_uppercase();
    let long = "t".repeat(10_000);
    for token in [
        None,
        Some("wrong"),
        Some(""),
        Some(digest.as_str()),
        Some(upper.as_str()),
        Some("canary-demo-19a"),
        Some("canary-demo-19aee"),
        Some("canary-demo -19ae"),
        Some("canary-demo\t-19ae"),
        Some("canary-demo-19ae, canary-demo-19ae"),
        Some("Bearer canary-demo-19ae"),
        Some("null"),
        Some(long.as_str()),
    ] {
        let client = Client::new(&gateway.url, token);
        for (method, path) in [
            ("GET", "/v2/images"),
            ("GET", "/v2/schemas/image"),
            ("GET", "/v2/nothing"),
            ("GET", image.as_str()),
            ("DELETE", &image),
            ("GET", &file),
        ] {
            let answer = client.send(method, path, &[], SendBody::none());
            assert_eq!(answer.status, 401, "{token:?} {method} {path}");
            assert!(answer.header("www-authenticate").starts_with("Token"), "{}", answer.header("www-authenticate"));
            assert!(answer.header("x-openstack-request-id").starts_with("req-"));
        }
        // Each on a connection of its own: see bad_input::the_next_request_after_a_refused_body_is_not_lost.
        let client = || Client::new(&gateway.url, token);
        assert_eq!(client().post("/v2/images", &json!({})).status, 401);
        assert_eq!(client().patch(&image, &json!([])).status, 401);
        assert_eq!(client().upload(&id, b"data").status, 401);
    }
    assert_eq!(demo.show(&id)["status"], "queued");
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "1");
}

#[test]
fn white_space_around_a_token_is_no_part_of_it() {
    let gateway = Gateway::start(Options::default());
    let token = Token::Demo.text();
    for line in
        [format!("x-auth-token:{token}"), format!("X-Auth-Token:   {token}"), format!("x-auth-token: {token} \t ")]
    {
        assert_eq!(ask(&gateway, &format!("{line}\r\n")).status, 200, "{line:?}");
    }
    for line in [
        format!("x-auth-token: {}", token.replace('-', " -")),
        format!("x-auth-token: {token} x"),
        "x-auth-token:".to_owned(),
        "x-auth-token: \t".to_owned(),
        format!("x-auth-token: {token}\u{a0}"),
        "x-auth-token: \u{e9}".to_owned(),
        format!("authorization: Bearer {token}"),
        format!("x-auth_token: {token}"),
        format!("x-storage-token: {token}"),
        format!("cookie: x-auth-token={token}"),
    ] {
        assert_eq!(ask(&gateway, &format!("{line}\r\n")).status, 401, "{line:?}");
    }
    // No continuation, no control characters, no second opinion.
    for lines in [
        "x-auth-token: canary-demo\r\n -19ae\r\n".to_owned(),
        format!("x-auth-token: {token}\0\r\n"),
        format!("x-auth-token : {token}\r\n"),
        format!("x-auth-token: {token}\r\nx-auth-token: {token}\r\n"),
        format!("x-auth-token: {token}\r\nX-AUTH-TOKEN: {}\r\n", Token::Admin.text()),
        format!("x-auth-token: wrong\r\nx-auth-token: {token}\r\n"),
    ] {
        let answer = ask(&gateway, &lines);
        assert_eq!(answer.status, 400, "{lines:?}: {}", answer.text());
        assert!(answer.header("x-openstack-request-id").starts_with("req-"), "{lines:?}");
    }
}

#[test]
fn no_header_but_the_token_grants_anything() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.post("/v2/images", &json!({"name": "mine", "visibility": "private"})).expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let forged = [
        ("x-identity-status", "Confirmed"),
        ("x-roles", "admin,member,reader,service"),
        ("x-role", "admin"),
        ("x-user-id", "u-admin"),
        ("x-user-name", "admin"),
        ("x-user", "admin"),
        ("x-project-id", "p-demo"),
        ("x-tenant-id", "p-demo"),
        ("x-tenant", "p-demo"),
        ("x-project-name", "demo"),
        ("x-domain-id", "default"),
        ("x-system-scope", "all"),
        ("x-is-admin-project", "true"),
        ("x-service-token", Token::Admin.text()),
        ("x-service-roles", "service,admin"),
        ("x-service-identity-status", "Confirmed"),
        ("x-service-catalog", "[]"),
        ("x-forwarded-user", "admin"),
        ("remote-user", "admin"),
        ("x-openstack-nova-api-version", "2.1"),
    ];
    let anonymous = gateway.anonymous();
    for path in ["/v2/images".to_owned(), format!("/v2/images/{id}")] {
        assert_eq!(anonymous.get_with(&path, &forged).status, 401, "{path}");
    }
    // With a token of another project they change nothing either.
    let alt = gateway.client(Token::Alt);
    assert_eq!(alt.get_with(&format!("/v2/images/{id}"), &forged).status, 404);
    assert!(alt.get_with("/v2/images", &forged).expect(200).json()["images"].as_array().unwrap().is_empty());
    assert_eq!(alt.send("DELETE", &format!("/v2/images/{id}"), &forged, SendBody::none()).status, 404);
    let mut headers = forged.to_vec();
    headers.push(("content-type", "application/json"));
    let create = |client: &Client, body: &str| {
        client.send("POST", "/v2/images", &headers, SendBody::from_reader(&mut body.as_bytes()))
    };
    assert_eq!(create(&alt, r#"{"owner": "p-demo"}"#).status, 403);
    assert_eq!(create(&alt, r#"{"visibility": "public"}"#).status, 403);
    assert_eq!(create(&alt, "{}").expect(201).json()["owner"], "p-alt");
    assert_eq!(create(&gateway.client(Token::Reader), "{}").status, 403);
}

#[test]
fn secrets_are_in_no_log_no_answer_and_no_process_list() {
    let gateway = Gateway::start(Options::default().set("log", "level", "trace"));
    let [admin, demo, alt, reader, ..] = Token::ALL.map(|token| gateway.client(token));
    let mut seen = String::new();
    let mut note = |answer: Answer| {
        seen.push_str(&format!("{:?}\n{}\n", answer.headers, answer.text()));
    };
    let id = demo.active("secrets", &random_bytes(1, 1000));
    for client in [&admin, &demo, &alt, &reader] {
        for path in [
            "/v2/images",
            "/v2/nothing",
            "/versions",
            "/readyz?verbose",
            "/healthcheck",
            "/metrics",
            "/v2/schemas/image",
            &format!("/v2/images/{id}"),
            &format!("/v2/images/{id}/file"),
            &format!("/v2/images?name={}", "%00"),
        ] {
            note(client.get(path));
        }
        note(client.post("/v2/images", &json!([])));
        note(client.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": 1}])));
        note(client.upload(&id, b"x"));
    }
    note(Client::new(&gateway.url, Some("canary-wrong-0000")).get("/v2/images"));
    // A head that cannot be read, with the token in it.
    let mut wire = Wire::connect(&gateway.address);
    wire.send(format!(
        "GET /v2/images HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\nbroken header\r\n\r\n",
        Token::Demo.text()
    ));
    note(wire.answer());
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    let command_line = std::fs::read_to_string(format!("/proc/{}/cmdline", gateway.pid())).unwrap();
    let url = gateway.database();
    let (password, _) = url.split_once("://").unwrap().1.split_once('@').unwrap();
    let password = password.split_once(':').expect("the test database has a password").1;
    assert!(password.len() > 10);
    let log = gateway.log();
    assert!(log.len() > 10_000, "tracing is on");
    for (place, text) in [("log", &log), ("answer", &seen), ("command line", &command_line)] {
        let secrets = Token::ALL.map(Token::text);
        for secret in secrets.iter().chain(&[password, "canary-wrong", "canary-"]) {
            assert!(
                !text.contains(secret),
                "{secret} is in the {place}: {}",
                text.lines().find(|line| line.contains(secret)).unwrap_or("")
            );
        }
    }
    assert!(!seen.contains("rockpool_test_"), "an answer tells the database's name");
}
