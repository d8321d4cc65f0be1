//! Starting and stopping.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Gateway, Options, SlowDownload, SlowUpload, TAKEOVER_S, Token, assert_active, assert_consistent, await_clean,
    eventually, left_in_pool, random_bytes, status_of,
};

/// A gateway that is told to stop says so or takes no connections any more.
#[track_caller]
fn assert_refuses(gateway: &Gateway) {
    if TcpStream::connect(&gateway.address).is_ok() {
        if let Some(answer) = gateway.anonymous().try_get("/readyz") {
            answer.expect(503);
        }
        for path in ["/v2/images", "/v2/schemas/image"] {
            if let Some(answer) = gateway.client(Token::Demo).try_get(path) {
                answer.expect(503);
            }
        }
    }
}

#[test]
fn a_gateway_told_to_stop_finishes_its_transfers_refuses_others_and_exits_with_0() {
    let mut gateway = Gateway::start(Options::default());
    let sibling = gateway.sibling();
    let demo = sibling.client(Token::Demo);
    // Larger than all the buffers in between.
    let bytes = random_bytes(1, 64 << 20);
    let read = demo.active("read", &bytes);
    let [sized, chunked] = ["sized", "chunked"].map(|name| demo.create(name));
    let mut download = SlowDownload::begin(&gateway, &read);
    let mut got = download.read(1 << 20);
    let mut uploads =
        [SlowUpload::begin(&gateway, &sized, Some(bytes.len())), SlowUpload::begin(&gateway, &chunked, None)];
    for upload in &mut uploads {
        assert!(upload.send(&bytes[..10 << 20]));
    }
    eventually("both uploads run", 10, || left_in_pool(&[&sized, &chunked]).len() == 2);

    gateway.signal("TERM");
    eventually("it is not ready any more", 3, || {
        gateway.anonymous().try_get("/readyz").is_none_or(|answer| answer.status == 503)
    });
    assert_refuses(&gateway);
    // Through it all, at the pace of the clients.
    for (part, upload) in [
        (&bytes[10 << 20..30 << 20], 0),
        (&bytes[10 << 20..40 << 20], 1),
        (&bytes[30 << 20..], 0),
        (&bytes[40 << 20..], 1),
    ] {
        assert!(uploads[upload].send(part));
        got.extend(download.read(12 << 20));
        assert_refuses(&gateway);
    }
    for upload in uploads {
        assert_eq!(upload.finish(), Some(204));
    }
    got.extend(download.read(bytes.len()));
    assert!(got == bytes, "{} of {} bytes were downloaded", got.len(), bytes.len());
    assert_eq!(gateway.wait(10), Some(0));
    assert_active(&demo, &sized, &bytes);
    assert_active(&demo, &chunked, &bytes);
    await_clean(&sibling, &[&read, &sized, &chunked], &[], 5);
    for id in [read, sized, chunked] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn transfers_that_take_too_long_are_left_to_the_other_gateways() {
    let mut gateway = Gateway::start(Options::quick().set("server", "drain_timeout_s", 1));
    let sibling = gateway.sibling();
    let demo = sibling.client(Token::Demo);
    let bytes = random_bytes(2, 64 << 20);
    let (written, read) = (demo.create("written"), demo.active("read", &bytes));
    let mut download = SlowDownload::begin(&gateway, &read);
    let got = download.read(1 << 20);
    let mut upload = SlowUpload::begin(&gateway, &written, Some(bytes.len()));
    assert!(upload.send(&bytes[..20 << 20]));
    eventually("the attempt is in the pool", 10, || !left_in_pool(&[&written]).is_empty());
    gateway.signal("TERM");
    let start = Instant::now();
    assert_eq!(gateway.wait(10), Some(0));
    assert!(
        start.elapsed() >= Duration::from_millis(900) && start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    assert_ne!(upload.answer(), Some(204));
    // Cut, not completed with something else.
    let rest = download.read(bytes.len());
    assert!(got.len() + rest.len() < bytes.len() && bytes.starts_with(&[got, rest].concat()));
    eventually("the sibling takes over", TAKEOVER_S, || status_of(&demo, &written) != "saving");
    assert_eq!(assert_consistent(&demo, &written, &bytes), "queued");
    demo.upload(&written, &bytes).expect(204);
    await_clean(&sibling, &[&written, &read], &[], 75);
    for id in [written, read] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for signals in [["TERM", "TERM"], ["TERM", "INT"], ["INT", "TERM"]] {
        let mut gateway = Gateway::start(Options::quick());
        let id = gateway.client(Token::Demo).create("second");
        let mut upload = SlowUpload::begin(&gateway, &id, Some(1 << 20));
        assert!(upload.send(&[1; 1000]));
        eventually("the upload has begun", 5, || status_of(&gateway.client(Token::Demo), &id) == "saving");
        gateway.signal(signals[0]);
        thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        gateway.signal(signals[1]);
        let code = gateway.wait(5);
        assert!(code.is_some_and(|code| code != 0), "{code:?}: it ended with work undone");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    }
}

#[test]
fn an_idle_gateway_stops_soon_and_without_a_crash() {
    thread::scope(|scope| {
        for lane in 0..5 {
            scope.spawn(move || {
                let mut gateway = Gateway::start(Options::default());
                for round in 0..2 {
                    // Sometimes Ceph has been at work before, sometimes a client keeps an idle connection.
                    let client = gateway.client(Token::Demo);
                    if (lane + round) % 2 == 0 {
                        let id = client.active("before", &random_bytes(lane, 1_000_000));
                        client.get(&format!("/v2/images/{id}/file")).expect(200);
                        client.delete(&format!("/v2/images/{id}")).expect(204);
                    }
                    let start = Instant::now();
                    gateway.signal(if round == 0 { "TERM" } else { "INT" });
                    assert_eq!(gateway.wait(10), Some(0), "{}", gateway.log());
                    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
                    drop(client);
                    gateway = gateway.sibling();
                }
            });
        }
    });
}

#[test]
fn a_gateway_can_be_stopped_while_it_starts() {
    for delay in [0, 30, 100, 300] {
        let mut gateway = Gateway::start_unready(Options::default());
        thread::sleep(Duration::from_millis(delay));
        gateway.signal("TERM");
        let code = gateway.wait(10);
        // Before it listens for signals it dies of this one.
        assert!(matches!(code, None | Some(0)), "{code:?}: {}", gateway.log());
    }
}

#[test]
fn what_is_missing_at_the_start_is_named() {
    let expectations = [
        (Options::default().set("stores.ceph", "pool", "nowhere"), "pool nowhere"),
        (Options::default().set("stores.ceph", "pool", "vms"), "client.rockpool"),
        (Options::default().set("stores.ceph", "user", "nobody"), "client.nobody"),
        (Options::default().set("stores.ceph", "data_pool", "nowhere"), "nowhere"),
        (Options::default().database_hosts("127.0.0.1:1"), "catalog.url"),
    ];
    thread::scope(|scope| {
        for (options, expected) in expectations {
            scope.spawn(move || {
                let mut gateway = Gateway::start_unready(options);
                assert_eq!(gateway.wait(30), Some(1), "{expected}: {}", gateway.log());
                let log = gateway.log();
                assert!(log.contains(expected), "'{expected}' is not in: {log}");
            });
        }
    });
}
