//! `rockpool adopt`: RBD images that somebody else has made.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    Foreign, Gateway, Options, TAKEOVER_S, Token, assert_active, await_clean, eventually, left_in_pool, random_bytes,
    rbd, servers, status_of,
};

/// Options of a gateway whose user may also read and write the pool of machines.
fn options() -> Options {
    Options::quick().ceph_user("admin")
}

fn command(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockpool"));
    command.arg("adopt").args(arguments).arg("--config").arg(gateway.folder().join("rockpool.toml"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Adopts, and returns the id that is printed.
#[track_caller]
fn adopt(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = command(gateway, arguments).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn refused(gateway: &Gateway, arguments: &[&str], words: &[&str]) {
    let output = command(gateway, arguments).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: {word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// A disk without snapshots in this pool; it goes when dropped.
struct Disk(String);

impl Disk {
    fn new(pool: &str, bytes: &[u8]) -> Self {
        let spec = format!("{pool}/disk-{}", Uuid::new_v4().as_simple());
        let file = std::env::temp_dir().join(format!("rockpool-disk-{}", Uuid::new_v4()));
        std::fs::write(&file, bytes).unwrap();
        rbd(&["import", "--no-progress", file.to_str().unwrap(), &spec]);
        std::fs::remove_file(&file).unwrap();
        Self(spec)
    }

    fn name(&self) -> &str {
        self.0.split_once('/').unwrap().1
    }

    fn snapshots(&self) -> String {
        rbd(&["snap", "ls", "--all", &self.0])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = crate::harness::try_rbd(&["snap", "purge", "--no-progress", &self.0]);
        let _ = crate::harness::try_rbd(&["rm", "--no-progress", &self.0]);
    }
}

fn info(spec: &str) -> Value {
    serde_json::from_str(&rbd(&["info", "--format", "json", spec])).unwrap()
}

/// Somebody who has an image open.
struct Watcher(Child);

impl Watcher {
    fn of(spec: &str) -> Self {
        let folder = servers().ceph;
        let child = Command::new("rbd")
            .arg("--conf")
            .arg(folder.join("ceph.conf"))
            .args(["--id", "admin", "--keyring"])
            .arg(folder.join("client.admin.keyring"))
            .args(["watch", spec])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let watcher = Self(child);
        eventually("it is watched", 20, || rbd(&["status", spec]).contains("watcher="));
        watcher
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // A line ends it, and its watch with it; killed, that would stay for half a minute.
        let _ = self.0.stdin.take().map(|mut stdin| stdin.write_all(b"\n"));
        let _ = self.0.wait();
    }
}

#[test]
fn a_machines_disk_is_copied_and_stays_as_it_was() {
    let gateway = Gateway::start(options());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 9_000_000);
    let disk = Disk::new("vms", &bytes);
    let id = adopt(&gateway, &[&disk.0, "--name", "golden", "--owner", "p-demo", "--visibility", "private"]);
    assert_active(&demo, &id, &bytes);
    let image = demo.show(&id);
    for (key, value) in [("name", "golden"), ("owner", "p-demo"), ("visibility", "private"), ("disk_format", "raw")] {
        assert_eq!(image[key], value, "{key}");
    }
    assert_eq!((&image["virtual_size"], &image["stores"]), (&json!(bytes.len()), &json!("ceph")));
    let stored = info(&format!("images/{id}"));
    assert!(stored["parent"].is_null() && stored["order"] == 23, "{stored}");
    assert_eq!(disk.snapshots(), "", "the source is as it was");
    await_clean(&gateway, &[&id], &[], 20);
    assert_eq!(rbd(&["image-meta", "get", &format!("images/{id}"), "rockpool.name"]), "golden");
    // It goes as any other, and the source stays.
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 20);
    assert_eq!(info(&disk.0)["size"], bytes.len());
}

#[test]
fn an_image_of_the_pool_is_taken_in_place_with_the_clones_that_it_has() {
    let gateway = Gateway::start(options());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(2, 3_000_000);
    // One that somebody has imported by hand and boots from, and one without a snapshot.
    let used = Foreign::new(&format!("by-hand-{}", Uuid::new_v4().as_simple()), &bytes);
    let machine = format!("vms/machine-{}", Uuid::new_v4().as_simple());
    rbd(&["clone", &format!("{}@snap", used.spec), &machine]);
    let plain = Disk::new("images", &bytes);
    for (spec, name) in [(&used.spec, "used"), (&plain.0, "plain")] {
        let before = info(spec)["id"].clone();
        let id = adopt(&gateway, &[spec, "--name", name, "--owner", "p-demo", "--in-place"]);
        assert_active(&demo, &id, &bytes);
        assert_eq!(info(&format!("images/{id}"))["id"], before, "the very image, not a copy");
        assert!(crate::harness::try_rbd(&["info", spec]).is_err());
        await_clean(&gateway, &[&id], &[], 20);
        let described = rbd(&["image-meta", "list", &format!("images/{id}")]);
        assert!(described.contains("rockpool.id") && !described.contains("adopted_from"), "{described}");
        if name == "used" {
            demo.delete(&format!("/v2/images/{id}")).expect(409);
            rbd(&["rm", "--no-progress", &machine]);
        }
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        await_clean(&gateway, &[], &[&id], 20);
    }
}

#[test]
fn what_is_in_use_or_nothing_to_adopt_is_refused_and_nothing_is_left() {
    let gateway = Gateway::start(options());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(3, 100_000);
    let (vm, disk) = (Disk::new("vms", &bytes), Disk::new("images", &bytes));
    let usual = ["--name", "n", "--owner", "p-demo"];
    let with = |spec: &str, more: &[&str], words: &[&str]| {
        refused(&gateway, &[&[spec], &usual[..], more].concat(), words);
    };
    refused(&gateway, &[&vm.0, "--name", "n"], &["--owner"]);
    with("vms", &[], &["POOL/IMAGE"]);
    with("vms/a@b", &[], &["without a snapshot"]);
    with(&vm.0, &["--id", "one"], &["--id one is not a UUID"]);
    with(&vm.0, &["--visibility", "secret"], &["visibility"]);
    with(&vm.0, &["--disk-format", "floppy"], &["disk_format"]);
    with(&vm.0, &["--store", "other"], &["store 'other'"]);
    with("vms/nothing-of-that-name", &[], &["vms/nothing-of-that-name", "no such data"]);
    with("no-such-pool/x", &[], &["no-such-pool/x"]);
    let unfinished = format!("images/uploading-{}-{}", Uuid::new_v4(), Uuid::new_v4().as_simple());
    with(&unfinished, &["--in-place"], &["is an upload of this service"]);
    with(&vm.0, &["--in-place"], &["is not in pool images", "--in-place"]);
    let watcher = Watcher::of(&vm.0);
    with(&vm.0, &[], &["is in use", "has it open"]);
    drop(watcher);
    rbd(&["snap", "create", "--no-progress", &format!("{}@theirs", disk.0)]);
    with(&disk.0, &["--in-place"], &["snapshots", "theirs"]);
    let clone = format!("{}-clone", disk.0);
    rbd(&["clone", "--rbd-default-clone-format", "2", &format!("{}@theirs", disk.0), &clone]);
    with(&clone, &["--in-place"], &["is a clone of", "rbd flatten"]);
    rbd(&["rm", "--no-progress", &clone]);
    let active = demo.active("theirs", &bytes);
    with(&format!("images/{active}"), &["--in-place"], &["is the data of image", &active]);
    with(&vm.0, &["--id", &active], &["is active"]);
    assert_active(&demo, &active, &bytes);
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "1", "no record was made");
    assert_eq!(vm.snapshots(), "");
}

#[test]
fn an_adoption_in_place_that_was_cut_off_is_run_again() {
    let gateway = Gateway::start(options());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(4, 500_000);
    let disk = Disk::new("images", &bytes);
    let id = Uuid::new_v4().to_string();
    // As far as a process that was killed right before the end has come.
    demo.post("/v2/images", &json!({"id": id, "name": "cut", "disk_format": "raw", "container_format": "bare"}))
        .expect(201);
    rbd(&["image-meta", "set", &disk.0, "rockpool.adopted_from", disk.name()]);
    rbd(&["snap", "create", "--no-progress", &format!("{}@snap", disk.0)]);
    rbd(&["snap", "protect", &format!("{}@snap", disk.0)]);
    rbd(&["mv", &disk.0, &format!("images/{id}")]);
    let again = [&disk.0[..], "--name", "cut", "--owner", "p-demo", "--in-place", "--id", &id];
    assert_eq!(adopt(&gateway, &again), id);
    assert_active(&demo, &id, &bytes);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    await_clean(&gateway, &[], &[&id], 20);
}

#[test]
fn a_copy_whose_process_was_killed_is_undone_or_finished_and_can_be_repeated() {
    let gateway = Gateway::start(options());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(5, 40_000_000);
    let disk = Disk::new("vms", &bytes);
    for delay_ms in [150, 500, 900] {
        let id = Uuid::new_v4().to_string();
        let arguments = [&disk.0[..], "--name", "killed", "--owner", "p-demo", "--id", &id];
        let mut process = command(&gateway, &arguments).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        process.kill().unwrap();
        process.wait().unwrap();
        eventually("it is undone or finished", TAKEOVER_S + 40, || {
            ["gone", "queued", "active"].contains(&status_of(&demo, &id).as_str())
                && gateway.sql("SELECT count(*) FROM jobs") == "0"
        });
        if status_of(&demo, &id) != "active" {
            assert_eq!(left_in_pool(&[&id]), [""; 0], "nothing is left of it");
            // The dead process counts as a user of the disk for half a minute if it had it open.
            eventually("the disk is free", 40, || !rbd(&["status", &disk.0]).contains("watcher="));
            assert_eq!(adopt(&gateway, &arguments), id);
        }
        eventually("it is hashed", 20, || !demo.show(&id)["os_hash_value"].is_null());
        assert_active(&demo, &id, &bytes);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        await_clean(&gateway, &[], &[&id], 40);
    }
    eventually("its snapshots go with the copies", 20, || disk.snapshots().is_empty());
}

#[test]
fn what_is_adopted_is_looked_at_and_counted_as_an_upload_is() {
    let gateway = Gateway::start(options().set("limits", "user_storage_quota", "2MB"));
    let mut foreign = vec![0; 300_000];
    // A qcow2 of 1 GiB, in two ways: with a backing file and without.
    foreign[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
    foreign[20..24].copy_from_slice(&16u32.to_be_bytes());
    foreign[24..32].copy_from_slice(&(1u64 << 30).to_be_bytes());
    foreign[36..40].copy_from_slice(&2u32.to_be_bytes());
    foreign[40..48].copy_from_slice(&0x30000u64.to_be_bytes());
    foreign[48..56].copy_from_slice(&0x10000u64.to_be_bytes());
    foreign[56..60].copy_from_slice(&1u32.to_be_bytes());
    let plain = foreign.clone();
    foreign[8..16].copy_from_slice(&0x200u64.to_be_bytes());
    foreign[16..20].copy_from_slice(&11u32.to_be_bytes());
    foreign[0x200..0x20b].copy_from_slice(b"/etc/passwd");
    let large = random_bytes(6, 2 * 1024 * 1024 + 1);
    let cases = [
        (&foreign, "backing file"),
        (&plain, "disk_format is raw, but the data is qcow2"),
        (&large, "user_storage_quota"),
    ];
    for (bytes, words) in cases {
        let (vm, disk) = (Disk::new("vms", bytes), Disk::new("images", bytes));
        for arguments in [&[&vm.0[..]][..], &[&disk.0[..], "--in-place"]] {
            refused(&gateway, &[arguments, &["--name", "n", "--owner", "p-demo"]].concat(), &[words]);
        }
        assert_eq!((vm.snapshots(), disk.snapshots()), (String::new(), String::new()), "both are as they were");
        assert_eq!(gateway.sql("SELECT (SELECT count(*) FROM images) + (SELECT count(*) FROM jobs)"), "0");
    }
    // What it is, as far as it is said.
    let disk = Disk::new("vms", &plain);
    let id = adopt(&gateway, &[&disk.0, "--name", "n", "--owner", "p-demo", "--disk-format", "qcow2"]);
    assert_eq!(gateway.client(Token::Demo).show(&id)["virtual_size"], 1 << 30);
    assert_eq!(gateway.sql("SELECT sum(size_bytes) FROM images WHERE owner = 'p-demo'"), "300000");
}

#[test]
fn an_adopted_image_is_hashed_although_its_process_died_before() {
    // Slow enough to be killed in the middle.
    let gateway = Gateway::start(options().set("images", "secure_hash_rate_mib_s", 2));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(7, 8 * 1024 * 1024);
    let (vm, disk) = (Disk::new("vms", &bytes), Disk::new("images", &bytes));
    for arguments in [&[&vm.0[..]][..], &[&disk.0[..], "--in-place"]] {
        let id = Uuid::new_v4().to_string();
        let arguments = [arguments, &["--name", "n", "--owner", "p-demo", "--id", &id]].concat();
        let mut process = command(&gateway, &arguments).spawn().unwrap();
        eventually("it is active", 40, || status_of(&demo, &id) == "active");
        // From the same moment on there is a job: whenever the process dies, the hash is somebody's.
        assert_eq!(gateway.sql(&format!("SELECT count(*) FROM jobs WHERE kind = 'locate' AND image_id = '{id}'")), "1");
        assert!(demo.show(&id)["os_hash_value"].is_null());
        process.kill().unwrap();
        process.wait().unwrap();
        eventually("a gateway hashes it", TAKEOVER_S + 40, || !demo.show(&id)["os_hash_value"].is_null());
        assert_active(&demo, &id, &bytes);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        await_clean(&gateway, &[], &[&id], 40);
    }
}
