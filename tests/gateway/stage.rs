//! `PUT /v2/images/{id}/stage`: data that waits in the pool for an import.

use ureq::SendBody;

use crate::harness::{
    Gateway, Options, SlowUpload, TAKEOVER_S, Token, await_clean, eventually, left_in_pool, random_bytes, rbd,
    status_of,
};

const MIB: usize = 1 << 20;
/// How long a dead client of Ceph counts as a user of what it had open, and the retries on top of it.
const DATA_GONE_S: u64 = 75;

/// The RBD image that holds what was staged.
fn staged(id: &str) -> Option<String> {
    left_in_pool(&[id]).into_iter().find(|name| name.starts_with(&format!("staging-{id}-")))
}

#[test]
fn staged_data_waits_in_the_pool_and_goes_with_its_image() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("staged");
    let bytes = random_bytes(1, 9 * MIB + 5);
    demo.stage(&id, &bytes).expect(204);
    let image = demo.show(&id);
    assert_eq!((&image["status"], &image["size"]), (&"uploading".into(), &bytes.len().into()));
    assert!(
        image["checksum"].is_null() && image["os_hash_value"].is_null() && image.get("stores").is_none(),
        "{image}"
    );
    let name = staged(&id).unwrap();
    let file = std::env::temp_dir().join(&name);
    rbd(&["export", "--no-progress", &format!("images/{name}"), file.to_str().unwrap()]);
    assert!(std::fs::read(&file).unwrap() == bytes);
    std::fs::remove_file(&file).unwrap();
    // Nobody clones it: no round of the monitors was spent on a snapshot.
    assert_eq!(rbd(&["snap", "ls", &format!("images/{name}")]), "");
    let job = gateway
        .sql(&format!("SELECT kind, state, charged_bytes, lease_owner IS NULL FROM jobs WHERE image_id = '{id}'"));
    assert_eq!(job, "stage|staged|0|t");
    // It is not there twice, nor to be had.
    demo.stage(&id, b"again").expect(409);
    demo.upload(&id, b"other").expect(409);
    demo.get(&format!("/v2/images/{id}/file")).expect(204);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 10);
    assert_eq!(gateway.sql(&format!("SELECT count(*) FROM images WHERE id = '{id}'")), "0");
}

#[test]
fn what_cannot_be_staged_is_refused_and_leaves_nothing() {
    let gateway = Gateway::start(Options::quick().set("images", "image_size_cap_bytes", MIB as i64));
    let (demo, alt) = (gateway.client(Token::Demo), gateway.client(Token::Alt));
    let id = demo.create("refused");
    let path = format!("/v2/images/{id}/stage");
    let put =
        |headers: &[(&str, &str)], mut body: &[u8]| demo.send("PUT", &path, headers, SendBody::from_reader(&mut body));
    let octets = ("content-type", "application/octet-stream");
    put(&[("content-type", "application/json")], b"x").expect(415);
    put(&[octets, ("x-openstack-image-size", "-1")], b"x").expect(400);
    put(&[octets, ("x-openstack-image-size", "5")], b"x").expect(400);
    assert_eq!(status_of(&demo, &id), "queued");
    put(&[octets], &random_bytes(2, MIB + 1)).expect(413);
    demo.stage(&id, &random_bytes(2, MIB + 1)).expect(413);
    alt.stage(&id, b"x").expect(404);
    gateway.client(Token::Reader).stage(&id, b"x").expect(403);
    demo.stage("nothing", b"x").expect(404);
    let image = demo.show(&id);
    assert!(image["status"] == "queued" && image["size"].is_null(), "{image}");
    assert!(image["os_glance_upload_failure"].as_str().unwrap().contains("image_size_cap"), "{image}");
    let active = demo.active("active", b"data");
    demo.stage(&active, b"x").expect(409);
    await_clean(&gateway, &[&active], &[&id], 10);
    // After all of that it can be staged.
    demo.stage(&id, b"x").expect(204);
    let other = gateway.sibling_with(Options::quick().set("import", "methods", toml::Value::Array(Vec::new())));
    let without = other.client(Token::Demo);
    without.stage(&without.create("off"), b"x").expect(404);
}

