//! `/v2/images/{id}/actions/...`: data that is withheld.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::harness::{Answer, Client, Gateway, Options, Token, await_clean, eventually, rbd, status_of};

fn act(client: &Client, id: &str, action: &str) -> Answer {
    client.call("POST", &format!("/v2/images/{id}/actions/{action}"))
}

#[test]
fn the_data_of_a_deactivated_image_is_for_administrators_alone() {
    let gateway = Gateway::start(Options::default().set("images", "show_multiple_locations", true));
    let (admin, demo, alt) = (gateway.client(Token::Admin), gateway.client(Token::Demo), gateway.client(Token::Alt));
    let id = demo.active("withheld", b"data");
    gateway.sql(&format!("INSERT INTO image_members VALUES ('{id}', 'p-alt', 'accepted', now(), now())"));
    let file = format!("/v2/images/{id}/file");
    let url = demo.show(&id)["direct_url"].clone();
    assert!(url.as_str().unwrap().starts_with("rbd://"));
    assert!(act(&demo, &id, "deactivate").expect(204).body.is_empty());
    act(&demo, &id, "deactivate").expect(204);
    assert_eq!(status_of(&demo, &id), "deactivated");
    assert_eq!(gateway.sql(&format!("SELECT status FROM images WHERE id = '{id}'")), "deactivated");
    for client in [&demo, &alt, &gateway.client(Token::Reader)] {
        client.get(&file).expect(403);
        client.get_with(&file, &[("range", "bytes=0-1")]).expect(403);
        client.get_with(&file, &[("if-none-match", "*")]).expect(403);
        let image = client.show(&id);
        assert_eq!((image.get("direct_url"), &image["locations"]), (None, &json!([])), "{image}");
    }
    assert_eq!(admin.get(&file).expect(200).body, b"data");
    assert_eq!(admin.show(&id)["direct_url"], url);
    // All else can still be done to it.
    demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "add", "path": "/colour", "value": "blue"}])).expect(200);
    demo.call("PUT", &format!("/v2/images/{id}/tags/t")).expect(204);
    demo.upload(&id, b"other").expect(409);
    let listed = demo.get("/v2/images?status=deactivated").expect(200).json();
    assert_eq!(listed["images"].as_array().unwrap().len(), 1);
    act(&demo, &id, "reactivate").expect(204);
    act(&demo, &id, "reactivate").expect(204);
    assert_eq!(demo.get(&file).expect(200).body, b"data");
    assert_eq!(alt.get(&file).expect(200).body, b"data");
    assert_eq!(demo.show(&id)["direct_url"], url);
    let told = gateway.sql(&format!(
        "SELECT string_agg(payload->>'status', ' ' ORDER BY id) FROM events WHERE image_id = '{id}' AND type = 'image.update'"
    ));
    assert_eq!(told, "deactivated deactivated deactivated active", "what changes nothing is not told");
    act(&demo, &id, "deactivate").expect(204);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 10);
}

#[test]
fn the_image_metadata_in_the_pool_says_that_data_is_withheld() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("withheld", b"data");
    let spec = format!("images/{id}");
    let says = |status: &str| {
        let listed = rbd(&["image-meta", "list", &spec]);
        listed.lines().any(|line| line.split_whitespace().eq(["rockpool.status", status]))
    };
    assert!(says("active"), "{}", rbd(&["image-meta", "list", &spec]));
    act(&demo, &id, "deactivate").expect(204);
    eventually("the metadata follows", 10, || says("deactivated"));
    // Whatever else is written there meanwhile.
    demo.call("PUT", &format!("/v2/images/{id}/tags/t")).expect(204);
    eventually("it is written again", 10, || rbd(&["image-meta", "get", &spec, "rockpool.tags"]) == r#"["t"]"#);
    assert!(says("deactivated"));
    act(&demo, &id, "reactivate").expect(204);
    eventually("the metadata follows again", 10, || says("active"));
    assert_eq!(gateway.sql("SELECT count(*) FROM jobs"), "0", "nothing is left to do");
}

