//! Deleting images that machines run from: an image is never both listed and unclonable.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::harness::{
    Gateway, Options, Session, TAKEOVER_S, Token, assert_active, await_clean, eventually, left_in_pool, random_bytes,
    rbd, status_of, try_rbd,
};

/// Clones the image as Nova would, into the pool of machines.
fn clone(id: &str, name: &str, format: &str) -> Result<String, String> {
    try_rbd(&["clone", "--rbd-default-clone-format", format, &format!("images/{id}@snap"), &format!("vms/{name}")])
}

#[test]
fn an_image_with_clones_stays_listed_protected_and_clonable_until_the_last_clone_is_gone() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 3_000_000);
    for format in ["1", "2"] {
        let id = demo.active("cloned", &bytes);
        let path = format!("/v2/images/{id}");
        let (first, second) = (format!("{id}-first"), format!("{id}-second"));
        clone(&id, &first, format).unwrap();
        for _ in 0..2 {
            let refused = demo.delete(&path).expect(409);
            assert!(refused.text().contains("in use") && refused.text().contains("clone"), "{}", refused.text());
            assert_active(&demo, &id, &bytes);
            assert!(demo.get("/v2/images").expect(200).text().contains(&id));
        }
        clone(&id, &second, format).unwrap();
        demo.delete(&path).expect(409);
        rbd(&["rm", "--no-progress", &format!("vms/{first}")]);
        demo.delete(&path).expect(409);
        rbd(&["rm", "--no-progress", &format!("vms/{second}")]);
        demo.delete(&path).expect(204);
        await_clean(&gateway, &[], &[&id], 10);
        assert_eq!(status_of(&demo, &id), "gone");
    }
}

#[test]
fn an_image_with_a_snapshot_of_somebody_elses_is_not_deleted() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(2, 300_000);
    let id = demo.active("foreign", &bytes);
    rbd(&["snap", "create", "--no-progress", &format!("images/{id}@theirs")]);
    let refused = demo.delete(&format!("/v2/images/{id}")).expect(409);
    assert!(refused.text().contains("theirs"), "{}", refused.text());
    assert_active(&demo, &id, &bytes);
    rbd(&["snap", "rm", "--no-progress", &format!("images/{id}@theirs")]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 10);
}

#[test]
fn a_clone_made_between_the_look_and_the_deletion_keeps_the_image() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(3, 300_000);
    for format in ["1", "2"] {
        let id = demo.active("late", &bytes);
        let name = format!("{id}-late");
        // The deletion has looked for clones and now waits for the row.
        let lock = Session::begin(gateway.database(), &format!("SELECT FROM images WHERE id = '{id}' FOR UPDATE"));
        let refused = thread::scope(|scope| {
            let deletion = scope.spawn(|| demo.delete(&format!("/v2/images/{id}")));
            eventually("the deletion waits", 10, || {
                gateway.sql("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") == "1"
            });
            clone(&id, &name, format).unwrap();
            drop(lock);
            deletion.join().unwrap()
        });
        refused.expect(409);
        assert_active(&demo, &id, &bytes);
        clone(&id, &format!("{id}-again"), format).unwrap();
        for suffix in ["late", "again"] {
            rbd(&["rm", "--no-progress", &format!("vms/{id}-{suffix}")]);
        }
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        await_clean(&gateway, &[], &[&id], 10);
    }
}

#[test]
fn a_gateway_killed_while_it_deletes_leaves_the_image_whole_or_gone() {
    const LANES: u64 = 5;
    const ROUNDS: u64 = 4;
    thread::scope(|scope| {
        for lane in 0..LANES {
            scope.spawn(move || {
                let survivor = Gateway::start(Options::quick());
                let demo = survivor.client(Token::Demo);
                for round in 0..ROUNDS {
                    let n = lane * ROUNDS + round;
                    let victim = survivor.sibling();
                    let bytes = random_bytes(100 + n, 1_000_000);
                    let id = demo.active("killed", &bytes);
                    let client = victim.client(Token::Demo);
                    let path = format!("/v2/images/{id}");
                    let answer = thread::scope(|scope| {
                        let deletion = scope.spawn(|| client.try_send("DELETE", &path, &[], ureq::SendBody::none()));
                        thread::sleep(Duration::from_millis(n * 400 / (LANES * ROUNDS)));
                        victim.signal("KILL");
                        deletion.join().unwrap()
                    });
                    if answer.is_some_and(|answer| answer.expect(204).status == 204) {
                        assert_eq!(status_of(&demo, &id), "gone");
                    }
                    watch(&survivor, &id, &bytes);
                }
            });
        }
    });
}

