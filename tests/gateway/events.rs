//! What the outbox tells of images, uploads and tasks: the fields of Glance's notifications, as they are by then.

use serde_json::{Value, json};

use crate::harness::{Foreign, Gateway, Options, SlowUpload, Token, eventually, status_of};

/// The events about an image, in order: type, priority, payload.
fn told(gateway: &Gateway, id: &str) -> Vec<(String, String, Value)> {
    let rows = gateway.sql(&format!(
        "SELECT jsonb_agg(jsonb_build_array(type, priority, payload) ORDER BY id) FROM events WHERE image_id = '{id}'"
    ));
    serde_json::from_str(&rows).unwrap()
}

#[test]
fn events_tell_all_of_an_image_at_that_time() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let image = json!({
        "name": "told", "disk_format": "raw", "container_format": "bare", "min_disk": 3, "min_ram": 64, "visibility": "shared",
        "tags": ["b", "a"], "site": "north",
    });
    let id = demo.post("/v2/images", &image).expect(201).json()["id"].as_str().unwrap().to_owned();
    let path = format!("/v2/images/{id}");
    demo.upload(&id, b"bytes").expect(204);
    let rename = json!([{"op": "replace", "path": "/name", "value": "renamed"}, {"op": "remove", "path": "/site"}]);
    demo.patch(&path, &rename).expect(200);
    demo.call("PUT", &format!("{path}/tags/c")).expect(204);
    demo.call("POST", &format!("{path}/actions/deactivate")).expect(204);
    let shown = demo.show(&id);
    demo.delete(&path).expect(204);
    let told = told(&gateway, &id);
    let kinds: Vec<&str> = told.iter().map(|(kind, ..)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "image.create",
            "image.prepare",
            "image.upload",
            "image.activate",
            "image.update",
            "image.update",
            "image.update",
            "image.delete"
        ]
    );
    assert!(told.iter().all(|(_, priority, _)| priority == "INFO"), "{told:?}");
    let payload = |n: usize| &told[n].2;

    let mut first = payload(0).clone();
    for time in ["created_at", "updated_at"] {
        assert_eq!(first[time], shown["created_at"]);
        first.as_object_mut().unwrap().remove(time);
    }
    assert_eq!(
        first,
        json!({
            "id": id, "name": "told", "status": "queued", "owner": "p-demo", "visibility": "shared", "is_public": false,
            "protected": false, "disk_format": "raw", "container_format": "bare", "min_disk": 3, "min_ram": 64,
            "size": null, "virtual_size": null, "checksum": null, "properties": {"site": "north"}, "tags": ["a", "b"],
            "deleted": false, "deleted_at": null,
        })
    );
    for n in [1, 2] {
        assert_eq!(payload(n)["backend"], "ceph");
        assert_eq!(payload(n)["os_glance_importing_to_stores"], json!([]));
        assert_eq!(payload(n)["os_glance_failed_import"], json!([]));
    }
    assert_eq!((&payload(1)["status"], &payload(1)["size"]), (&json!("saving"), &Value::Null));
    for n in [2, 3] {
        assert_eq!(payload(n)["status"], "active");
        assert_eq!((&payload(n)["size"], &payload(n)["virtual_size"]), (&json!(5), &json!(5)));
        assert_eq!(payload(n)["checksum"], shown["checksum"]);
    }
    assert_eq!((&payload(4)["name"], &payload(4)["properties"]), (&json!("renamed"), &json!({})));
    assert_eq!(payload(5)["tags"], json!(["a", "b", "c"]));
    assert_eq!(payload(6)["status"], "deactivated");
    let last = payload(7);
    assert_eq!(
        (&last["status"], &last["deleted"], &last["name"]),
        (&json!("deleted"), &json!(true), &json!("renamed"))
    );
    assert_eq!(last["deleted_at"].as_str().unwrap().len(), "2026-01-01T00:00:00Z".len());
}

#[test]
fn a_failed_upload_is_told_with_its_reason() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("fails");
    let mut upload = SlowUpload::begin(&gateway, &id, Some(1000));
    assert!(upload.send(&[1; 100]));
    eventually("it is under way", 10, || status_of(&demo, &id) == "saving");
    drop(upload);
    eventually("it is queued again", 10, || status_of(&demo, &id) == "queued");
    let told = told(&gateway, &id);
    let (kind, priority, why) = &told[2];
    assert_eq!((kind.as_str(), priority.as_str()), ("image.upload", "ERROR"));
    assert_eq!(why, &demo.show(&id)["os_glance_upload_failure"]);
    assert!(why.as_str().unwrap().contains("client went away"), "{why}");
    assert_eq!(told.len(), 3, "{told:?}");
}

#[test]
fn tasks_are_told_from_beginning_to_end() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for (validation, kinds, status) in [
        (json!({"os_hash_algo": "sha512", "os_hash_value": "0".repeat(128)}), "create processing failure", "queued"),
        (Value::Null, "create success", "active"),
    ] {
        let id = demo.create("told");
        let data = Foreign::new(&id, b"bytes of somebody else");
        let mut body = json!({"url": data.url});
        if !validation.is_null() {
            body["validation_data"] = validation;
        }
        demo.post_for_user(&format!("/v2/images/{id}/locations"), &body, Token::Service.text()).expect(202);
        let told = || {
            gateway.sql(&format!(
                "SELECT string_agg(replace(type, 'task.', ''), ' ' ORDER BY id) FROM events WHERE type LIKE 'task.%' AND payload->>'image_id' = '{id}'"
            ))
        };
        eventually("the task has ended", 20, || told() == kinds);
        assert_eq!(status_of(&demo, &id), status);
        let last: Value = serde_json::from_str(&gateway.sql(&format!(
            "SELECT payload FROM events WHERE type LIKE 'task.%' AND payload->>'image_id' = '{id}' ORDER BY id DESC LIMIT 1"
        )))
        .unwrap();
        assert_eq!(last["type"], "location_import");
        assert_eq!(last["status"], kinds.split(' ').next_back().unwrap());
        assert_eq!((&last["owner"], &last["user_id"]), (&json!("p-demo"), &json!("u-demo")));
        assert_eq!((&last["deleted"], &last["deleted_at"]), (&json!(false), &Value::Null));
        let task = format!("/v2/tasks/{}", last["id"].as_str().unwrap());
        let task = gateway.client(Token::Admin).get(&task).expect(200).json();
        for name in ["id", "created_at", "updated_at"] {
            assert_eq!(last[name], task[name], "{name}");
        }
        for secret in ["input", "result", "message"] {
            assert!(last.get(secret).is_none(), "{last}");
        }
    }
}
