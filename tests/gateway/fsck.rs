//! `rockpool fsck`: every way in which catalog and pool can disagree is found, and mended where that is safe.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use crate::harness::{Client, Gateway, Options, OwnPool, TAKEOVER_S, Token, eventually, random_bytes, rbd};

/// A gateway with a pool of its own.
struct Ground {
    gateway: Gateway,
    demo: Client,
    pool: OwnPool,
}

impl Ground {
    fn new() -> Self {
        let pool = OwnPool::new();
        let gateway = Gateway::start(Options::quick().ceph_user("admin").set("stores.ceph", "pool", pool.0.as_str()));
        let demo = gateway.client(Token::Demo);
        Self { gateway, demo, pool }
    }

    fn spec(&self, name: &str) -> String {
        format!("{}/{name}", self.pool.0)
    }

    /// An image of these bytes, which nobody works on any more.
    fn active(&self, seed: u64) -> (String, Vec<u8>) {
        let bytes = random_bytes(seed, 300_000);
        (self.demo.active(&format!("image-{seed}"), &bytes), bytes)
    }

    fn await_no_jobs(&self) {
        // A client of Ceph that was killed counts as a user for half a minute, and the job's pauses grow meanwhile.
        eventually("no job is left", TAKEOVER_S + 100, || self.gateway.sql("SELECT count(*) FROM jobs") == "0");
    }

    /// All that is in the pool and in the catalog, to compare.
    fn everything(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        let names = rbd(&["ls", &self.pool.0]);
        for name in names.lines() {
            let spec = self.spec(name);
            let said = rbd(&["info", &spec]) + &rbd(&["image-meta", "list", &spec]) + &rbd(&["snap", "ls", &spec]);
            all.insert(name.to_owned(), said.lines().filter(|line| !line.contains("_timestamp")).collect());
        }
        all.insert("trash".into(), rbd(&["trash", "ls", "--all", &self.pool.0]));
        for table in ["images", "jobs", "tasks", "image_locations", "events"] {
            all.insert(table.into(), self.gateway.sql(&format!("SELECT * FROM {table} ORDER BY id")));
        }
        all
    }

    fn unprotect(&self, name: &str) {
        rbd(&["snap", "unprotect", &self.spec(&format!("{name}@snap"))]);
    }

    fn unsnap(&self, name: &str) {
        self.unprotect(name);
        rbd(&["snap", "rm", "--no-progress", &self.spec(&format!("{name}@snap"))]);
    }

    fn trash(&self, name: &str) {
        rbd(&["trash", "mv", &self.spec(name)]);
    }
}

#[test]
fn what_agrees_is_clean_and_what_others_made_is_only_counted() {
    let ground = Ground::new();
    let (gateway, demo) = (&ground.gateway, &ground.demo);
    assert_eq!(gateway.fsck(&[]).code, Some(0), "nothing at all");
    let (id, _) = ground.active(1);
    let path = format!("/v2/images/{id}");
    demo.patch(
        &path,
        &json!([
            {"op": "replace", "path": "/name", "value": "named, \"quoted\" and \u{e4}"},
            {"op": "add", "path": "/os_distro", "value": "debian"},
            {"op": "replace", "path": "/protected", "value": true},
        ]),
    )
    .expect(200);
    demo.put(&format!("{path}/tags/one"), &json!(null));
    demo.post(&format!("{path}/members"), &json!({"member": "p-alt"})).expect(200);
    gateway.client(Token::Alt).put(&format!("{path}/members/p-alt"), &json!({"status": "accepted"})).expect(200);
    // Members from before the data came.
    let early = demo.create("early");
    demo.post(&format!("/v2/images/{early}/members"), &json!({"member": "p-alt"})).expect(200);
    demo.upload(&early, &random_bytes(2, 100_000)).expect(204);
    let (off, _) = ground.active(3);
    gateway.client(Token::Admin).call("POST", &format!("/v2/images/{off}/actions/deactivate")).expect(204);
    let (gone, _) = ground.active(4);
    demo.delete(&format!("/v2/images/{gone}")).expect(204);
    demo.create("queued");
    let staged = demo.create("staged");
    demo.stage(&staged, &random_bytes(5, 50_000)).expect(204);
    rbd(&["create", "--size", "1M", &ground.spec("somebody-elses")]);
    eventually("it is described", TAKEOVER_S + 20, || {
        gateway.sql("SELECT count(*) FROM jobs WHERE kind <> 'stage'") == "0"
    });
    let members = rbd(&["image-meta", "get", &ground.spec(&id), "rockpool.members"]);
    assert!(members.contains("p-alt") && members.contains("accepted"), "{members}");
    let told = gateway.fsck(&[]);
    assert_eq!((told.code, told.all("found").len()), (Some(0), 0), "{told:?}");
    let summary = told.all("summary")[0];
    assert_eq!((&summary["images"], &summary["stored"], &summary["foreign"]), (&json!(5), &json!(5), &json!(1)));
    gateway.fsck_is_clean();
}