/// Follows an image whose deletion was broken off, to its end: whenever it is listed it can be cloned.
#[track_caller]
fn watch(survivor: &Gateway, id: &str, bytes: &[u8]) {
    let demo = survivor.client(Token::Demo);
    let jobs = || survivor.sql("SELECT count(*) FROM jobs");
    let name = format!("{id}-watch");
    eventually("the deletion is finished, or undone", TAKEOVER_S + 40, || {
        let over = jobs() == "0";
        let before = status_of(&demo, id);
        let cloned = clone(id, &name, "1");
        let after = status_of(&demo, id);
        assert!(
            before == "gone" || after == "gone" || cloned.is_ok(),
            "{id} is listed and cannot be cloned: {cloned:?}"
        );
        if cloned.is_ok() {
            rbd(&["rm", "--no-progress", &format!("vms/{name}")]);
        }
        over
    });
    if status_of(&demo, id) != "gone" {
        assert_active(&demo, id, bytes);
        // To Ceph the dead gateway may still have it open, for some 30 seconds.
        eventually("it can be deleted", 60, || match demo.delete(&format!("/v2/images/{id}")).status {
            204 => true,
            409 => false,
            other => panic!("{other}"),
        });
    }
    eventually("the pool is clean", 20, || left_in_pool(&[id]).is_empty());
    await_clean(survivor, &[], &[id], 10);
    assert_eq!(survivor.sql(&format!("SELECT count(*) FROM images WHERE id = '{id}'")), "0");
}

#[test]
fn a_deletion_that_wakes_up_after_its_lease_touches_nothing() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let sleeper = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let bytes = random_bytes(4, 300_000);
    let id = demo.active("asleep", &bytes);
    // The commit that begins the deletion takes a while, in which its gateway falls asleep.
    survivor.sql(
        "CREATE FUNCTION nap() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER nap AFTER INSERT ON jobs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.kind = 'delete') EXECUTE FUNCTION nap()",
    );
    let name = format!("{id}-nova");
    thread::scope(|scope| {
        let client = sleeper.client(Token::Demo);
        let path = format!("/v2/images/{id}");
        let deletion = scope.spawn(move || client.try_send("DELETE", &path, &[], ureq::SendBody::none()));
        eventually("the deletion is being committed", 10, || {
            survivor.sql(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'",
            ) == "1"
        });
        sleeper.signal("STOP");
        clone(&id, &name, "1").unwrap();
        eventually("the deletion has begun", 5, || status_of(&demo, &id) == "gone");
        // Another gateway takes it over, finds the clone, and brings the image back.
        eventually("the image is back", TAKEOVER_S, || status_of(&demo, &id) == "active");
        rbd(&["rm", "--no-progress", &format!("vms/{name}")]);
        sleeper.signal("CONT");
        let answer = deletion.join().unwrap();
        assert!(answer.is_none_or(|answer| answer.status != 204), "an image that is there again was deleted");
    });
    thread::sleep(Duration::from_secs(1));
    assert_active(&demo, &id, &bytes);
    survivor.sql("DROP FUNCTION nap CASCADE");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&survivor, &[], &[&id], 10);
}

#[test]
fn a_client_that_goes_away_during_a_deletion_leaves_the_image_whole_or_gone() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    thread::scope(|scope| {
        for lane in 0..8_u64 {
            let (gateway, demo) = (&gateway, &demo);
            scope.spawn(move || {
                let bytes = random_bytes(200 + lane, 100_000);
                let id = demo.active("left", &bytes);
                let mut socket = TcpStream::connect(&gateway.address).unwrap();
                write!(
                    socket,
                    "DELETE /v2/images/{id} HTTP/1.1\r\nhost: {}\r\nx-auth-token: {}\r\n\r\n",
                    gateway.address,
                    Token::Demo.text()
                )
                .unwrap();
                thread::sleep(Duration::from_millis(lane * 15));
                drop(socket);
                let jobs = || gateway.sql(&format!("SELECT count(*) FROM jobs WHERE image_id = '{id}'"));
                thread::sleep(Duration::from_millis(500));
                eventually("the deletion is finished, or undone", TAKEOVER_S + 5, || jobs() == "0");
                if status_of(demo, &id) == "gone" {
                    eventually("nothing is left", 5, || left_in_pool(&[&id]).is_empty());
                } else {
                    assert_active(demo, &id, &bytes);
                    demo.delete(&format!("/v2/images/{id}")).expect(204);
                }
            });
        }
    });
}
