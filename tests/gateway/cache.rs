//! The image cache, which is not here: its routes answer as those of a Glance without one.

use serde_json::json;
use ureq::SendBody;

use crate::harness::{Answer, Client, Gateway, Options, Token};

fn send(client: &Client, method: &str, path: &str) -> Answer {
    client.send(method, path, &[("content-length", "0")], SendBody::none())
}

#[test]
fn every_cache_call_is_checked_and_then_not_supported() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let own = demo.create("cached");
    let hidden = admin.post("/v2/images", &json!({"visibility": "private"})).expect(201).json()["id"].clone();
    let unknown = uuid::Uuid::new_v4();
    let whole = [
        ("GET", "/v2/cache", "cache_list"),
        ("DELETE", "/v2/cache", "cache_delete"),
        ("POST", "/v2/cache/clean", "cache_clean"),
        ("POST", "/v2/cache/prune", "cache_prune"),
    ];
    for (method, path, rule) in whole {
        let answer = send(&admin, method, path).expect(404);
        assert!(answer.text().contains("not supported at this site"), "{method} {path}: {}", answer.text());
        for token in [Token::Demo, Token::Alt, Token::Reader] {
            let answer = send(&gateway.client(token), method, path).expect(403);
            assert!(answer.text().contains(rule), "{method} {path}: {}", answer.text());
        }
        assert_eq!(send(&gateway.anonymous(), method, path).status, 401, "{method} {path}");
    }
    for (method, prefix, rule) in [
        ("PUT", "/v2/cache", "cache_image"),
        ("DELETE", "/v2/cache", "cache_delete"),
        ("GET", "/v2/cache/nodes", "list_cached_nodes"),
    ] {
        let of = |id: &str| format!("{prefix}/{id}");
        let answer = send(&admin, method, &of(&own)).expect(404);
        assert!(answer.text().contains("not supported at this site"), "{method}: {}", answer.text());
        let answer = send(&demo, method, &of(&own)).expect(403);
        assert!(answer.text().contains(rule), "{method}: {}", answer.text());
        for missing in [unknown.to_string(), hidden.as_str().unwrap().to_owned(), "x".to_owned()] {
            let answer = send(&demo, method, &of(&missing)).expect(404);
            assert!(answer.text().contains(&format!("No image found with ID {missing}")), "{}", answer.text());
        }
        let answer = send(&admin, method, &of(&unknown.to_string())).expect(404);
        assert!(answer.text().contains("No image found"), "{method}: {}", answer.text());
        assert_eq!(send(&gateway.anonymous(), method, &of(&own)).status, 401, "{method}");
    }
    assert_eq!(demo.show(&own)["status"], "queued");
}

#[test]
fn the_words_of_the_cache_are_no_image_ids() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    for path in ["/v2/cache/clean", "/v2/cache/prune"] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "HEAD"] {
            assert_eq!(send(&admin, method, path).expect(405).header("allow"), "POST", "{method} {path}");
        }
    }
}

#[test]
fn the_legacy_cache_api_is_not_there() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let id = demo.create("cached");
    for (method, path) in [
        ("GET", "/v2/cached_images".to_owned()),
        ("DELETE", "/v2/cached_images".to_owned()),
        ("DELETE", format!("/v2/cached_images/{id}")),
        ("GET", "/v2/queued_images".to_owned()),
        ("DELETE", "/v2/queued_images".to_owned()),
        ("PUT", format!("/v2/queued_images/{id}")),
        ("DELETE", format!("/v2/queued_images/{id}")),
    ] {
        for client in [&admin, &demo] {
            let answer = send(client, method, &path).expect(404);
            assert!(answer.text().contains("The resource could not be found."), "{method} {path}: {}", answer.text());
        }
    }
}