#[test]
fn what_can_be_mended_is_told_mended_and_then_clean() {
    let ground = Ground::new();
    let (gateway, demo) = (&ground.gateway, &ground.demo);
    let mut kept = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut image = |seed: u64, kind: &str| {
        let (id, bytes) = ground.active(seed);
        kept.insert(id.clone(), bytes);
        wrong.push((kind.to_owned(), id.clone()));
        id
    };
    let untouched = image(1, "");
    let half = image(2, "half-written");
    let staging = image(3, "staging-leftover");
    let trashed = image(4, "no-data");
    let unsnapped = image(5, "no-snapshot");
    let unprotected = image(6, "unprotected-snapshot");
    let described = image(7, "metadata");
    let locked = image(8, "stuck-import");
    let late = image(9, "expired-job");
    let orphan = image(10, "orphan");
    let deleted_trash = image(11, "trash");
    let stuck_delete = image(12, "stuck-delete");
    let stuck = demo.create("stuck");
    wrong.push(("stuck-image".into(), stuck.clone()));
    wrong.retain(|(kind, _)| !kind.is_empty());
    ground.await_no_jobs();
    // Nobody but fsck repairs from here on.
    gateway.signal("KILL");
    let attempt = || Uuid::new_v4().as_simple().to_string();
    let half_name = format!("uploading-{half}-{}", attempt());
    rbd(&["create", "--size", "4M", &ground.spec(&half_name)]);
    rbd(&["snap", "create", "--no-progress", &ground.spec(&format!("{half_name}@snap"))]);
    rbd(&["create", "--size", "4M", &ground.spec(&format!("staging-{staging}-{}", attempt()))]);
    ground.trash(&trashed);
    ground.unsnap(&unsnapped);
    ground.unprotect(&unprotected);
    rbd(&["image-meta", "set", &ground.spec(&described), "rockpool.name", "another"]);
    rbd(&["image-meta", "remove", &ground.spec(&described), "rockpool.owner"]);
    rbd(&["image-meta", "set", &ground.spec(&described), "theirs", "stays"]);
    gateway.sql(&format!("UPDATE images SET import_task = gen_random_uuid() WHERE id = '{locked}'"));
    gateway.sql(&format!(
        "INSERT INTO jobs (id, kind, image_id, state, payload, lease_expires_at) VALUES (gen_random_uuid(), 'describe', '{late}', 'waiting', '{{}}', now() - interval '1 hour')"
    ));
    gateway.sql(&format!("DELETE FROM images WHERE id IN ('{orphan}', '{deleted_trash}')"));
    ground.trash(&deleted_trash);
    gateway.sql(&format!("UPDATE images SET status = 'deleted' WHERE id = '{stuck_delete}'"));
    gateway.sql(&format!("UPDATE images SET status = 'saving' WHERE id = '{stuck}'"));
    let check = format!("uploading-startup-check-{}", Uuid::new_v4());
    rbd(&["create", "--size", "0", &ground.spec(&check)]);
    ground.trash(&check);
    wrong.push(("startup-check".into(), format!("trash/{check}")));
    let task = |status: &str| {
        let id = Uuid::new_v4().to_string();
        gateway.sql(&format!(
            "INSERT INTO tasks (id, type, status, created_at, updated_at) VALUES ('{id}', 'api_image_import', '{status}', now() - interval '1 year', now() - interval '1 year')"
        ));
        id
    };
    let lost_task = task("processing");
    wrong.push(("stuck-task".into(), lost_task.clone()));
    task("success");
    wrong.push(("expired-tasks".into(), String::new()));
    wrong.sort();
    // 1. Everything is found, and nothing else. Young things are left alone.
    let told = gateway.fsck(&[]);
    assert_eq!((told.code, told.kinds("found")), (Some(1), wrong.clone()), "{told:#?}");
    assert!(told.all("found").iter().all(|finding| finding["repair"].is_string()), "{told:#?}");
    let young = gateway.told("fsck", &["--images-per-s", "0"]);
    let old: Vec<_> = young.kinds("found").into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(old, ["expired-job", "expired-tasks", "stuck-task"], "{young:#?}");
    // 2. What would be done is told, and not done.
    let before = ground.everything();
    let told = gateway.fsck(&["--repair"]);
    assert_eq!((told.code, told.kinds("found"), told.all("repaired").len()), (Some(1), wrong.clone(), 0));
    assert!(ground.everything() == before, "a dry run has changed something");
    // 3. It is done.
    let told = gateway.fsck(&["--repair", "--yes"]);
    assert_eq!((told.code, told.kinds("repaired")), (Some(0), wrong), "{told:#?}");
    let told = gateway.fsck(&[]);
    assert_eq!((told.code, told.all("found").len()), (Some(0), 0), "{told:#?}");
    // 4. Just that.
    let names = rbd(&["ls", &ground.pool.0]);
    let mut left: Vec<&str> = names.lines().collect();
    left.sort_unstable();
    for gone in [&orphan, &deleted_trash, &stuck_delete] {
        kept.remove(gone);
        assert_eq!(gateway.sql(&format!("SELECT count(*) FROM images WHERE id = '{gone}'")), "0");
    }
    assert_eq!(left, kept.keys().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(rbd(&["trash", "ls", "--all", &ground.pool.0]), "");
    assert_eq!(gateway.sql(&format!("SELECT status FROM tasks WHERE id = '{lost_task}'")), "failure");
    let meta = rbd(&["image-meta", "list", &ground.spec(&described)]);
    assert!(meta.contains("image-7") && meta.contains("p-demo") && meta.contains("theirs"), "{meta}");
    let after = ground.everything();
    assert_eq!(after[&untouched], before[&untouched]);
    let next = gateway.sibling();
    let demo = next.client(Token::Demo);
    for (id, bytes) in &kept {
        assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == *bytes, "{id}");
    }
    demo.upload(&stuck, b"at last").expect(204);
}

