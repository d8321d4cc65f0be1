//! An image whose upload failed says why, and can be uploaded again at once.

use serde_json::json;

use crate::harness::{
    Client, Gateway, Options, SlowUpload, TAKEOVER_S, Token, assert_active, await_clean, eventually, left_in_pool,
    random_bytes, status_of,
};

const FAILURE: &str = "os_glance_upload_failure";

/// What the image says of its last upload.
fn failure(client: &Client, id: &str) -> Option<String> {
    client.show(id).get(FAILURE).map(|text| text.as_str().unwrap().to_owned())
}

/// Waits until the image is queued, and tells why.
#[track_caller]
fn queued_because(gateway: &Gateway, id: &str, seconds: u64) -> String {
    let demo = gateway.client(Token::Demo);
    eventually("the record is queued", seconds, || status_of(&demo, id) == "queued");
    failure(&demo, id).unwrap_or_else(|| panic!("{id} does not say why: {}", demo.show(id)))
}

/// The next upload succeeds, and what was is forgotten.
#[track_caller]
fn assert_retried(gateway: &Gateway, id: &str) {
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 100_000);
    demo.upload(id, &bytes).expect(204);
    assert_active(&demo, id, &bytes);
    assert_eq!(failure(&demo, id), None);
    assert_eq!(gateway.sql(&format!("SELECT upload_failure IS NULL FROM images WHERE id = '{id}'")), "t");
    await_clean(gateway, &[id], &[], 40);
}

#[test]
fn what_the_client_was_told_stands_in_the_image() {
    let gateway = Gateway::start(Options::default().set("images", "image_size_cap_bytes", 1_000_000));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(2, 1_000_001);
    for (declared, sent, status, because) in
        [(Some("900"), 800, 400, "900"), (Some("500"), 900, 400, "500"), (None, 1_000_001, 413, "image_size_cap")]
    {
        let id = demo.create("failed");
        assert_eq!(failure(&demo, &id), None);
        let headers: Vec<(&str, &str)> = declared.iter().map(|size| ("x-openstack-image-size", *size)).collect();
        let answer = demo.upload_with(&id, &headers, &bytes[..sent]).expect(status);
        let why = queued_because(&gateway, &id, 1);
        assert!(why.contains(because), "{why}");
        assert!(answer.text().contains(&why), "{why}: {}", answer.text());
        let listed = demo.get(&format!("/v2/images?id={id}")).expect(200).json();
        assert_eq!(listed["images"][0][FAILURE], why.as_str());
        assert_retried(&gateway, &id);
    }
    // Refused before it began: nothing has happened to the image.
    let id = demo.create("refused");
    demo.upload_with(&id, &[("x-openstack-image-size", "2000000")], &b"data"[..]).expect(413);
    assert_eq!(failure(&demo, &id), None);
}

#[test]
fn the_reason_is_the_services_own() {
    let gateway = Gateway::start(Options::default().set("images", "image_property_quota", 1));
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id = demo.create("failed");
    let path = format!("/v2/images/{id}");
    demo.upload_with(&id, &[("x-openstack-image-size", "5")], &b"data"[..]).expect(400);
    let why = queued_because(&gateway, &id, 1);
    for client in [&demo, &admin] {
        for operation in [
            json!({"op": "add", "path": format!("/{FAILURE}"), "value": "mine"}),
            json!({"op": "replace", "path": format!("/{FAILURE}"), "value": "mine"}),
            json!({"op": "remove", "path": format!("/{FAILURE}")}),
        ] {
            client.patch(&path, &json!([operation])).expect(403);
        }
        client.post("/v2/images", &json!({ FAILURE: "mine" })).expect(403);
    }
    // It is no property that counts, and changes of others leave it alone.
    demo.patch(&path, &json!([{"op": "add", "path": "/colour", "value": "blue"}])).expect(200);
    assert_eq!(failure(&demo, &id), Some(why.clone()));
    // While the next upload runs it still stands; its own failure takes its place.
    let mut upload = SlowUpload::begin(&gateway, &id, None);
    assert!(upload.send(&random_bytes(3, 1000)));
    eventually("the upload has begun", 5, || status_of(&demo, &id) == "saving");
    assert_eq!(failure(&demo, &id), Some(why.clone()));
    drop(upload);
    let next = queued_because(&gateway, &id, 5);
    assert!(next != why && next.contains("client went away"), "{next}");
    assert_retried(&gateway, &id);
    assert_eq!(demo.show(&id)["colour"], "blue");
}

#[test]
fn a_client_that_stalls_finds_out_later() {
    let gateway = Gateway::start(Options::default().set("server", "body_idle_timeout_s", 1));
    let id = gateway.client(Token::Demo).create("stalled");
    let mut upload = SlowUpload::begin(&gateway, &id, Some(1_000_000));
    assert!(upload.send(&random_bytes(4, 1000)));
    assert_eq!(upload.answer(), Some(408));
    let why = queued_because(&gateway, &id, 1);
    assert!(why.contains("no data for 1 s"), "{why}");
    assert_retried(&gateway, &id);
}

#[test]
fn another_gateway_tells_of_the_death_of_the_one_that_received_the_data() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let victim = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let id = survivor.client(Token::Demo).create("killed");
    let mut upload = SlowUpload::begin(&victim, &id, None);
    assert!(upload.send(&random_bytes(5, 1 << 20)));
    eventually("the attempt is in the pool", 10, || !left_in_pool(&[&id]).is_empty());
    victim.signal("KILL");
    assert_eq!(upload.answer(), None);
    let why = queued_because(&survivor, &id, TAKEOVER_S);
    assert!(why.contains("gateway") && why.contains("died"), "{why}");
    assert_retried(&survivor, &id);
}

#[test]
fn an_upload_that_is_deleted_meanwhile_has_nobody_to_tell() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("deleted");
    let mut upload = SlowUpload::begin(&gateway, &id, Some(1_000_000));
    assert!(upload.send(&random_bytes(6, 1000)));
    eventually("the upload has begun", 5, || status_of(&demo, &id) == "saving");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    drop(upload);
    await_clean(&gateway, &[], &[&id], 10);
    assert_eq!(gateway.sql(&format!("SELECT count(*) FROM images WHERE id = '{id}'")), "0");
}

#[test]
fn an_upload_whose_job_was_taken_over_is_told_of_without_names_of_ours() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("failed");
    let mut upload = SlowUpload::begin(&gateway, &id, Some(1_000_000));
    assert!(upload.send(&random_bytes(7, 1000)));
    eventually("the upload has begun", 5, || status_of(&demo, &id) == "saving");
    gateway.sql(&format!(
        "UPDATE jobs SET lease_token = lease_token + 1, lease_expires_at = now() WHERE image_id = '{id}'"
    ));
    let why = queued_because(&gateway, &id, TAKEOVER_S);
    assert!(why.contains("cut off") && !why.contains("lease") && !why.contains(&id), "{why}");
    assert!(upload.answer().is_none_or(|status| status >= 400));
    assert_retried(&gateway, &id);
}
