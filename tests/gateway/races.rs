//! Two requests at the same moment: one order of events is as good as the other, a mixture is not.

use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use ureq::SendBody;

use crate::harness::{
    Client, Gateway, Options, Session, SlowDownload, SlowUpload, Token, assert_active, assert_consistent, await_clean,
    eventually, left_in_pool, random_bytes, rbd, status_of,
};

const OCTETS: (&str, &str) = ("content-type", "application/octet-stream");
/// A deletion has to stop an upload this soon.
const STOPPED: Duration = Duration::from_secs(5);

/// Uploads chunked, which takes no more than the status to tell.
fn put(client: &Client, id: &str, mut bytes: &[u8]) -> u16 {
    client.send("PUT", &format!("/v2/images/{id}/file"), &[OCTETS], SendBody::from_reader(&mut bytes)).status
}

/// Runs two things at the same moment.
fn both<A: Send, B: Send>(first: impl FnOnce() -> A + Send, second: impl FnOnce() -> B + Send) -> (A, B) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            start.wait();
            first()
        });
        start.wait();
        let second = second();
        (first.join().unwrap(), second)
    })
}

#[test]
fn of_two_gateways_that_put_the_same_image_one_wins_and_its_bytes_are_stored() {
    const LANES: u64 = 8;
    const ROUNDS: u64 = 13;
    let gateways = Gateway::start_all(&Options::default(), 2);
    let [one, other] = [0, 1].map(|n: usize| gateways[n].client(Token::Demo));
    let wins: Vec<usize> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES)
            .map(|lane| {
                let (one, other) = (&one, &other);
                let gateway = &gateways[0];
                scope.spawn(move || {
                    let mut ids = Vec::new();
                    let mut first_won = 0;
                    for round in 0..ROUNDS {
                        let id = one.create("race");
                        let seed = 1000 + 2 * (lane * ROUNDS + round);
                        // Different lengths as well: a mixture of both would show.
                        let bytes = [random_bytes(seed, 50_000), random_bytes(seed + 1, 60_000)];
                        let statuses = both(|| put(one, &id, &bytes[0]), || put(other, &id, &bytes[1]));
                        let winner = match statuses {
                            (204, 409) => 0,
                            (409, 204) => 1,
                            wrong => panic!("{wrong:?}"),
                        };
                        let image = one.show(&id);
                        assert_eq!((&image["status"], &image["size"]), (&json!("active"), &json!(bytes[winner].len())));
                        assert_eq!(image["os_hash_value"], crate::harness::hash(&bytes[winner]));
                        assert!(
                            other.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes[winner],
                            "{id} holds other bytes than the winner's"
                        );
                        first_won += usize::from(winner == 0);
                        ids.push(id);
                    }
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    eventually("nothing else is left", 10, || left_in_pool(&ids).len() == ids.len());
                    for id in &ids {
                        one.delete(&format!("/v2/images/{id}")).expect(204);
                    }
                    await_clean_ids(gateway, &ids);
                    first_won
                })
            })
            .collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    // Otherwise it was no race.
    let first_won: usize = wins.iter().sum();
    assert!((1..104).contains(&first_won), "the first one won {first_won} times");
}

/// As `await_clean` while other jobs of the same gateway run.
#[track_caller]
fn await_clean_ids(gateway: &Gateway, ids: &[&str]) {
    let list = ids.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(",");
    eventually("all is gone", 15, || {
        left_in_pool(ids).is_empty()
            && gateway.sql(&format!("SELECT count(*) FROM jobs WHERE image_id IN ({list})")) == "0"
    });
    assert_eq!(gateway.sql(&format!("SELECT count(*) FROM images WHERE id IN ({list})")), "0");
}