#[test]
fn what_is_not_provably_ours_or_not_safe_is_only_told() {
    let ground = Ground::new();
    let gateway = &ground.gateway;
    let (lost, _) = ground.active(1);
    let (changed, _) = ground.active(2);
    let (longer, _) = ground.active(3);
    let (cloned, _) = ground.active(4);
    let (forgotten, _) = ground.active(5);
    let (contradicted, _) = ground.active(6);
    ground.await_no_jobs();
    ground.unsnap(&lost);
    rbd(&["rm", "--no-progress", &ground.spec(&lost)]);
    ground.unsnap(&changed);
    rbd(&[
        "bench",
        "--io-type",
        "write",
        "--io-size",
        "4K",
        "--io-threads",
        "1",
        "--io-total",
        "4K",
        &ground.spec(&changed),
    ]);
    gateway.sql(&format!("UPDATE images SET size_bytes = size_bytes + 1 WHERE id = '{longer}'"));
    let clone = format!("vms/{cloned}-clone");
    rbd(&["clone", &ground.spec(&format!("{cloned}@snap")), &clone]);
    gateway.sql(&format!("DELETE FROM images WHERE id IN ('{cloned}', '{forgotten}')"));
    // As after a loss of the catalog.
    gateway.sql(&format!("DELETE FROM image_ids WHERE id = '{forgotten}'"));
    rbd(&["image-meta", "set", &ground.spec(&contradicted), "rockpool.os_hash_value", &"0".repeat(128)]);
    let stranger = Uuid::new_v4().to_string();
    rbd(&["create", "--size", "1M", &ground.spec(&stranger)]);
    let foreign_attempt = format!("uploading-{}-{}", Uuid::new_v4(), Uuid::new_v4().as_simple());
    rbd(&["create", "--size", "1M", &ground.spec(&foreign_attempt)]);
    rbd(&["create", "--size", "1M", &ground.spec("golden")]);
    let before = ground.everything();
    let told = gateway.fsck(&["--repair", "--yes"]);
    assert_eq!((told.code, told.all("repaired").len()), (Some(1), 0), "{told:#?}");
    let mut wrong: Vec<(String, String)> = [
        ("no-data", &lost),
        ("no-snapshot", &changed),
        ("size", &longer),
        ("metadata", &longer),
        ("orphan", &cloned),
        ("orphan", &forgotten),
        ("metadata", &contradicted),
        ("orphan", &stranger),
        ("half-written", &foreign_attempt[10..46].to_owned()),
    ]
    .map(|(kind, image)| (kind.to_owned(), image.clone()))
    .into();
    wrong.sort();
    assert_eq!(told.kinds("found"), wrong, "{told:#?}");
    // The one that was tried.
    assert_eq!(told.kinds("unrepaired"), [("no-snapshot".to_owned(), changed.clone())]);
    assert!(told.lines.iter().any(|line| line["error"].as_str().is_some_and(|e| e.contains("the data has changed"))));
    let advice = |image: &str| {
        let found = told.all("found").into_iter().find(|finding| finding["image"] == image);
        found.unwrap().to_string()
    };
    assert!(advice(&cloned).contains("clone") && advice(&forgotten).contains("rockpool rebuild"));
    assert!(advice(&stranger).contains("rockpool adopt"));
    assert!(ground.everything() == before, "something was changed");
    rbd(&["rm", "--no-progress", &clone]);
}

