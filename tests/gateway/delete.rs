//! `DELETE /v2/images/{id}`.

use serde_json::json;

use crate::harness::{Gateway, Options, Token, left_in_pool, rbd, try_rbd};

fn protect(path: &str, client: &crate::harness::Client, value: bool) {
    client.patch(path, &json!([{"op": "replace", "path": "/protected", "value": value}])).expect(200);
}

#[test]
fn a_deleted_image_is_gone_from_everywhere() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let body = json!({"name": "gone", "disk_format": "raw", "container_format": "bare", "tags": ["t"], "p": "v"});
    for data in [None, Some(&b""[..]), Some(b"bytes")] {
        let id = demo.post("/v2/images", &body).expect(201).json()["id"].as_str().unwrap().to_owned();
        let path = format!("/v2/images/{id}");
        if let Some(bytes) = data {
            demo.upload(&id, bytes).expect(204);
        }
        let answer = demo.delete(&path);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{}", answer.text());
        for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/file"))] {
            assert_eq!(demo.send(method, &path, &[], ureq::SendBody::none()).status, 404, "{method}");
        }
        assert_eq!(demo.upload(&id, b"x").status, 404);
        assert_eq!(left_in_pool(&[&id]), Vec::<String>::new());
        for table in ["images", "image_tags", "image_properties", "image_locations", "jobs"] {
            assert_eq!(gateway.sql(&format!("SELECT count(*) FROM {table}")), "0", "{table}");
        }
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM image_ids"), "3", "ids stay taken");
}

#[test]
fn a_protected_image_stays_even_for_an_administrator() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id = demo.active("protected", b"bytes");
    let path = format!("/v2/images/{id}");
    protect(&path, &demo, true);
    for client in [&demo, &admin] {
        let answer = client.delete(&path);
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains("protected"), "{}", answer.text());
    }
    assert_eq!(demo.get(&format!("{path}/file")).expect(200).body, b"bytes");
    protect(&path, &demo, false);
    demo.delete(&path).expect(204);
}

#[test]
fn an_image_with_clones_stays_whole_until_they_are_gone() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id = demo.active("in use", b"bytes of a disk");
    let path = format!("/v2/images/{id}");
    let (snapshot, first, second) = (format!("images/{id}@snap"), format!("vms/{id}-1"), format!("vms/{id}-2"));
    rbd(&["clone", &snapshot, &first]);
    for client in [&demo, &admin] {
        let answer = client.delete(&path);
        assert_eq!(answer.status, 409, "{}", answer.text());
        assert!(answer.text().contains("in use"), "{}", answer.text());
        // Its Ceph user has no rights to the pool `vms`: it says what it knows.
        assert!(answer.text().contains(&first) || answer.text().contains("clone"), "{}", answer.text());
    }
    assert_eq!(demo.show(&id)["status"], "active");
    let listed = demo.get("/v2/images?name=in%20use").expect(200).json();
    assert_eq!(listed["images"].as_array().unwrap().len(), 1);
    assert_eq!(demo.get(&format!("{path}/file")).expect(200).body, b"bytes of a disk");
    rbd(&["clone", &snapshot, &second]);
    assert!(rbd(&["snap", "ls", &format!("images/{id}")]).contains("yes"), "the snapshot is protected");
    assert_eq!(left_in_pool(&[&id]), [id.as_str()]);
    rbd(&["rm", "--no-progress", &first]);
    assert_eq!(demo.delete(&path).status, 409);
    rbd(&["rm", "--no-progress", &second]);
    demo.delete(&path).expect(204);
    assert_eq!(left_in_pool(&[&id]), Vec::<String>::new());
}

#[test]
fn a_snapshot_that_somebody_else_made_keeps_the_image() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("snapped", b"bytes");
    let path = format!("/v2/images/{id}");
    rbd(&["snap", "create", "--no-progress", &format!("images/{id}@precious")]);
    let answer = demo.delete(&path);
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("precious"), "{}", answer.text());
    assert_eq!(demo.get(&format!("{path}/file")).expect(200).body, b"bytes");
    rbd(&["snap", "rm", "--no-progress", &format!("images/{id}@precious")]);
    demo.delete(&path).expect(204);
    assert!(try_rbd(&["info", &format!("images/{id}")]).is_err());
}

#[test]
fn data_that_was_removed_by_hand_does_not_keep_the_record() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("lost", b"bytes");
    let (path, spec) = (format!("/v2/images/{id}"), format!("images/{id}"));
    rbd(&["snap", "unprotect", &format!("{spec}@snap")]);
    rbd(&["snap", "rm", "--no-progress", &format!("{spec}@snap")]);
    // Half gone: no snapshot to read from.
    let answer = demo.get(&format!("{path}/file"));
    assert!(answer.status >= 400 && answer.body != b"bytes", "{}", answer.status);
    rbd(&["rm", "--no-progress", &spec]);
    let answer = demo.get(&format!("{path}/file"));
    assert!(answer.status >= 400, "{}", answer.status);
    demo.delete(&path).expect(204);
    assert_eq!(demo.get(&path).status, 404);
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "0");
    assert_eq!(gateway.sql("SELECT count(*) FROM jobs"), "0");
    // An image whose snapshot alone was removed goes as well.
    let id = demo.active("half lost", b"bytes");
    rbd(&["snap", "unprotect", &format!("images/{id}@snap")]);
    rbd(&["snap", "rm", "--no-progress", &format!("images/{id}@snap")]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert_eq!(left_in_pool(&[&id]), Vec::<String>::new());
}
