//! The gateway's own token.

use std::time::{Duration, Instant};

use super::{start, start_with};
use crate::harness::{
    Client, FakeKeystone, Fault, Gateway, OWN_CREDENTIAL, OWN_PASSWORD, Options, Token, eventually, project_token,
};

#[test]
fn an_own_token_is_renewed_before_it_ends_and_when_it_is_refused() {
    let (keystone, gateway) = start();
    let client = |n: usize| {
        // Never seen before.
        let token = format!("someone-{n}-{}", uuid::Uuid::new_v4());
        keystone.know(&token, project_token("demo", "demo", &["reader"], 3600));
        Client::new(&gateway.url, Some(&token))
    };
    client(0).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), 1);
    keystone.own_tokens_live(4);
    keystone.revoke_own();
    client(1).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), 2, "it was refused");
    let began = Instant::now();
    client(2).get("/v2/images").expect(200);
    assert!(keystone.logins() == 2 || began.elapsed() > Duration::from_secs(2), "it is still good");
    // What Keystone would refuse is not shown to it: nobody waits for that.
    std::thread::sleep(Duration::from_millis(4200));
    let refused = keystone.logins();
    client(3).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), refused + 1, "it was about to end");
    // Renewal fails for a while: as long as the old one is good nobody notices.
    keystone.own_tokens_live(20);
    keystone.revoke_own();
    client(4).get("/v2/images").expect(200);
    std::thread::sleep(Duration::from_millis(15_200));
    keystone.fault(Fault::NoLogins);
    client(4).get("/v2/images").expect(200);
    eventually("it has ended", 30, || client(5).get("/v2/images").status == 503);
    keystone.fault(Fault::None);
    eventually("there is another", 5, || client(5).get("/v2/images").status == 200);
    for asked in keystone.asked() {
        assert!(!asked.target.contains("someone"), "a token is in a URL: {asked:?}");
    }
}

#[test]
fn an_application_credential_does_as_well_as_a_password() {
    let keystone = FakeKeystone::start();
    let (id, secret) = OWN_CREDENTIAL;
    let local = Gateway::start(Options::default());
    let file = local.folder().join("secret");
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let gateway = Gateway::start(
        Options::default()
            .keystone(&keystone.url)
            .unset("identity.keystone", "username")
            .unset("identity.keystone", "password")
            .unset("identity.keystone", "project_name")
            .set("identity.keystone", "application_credential_id", id)
            .set("identity.keystone", "application_credential_secret_file", file.to_str().unwrap()),
    );
    gateway.client(Token::Demo).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), 1);
}

#[test]
fn a_wrong_password_is_503_and_is_not_tried_again_and_again() {
    let keystone = FakeKeystone::start();
    let gateway = Gateway::start(Options::default().keystone(&keystone.url).set(
        "identity.keystone",
        "password",
        "canary-wrong-own",
    ));
    for _ in 0..10 {
        gateway.client(Token::Demo).get("/v2/images").expect(503);
    }
    assert_eq!(keystone.logins(), 1, "a user who tries too often may be locked out");
    let log = gateway.log();
    assert!(log.contains("refuses our own credentials"), "{log}");
    assert!(!log.contains("canary-wrong-own") && !log.contains(OWN_PASSWORD), "{log}");
}

#[test]
fn a_password_that_changes_in_its_file_is_followed() {
    let keystone = FakeKeystone::start();
    let folder = Gateway::start(Options::default());
    let file = folder.folder().join("password");
    std::fs::write(&file, OWN_PASSWORD).unwrap();
    let gateway =
        Gateway::start(Options::default().keystone(&keystone.url).unset("identity.keystone", "password").set(
            "identity.keystone",
            "password_file",
            file.to_str().unwrap(),
        ));
    gateway.client(Token::Demo).get("/v2/images").expect(200);
    keystone.change_own_password("canary-other-password");
    gateway.client(Token::Alt).get("/v2/images").expect(503);
    std::fs::write(&file, "canary-other-password\n").unwrap();
    eventually("the new one is taken", 30, || gateway.client(Token::Alt).get("/v2/images").status == 200);
    std::fs::remove_file(&file).unwrap();
    keystone.revoke_own();
    gateway.client(Token::Admin).get("/v2/images").expect(503);
    gateway.client(Token::Alt).get("/v2/images").expect(200);
    assert!(gateway.log().contains("password_file"), "{}", gateway.log());
}

#[test]
fn keystone_must_prove_who_it_is() {
    let folder = Gateway::start(Options::default());
    let keystone = FakeKeystone::start_tls(folder.folder());
    let path = |name: &str| folder.folder().join(name).to_str().unwrap().to_owned();
    let by_address = keystone.url.replace("localhost", "127.0.0.1");
    for (url, option, status) in [
        (&keystone.url, Some(("cafile", toml::Value::from(path("ca.pem")))), 200),
        (&keystone.url, Some(("cafile", toml::Value::from(path("other-ca.pem")))), 503),
        // The system knows nothing of this authority.
        (&keystone.url, None, 503),
        (&by_address, Some(("cafile", toml::Value::from(path("ca.pem")))), 503),
        (&by_address, Some(("insecure", toml::Value::from(true))), 200),
    ] {
        let options = Options::default().keystone(url);
        let options = match &option {
            None => options,
            Some((key, value)) => options.set("identity.keystone", key, value.clone()),
        };
        let gateway = folder.sibling_with(options);
        assert_eq!(gateway.client(Token::Demo).get("/v2/images").status, status, "{url} {option:?}: {}", gateway.log());
    }
}

