//! Uploads that are broken off: by a client, or because their gateway dies or freezes. Afterwards an image is
//! queued or active, never both and never in between for ever, and nothing is left in the pool.

use std::thread;
use std::time::Duration;

use crate::harness::{
    Gateway, Options, Session, SlowUpload, TAKEOVER_S, Token, assert_active, assert_consistent, await_clean,
    eventually, left_in_pool, random_bytes, rbd, status_of, try_rbd,
};

/// How long a dead client of Ceph counts as a user of what it had open, and the retries on top of it.
const DATA_GONE_S: u64 = 75;
/// A failed upload is to be undone within a second; twice as much again for a busy machine.
const UNDONE_S: u64 = 3;

/// Name of the RBD image that an upload under way writes to.
fn attempt(id: &str) -> Option<String> {
    left_in_pool(&[id]).into_iter().find(|name| name.starts_with(&format!("uploading-{id}-")))
}

/// Everything in the pool that an image is not itself belongs to a job, which will remove it.
#[track_caller]
fn assert_owned(gateway: &Gateway, id: &str) {
    let left: Vec<String> = left_in_pool(&[id]).into_iter().filter(|name| name != id).collect();
    let jobs = gateway.sql(&format!(
        "SELECT 'uploading-' || image_id || '-' || replace(id::text, '-', '') FROM jobs WHERE image_id = '{id}'"
    ));
    // A job may have ended in between.
    let left_now = left_in_pool(&[id]);
    for name in left.iter().filter(|name| left_now.contains(name)) {
        assert!(jobs.contains(name.as_str()), "{name} is nobody's: {jobs}");
    }
}

/// Waits until the record is no longer `saving`, and checks that all is as it should be. A queued image can be
/// uploaded again at once, whatever is left in the pool of the first attempt.
#[track_caller]
fn settle(survivor: &Gateway, id: &str, bytes: &[u8]) -> String {
    let demo = survivor.client(Token::Demo);
    // A gateway killed while it renamed leaves a finished upload; Ceph lets nobody else rename it before it has
    // forgotten the dead one, after 30 s.
    let finishing =
        || survivor.sql(&format!("SELECT count(*) FROM jobs WHERE image_id = '{id}' AND state = 'committing'")) == "1";
    eventually("the record is taken over", TAKEOVER_S, || status_of(&demo, id) != "saving" || finishing());
    eventually("the upload is finished", DATA_GONE_S, || status_of(&demo, id) != "saving");
    let status = assert_consistent(&demo, id, bytes);
    if status == "queued" {
        demo.upload(id, bytes).expect(204);
        assert_active(&demo, id, bytes);
    }
    status
}

#[test]
fn a_gateway_killed_while_bytes_arrive_leaves_a_queued_record_and_a_retry_works_at_once() {
    thread::scope(|scope| {
        for (seed, chunked) in [(1, false), (2, true)] {
            scope.spawn(move || {
                let mut gateways = Gateway::start_all(&Options::quick(), 2);
                let victim = gateways.pop().unwrap();
                let survivor = gateways.pop().unwrap();
                let id = survivor.client(Token::Demo).create("killed");
                let bytes = random_bytes(seed, 24 << 20);
                let mut upload = SlowUpload::begin(&victim, &id, (!chunked).then_some(bytes.len()));
                assert!(upload.send(&bytes[..bytes.len() / 2]));
                eventually("the attempt is in the pool", 10, || attempt(&id).is_some());
                victim.signal("KILL");
                assert_eq!(upload.answer(), None);
                assert_eq!(settle(&survivor, &id, &bytes), "queued");
                await_clean(&survivor, &[&id], &[], DATA_GONE_S);
            });
        }
    });
}

#[test]
fn an_image_deleted_after_its_uploading_gateway_was_killed_is_gone_with_its_data() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let victim = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let id = demo.create("killed");
    let mut upload = SlowUpload::begin(&victim, &id, None);
    assert!(upload.send(&random_bytes(11, 10 << 20)));
    eventually("the attempt is in the pool", 10, || attempt(&id).is_some());
    victim.signal("KILL");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert_eq!(status_of(&demo, &id), "gone");
    assert_owned(&survivor, &id);
    await_clean(&survivor, &[], &[&id], DATA_GONE_S);
    assert_eq!(survivor.sql(&format!("SELECT count(*) FROM images WHERE id = '{id}'")), "0");
}

