//! `/v2/images/{id}/tags/{tag}`.

use serde_json::json;

use crate::harness::{Answer, Client, Gateway, Options, Token, await_clean, eventually, rbd};

fn tag(client: &Client, id: &str, tag: &str) -> Answer {
    client.call("PUT", &format!("/v2/images/{id}/tags/{tag}"))
}

fn untag(client: &Client, id: &str, tag: &str) -> Answer {
    client.delete(&format!("/v2/images/{id}/tags/{tag}"))
}

fn tags(client: &Client, id: &str) -> Vec<String> {
    client.show(id)["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()).collect()
}

#[test]
fn tags_come_and_go_one_by_one() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("tagged");
    for (path, name) in [
        ("alpha", "alpha"),
        ("alpha", "alpha"),
        ("a%20b", "a b"),
        ("%C5%BC%C3%B3%C5%82w", "żółw"),
        ("a.b", "a.b"),
        ("a,b", "a,b"),
        ("a+b", "a+b"),
        ("100%25", "100%"),
        ("%3Cscript%3E", "<script>"),
        ("'%20OR%201=1--", "' OR 1=1--"),
        (&"t".repeat(255), &"t".repeat(255)),
    ] {
        let answer = tag(&demo, &id, path).expect(204);
        assert!(answer.body.is_empty());
        assert!(tags(&demo, &id).contains(&name.to_owned()), "{name}");
        let row = format!("SELECT count(*) FROM image_tags WHERE image_id = '{id}' AND value = $t${name}$t$");
        assert_eq!(gateway.sql(&row), "1", "{name}");
    }
    // What is so already is no change.
    let before = demo.show(&id);
    let version = || gateway.sql(&format!("SELECT version FROM images WHERE id = '{id}'"));
    let events = || gateway.sql(&format!("SELECT count(*) FROM events WHERE image_id = '{id}'"));
    let (old_version, old_events) = (version(), events());
    tag(&demo, &id, "alpha").expect(204);
    assert_eq!((demo.show(&id), version(), events()), (before, old_version, old_events));
    untag(&demo, &id, "a%20b").expect(204);
    untag(&demo, &id, "a%20b").expect(404);
    untag(&demo, &id, "ALPHA").expect(404);
    assert!(!tags(&demo, &id).contains(&"a b".to_owned()) && tags(&demo, &id).contains(&"alpha".to_owned()));
    assert_eq!(gateway.sql(&format!("SELECT count(*) FROM image_tags WHERE image_id = '{id}'")), "9");
    assert_eq!(demo.get("/v2/images?tag=alpha&tag=a.b").expect(200).json()["images"][0]["id"], id.as_str());
    assert_eq!(demo.get("/v2/images?tag=a%20b").expect(200).json()["images"], json!([]));
}

#[test]
fn what_is_no_tag_is_refused() {
    let gateway = Gateway::start(Options::default());
    let (demo, alt, reader) = (gateway.client(Token::Demo), gateway.client(Token::Alt), gateway.client(Token::Reader));
    let id = demo.create("tagged");
    tag(&demo, &id, "kept").expect(204);
    for bad in [&"t".repeat(256), "a%00b", "%0a", "%1b", "%F0%9F%90%A7", "%ff"] {
        let answer = tag(&demo, &id, bad);
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    for missing in ["", "a%2Fb", "a%2fb", "a/b", "kept/"] {
        assert_eq!(tag(&demo, &id, missing).status, 404, "{missing}");
        assert_eq!(untag(&demo, &id, missing).status, 404, "{missing}");
    }
    for missing in [&"t".repeat(256), "a%00b", "%F0%9F%90%A7", "nothing"] {
        assert_eq!(untag(&demo, &id, missing).status, 404, "{missing}");
    }
    for method in ["PUT", "DELETE"] {
        let answer = demo.send_json(method, &format!("/v2/images/{id}/tags/kept"), "{}");
        assert_eq!(answer.status, 400, "{method}: {}", answer.text());
    }
    for method in ["GET", "POST", "PATCH", "HEAD"] {
        let answer = demo.call(method, &format!("/v2/images/{id}/tags/kept"));
        assert_eq!((answer.status, answer.header("allow")), (405, "PUT, DELETE"), "{method}");
    }
    // Whoever may not change the image may not tag it.
    for (client, status) in [(&reader, 403), (&alt, 404)] {
        assert_eq!(tag(client, &id, "more").status, status);
        assert_eq!(untag(client, &id, "kept").status, status);
    }
    assert!(tag(&reader, &id, "more").text().contains("modify_image"));
    let community = demo.post("/v2/images", &json!({"visibility": "community"})).expect(201).json();
    assert_eq!(tag(&alt, community["id"].as_str().unwrap(), "more").status, 403);
    assert_eq!(tag(&demo, &uuid::Uuid::new_v4().to_string(), "x").status, 404);
    assert_eq!(tags(&demo, &id), ["kept"]);
}

#[test]
fn there_are_no_more_tags_than_the_quota() {
    let gateway = Gateway::start(Options::default().set("images", "image_tag_quota", 2));
    let demo = gateway.client(Token::Demo);
    let id = demo.create("tagged");
    tag(&demo, &id, "one").expect(204);
    tag(&demo, &id, "two").expect(204);
    let answer = tag(&demo, &id, "three").expect(413);
    assert!(answer.text().contains("Attempted: 3, Maximum: 2"), "{}", answer.text());
    tag(&demo, &id, "two").expect(204);
    // From before the quota was lowered: what is there may stay, or go.
    gateway.sql(&format!("INSERT INTO image_tags VALUES ('{id}', 'three'), ('{id}', 'four')"));
    tag(&demo, &id, "four").expect(204);
    tag(&demo, &id, "five").expect(413);
    untag(&demo, &id, "one").expect(204);
    assert_eq!(tags(&demo, &id), ["four", "three", "two"]);
}

#[test]
fn the_tags_of_an_active_image_stand_beside_its_data_too() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("tagged", b"data");
    let described = || rbd(&["image-meta", "get", &format!("images/{id}"), "rockpool.tags"]);
    tag(&demo, &id, "one").expect(204);
    tag(&demo, &id, "two").expect(204);
    eventually("both are there", 10, || described() == r#"["one","two"]"#);
    untag(&demo, &id, "one").expect(204);
    eventually("one is gone", 10, || described() == r#"["two"]"#);
    await_clean(&gateway, &[&id], &[], 10);
}