#[test]
fn a_fresh_token_that_is_refused_is_a_503() {
    let (keystone, gateway) = start();
    keystone.fault(Fault::Status(401));
    let answer = gateway.client(Token::Demo).get("/v2/images").expect(503);
    assert_eq!(answer.header("www-authenticate"), "", "the client can do nothing about it");
    keystone.fault(Fault::None);
    eventually("all is well again", 20, || gateway.client(Token::Demo).get("/v2/images").status == 200);
}

#[test]
fn secrets_are_in_no_log_and_no_answer() {
    let (keystone, gateway) = start_with(Options::default().set("log", "level", "trace"));
    keystone.know("canary-service-token", project_token("nova", "service", &["service"], 3600));
    let mut seen = String::new();
    let mut ask = |token: &str| {
        let answer = Client::new(&gateway.url, Some(token))
            .get_with("/v2/images", &[("x-service-token", "canary-service-token")]);
        seen.push_str(&format!("{:?}\n{}\n", answer.headers, answer.text()));
    };
    for fault in [
        Fault::None,
        Fault::Down,
        Fault::Cut,
        Fault::Status(500),
        Fault::Status(401),
        Fault::Body("{\"canary-body\": 1}".into()),
        Fault::None,
    ] {
        keystone.fault(fault);
        keystone.revoke_own();
        for token in Token::ALL {
            ask(token.text());
        }
        ask("canary-unknown");
    }
    ask(&format!("canary-{}", "x".repeat(9000)));
    seen.push_str(&gateway.anonymous().get("/readyz?verbose").text());
    let log = gateway.log();
    assert!(log.len() > 10_000, "tracing is on");
    for (place, text) in [("log", &log), ("answer", &seen)] {
        let found = text.lines().find(|line| line.contains("canary"));
        assert_eq!(found, None, "a secret is in the {place}");
    }
    // Those of its own are some, all the same.
    assert!(keystone.logins() > 1 && OWN_PASSWORD.contains("canary") && OWN_CREDENTIAL.1.contains("canary"));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_in_sentences() {
    let keystone = FakeKeystone::start();
    let gateway = Gateway::start(Options::default().keystone(&keystone.url));
    let file = gateway.folder().join("rockpool.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    let check = |change: &dyn Fn(&mut toml::Table), environment: &[(&str, &str)]| {
        let mut document: toml::Table = good.parse().unwrap();
        change(document["identity"]["keystone"].as_table_mut().unwrap());
        let path = gateway.folder().join("changed.toml");
        std::fs::write(&path, document.to_string()).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .args(["config", "check", "--config"])
            .arg(&path)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert!(check(&|_| (), &[]).0);
    let set = |key: &'static str, value: toml::Value| {
        move |table: &mut toml::Table| {
            table.insert(key.to_owned(), value.clone());
        }
    };
    for (key, value, words) in [
        ("auth_url", "keystone:5000".into(), "auth_url must be a URL"),
        ("auth_url", "https://user:canary-pw@ks:99999/".into(), "auth_url must be a URL"),
        ("auth_url", "http://ks:5000/v2.0".into(), "version 2.0"),
        ("www_authenticate_uri", "a\"b".into(), "www_authenticate_uri"),
        ("password_file", "/nonexistent".into(), "password and password_file exclude each other"),
        ("user_id", "u".into(), "username and user_id exclude each other"),
        ("application_credential_id", "c".into(), "exclude each other"),
        (
            "application_credential_id",
            "c".into(),
            "application_credential_secret (or application_credential_secret_file) is missing",
        ),
        ("cafile", "/nonexistent/ca.pem".into(), "cafile /nonexistent/ca.pem cannot be used"),
        ("token_cache_size", 0.into(), "token_cache_size must be at least 1"),
        ("http_request_timeout_s", 0.into(), "http_request_timeout_s must be at least 1"),
        ("service_token_roles", toml::Value::Array(Vec::new()), "service_token_roles"),
        ("interface", "private".into(), "interface"),
        ("memcached_servers", "x".into(), "memcached_servers"),
    ] {
        let mut change: Box<dyn Fn(&mut toml::Table)> = Box::new(set(key, value));
        if key == "cafile" {
            let inner = change;
            change = Box::new(move |table| {
                inner(table);
                table.insert("auth_url".into(), "https://ks".into());
            });
        }
        let (valid, said) = check(&*change, &[]);
        assert!(!valid && said.contains(words), "{key}: {said}");
        assert!(!said.contains("canary"), "a secret is in: {said}");
    }
    // The environment has the last word on secrets.
    let without = |table: &mut toml::Table| {
        table.remove("password");
        table.insert("password_file".into(), "/nonexistent".into());
    };
    assert!(!check(&without, &[]).0);
    assert!(check(&without, &[("ROCKPOOL_KEYSTONE_PASSWORD", OWN_PASSWORD)]).0);
}