#[test]
fn what_two_gateways_remove_at_the_same_time_is_gone_whole() {
    const UPLOADS: usize = 8;
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let sleeper = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let bytes = random_bytes(12, 1 << 20);
    let ids: Vec<String> = (0..UPLOADS).map(|_| demo.create("twice")).collect();
    let mut uploads: Vec<SlowUpload> = ids.iter().map(|id| SlowUpload::begin(&sleeper, id, None)).collect();
    for upload in &mut uploads {
        assert!(upload.send(&bytes));
    }
    for id in &ids {
        eventually("the attempt is in the pool", 10, || attempt(id).is_some());
    }
    sleeper.signal("STOP");
    eventually("the records are taken over", TAKEOVER_S, || ids.iter().all(|id| status_of(&demo, id) == "queued"));
    // The survivor waits two seconds for the sleeper's watches; that is when the sleeper removes them, too.
    thread::sleep(Duration::from_millis(1700));
    sleeper.signal("CONT");
    for upload in &mut uploads {
        assert_ne!(upload.answer(), Some(204));
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    await_clean(&survivor, &[], &ids, DATA_GONE_S);
    survivor.fsck_is_clean();
    // Whoever loses must not put back a name whose data the other one has removed.
    thread::sleep(Duration::from_secs(2));
    assert!(left_in_pool(&ids).is_empty(), "{:?}", left_in_pool(&ids));
}

#[test]
fn the_only_gateway_killed_during_and_after_the_bytes_cleans_up_when_it_is_started_again() {
    let mut gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(3, 12 << 20);
    let (half, whole) = (demo.create("half"), demo.create("whole"));
    let mut first = SlowUpload::begin(&gateway, &half, Some(bytes.len()));
    assert!(first.send(&bytes[..bytes.len() / 2]));
    eventually("the attempt is in the pool", 10, || attempt(&half).is_some());
    let mut second = SlowUpload::begin(&gateway, &whole, Some(bytes.len()));
    assert!(second.send(&bytes));
    gateway.signal("KILL");
    assert_eq!(gateway.wait(5), None);
    let gateway = gateway.sibling();
    assert_eq!(settle(&gateway, &half, &bytes), "queued");
    settle(&gateway, &whole, &bytes);
    assert_owned(&gateway, &half);
    assert_owned(&gateway, &whole);
}

#[test]
fn a_gateway_killed_at_any_moment_leaves_an_upload_undone_or_finished() {
    const LANES: u64 = 5;
    const ROUNDS: u64 = 4;
    thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || {
                let survivor = Gateway::start(Options::quick());
                let demo = survivor.client(Token::Demo);
                let mut ids = Vec::new();
                for round in 0..ROUNDS {
                    let victim = survivor.sibling();
                    let id = demo.create("killed");
                    let bytes = random_bytes(lane * ROUNDS + round, 3_000_001);
                    // All the delays together make a fine comb.
                    let delay = Duration::from_millis((lane * ROUNDS + round) * 700 / (LANES * ROUNDS));
                    let client = victim.client(Token::Demo);
                    let answer = thread::scope(|scope| {
                        let sent = scope.spawn(|| {
                            let headers = [("content-type", "application/octet-stream")];
                            client.try_send(
                                "PUT",
                                &format!("/v2/images/{id}/file"),
                                &headers,
                                ureq::SendBody::from_reader(&mut bytes.as_slice()),
                            )
                        });
                        thread::sleep(delay);
                        victim.signal("KILL");
                        sent.join().unwrap()
                    });
                    let status = settle(&survivor, &id, &bytes);
                    // Never an acknowledgement that is taken back.
                    if let Some(answer) = answer {
                        assert_eq!((answer.status, status.as_str()), (204, "active"), "{}", answer.text());
                    }
                    ids.push(id);
                }
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                await_clean(&survivor, &ids, &[], DATA_GONE_S);
                survivor.fsck_is_clean();
            });
        }
    });
}

/// Uploads to the victim; kills it when `sql` holds a lock that keeps it from going on, and `reached` says that
/// it has come as far as that.
#[track_caller]
fn killed_at(sql: &str, reached: impl Fn(&str) -> bool) -> String {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let victim = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let id = survivor.client(Token::Demo).create("killed");
    let bytes = random_bytes(4, 9_000_000);
    let mut upload = SlowUpload::begin(&victim, &id, Some(bytes.len()));
    assert!(upload.send(&bytes[..bytes.len() - 1]));
    eventually("the attempt is in the pool", 10, || attempt(&id).is_some());
    let lock = Session::begin(survivor.database(), &sql.replace("$id", &id));
    assert!(upload.send(&bytes[bytes.len() - 1..]));
    eventually("the upload has come this far", 10, || reached(&id));
    victim.signal("KILL");
    assert_eq!(upload.answer(), None);
    drop(lock);
    let status = settle(&survivor, &id, &bytes);
    await_clean(&survivor, &[&id], &[], DATA_GONE_S);
    status
}

#[test]
fn a_gateway_killed_between_snapshot_and_record_or_between_publication_and_activation_is_made_good() {
    thread::scope(|scope| {
        let sealed = scope.spawn(|| {
            killed_at("SELECT FROM jobs WHERE image_id = '$id' FOR UPDATE", |id| {
                attempt(id).is_some_and(|name| {
                    try_rbd(&["snap", "ls", &format!("images/{name}")]).is_ok_and(|snapshots| snapshots.contains("yes"))
                })
            })
        });
        let published = scope.spawn(|| {
            killed_at("SELECT FROM images WHERE id = '$id' FOR UPDATE", |id| {
                left_in_pool(&[id]).iter().any(|name| name == id)
            })
        });
        assert_eq!(sealed.join().unwrap(), "queued");
        // The bytes were complete and verified: they are not thrown away.
        assert_eq!(published.join().unwrap(), "active");
    });
}

