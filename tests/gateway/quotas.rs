//! What a project may use: storage quotas, unified limits, and that nobody gets past them by being quick.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use toml::Table;

use crate::harness::{
    Answer, Client, FakeKeystone, Fault, Gateway, Options, Session, SlowUpload, TAKEOVER_S, Token, assert_active,
    eventually, random_bytes, status_of,
};

/// Project of the client that most of this is about.
const DEMO: &str = "p-demo";
const MIB: usize = 1 << 20;

/// A quota on bytes.
fn storage(quota: &str) -> Options {
    Options::quick().set("limits", "user_storage_quota", quota)
}

/// Unified limits of every project: sizes in MiB.
fn unified(limits: &[(&str, i64)]) -> Options {
    Options::quick().set("limits", "source", "config").set("limits", "default", numbers(limits))
}

fn numbers(limits: &[(&str, i64)]) -> Table {
    limits.iter().map(|(name, limit)| ((*name).to_owned(), toml::Value::from(*limit))).collect()
}

/// Uploads without saying how much.
#[track_caller]
fn stream(client: &Client, id: &str, bytes: &[u8]) -> Answer {
    client.upload_with(id, &[], bytes)
}

/// Bytes that are stored or reserved for the project, as the rows themselves say it.
#[track_caller]
fn used(gateway: &Gateway, project: &str) -> usize {
    gateway
        .sql(&format!(
            "SELECT (SELECT coalesce(sum(i.size_bytes), 0) FROM images i JOIN image_locations l ON l.image_id = i.id WHERE i.owner = '{project}' AND i.status <> 'deleted') \
             + (SELECT coalesce(sum(charged_bytes), 0) FROM jobs WHERE charged_to = '{project}' AND state IN ('writing', 'committing', 'retiring'))"
        ))
        .parse()
        .unwrap()
}

/// The number that the database keeps of each image's copies is the number of its copies.
#[track_caller]
fn assert_copies(gateway: &Gateway) {
    let wrong = gateway.sql(
        "SELECT id FROM images i WHERE copies <> (SELECT count(*) FROM image_locations l WHERE l.image_id = i.id)",
    );
    assert!(wrong.is_empty(), "{wrong}");
}

#[track_caller]
fn refused(answer: Answer, words: &[&str]) {
    let text = answer.expect(413).text();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

fn usage(client: &Client) -> Value {
    client.get("/v2/info/usage").expect(200).json()
}

#[test]
fn a_storage_quota_holds_to_the_byte_whether_the_length_is_known_or_not() {
    let gateway = Gateway::start(storage("3MB"));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 3 * MIB + 1);
    let first = demo.active("first", &bytes[..MIB]);
    for (id, send) in [
        (demo.create("known"), Client::upload as fn(&Client, &str, &[u8]) -> Answer),
        (demo.create("unknown"), |client, id, bytes| stream(client, id, bytes)),
    ] {
        refused(
            send(&demo, &id, &bytes[..2 * MIB + 1]),
            &["Project p-demo ", "user_storage_quota is 3145728 bytes", " were asked for"],
        );
        // Nothing is left of it, and a retry just works.
        eventually("the image is queued", 5, || status_of(&demo, &id) == "queued");
        assert_eq!(used(&gateway, DEMO), MIB);
        send(&demo, &id, &bytes[..2 * MIB]).expect(204);
        assert_active(&demo, &id, &bytes[..2 * MIB]);
        assert_eq!(used(&gateway, DEMO), 3 * MIB);
        let more = demo.create("more");
        refused(send(&demo, &more, b"x"), &["3145728 are in use", "1 more"]);
        // Nothing needs no room.
        send(&demo, &demo.create("empty"), b"").expect(204);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        assert_eq!(used(&gateway, DEMO), MIB, "deletion gives it back");
    }
    // What is announced is refused before it is sent.
    let id = demo.create("announced");
    let mut upload = SlowUpload::begin(&gateway, &id, Some(2 * MIB + 1));
    assert_eq!(upload.answer(), Some(413));
    // Others have their own.
    let alt = gateway.client(Token::Alt);
    alt.active("theirs", &bytes[..3 * MIB]);
    assert_active(&demo, &first, &bytes[..MIB]);
    assert_copies(&gateway);
}