#[test]
fn a_gateway_killed_while_data_is_staged_leaves_a_queued_image() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let victim = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let (id, gone) = (demo.create("killed"), demo.create("gone"));
    let bytes = random_bytes(3, 20 * MIB);
    let mut uploads = [&id, &gone].map(|id| SlowUpload::begin_stage(&victim, id, Some(bytes.len())));
    for upload in &mut uploads {
        assert!(upload.send(&bytes[..bytes.len() / 2]));
    }
    eventually("the attempts are in the pool", 10, || staged(&id).is_some() && staged(&gone).is_some());
    victim.signal("KILL");
    demo.delete(&format!("/v2/images/{gone}")).expect(204);
    eventually("the record is taken over", TAKEOVER_S, || status_of(&demo, &id) == "queued");
    assert!(demo.show(&id)["os_glance_upload_failure"].as_str().unwrap().contains("died"));
    // A retry need not wait for the rest of the first try to go.
    demo.stage(&id, &bytes).expect(204);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&survivor, &[], &[&id, &gone], DATA_GONE_S);
}

#[test]
fn an_image_deleted_while_data_is_staged_takes_it_along() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("deleted");
    let mut upload = SlowUpload::begin_stage(&gateway, &id, None);
    assert!(upload.send(&random_bytes(4, 9 * MIB)));
    eventually("the attempt is in the pool", 10, || staged(&id).is_some());
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert_eq!(upload.answer(), Some(410));
    await_clean(&gateway, &[], &[&id], 10);
}

#[test]
fn staged_data_that_nobody_imports_is_removed_after_its_time() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("forgotten");
    demo.stage(&id, &random_bytes(5, MIB)).expect(204);
    let left = "SELECT round(extract(epoch FROM lease_expires_at - now()) / 3600) FROM jobs";
    assert_eq!(gateway.sql(left), "24");
    gateway.sql("UPDATE jobs SET lease_expires_at = now()");
    await_clean(&gateway, &[], &[&id], 10);
    let image = demo.show(&id);
    assert!(image["status"] == "queued" && image["size"].is_null(), "{image}");
    assert!(image["os_glance_upload_failure"].as_str().unwrap().contains("24 hours"), "{image}");
}

#[test]
fn staged_data_counts_from_its_first_byte_to_its_last() {
    let mut limits = toml::Table::new();
    limits.insert("image_stage_total".into(), 3.into());
    let gateway = Gateway::start(Options::quick().set("limits", "source", "config").set("limits", "default", limits));
    let demo = gateway.client(Token::Demo);
    let used = || demo.get("/v2/info/usage").expect(200).json()["usage"]["image_stage_total"]["usage"].clone();
    let (first, second) = (demo.create("first"), demo.create("second"));
    demo.stage(&first, &random_bytes(6, 2 * MIB)).expect(204);
    assert_eq!(used(), 2);
    let text = demo.stage(&second, &random_bytes(6, MIB + 1)).expect(413).text();
    assert!(text.contains("image_stage_total"), "{text}");
    let path = format!("/v2/images/{second}/stage");
    let octets = [("content-type", "application/octet-stream")];
    demo.send("PUT", &path, &octets, SendBody::from_reader(&mut &random_bytes(6, MIB + 1)[..])).expect(413);
    eventually("the image is queued", 5, || status_of(&demo, &second) == "queued");
    demo.send("PUT", &path, &octets, SendBody::from_reader(&mut &random_bytes(6, MIB)[..])).expect(204);
    assert_eq!(used(), 3);
    demo.delete(&format!("/v2/images/{first}")).expect(204);
    assert_eq!(used(), 1);
}