#[test]
fn an_upload_and_a_deletion_at_the_same_time_leave_neither_data_without_a_row_nor_a_row_without_data() {
    const LANES: u64 = 6;
    const ROUNDS: u64 = 10;
    let gateways = Gateway::start_all(&Options::default(), 2);
    let (one, other) = (gateways[0].client(Token::Demo), gateways[1].client(Token::Demo));
    thread::scope(|scope| {
        for lane in 0..LANES {
            let (one, other, gateway) = (&one, &other, &gateways[0]);
            scope.spawn(move || {
                let mut ids = Vec::new();
                for round in 0..ROUNDS {
                    let n = lane * ROUNDS + round;
                    let id = one.create("race");
                    let bytes = random_bytes(2000 + n, 300_000);
                    let delay = Duration::from_millis(n * 900 / (LANES * ROUNDS));
                    let (put, deleted) = both(
                        || put(one, &id, &bytes),
                        || {
                            thread::sleep(delay);
                            other.delete(&format!("/v2/images/{id}")).status
                        },
                    );
                    assert!([204, 404, 409, 410].contains(&put), "PUT: {put}");
                    assert!([204, 409].contains(&deleted), "DELETE: {deleted}, PUT: {put}");
                    if deleted == 204 {
                        assert_eq!(status_of(one, &id), "gone", "PUT: {put}");
                    } else {
                        // In use, which only the upload itself can have been: the image is whole.
                        assert_active(one, &id, &bytes);
                        one.delete(&format!("/v2/images/{id}")).expect(204);
                    }
                    ids.push(id);
                }
                let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                await_clean_ids(gateway, &ids);
            });
        }
    });
}

#[test]
fn a_deletion_stops_a_slow_upload() {
    let gateways = Gateway::start_all(&Options::default(), 2);
    for deleter in &gateways {
        let demo = deleter.client(Token::Demo);
        let id = demo.create("stopped");
        let bytes = random_bytes(20, 16 << 20);
        let mut upload = SlowUpload::begin(&gateways[0], &id, Some(bytes.len()));
        assert!(upload.send(&bytes[..bytes.len() / 2]));
        eventually("the attempt is in the pool", 10, || !left_in_pool(&[&id]).is_empty());
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        let deleted = Instant::now();
        assert_eq!(status_of(&demo, &id), "gone");
        let answer = upload.answer();
        assert!(matches!(answer, None | Some(404 | 409 | 410)), "{answer:?}");
        assert!(deleted.elapsed() < STOPPED, "stopped after {:?}", deleted.elapsed());
        await_clean(deleter, &[], &[&id], 5);
        assert_eq!(deleter.sql(&format!("SELECT count(*) FROM images WHERE id = '{id}'")), "0");
    }
}

#[test]
fn an_image_is_deleted_once() {
    let gateways = Gateway::start_all(&Options::default(), 2);
    let clients = [0, 1].map(|n: usize| gateways[n].client(Token::Demo));
    thread::scope(|scope| {
        for lane in 0..6 {
            let (clients, gateway) = (&clients, &gateways[0]);
            scope.spawn(move || {
                for round in 0..4 {
                    let id = if round % 2 == 0 {
                        clients[0].active("twice", &random_bytes(30 + lane, 100_000))
                    } else {
                        clients[0].create("twice")
                    };
                    let path = format!("/v2/images/{id}");
                    let (one, other) = both(|| clients[0].delete(&path).status, || clients[1].delete(&path).status);
                    assert!(matches!((one, other), (204, 404) | (404, 204)), "{one} and {other}");
                    assert_eq!(status_of(&clients[0], &id), "gone");
                    await_clean_ids(gateway, &[&id]);
                }
            });
        }
    });
}