#[test]
fn locations_that_somebody_adds_are_charged_like_uploads() {
    let gateway = Gateway::start(storage("3MB").set("images", "show_multiple_locations", true));
    let demo = gateway.client(Token::Demo);
    let id = demo.active("data", &random_bytes(13, 3 * MIB / 2));
    let url = demo.show(&id)["direct_url"].clone();
    let add = json!([{"op": "add", "path": "/locations/-", "value": {"url": url, "metadata": {}}}]);
    let (second, third) = (demo.create("second"), demo.create("third"));
    demo.patch(&format!("/v2/images/{second}"), &add).expect(200);
    assert_eq!((used(&gateway, DEMO), status_of(&demo, &second)), (3 * MIB, "active".into()));
    refused(
        demo.patch(&format!("/v2/images/{third}"), &add),
        &["Project p-demo ", "user_storage_quota", "1572864 more"],
    );
    assert_eq!((used(&gateway, DEMO), status_of(&demo, &third)), (3 * MIB, "queued".into()));
    demo.delete(&format!("/v2/images/{second}")).expect(204);
    demo.patch(&format!("/v2/images/{third}"), &add).expect(200);
    assert_copies(&gateway);
}

#[test]
fn the_owner_is_charged_whoever_uploads() {
    let gateway = Gateway::start(storage("1MB"));
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let bytes = random_bytes(2, MIB);
    let id = demo.create("theirs");
    admin.upload(&id, &bytes).expect(204);
    assert_eq!((used(&gateway, DEMO), used(&gateway, "p-admin")), (MIB, 0));
    refused(admin.upload(&demo.create("more"), b"x"), &["Project p-demo "]);
    // It goes with the image to another project, and leaves room behind.
    admin
        .patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/owner", "value": "p-alt"}]))
        .expect(200);
    demo.active("again", &bytes);
    refused(gateway.client(Token::Alt).upload(&gateway.client(Token::Alt).create("full"), b"x"), &["Project p-alt "]);
    // What belongs to nobody is charged to nobody.
    let document = json!({"owner": null, "disk_format": "raw", "container_format": "bare"});
    let nobodys = admin.post("/v2/images", &document).expect(201).json();
    admin.upload(nobodys["id"].as_str().unwrap(), &random_bytes(3, 2 * MIB)).expect(204);
}

#[test]
fn parallel_uploads_at_two_gateways_do_not_get_past_a_quota() {
    const UPLOADS: usize = 8;
    const FIT: usize = 3;
    let gateways = Gateway::start_all(&storage("3MB"), 2);
    let demo = gateways[0].client(Token::Demo);
    let bytes = random_bytes(4, MIB);
    for known in [true, false] {
        let ids: Vec<String> = (0..UPLOADS).map(|_| demo.create("parallel")).collect();
        let begin = Barrier::new(UPLOADS);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let uploads: Vec<_> = ids
                .iter()
                .enumerate()
                .map(|(n, id)| {
                    let (begin, bytes, client) = (&begin, &bytes, gateways[n % 2].client(Token::Demo));
                    scope.spawn(move || {
                        begin.wait();
                        if known { client.upload(id, bytes) } else { stream(&client, id, bytes) }.status
                    })
                })
                .collect();
            uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
        });
        assert!(statuses.iter().all(|status| [204, 413].contains(status)), "{statuses:?}");
        let stored = statuses.iter().filter(|status| **status == 204).count();
        if known {
            assert_eq!(stored, FIT, "{statuses:?}");
        } else {
            // What a stream has reserved ahead, others may be refused for; the one that began first never is.
            assert!((1..=FIT).contains(&stored), "{statuses:?}");
        }
        assert_eq!(used(&gateways[0], DEMO), stored * MIB);
        for (id, status) in ids.iter().zip(statuses) {
            assert_eq!(status_of(&demo, id), if status == 204 { "active" } else { "queued" });
            demo.delete(&format!("/v2/images/{id}")).expect(204);
        }
        assert_eq!(used(&gateways[1], DEMO), 0);
    }
    assert_copies(&gateways[0]);
}