#[test]
fn objects_of_another_size_and_a_resized_image_are_worth_a_note() {
    let ground = Ground::new();
    let (id, bytes) = ground.active(1);
    ground.await_no_jobs();
    rbd(&["resize", "--no-progress", "--size", "4M", &ground.spec(&id)]);
    let other = ground.gateway.sibling_with(
        Options::quick().ceph_user("admin").set("stores.ceph", "pool", ground.pool.0.as_str()).set(
            "stores.ceph",
            "chunk_size_mib",
            4,
        ),
    );
    let told = other.fsck(&["--repair", "--yes"]);
    let notes = vec![("object-size".to_owned(), id.clone()), ("size".to_owned(), id.clone())];
    assert_eq!((told.code, told.kinds("found")), (Some(0), notes), "{told:#?}");
    assert!(ground.demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
}

#[test]
fn what_cannot_be_checked_is_told_with_an_exit_code_of_its_own() {
    let ground = Ground::new();
    let (id, _) = ground.active(1);
    ground.await_no_jobs();
    let gone = ground.gateway.sibling_unready(Options::quick().ceph_user("admin").set(
        "stores.ceph",
        "pool",
        "no-such-pool-at-all",
    ));
    let told = gone.fsck(&["--repair", "--yes"]);
    assert_eq!((told.code, told.all("found").len(), told.all("unchecked").len()), (Some(2), 0, 1), "{told:#?}");
    assert!(told.all("unchecked")[0].as_str().unwrap().contains("store ceph"), "{told:?}");
    assert_eq!(ground.gateway.sql(&format!("SELECT status FROM images WHERE id = '{id}'")), "active");
    let nowhere = std::process::Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["fsck", "--config", "/does/not/exist"])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    // For people.
    ground.unprotect(&id);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["fsck", "--repair", "--grace-s", "0", "--config"])
        .arg(ground.gateway.folder().join("rockpool.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in ["FIX", "unprotected-snapshot", &id, "--yes would: protect the snapshot", "1 problems, 0 repaired"] {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn gateways_at_work_have_no_findings() {
    const SECONDS: u64 = 8;
    let ground = Ground::new();
    let other = ground.gateway.sibling();
    let stop = AtomicBool::new(false);
    let bytes = random_bytes(1, 2_000_000);
    thread::scope(|scope| {
        for client in
            [ground.gateway.client(Token::Demo), other.client(Token::Demo), ground.gateway.client(Token::Demo)]
        {
            let (stop, bytes) = (&stop, &bytes);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let kept = client.active("kept", bytes);
                    let path = format!("/v2/images/{kept}");
                    client.patch(&path, &json!([{"op": "replace", "path": "/name", "value": "renamed"}])).expect(200);
                    client.post(&format!("{path}/members"), &json!({"member": "p-alt"})).expect(200);
                    let imported = client.create("imported");
                    client.stage(&imported, bytes).expect(204);
                    let method = json!({"method": {"name": "glance-direct"}});
                    client.post(&format!("/v2/images/{imported}/import"), &method).expect(202);
                    client.delete(&path).expect(204);
                    let deleted_early = client.create("early");
                    client.stage(&deleted_early, bytes).expect(204);
                    client.delete(&format!("/v2/images/{deleted_early}")).expect(204);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(SECONDS);
        let mut looks = 0;
        while Instant::now() < end {
            let told = ground.gateway.fsck(&["--repair", "--yes"]);
            if told.code != Some(0) || !told.all("found").is_empty() {
                stop.store(true, Ordering::Relaxed);
                panic!("{told:#?}");
            }
            looks += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(looks >= 2, "only {looks} looks in {SECONDS} s");
    });
    ground.await_no_jobs();
    let told = ground.gateway.fsck(&[]);
    assert_eq!((told.code, told.all("found").len()), (Some(0), 0), "{told:#?}");
}

#[test]
fn a_repair_that_is_killed_anywhere_is_run_again_and_two_do_not_disturb_each_other() {
    let ground = Ground::new();
    let gateway = &ground.gateway;
    let images: Vec<(String, Vec<u8>)> = (0..6).map(|seed| ground.active(seed)).collect();
    let orphans: Vec<String> = (10..12).map(|seed| ground.active(seed).0).collect();
    ground.await_no_jobs();
    // More rows than one page, which nobody has to do anything about.
    gateway.sql(
        "WITH ids AS (INSERT INTO image_ids SELECT gen_random_uuid() FROM generate_series(1, 1200) RETURNING id)
         INSERT INTO images (id, status, visibility, protected, hidden, min_disk_gib, min_ram_mib, created_at, updated_at)
         SELECT id, 'queued', 'private', false, false, 0, 0, now(), now() FROM ids",
    );
    for orphan in &orphans {
        gateway.sql(&format!("DELETE FROM images WHERE id = '{orphan}'"));
    }
    for (n, (id, _)) in images.iter().enumerate() {
        match n % 3 {
            // Not without a snapshot: one whose taking is killed can be left without its object map.
            0 => ground.unprotect(id),
            1 => ground.trash(id),
            _ => drop(rbd(&["image-meta", "set", &ground.spec(id), "rockpool.name", "another"])),
        }
        rbd(&["create", "--size", "4M", &ground.spec(&format!("uploading-{id}-{}", Uuid::new_v4().as_simple()))]);
    }
    let begin = || {
        std::process::Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .args(["fsck", "--repair", "--yes", "--grace-s", "0", "--images-per-s", "0", "--config"])
            .arg(gateway.folder().join("rockpool.toml"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    for delay_ms in [150, 350, 700] {
        let mut process = begin();
        thread::sleep(Duration::from_millis(delay_ms));
        let _ = process.kill();
        process.wait().unwrap();
    }
    let mut both = [begin(), begin()];
    for process in &mut both {
        // What the other one was just mending it may have to leave.
        assert!(process.wait().unwrap().code().is_some_and(|code| code < 2));
    }
    // Jobs whose holder was killed are a gateway's, and so is a client of Ceph that counts as a user for a while.
    eventually("all is clean", TAKEOVER_S + 75, || gateway.fsck(&["--repair", "--yes"]).code == Some(0));
    ground.await_no_jobs();
    let told = gateway.fsck(&[]);
    assert_eq!((told.code, told.all("found").len()), (Some(0), 0), "{told:#?}");
    assert_eq!(told.all("summary")[0]["images"], 1206);
    for (id, bytes) in &images {
        assert!(ground.demo.get(&format!("/v2/images/{id}/file")).expect(200).body == *bytes, "{id}");
    }
    assert_eq!(rbd(&["ls", &ground.pool.0]).lines().count(), images.len());
}