#[test]
fn a_patch_during_an_upload_is_kept_and_shows_beside_the_data_too() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("before");
    let bytes = random_bytes(40, 4_000_000);
    let mut upload = SlowUpload::begin(&gateway, &id, None);
    assert!(upload.send(&bytes[..1_000_000]));
    eventually("the upload has begun", 5, || status_of(&demo, &id) == "saving");
    demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": "after"}, {"op": "add", "path": "/colour", "value": "blue"}])).expect(200);
    assert!(upload.send(&bytes[1_000_000..]));
    assert_eq!(upload.finish(), Some(204));
    let image = demo.show(&id);
    assert_eq!((&image["name"], &image["colour"]), (&json!("after"), &json!("blue")));
    assert_active(&demo, &id, &bytes);
    // The catalog may have to be made anew from what stands there.
    eventually("the description in the pool is that of the record", 10, || {
        rbd(&["image-meta", "get", &format!("images/{id}"), "rockpool.name"]) == "after"
    });
    await_clean(&gateway, &[&id], &[], 10);
}

#[test]
fn patches_at_the_same_time_do_not_lose_each_other() {
    let gateways = Gateway::start_all(&Options::default(), 2);
    let clients = [0, 1].map(|n: usize| gateways[n].client(Token::Demo));
    let id = clients[0].create("storm");
    thread::scope(|scope| {
        for lane in 0..16_usize {
            let (client, id) = (&clients[lane % 2], &id);
            scope.spawn(move || {
                for round in 0..4 {
                    let operations = json!([{"op": "add", "path": format!("/p{lane}_{round}"), "value": "x"}]);
                    client.patch(&format!("/v2/images/{id}"), &operations).expect(200);
                    // The same ones for all: whoever comes second finds them there.
                    let operations = json!([{"op": "add", "path": "/same", "value": format!("{lane}_{round}")}, {"op": "replace", "path": "/tags", "value": ["one", "two"]}]);
                    client.patch(&format!("/v2/images/{id}"), &operations).expect(200);
                }
            });
        }
    });
    let image = clients[0].show(&id);
    for lane in 0..16 {
        for round in 0..4 {
            assert_eq!(image[format!("p{lane}_{round}")], "x");
        }
    }
}

#[test]
fn a_download_of_an_image_that_is_deleted_gets_its_bytes_or_is_cut_but_never_other_bytes() {
    let gateways = Gateway::start_all(&Options::default(), 2);
    let demo = gateways[0].client(Token::Demo);
    let bytes = random_bytes(50, 100 << 20);
    for deleter in &gateways {
        let id = demo.active("read", &bytes);
        let mut download = SlowDownload::begin(&gateways[0], &id);
        assert_eq!(download.status, 200);
        let mut got = download.read(10 << 20);
        deleter.client(Token::Demo).delete(&format!("/v2/images/{id}")).expect(204);
        assert_eq!(status_of(&demo, &id), "gone");
        while got.len() < bytes.len() {
            let more = download.read(8 << 20);
            if more.is_empty() {
                break;
            }
            got.extend_from_slice(&more);
            thread::sleep(Duration::from_millis(20));
        }
        assert!(bytes.starts_with(&got), "other bytes came after the deletion, within {} bytes", got.len());
        await_clean(&gateways[0], &[], &[&id], 20);
    }
}

#[test]
fn of_many_creations_with_one_id_one_succeeds_and_the_id_is_never_given_again() {
    let gateways = Gateway::start_all(&Options::default(), 2);
    let clients = [0, 1].map(|n: usize| gateways[n].client(Token::Demo));
    for _ in 0..5 {
        let id = uuid::Uuid::new_v4().to_string();
        let body = json!({"id": id, "name": "same", "disk_format": "raw", "container_format": "bare"});
        let start = Barrier::new(16);
        let mut statuses: Vec<u16> = thread::scope(|scope| {
            let lanes: Vec<_> = (0..16_usize)
                .map(|lane| {
                    let (client, body, start) = (&clients[lane % 2], &body, &start);
                    scope.spawn(move || {
                        start.wait();
                        client.post("/v2/images", body).status
                    })
                })
                .collect();
            lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
        });
        statuses.sort_unstable();
        assert_eq!((statuses[0], &statuses[1..]), (201, &[409; 15][..]));
        clients[0].delete(&format!("/v2/images/{id}")).expect(204);
        clients[1].post("/v2/images", &body).expect(409);
        gateways[0].client(Token::Admin).post("/v2/images", &body).expect(409);
    }
}