#[test]
fn a_stream_reserves_as_it_grows_and_leaves_room_for_others() {
    let gateway = Gateway::start(storage("8MB"));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(5, 6 * MIB);
    let id = demo.create("growing");
    let mut upload = SlowUpload::begin(&gateway, &id, None);
    for (sent, end) in [(0, 100), (100, 2 * MIB), (2 * MIB, 5 * MIB)] {
        assert!(upload.send(&bytes[sent..end]));
        eventually("what has been sent is reserved", 10, || used(&gateway, DEMO) >= end);
        assert!(used(&gateway, DEMO) <= end + MIB + MIB / 16, "{} for {end}", used(&gateway, DEMO));
    }
    // Two MiB fit beside it, and it gets what they left.
    demo.active("beside", &bytes[..MIB]);
    refused(demo.upload(&demo.create("too much"), &bytes[..3 * MIB]), &["8388608 bytes", "3145728 more"]);
    assert!(upload.send(&bytes[5 * MIB..]));
    assert_eq!(upload.finish(), Some(204));
    assert_eq!(used(&gateway, DEMO), 7 * MIB);
}

#[test]
fn of_streams_that_reach_the_limit_together_the_younger_gives_way() {
    let gateway = Gateway::start(storage("4MB"));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(12, 3 * MIB);
    let (older, younger) = (demo.create("older"), demo.create("younger"));
    let begin = |id: &str, end: usize| {
        let mut upload = SlowUpload::begin(&gateway, id, None);
        assert!(upload.send(&bytes[..end]));
        eventually("it is under way", 10, || status_of(&demo, id) == "saving");
        upload
    };
    let mut first = begin(&older, 2 * MIB);
    let mut second = begin(&younger, MIB);
    eventually("both have reserved", 10, || used(&gateway, DEMO) >= 3 * MIB);
    assert!(first.send(&bytes[2 * MIB..]));
    assert!(second.send(&bytes[MIB..]));
    assert_eq!(second.answer(), Some(413));
    assert_eq!(first.finish(), Some(204));
    assert_eq!(used(&gateway, DEMO), 3 * MIB);
    assert_eq!((status_of(&demo, &older), status_of(&demo, &younger)), ("active".into(), "queued".into()));
}