#[test]
fn a_gateway_that_freezes_inside_a_transaction_does_not_hold_up_the_others() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let frozen = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let id = demo.create("frozen");
    let bytes = random_bytes(5, 3_000_000);
    let mut upload = SlowUpload::begin(&frozen, &id, Some(bytes.len()));
    // The activation waits for the lock, and gets it when its gateway cannot go on any more: as after a power cut.
    let lock = Session::begin(survivor.database(), &format!("SELECT FROM images WHERE id = '{id}' FOR UPDATE"));
    assert!(upload.send(&bytes));
    eventually("the image is published", 10, || left_in_pool(&[&id]).contains(&id));
    thread::sleep(Duration::from_millis(200));
    frozen.signal("STOP");
    drop(lock);
    eventually("the survivor finishes the upload", TAKEOVER_S, || status_of(&demo, &id) == "active");
    frozen.signal("CONT");
    assert_eq!(upload.answer(), Some(204));
    assert_active(&demo, &id, &bytes);
    await_clean(&survivor, &[&id], &[], DATA_GONE_S);
}

#[test]
fn a_gateway_that_wakes_up_after_its_lease_changes_nothing_of_the_next_upload() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let sleeper = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let id = demo.create("asleep");
    let (old, new) = (random_bytes(6, 32 << 20), random_bytes(7, 20 << 20));
    let mut upload = SlowUpload::begin(&sleeper, &id, Some(old.len()));
    assert!(upload.send(&old[..old.len() / 2]));
    eventually("the attempt is in the pool", 10, || attempt(&id).is_some());
    sleeper.signal("STOP");
    eventually("the record is taken over", TAKEOVER_S, || status_of(&demo, &id) == "queued");
    demo.upload(&id, &new).expect(204);
    assert_active(&demo, &id, &new);
    sleeper.signal("CONT");
    // Whether the rest still gets into the socket is all the same.
    let _ = upload.send(&old[old.len() / 2..]);
    let answer = upload.answer();
    assert!(answer.is_none_or(|status| status >= 400), "{answer:?}");
    await_clean(&survivor, &[&id], &[], DATA_GONE_S);
    assert_active(&demo, &id, &new);
    assert_active(&sleeper.client(Token::Demo), &id, &new);
}

/// The record is queued and nothing is left, soon.
#[track_caller]
fn assert_undone(gateway: &Gateway, id: &str) {
    let demo = gateway.client(Token::Demo);
    eventually("the record is queued", UNDONE_S, || status_of(&demo, id) == "queued");
    await_clean(gateway, &[], &[id], UNDONE_S);
    assert_consistent(&demo, id, &[]);
}

#[test]
fn a_client_that_goes_away_half_way_leaves_nothing() {
    let gateway = Gateway::start(Options::default());
    let bytes = random_bytes(8, 20 << 20);
    for length in [Some(bytes.len()), None] {
        let id = gateway.client(Token::Demo).create("gone");
        let mut upload = SlowUpload::begin(&gateway, &id, length);
        assert!(upload.send(&bytes[..bytes.len() / 2]));
        eventually("the attempt is in the pool", 10, || attempt(&id).is_some());
        let name = attempt(&id).unwrap();
        // Whoever looks with rbd sees what it is.
        assert_eq!(rbd(&["image-meta", "get", &format!("images/{name}"), "rockpool.state"]), "uploading");
        drop(upload);
        assert_undone(&gateway, &id);
        gateway.client(Token::Demo).upload(&id, &bytes).expect(204);
        assert_active(&gateway.client(Token::Demo), &id, &bytes);
    }
}

#[test]
fn an_upload_of_the_wrong_size_leaves_nothing() {
    let gateway = Gateway::start(Options::default().set("images", "image_size_cap_bytes", 10_000_000));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(9, 12_000_000);
    for (declared, sent, status) in [
        (Some("9000000"), 8_000_000, 400),
        (Some("5000000"), 9_000_000, 400),
        (None, 12_000_000, 413),
        (Some("12000000"), 12_000_000, 413),
    ] {
        let id = demo.create("wrong");
        let headers: Vec<(&str, &str)> = declared.iter().map(|size| ("x-openstack-image-size", *size)).collect();
        demo.upload_with(&id, &headers, &bytes[..sent]).expect(status);
        assert_undone(&gateway, &id);
    }
}

#[test]
fn a_client_that_stalls_is_given_up_and_leaves_nothing() {
    let gateway = Gateway::start(Options::default().set("server", "body_idle_timeout_s", 1));
    let bytes = random_bytes(10, 20 << 20);
    for length in [Some(bytes.len()), None] {
        let id = gateway.client(Token::Demo).create("stalled");
        let mut upload = SlowUpload::begin(&gateway, &id, length);
        assert!(upload.send(&bytes[..bytes.len() / 2]));
        assert_eq!(upload.answer(), Some(408));
        assert_undone(&gateway, &id);
    }
}