#[test]
fn a_deletion_that_waits_for_an_activation_deletes_the_active_image() {
    // Both want the row at the same moment: the activation has asked first.
    let gateways = Gateway::start_all(&Options::quick(), 2);
    let demo = gateways[0].client(Token::Demo);
    let id = demo.create("behind");
    let bytes = random_bytes(60, 1_000_000);
    let mut upload = SlowUpload::begin(&gateways[0], &id, Some(bytes.len()));
    assert!(upload.send(&bytes[..1000]));
    eventually("the upload has begun", 5, || status_of(&demo, &id) == "saving");
    let lock = Session::begin(gateways[0].database(), &format!("SELECT FROM images WHERE id = '{id}' FOR UPDATE"));
    assert!(upload.send(&bytes[1000..]));
    eventually("the image is published", 10, || left_in_pool(&[&id]).contains(&id));
    let (deleted, put) = both(
        || gateways[1].client(Token::Demo).delete(&format!("/v2/images/{id}")).status,
        || {
            thread::sleep(Duration::from_millis(300));
            drop(lock);
            upload.answer()
        },
    );
    match (deleted, put) {
        (204, Some(204 | 404 | 409 | 410)) => assert_eq!(status_of(&demo, &id), "gone"),
        (409, Some(204)) => {
            assert_consistent(&demo, &id, &bytes);
            demo.delete(&format!("/v2/images/{id}")).expect(204);
        }
        wrong => panic!("{wrong:?}"),
    }
    await_clean(&gateways[0], &[], &[&id], 15);
}

#[test]
fn a_deletion_right_after_a_patch_succeeds() {
    // The change is being written beside the data while the data is to go.
    let gateways = Gateway::start_all(&Options::quick(), 2);
    let clients = [0, 1].map(|n: usize| gateways[n].client(Token::Demo));
    thread::scope(|scope| {
        for lane in 0..5_u64 {
            let (clients, gateway) = (&clients, &gateways[0]);
            scope.spawn(move || {
                for round in 0..4_u64 {
                    let id = clients[0].active("patched", &random_bytes(70 + lane, 100_000));
                    let path = format!("/v2/images/{id}");
                    for number in 0..3 {
                        clients[1]
                            .patch(&path, &json!([{"op": "add", "path": "/number", "value": number.to_string()}]))
                            .expect(200);
                    }
                    thread::sleep(Duration::from_millis((lane * 4 + round) * 5));
                    clients[0].delete(&path).expect(204);
                    await_clean_ids(gateway, &[&id]);
                }
            });
        }
    });
}

/// Runs `lane` in that many threads that begin at the same moment, and collects what they say.
fn at_once<T: Send>(lanes: usize, lane: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(lanes);
    thread::scope(|scope| {
        let running: Vec<_> = (0..lanes)
            .map(|n| {
                let (start, lane) = (&start, &lane);
                scope.spawn(move || {
                    start.wait();
                    lane(n)
                })
            })
            .collect();
        running.into_iter().map(|lane| lane.join().unwrap()).collect()
    })
}