#[test]
fn uploads_that_fail_give_back_what_they_had_reserved() {
    let gateway = Gateway::start(storage("2MB"));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(6, 2 * MIB);
    for length in [Some(2 * MIB), None] {
        let id = demo.create("cut off");
        let mut upload = SlowUpload::begin(&gateway, &id, length);
        assert!(upload.send(&bytes[..MIB]));
        eventually("room is reserved", 10, || used(&gateway, DEMO) >= MIB);
        refused(demo.upload(&demo.create("beside"), &bytes), &["are in use or reserved"]);
        drop(upload);
        eventually("the room is free", 5, || used(&gateway, DEMO) == 0);
        // At once, although data of the first attempt may still be in the pool.
        demo.upload(&id, &bytes).expect(204);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    // Deleted in the middle.
    let id = demo.create("deleted");
    let mut upload = SlowUpload::begin(&gateway, &id, Some(2 * MIB));
    assert!(upload.send(&bytes[..MIB]));
    eventually("it is under way", 10, || status_of(&demo, &id) == "saving");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert_eq!(upload.answer(), Some(410));
    assert_eq!(used(&gateway, DEMO), 0);
    // Not as long as announced.
    let headers = [("x-openstack-image-size", "2097152")];
    demo.upload_with(&demo.create("short"), &headers, &bytes[..MIB]).expect(400);
    assert_eq!(used(&gateway, DEMO), 0);
}

#[test]
fn what_a_killed_gateway_had_reserved_is_free_after_its_lease() {
    let mut gateways = Gateway::start_all(&storage("2MB"), 2);
    let victim = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let bytes = random_bytes(7, 2 * MIB);
    let (known, unknown) = (demo.create("known"), demo.create("unknown"));
    let mut first = SlowUpload::begin(&victim, &known, Some(MIB));
    let mut second = SlowUpload::begin(&victim, &unknown, None);
    assert!(first.send(&bytes[..100]) && second.send(&bytes[..MIB / 2]));
    eventually("both have reserved", 10, || used(&survivor, DEMO) > MIB + MIB / 2);
    victim.signal("KILL");
    let id = demo.create("next");
    // Not before: it may only be slow.
    refused(demo.upload(&id, &bytes), &["p-demo"]);
    eventually("the room is free", TAKEOVER_S, || used(&survivor, DEMO) == 0);
    demo.upload(&id, &bytes).expect(204);
    assert_eq!((status_of(&demo, &known), status_of(&demo, &unknown)), ("queued".into(), "queued".into()));
}

#[test]
fn images_are_counted_and_parallel_creates_do_not_get_past_the_limit() {
    const LIMIT: usize = 10;
    let options = unified(&[("image_count_total", 10)]).set(
        "limits",
        "projects",
        Table::from_iter([("p-alt".to_owned(), toml::Value::from(numbers(&[("image_count_total", 0)])))]),
    );
    let gateways = Gateway::start_all(&options, 2);
    let demo = gateways[0].client(Token::Demo);
    let id = demo.create("first");
    let statuses: Vec<u16> = thread::scope(|scope| {
        let creates: Vec<_> = (0..2 * LIMIT)
            .map(|n| {
                let client = gateways[n % 2].client(Token::Demo);
                scope.spawn(move || client.post("/v2/images", &json!({"name": "parallel"})).status)
            })
            .collect();
        creates.into_iter().map(|create| create.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), LIMIT - 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [201, 413].contains(status)), "{statuses:?}");
    assert_eq!(gateways[0].sql("SELECT count(*) FROM images"), "10");
    refused(
        demo.post("/v2/images", &json!({})),
        &["Project p-demo ", "image_count_total is 10 images", "10 are in use", "1 more"],
    );
    // An id that was refused is still free.
    let chosen = json!({"id": "6f1d1b0e-9f2b-4a53-9c0b-111111111111"});
    refused(demo.post("/v2/images", &chosen), &["image_count_total"]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    demo.post("/v2/images", &chosen).expect(201);
    // Each project has its own limit, and the owner is who counts.
    refused(gateways[1].client(Token::Alt).post("/v2/images", &json!({})), &["Project p-alt ", "is 0 images"]);
    let admin = gateways[1].client(Token::Admin);
    refused(admin.post("/v2/images", &json!({"owner": "p-alt"})), &["Project p-alt "]);
    admin.post("/v2/images", &json!({})).expect(201);
}

#[test]
fn uploads_at_once_and_bytes_are_limited_by_unified_limits_alone() {
    let options = unified(&[("image_count_uploading", 2), ("image_size_total", 3)]);
    let gateway = Gateway::start(options.set("limits", "user_storage_quota", "1B"));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(8, 2 * MIB);
    let ids = [(); 3].map(|()| demo.create("at once"));
    let mut uploads: Vec<SlowUpload> = ids[..2].iter().map(|id| SlowUpload::begin(&gateway, id, Some(MIB))).collect();
    for (upload, id) in uploads.iter_mut().zip(&ids) {
        assert!(upload.send(&bytes[..100]));
        eventually("it is under way", 10, || status_of(&demo, id) == "saving");
    }
    refused(
        demo.upload(&ids[2], b"x"),
        &["Project p-demo ", "image_count_uploading is 2 images at once", "2 are in use", "1 more"],
    );
    assert_eq!(status_of(&demo, &ids[2]), "queued");
    assert_eq!(
        usage(&demo),
        json!({"usage": {
            "image_size_total": {"usage": 2, "limit": 3},
            "image_stage_total": {"usage": 0, "limit": -1},
            "image_count_total": {"usage": 3, "limit": -1},
            "image_count_uploading": {"usage": 2, "limit": 2},
        }})
    );
    for mut upload in uploads {
        assert!(upload.send(&bytes[100..MIB]));
        assert_eq!(upload.answer(), Some(204));
    }
    refused(
        demo.upload(&ids[2], &bytes[..MIB + 1]),
        &["image_size_total is 3145728 bytes", "2097152 are in use", "1048577 more"],
    );
    stream(&demo, &ids[2], &bytes[..MIB]).expect(204);
    refused(stream(&demo, &demo.create("more"), b"x"), &["image_size_total"]);
    assert_eq!(usage(&demo)["usage"]["image_size_total"], json!({"usage": 3, "limit": 3}));
    assert_eq!(usage(&demo)["usage"]["image_count_uploading"], json!({"usage": 0, "limit": 2}));
}

#[test]
fn parallel_uploads_at_two_gateways_keep_to_the_number_at_once() {
    const UPLOADS: usize = 8;
    let gateways = Gateway::start_all(&unified(&[("image_count_uploading", 3)]), 2);
    let demo = gateways[0].client(Token::Demo);
    let ids: Vec<String> = (0..UPLOADS).map(|_| demo.create("at once")).collect();
    let mut uploads: Vec<SlowUpload> = thread::scope(|scope| {
        let begun: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| {
                let gateway = &gateways[n % 2];
                scope.spawn(move || SlowUpload::begin(gateway, id, Some(10)))
            })
            .collect();
        begun.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    let saving = || ids.iter().filter(|id| status_of(&demo, id) == "saving").count();
    eventually("three are under way", 10, || saving() == 3);
    let answers: Vec<Option<u16>> = thread::scope(|scope| {
        let ended: Vec<_> = uploads
            .iter_mut()
            .zip(&ids)
            .map(|(upload, id)| {
                let running = status_of(&demo, id) == "saving";
                scope.spawn(move || {
                    if running {
                        upload.send(b"0123456789");
                    }
                    upload.answer()
                })
            })
            .collect();
        ended.into_iter().map(|answer| answer.join().unwrap()).collect()
    });
    let count = |status| answers.iter().filter(|answer| **answer == Some(status)).count();
    assert_eq!((count(204), count(413)), (3, UPLOADS - 3), "{answers:?}");
}

#[test]
fn usage_is_shown_where_limits_are_unified_and_to_get_alone() {
    let off = Gateway::start(Options::default().set("limits", "user_storage_quota", "1GB"));
    let client = off.client(Token::Reader);
    assert_eq!(usage(&client), json!({"usage": {}}));
    for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD"] {
        assert_eq!(client.send(method, "/v2/info/usage", &[], ureq::SendBody::none()).status, 404, "{method}");
    }
    client.send("GET", "/v2/info/usage", &[], ureq::SendBody::from_reader(&mut &b"{}"[..])).expect(400);
    off.anonymous().get("/v2/info/usage").expect(401);
    let on = off.sibling_with(unified(&[]));
    let (demo, alt) = (on.client(Token::Demo), on.client(Token::Alt));
    demo.active("two and a half", &random_bytes(9, 2 * MIB + MIB / 2));
    demo.create("queued");
    let nothing = json!({"usage": 0, "limit": -1});
    assert_eq!(
        usage(&demo)["usage"],
        json!({
            "image_size_total": {"usage": 2, "limit": -1}, "image_stage_total": nothing,
            "image_count_total": {"usage": 2, "limit": -1}, "image_count_uploading": nothing,
        })
    );
    for name in ["image_size_total", "image_stage_total", "image_count_total", "image_count_uploading"] {
        assert_eq!(usage(&alt)["usage"][name], nothing, "{name}");
    }
}

#[test]
fn keystone_says_what_the_limits_are() {
    let keystone = FakeKeystone::start();
    for (resource, limit) in
        [("image_size_total", 1), ("image_stage_total", -1), ("image_count_total", 3), ("image_count_uploading", -1)]
    {
        keystone.register_limit(resource, limit);
    }
    let gateway = Gateway::start(Options::quick().keystone(&keystone.url).set("limits", "source", "keystone"));
    let (demo, alt) = (gateway.client(Token::Demo), gateway.client(Token::Alt));
    let bytes = random_bytes(11, MIB);
    let ids = [(); 3].map(|()| demo.create("counted"));
    refused(demo.post("/v2/images", &json!({})), &["Project p-demo ", "image_count_total is 3 images", "3 are in use"]);
    stream(&demo, &ids[0], &bytes).expect(204);
    refused(demo.upload(&ids[1], b"x"), &["image_size_total is 1048576 bytes"]);
    assert_eq!(usage(&demo)["usage"]["image_count_total"], json!({"usage": 3, "limit": 3}));
    // What somebody changes counts at once, for the one project that it is about.
    keystone.limit(DEMO, "image_size_total", 2);
    keystone.limit(DEMO, "image_count_total", -1);
    demo.upload(&ids[1], &bytes).expect(204);
    demo.create("more");
    assert_eq!(usage(&demo)["usage"]["image_size_total"], json!({"usage": 2, "limit": 2}));
    assert_eq!(usage(&alt)["usage"]["image_size_total"], json!({"usage": 0, "limit": 1}));
    // Whose limits nobody knows cannot do anything, and is asked to come again.
    let alts = alt.create("known");
    let admin = gateway.client(Token::Admin);
    admin.get("/v2/images").expect(200);
    keystone.fault(Fault::Status(500));
    for answer in [admin.post("/v2/images", &json!({})), admin.get("/v2/info/usage")] {
        assert_ne!(answer.header("retry-after"), "");
        answer.expect(503);
    }
    // Those that are known go on.
    alt.upload(&alts, &bytes).expect(204);
    refused(alt.upload(&alt.create("full"), b"x"), &["Project p-alt "]);
}

/// Nobody waits here but who has to decide something.
#[test]
fn without_limits_nobody_asks_what_a_project_uses() {
    const LOCK: &str = "SELECT pg_advisory_xact_lock(1886547818, hashtext('p-demo'))";
    let off = Gateway::start(Options::default());
    let on = off.sibling_with(storage("1GB"));
    let bytes = random_bytes(10, 100_000);
    let _lock = Session::begin(off.database(), LOCK);
    let demo = off.client(Token::Demo);
    let id = demo.active("known", &bytes);
    stream(&demo, &demo.create("unknown"), &bytes).expect(204);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    // The lock is the right one, and creates do not need it where bytes alone are limited.
    let waiting = on.client(Token::Demo).create("waits");
    let mut upload = SlowUpload::begin(&on, &waiting, Some(10));
    assert!(upload.send(b"0123456789"));
    eventually("an upload that has to ask waits", 10, || {
        on.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 1886547818 AND NOT granted")
            == "1"
    });
    drop(_lock);
    assert_eq!(upload.answer(), Some(204));
}

#[test]
fn copies_that_were_there_before_are_counted() {
    let gateway = Gateway::start(Options::default());
    let (one, two) = ("6f1d1b0e-9f2b-4a53-9c0b-000000000001", "6f1d1b0e-9f2b-4a53-9c0b-000000000002");
    let copies = gateway.sql(&format!(
        "CREATE SCHEMA before; SET search_path = before;\n{}\n\
         INSERT INTO image_ids VALUES ('{one}'), ('{two}');\n\
         INSERT INTO images (id, status, visibility, protected, hidden, min_disk_gib, min_ram_mib, size_bytes, created_at, updated_at)\n\
           SELECT id, 'active', 'private', false, false, 0, 0, 5, now(), now() FROM image_ids;\n\
         INSERT INTO image_locations (image_id, store, url) VALUES ('{one}', 's', 'a'), ('{one}', 's', 'b');\n{}\n\
         INSERT INTO image_locations (image_id, store, url) VALUES ('{two}', 's', 'c');\n\
         DELETE FROM image_locations WHERE url = 'b';\n\
         DELETE FROM images WHERE id = '{two}';\n\
         SELECT id, copies FROM images",
        include_str!("../../src/catalog/migrations/0001_images.sql"),
        include_str!("../../src/catalog/migrations/0005_quotas.sql"),
    ));
    assert_eq!(copies, format!("{one}|1"));
}

#[test]
fn limits_that_cannot_be_read_are_named() {
    let mut gateway = Gateway::start_unready(storage("10 GB").set("limits", "default", numbers(&[("image_size", 1)])));
    assert_eq!(gateway.wait(20), Some(1));
    let log = gateway.log();
    for words in ["limits.user_storage_quota", "10 GB", "image_size`", "image_size_total"] {
        assert!(log.contains(words), "{words:?} is not in: {log}");
    }
    let mut gateway = Gateway::start_unready(Options::default().set("limits", "source", "keystone"));
    assert_eq!(gateway.wait(20), Some(1));
    assert!(
        gateway.log().contains("limits.source is \"keystone\", but identity.mode is \"local\""),
        "{}",
        gateway.log()
    );
}