#[test]
fn only_what_has_data_is_deactivated_and_only_by_who_may() {
    let gateway = Gateway::start(Options::default());
    let (demo, alt, reader) = (gateway.client(Token::Demo), gateway.client(Token::Alt), gateway.client(Token::Reader));
    for status in ["queued", "saving", "importing", "uploading"] {
        let id = demo.create(status);
        gateway.sql(&format!("UPDATE images SET status = '{status}' WHERE id = '{id}'"));
        for action in ["deactivate", "reactivate"] {
            let answer = act(&demo, &id, action).expect(403);
            let expected = format!("Not allowed to {action} image in status ");
            assert!(answer.text().contains(&expected) && answer.text().contains(status), "{}", answer.text());
        }
        assert_eq!(status_of(&demo, &id), status);
    }
    let id = demo.post("/v2/images", &json!({"visibility": "community"})).expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    gateway.sql(&format!("UPDATE images SET status = 'active', size_bytes = 0 WHERE id = '{id}'"));
    for action in ["deactivate", "reactivate"] {
        for client in [&alt, &reader] {
            let answer = act(client, &id, action).expect(403);
            assert!(answer.text().contains(action), "the rule is named: {}", answer.text());
        }
        let path = format!("/v2/images/{id}/actions/{action}");
        demo.send_json("POST", &path, "{}").expect(400);
        for method in ["GET", "PUT", "DELETE", "PATCH", "HEAD"] {
            let answer = demo.call(method, &path);
            assert_eq!((answer.status, answer.header("allow")), (405, "POST"), "{method} {action}");
        }
        act(&demo, &uuid::Uuid::new_v4().to_string(), action).expect(404);
    }
    assert_eq!(act(&demo, &id, "destroy").status, 404);
    assert_eq!(act(&demo, &format!("{id}/"), "deactivate").status, 404);
    assert_eq!(status_of(&demo, &id), "active");
}

#[test]
fn a_deletion_that_fails_does_not_open_a_deactivated_image() {
    // The image is found in use by the first look, before it leaves the lists; and by the second, after.
    let gateways = Gateway::start_all(&Options::quick(), 2);
    let demo = gateways[0].client(Token::Demo);
    let id = demo.active("withheld", b"data");
    act(&demo, &id, "deactivate").expect(204);
    let clone = format!("clone-{id}");
    rbd(&["clone", &format!("images/{id}@snap"), &format!("images/{clone}")]);
    demo.delete(&format!("/v2/images/{id}")).expect(409);
    assert_eq!(status_of(&demo, &id), "deactivated");
    // As a gateway leaves it that dies between the two looks.
    let job = uuid::Uuid::new_v4();
    gateways[0].sql(&format!(
        "BEGIN; UPDATE images SET status = 'deleted' WHERE id = '{id}';
         INSERT INTO jobs (id, kind, image_id, state, payload, lease_expires_at) VALUES ('{job}', 'delete', '{id}', 'retiring', '{{\"was\": \"deactivated\"}}', now()); COMMIT"
    ));
    crate::harness::eventually("it is back", 15, || status_of(&demo, &id) == "deactivated");
    demo.get(&format!("/v2/images/{id}/file")).expect(403);
    rbd(&["rm", "--no-progress", &format!("images/{clone}")]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateways[0], &[], &[&id], 10);
}

#[test]
fn withholding_and_deleting_at_the_same_time_leave_one_or_the_other() {
    let gateways = Gateway::start_all(&Options::default(), 2);
    let (one, other) = (gateways[0].client(Token::Demo), gateways[1].client(Token::Demo));
    let mut ids = Vec::new();
    for _ in 0..12 {
        let id = one.active("race", b"data");
        let start = Barrier::new(2);
        let (acted, deleted) = thread::scope(|scope| {
            let acted = scope.spawn(|| {
                start.wait();
                act(&one, &id, "deactivate").status
            });
            start.wait();
            let deleted = other.delete(&format!("/v2/images/{id}")).status;
            (acted.join().unwrap(), deleted)
        });
        assert_eq!(deleted, 204);
        assert!([204, 404].contains(&acted), "{acted}");
        assert_eq!(status_of(&one, &id), "gone");
        ids.push(id);
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    await_clean(&gateways[0], &[], &ids, 20);
}

#[test]
fn import_methods_can_be_switched_off() {
    let gateway = Gateway::start(Options::default().set("import", "methods", toml::Value::Array(Vec::new())));
    let reader = gateway.client(Token::Reader);
    let methods: Value = reader.get("/v2/info/import").expect(200).json();
    assert_eq!(
        methods,
        json!({"import-methods": {"description": "Import methods available.", "type": "array", "value": []}})
    );
    let answer = reader.call("POST", "/v2/info/import");
    assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
    reader.send_json("GET", "/v2/info/import", "{}").expect(400);
    gateway.anonymous().get("/v2/info/import").expect(401);
    let created = gateway.client(Token::Demo).post("/v2/images", &json!({})).expect(201);
    assert!(created.headers.get("openstack-image-import-methods").is_none());
}