#[test]
fn tags_members_and_patches_at_the_same_time_do_not_lose_each_other() {
    const LANES: usize = 12;
    const ROUNDS: usize = 5;
    let gateways = Gateway::start_all(&Options::default(), 2);
    let clients = [0, 1].map(|n: usize| gateways[n].client(Token::Demo));
    let id = clients[0].create("storm");
    let path = format!("/v2/images/{id}");
    for n in 0..ROUNDS {
        clients[0].call("PUT", &format!("{path}/tags/old{n}")).expect(204);
    }
    at_once(LANES, |lane| {
        let client = &clients[lane % 2];
        for round in 0..ROUNDS {
            let name = format!("{lane}-{round}");
            match lane % 3 {
                0 => client.call("PUT", &format!("{path}/tags/{name}")).expect(204),
                1 => client.post(&format!("{path}/members"), &json!({"member": name})).expect(200),
                _ => {
                    client.patch(&path, &json!([{"op": "add", "path": format!("/p{name}"), "value": "x"}])).expect(200)
                }
            };
            // Of those who take the same tag away one succeeds, and nothing else goes with it.
            let status = client.delete(&format!("{path}/tags/old{round}")).status;
            assert!([204, 404].contains(&status), "{status}");
        }
    });
    let image = clients[1].show(&id);
    let mut expected: Vec<String> = Vec::new();
    for lane in 0..LANES {
        for round in 0..ROUNDS {
            match lane % 3 {
                0 => expected.push(format!("{lane}-{round}")),
                1 => drop(clients[0].get(&format!("{path}/members/{lane}-{round}")).expect(200)),
                _ => assert_eq!(image[format!("p{lane}-{round}")], "x"),
            }
        }
    }
    expected.sort();
    assert_eq!(image["tags"], json!(expected));
    let stored = |table: &str| gateways[0].sql(&format!("SELECT count(*) FROM {table} WHERE image_id = '{id}'"));
    assert_eq!((stored("image_members"), stored("image_tags")), ("20".into(), "20".into()));
}

#[test]
fn of_many_who_want_the_last_place_as_many_get_it_as_there_are() {
    const LANES: usize = 16;
    let quotas = Options::default().set("images", "image_tag_quota", 3).set("images", "image_member_quota", 3);
    let gateways = Gateway::start_all(&quotas, 2);
    let clients = [0, 1].map(|n: usize| gateways[n].client(Token::Demo));
    for _ in 0..4 {
        let id = clients[0].create("full");
        let path = format!("/v2/images/{id}");
        let member = |lane: usize, name: &str| {
            clients[lane % 2].post(&format!("{path}/members"), &json!({"member": name})).status
        };
        // The same one for all: it becomes a member once.
        let mut same = at_once(LANES, |lane| member(lane, "same"));
        same.sort_unstable();
        assert_eq!((same[0], &same[1..]), (200, &[409; LANES - 1][..]));
        let mut others = at_once(LANES, |lane| member(lane, &format!("m{lane}")));
        others.sort_unstable();
        assert_eq!((&others[..2], &others[2..]), (&[200; 2][..], &[413; LANES - 2][..]));
        let mut tags = at_once(LANES, |lane| clients[lane % 2].call("PUT", &format!("{path}/tags/t{lane}")).status);
        tags.sort_unstable();
        assert_eq!((&tags[..3], &tags[3..]), (&[204; 3][..], &[413; LANES - 3][..]));
        let stored = |table: &str| gateways[0].sql(&format!("SELECT count(*) FROM {table} WHERE image_id = '{id}'"));
        assert_eq!((stored("image_members"), stored("image_tags")), ("3".into(), "3".into()));
    }
}

#[test]
fn an_answer_and_the_end_of_a_membership_at_the_same_time_leave_one_or_the_other() {
    let gateways = Gateway::start_all(&Options::default(), 2);
    let owner = gateways[0].client(Token::Demo);
    let member = gateways[1].client(Token::Alt);
    let id = owner.create("offered");
    let members = format!("/v2/images/{id}/members");
    let own = format!("{members}/p-alt");
    for _ in 0..20 {
        owner.post(&members, &json!({"member": "p-alt"})).expect(200);
        let (answered, removed) =
            both(|| member.put(&own, &json!({"status": "accepted"})).status, || owner.delete(&own).status);
        assert_eq!(removed, 204);
        assert!([200, 404].contains(&answered), "{answered}");
        assert_eq!(gateways[0].sql(&format!("SELECT count(*) FROM image_members WHERE image_id = '{id}'")), "0");
        assert_eq!(status_of(&member, &id), "gone");
    }
}
