//! `rockpool scrub`: stored data is compared with its hash.

use std::time::{Duration, Instant};

use crate::harness::{Gateway, Options, OwnPool, TAKEOVER_S, Token, eventually, random_bytes, rbd};

#[test]
fn what_has_changed_is_told_and_what_has_not_is_read_once() {
    let pool = OwnPool::new();
    let gateway = Gateway::start(Options::quick().ceph_user("admin").set("stores.ceph", "pool", pool.0.as_str()));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 5_000_000);
    let (good, bad) = (demo.active("good", &bytes), demo.active("bad", &bytes));
    let (gone, unhashed) = (demo.active("gone", &bytes), demo.active("unhashed", &bytes));
    let md5 = demo.active("md5", &bytes);
    demo.create("queued");
    eventually("no job is left", TAKEOVER_S + 20, || gateway.sql("SELECT count(*) FROM jobs") == "0");
    gateway.sql(&format!(
        "UPDATE images SET os_hash_algo = NULL, os_hash_value = NULL WHERE id IN ('{unhashed}', '{md5}')"
    ));
    gateway.sql(&format!("UPDATE images SET checksum = NULL WHERE id = '{unhashed}'"));
    let scrub = |arguments: &[&str]| gateway.told("scrub", &[&["--mib-per-s", "0"], arguments].concat());
    // 1. All is well, and is not read twice.
    let told = scrub(&[]);
    let count = |told: &crate::harness::Told, what: &str| told.all("summary")[0][what].as_u64().unwrap();
    assert_eq!((told.code, count(&told, "good"), count(&told, "unhashed")), (Some(0), 4, 1), "{told:?}");
    assert_eq!(count(&told, "bytes"), 4 * bytes.len() as u64);
    let told = scrub(&[]);
    assert_eq!((told.code, count(&told, "good"), count(&told, "skipped")), (Some(0), 0, 4), "{told:?}");
    assert_eq!(count(&scrub(&["--days", "0"]), "good"), 4, "unless it is asked for");
    // 2. One has been tampered with, one is lost.
    let spec = |id: &str| format!("{}/{id}", pool.0);
    for id in [&bad, &gone] {
        rbd(&["snap", "unprotect", &format!("{}@snap", spec(id))]);
        rbd(&["snap", "rm", "--no-progress", &format!("{}@snap", spec(id))]);
    }
    rbd(&["rm", "--no-progress", &spec(&gone)]);
    rbd(&["bench", "--io-type", "write", "--io-size", "4K", "--io-threads", "1", "--io-total", "4K", &spec(&bad)]);
    rbd(&["snap", "create", "--no-progress", &format!("{}@snap", spec(&bad))]);
    let before = gateway.sql("SELECT * FROM images ORDER BY id");
    for _ in 0..2 {
        let told = scrub(&[]);
        assert_eq!(told.code, Some(1), "{told:#?}");
        assert_eq!((count(&told, "mismatches"), count(&told, "unreadable"), count(&told, "skipped")), (1, 1, 2));
        let found = |id: &str| told.all("bad").into_iter().find(|line| line["image"] == id).unwrap().clone();
        assert_eq!(found(&bad)["expected"], demo.show(&bad)["os_hash_value"]);
        assert!(found(&bad)["found"].is_string() && found(&bad)["algorithm"] == "sha512");
        assert!(found(&gone)["found"].is_null() && found(&gone)["why"].is_string());
    }
    assert_eq!(gateway.sql("SELECT * FROM images ORDER BY id"), before, "nothing is changed");
    assert_eq!(gateway.sql("SELECT count(*) FILTER (WHERE matches), count(*) FROM image_scrubs"), "3|4");
    assert_eq!(demo.show(&good)["status"], "active");
    // 3. What is deleted is forgotten.
    demo.delete(&format!("/v2/images/{good}")).expect(204);
    assert_eq!(gateway.sql(&format!("SELECT count(*) FROM image_scrubs WHERE image_id = '{good}'")), "0");
}

#[test]
fn a_scrub_keeps_to_its_rate() {
    let pool = OwnPool::new();
    let gateway = Gateway::start(Options::quick().ceph_user("admin").set("stores.ceph", "pool", pool.0.as_str()));
    gateway.client(Token::Demo).active("slow", &random_bytes(2, 24 << 20));
    let begun = Instant::now();
    let told = gateway.told("scrub", &["--mib-per-s", "10"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    // The last read need not be waited for.
    assert!(begun.elapsed() > Duration::from_millis(1900), "{:?}", begun.elapsed());
}
