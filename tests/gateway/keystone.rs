//! `[identity] mode = "keystone"`, against a Keystone that says and breaks what a test wants.

use std::time::Duration;

use rockpool::identity::Identity;
use rockpool::identity::keystone::{Keystone, Limits};
use serde_json::json;

use crate::harness::{
    Client, FakeKeystone, Fault, Gateway, OWN_CREDENTIAL, OWN_PASSWORD, OWN_USER, Options, Token, eventually,
    project_token,
};

fn start() -> (FakeKeystone, Gateway) {
    start_with(Options::default())
}

fn start_with(options: Options) -> (FakeKeystone, Gateway) {
    let keystone = FakeKeystone::start();
    let gateway = Gateway::start(options.keystone(&keystone.url));
    (keystone, gateway)
}

#[test]
fn keystone_says_who_a_token_belongs_to() {
    let (keystone, gateway) = start();
    let demo = gateway.client(Token::Demo);
    let image = demo.post("/v2/images", &json!({"name": "mine"})).expect(201).json();
    assert_eq!(image["owner"], "p-demo");
    let path = format!("/v2/images/{}", image["id"].as_str().unwrap());
    gateway.client(Token::Alt).get(&path).expect(404);
    gateway.client(Token::Admin).get(&path).expect(200);
    gateway.client(Token::Reader).get(&path).expect(200);
    gateway.client(Token::Reader).delete(&path).expect(403);
    // Asked once for each token, and once for its own.
    for token in [Token::Admin, Token::Demo, Token::Alt, Token::Reader] {
        assert_eq!(keystone.asked_about(token.text()), 1, "{token:?}");
    }
    assert_eq!(keystone.logins(), 1);
    assert_eq!(gateway.sql("SELECT owner FROM images"), "p-demo");
}

#[test]
fn a_token_that_keystone_does_not_know_is_401_with_the_way_to_keystone() {
    let (keystone, gateway) = start();
    for token in [None, Some("unknown"), Some(""), Some("un known"), Some("un\tknown")] {
        let answer = Client::new(&gateway.url, token).get("/v2/images").expect(401);
        assert_eq!(answer.header("www-authenticate"), format!("Keystone uri=\"{}\"", keystone.url));
    }
    // Neither a token that cannot be one nor the same again is asked about.
    Client::new(&gateway.url, Some("unknown")).get("/v2/images").expect(401);
    Client::new(&gateway.url, Some(&"x".repeat(9000))).get("/v2/images").expect(401);
    assert_eq!(keystone.asked().iter().filter(|asked| asked.method == "GET" && asked.target != "/v3").count(), 1);
    let public = gateway.sibling_with(Options::default().keystone(&keystone.url).set(
        "identity.keystone",
        "www_authenticate_uri",
        "https://ks.example.org:5000/v3",
    ));
    let answer = public.anonymous().get("/v2/images").expect(401);
    assert_eq!(answer.header("www-authenticate"), "Keystone uri=\"https://ks.example.org:5000/v3\"");
}

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
    let began = std::time::Instant::now();
    gateway.client(Token::Alt).get("/v2/images").expect(503);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
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
fn an_own_token_is_renewed_before_it_ends_and_when_it_is_refused() {
    let (keystone, gateway) = start();
    let client = |n: usize| {
        let token = format!("someone-{n}");
        keystone.know(&token, project_token("demo", "demo", &["reader"], 3600));
        Client::new(&gateway.url, Some(&token))
    };
    client(0).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), 1);
    keystone.own_tokens_live(4);
    keystone.revoke_own();
    client(1).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), 2, "it was refused");
    client(2).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), 2, "it is still good");
    std::thread::sleep(Duration::from_millis(3200));
    client(3).get("/v2/images").expect(200);
    assert_eq!(keystone.logins(), 3, "it was about to end");
    // Nobody notices that Keystone is down while the token is renewed early: the old one is still good.
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
fn a_revoked_token_is_good_for_the_cache_time_and_no_longer() {
    let (keystone, gateway) = start_with(Options::default().set("identity.keystone", "token_cache_time_s", 2));
    let demo = gateway.client(Token::Demo);
    let began = std::time::Instant::now();
    demo.get("/v2/images").expect(200);
    keystone.revoke(Token::Demo.text());
    demo.get("/v2/images").expect(200);
    eventually("it is refused", 10, || demo.get("/v2/images").status == 401);
    let window = began.elapsed();
    assert!(Duration::from_millis(1900) < window && window < Duration::from_secs(4), "{window:?}");
    // With no cache at all, at once.
    let strict = gateway.sibling_with(Options::default().keystone(&keystone.url).set(
        "identity.keystone",
        "token_cache_time_s",
        0,
    ));
    strict.client(Token::Alt).get("/v2/images").expect(200);
    keystone.revoke(Token::Alt.text());
    strict.client(Token::Alt).get("/v2/images").expect(401);
}

