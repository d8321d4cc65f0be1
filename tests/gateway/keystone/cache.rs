//! What a gateway remembers of tokens, and for how long.

use std::time::{Duration, Instant};

use super::{start, start_with};
use crate::harness::{Client, FakeKeystone, Fault, Gateway, Options, Token, eventually, project_token};

#[test]
fn a_revoked_token_is_good_for_the_cache_time_and_no_longer() {
    let (keystone, gateway) = start_with(Options::default().set("identity.keystone", "token_cache_time_s", 2));
    let demo = gateway.client(Token::Demo);
    let began = Instant::now();
    demo.get("/v2/images").expect(200);
    keystone.revoke(Token::Demo.text());
    demo.get("/v2/images").expect(200);
    eventually("it is refused", 20, || demo.get("/v2/images").status == 401);
    let window = began.elapsed();
    assert!(Duration::from_millis(1900) < window && window < Duration::from_secs(10), "{window:?}");
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
    assert!(keystone.running_max() <= 2, "{}", keystone.running_max());
}

#[test]
fn a_token_is_not_remembered_beyond_its_end() {
    let (keystone, gateway) = start();
    keystone.know("short", project_token("demo", "demo", &["member", "reader"], 5));
    let client = Client::new(&gateway.url, Some("short"));
    let began = Instant::now();
    client.get("/v2/images").expect(200);
    client.get("/v2/images").expect(200);
    assert_eq!(keystone.asked_about("short"), 1);
    // Nobody needs Keystone to know that.
    keystone.fault(Fault::Down);
    eventually("it is not accepted any more", 20, || client.get("/v2/images").status != 200);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    keystone.fault(Fault::None);
    eventually("it is known to have expired", 5, || client.get("/v2/images").status == 401);
}

#[test]
fn every_gateway_forgets_a_revoked_token_in_time() {
    let keystone = FakeKeystone::start();
    let options = Options::default().keystone(&keystone.url).set("identity.keystone", "token_cache_time_s", 2);
    let gateways = Gateway::start_all(&options, 2);
    for gateway in &gateways {
        gateway.client(Token::Demo).get("/v2/images").expect(200);
    }
    assert_eq!(keystone.asked_about(Token::Demo.text()), 2, "each knows what it has asked itself");
    keystone.revoke(Token::Demo.text());
    let began = Instant::now();
    for gateway in &gateways {
        eventually("it is refused", 20, || gateway.client(Token::Demo).get("/v2/images").status == 401);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn only_so_many_tokens_are_remembered() {
    let (keystone, gateway) = start_with(Options::default().set("identity.keystone", "token_cache_size", 10));
    let tokens: Vec<String> = (0..100).map(|n| format!("token-{n}")).collect();
    for token in &tokens {
        keystone.know(token, project_token("demo", "demo", &["member", "reader"], 3600));
    }
    for _ in 0..2 {
        for token in &tokens {
            Client::new(&gateway.url, Some(token)).get("/v2/images").expect(200);
        }
    }
    let asked: usize = tokens.iter().map(|token| keystone.asked_about(token)).sum();
    assert!((185..=200).contains(&asked), "{asked}: 100 tokens twice, of which 10 are remembered");
}

#[test]
fn tokens_that_nobody_knows_cost_little_and_do_not_push_out_others() {
    let (keystone, gateway) = start_with(Options::default().set("identity.keystone", "token_cache_size", 50));
    for _ in 0..20 {
        gateway.client(Token::Demo).get("/v2/images").expect(200);
    }
    for n in 0..500 {
        Client::new(&gateway.url, Some(&format!("guess-{n}"))).get("/v2/images").expect(401);
    }
    gateway.client(Token::Demo).get("/v2/images").expect(200);
    assert!(keystone.asked_about(Token::Demo.text()) <= 2, "{}", keystone.asked_about(Token::Demo.text()));
    // The same guess again and again is one question.
    for _ in 0..20 {
        Client::new(&gateway.url, Some("guess")).get("/v2/images").expect(401);
    }
    assert!(keystone.asked_about("guess") <= 5, "{}", keystone.asked_about("guess"));
}