#[test]
fn requests_that_ask_at_the_same_time_ask_keystone_once() {
    let (keystone, gateway) = start();
    gateway.client(Token::Admin).get("/v2/images").expect(200);
    keystone.fault(Fault::Slow(Duration::from_millis(500)));
    std::thread::scope(|scope| {
        for token in [Token::Demo, Token::Alt] {
            for _ in 0..10 {
                let gateway = &gateway;
                scope.spawn(move || gateway.client(token).get("/v2/images").expect(200));
            }
        }
    });
    assert_eq!(keystone.asked_about(Token::Demo.text()), 1);
    assert_eq!(keystone.asked_about(Token::Alt.text()), 1);
    assert_eq!(keystone.running_max(), 2);
}

/// Keystone as the daemon sees it, without a daemon.
fn identity(keystone: &FakeKeystone, options: &str) -> Identity {
    let text = format!(
        "auth_url = \"{}\"\nusername = \"{OWN_USER}\"\npassword = \"{OWN_PASSWORD}\"\nproject_name = \"service\"\n{options}",
        keystone.url
    );
    Identity::Keystone(Box::new(Keystone::new(&toml::from_str(&text).unwrap()).unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_of_this_service_and_the_project_asked_for() {
    let keystone = FakeKeystone::start();
    for (resource, limit) in
        [("image_size_total", 1000), ("image_stage_total", 500), ("image_count_total", 10), ("volumes", 3)]
    {
        keystone.register_limit(resource, limit);
    }
    keystone.limit("p-demo", "image_count_total", -1);
    let identity = identity(&keystone, "endpoint_id = \"e-image\"");
    let of = async |project: &str| identity.limits(project, Some("req-1")).await.unwrap().unwrap();
    let all = Limits {
        image_size_total_mib: 1000,
        image_stage_total_mib: 500,
        image_count_total: 10,
        // Nobody has registered it.
        image_count_uploading: 0,
    };
    assert_eq!(of("p-alt").await, all);
    assert_eq!(of("p-demo").await, Limits { image_count_total: -1, ..all });
    // A project's name is no part of the query but its value.
    assert_eq!(of("p&project_id=p-demo").await, all);
    // What is changed counts from the next request on.
    keystone.limit("p-alt", "image_size_total", 1);
    assert_eq!(of("p-alt").await, Limits { image_size_total_mib: 1, ..all });
    let asked = keystone.asked();
    let limits: Vec<_> = asked.iter().filter(|asked| asked.target.contains("limits")).collect();
    assert!(limits.iter().all(|asked| asked.target.contains("service_id=s-image")), "{limits:?}");
    assert!(limits.iter().all(|asked| asked.headers["x-openstack-request-id"] == "req-1"), "{limits:?}");
    // A Keystone that is down, and one that has no such endpoint.
    keystone.fault(Fault::Status(500));
    identity.limits("p-demo", None).await.unwrap_err();
    keystone.fault(Fault::None);
    let wrong = self::identity(&keystone, "endpoint_id = \"e-identity\"");
    assert!(wrong.limits("p-demo", None).await.unwrap_err().to_string().contains("endpoint_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_remembered_as_long_as_configured() {
    let keystone = FakeKeystone::start();
    let identity = identity(&keystone, "limits_cache_time_s = 1");
    keystone.register_limit("image_count_total", 1);
    let count = async || identity.limits("p-demo", None).await.unwrap().unwrap().image_count_total;
    assert_eq!(count().await, 1);
    keystone.register_limit("image_count_total", 2);
    assert_eq!(count().await, 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(count().await, 2);
}
