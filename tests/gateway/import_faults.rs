//! Imports whose gateways and stores fail in the middle: each ends, or can be tried again, and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{
    Client, Gateway, Nginx, Options, Session, Token, assert_active, await_clean, eventually, left_in_pool,
    random_bytes, skip, status_of,
};

const MIB: usize = 1 << 20;
/// Longest that an import of some MiB takes on a busy machine.
const IMPORTED_S: u64 = 60;
/// How long a dead client of Ceph counts as a user of what it had open, and two retries on top of it: each waits twice
/// as long as the one before.
const DATA_GONE_S: u64 = 150;

/// Stops jobs at the doors that the table `gates` names, as long as somebody else holds the lock 4711.
const GATES: &str = "CREATE TABLE gates (image uuid, door text);
    CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE reached text := CASE
      WHEN TG_OP = 'DELETE' THEN 'swept'
      WHEN OLD.state = 'writing' AND NEW.state = 'committing' THEN 'sealed'
      WHEN OLD.state = 'writing' AND NEW.state = 'discarding' THEN 'failed'
      WHEN OLD.state = 'committing' AND NEW.state = 'discarding' THEN 'published'
      WHEN OLD.payload->>'staged' IS NULL AND NEW.payload->>'staged' IS NOT NULL THEN 'staged' END;
    BEGIN
      IF EXISTS (SELECT FROM gates g WHERE g.image = OLD.image_id AND g.door = reached) THEN
        PERFORM pg_advisory_xact_lock(4711);
      END IF;
      IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER gate BEFORE UPDATE OR DELETE ON jobs FOR EACH ROW WHEN (OLD.kind = 'import') EXECUTE FUNCTION gate()";
/// Backends that wait at a door.
const WAITING: &str = "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";

#[track_caller]
fn import(client: &Client, id: &str, body: &Value) {
    client.post(&format!("/v2/images/{id}/import"), body).expect(202);
}

/// The last task of an image.
#[track_caller]
fn task(client: &Client, id: &str) -> Value {
    let tasks = client.get(&format!("/v2/images/{id}/tasks")).expect(200).json();
    tasks["tasks"].as_array().unwrap().last().unwrap().clone()
}

#[track_caller]
fn await_status(client: &Client, id: &str, status: &str) {
    eventually(&format!("{id} is {status}"), IMPORTED_S, || status_of(client, id) == status);
}

fn qcow2(bytes: &[u8]) -> Vec<u8> {
    let folder = Folder::new();
    let (raw, packed) = (folder.0.join("raw"), folder.0.join("qcow2"));
    std::fs::write(&raw, bytes).unwrap();
    let arguments = ["convert", "-f", "raw", "-O", "qcow2", raw.to_str().unwrap(), packed.to_str().unwrap()];
    assert!(Command::new("qemu-img").args(arguments).status().unwrap().success());
    std::fs::read(&packed).unwrap()
}

/// Makes a queued qcow2 image.
#[track_caller]
fn create_qcow2(client: &Client) -> String {
    let document = json!({"name": "qcow2", "disk_format": "qcow2", "container_format": "bare"});
    client.post("/v2/images", &document).expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("rockpool-faults-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    /// Names of the files in it and below.
    fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, files: &mut Vec<String>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else {
                    files.push(path.file_name().unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.0, &mut files);
        files
    }

    /// A store in it, besides the pool, and leave to fetch from loopback.
    fn options(&self) -> Options {
        Options::quick().sections(&format!(
            "[stores.archive]\ntype = \"file\"\ndata_dir = \"{}\"\n[fetch]\nallowed_hosts = [\"localhost\"]\nallowed_ports = []\nrange_mib = 1\n",
            self.0.display()
        ))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A file system of 4 MiB.
struct Small(Folder);

impl Small {
    /// `None`, and the test counts as skipped, where none may be mounted.
    fn mount() -> Option<Self> {
        let folder = Folder::new();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(&folder.0).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            skip("no file system can be mounted");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

#[test]
fn an_import_ends_wherever_its_gateway_is_killed() {
    let Some(nginx) = Nginx::start("") else { return };
    let archive = Folder::new();
    let mut gateways = Gateway::start_all(&archive.options().set("catalog", "pool_size", 12), 4);
    let survivor = gateways.pop().unwrap();
    let demo = survivor.client(Token::Demo);
    let disk = random_bytes(61, 6 * MIB);
    let packed = qcow2(&disk);
    nginx.serve("disk.qcow2", &packed);
    let mut broken = packed.clone();
    // Its first table of clusters lies beyond the end.
    let tables = usize::try_from(u64::from_be_bytes(broken[40..48].try_into().unwrap())).unwrap();
    broken[tables..tables + 8].copy_from_slice(&(1_u64 << 63 | 1 << 40).to_be_bytes());
    survivor.sql(GATES);
    let doors = ["staged", "sealed", "published", "swept", "failed"];
    let ids: Vec<String> = doors
        .iter()
        .map(|door| {
            let id = create_qcow2(&demo);
            survivor.sql(&format!("INSERT INTO gates VALUES ('{id}', '{door}')"));
            match *door {
                "staged" => {}
                "failed" => drop(demo.stage(&id, &broken).expect(204)),
                _ => drop(demo.stage(&id, &packed).expect(204)),
            }
            id
        })
        .collect();
    let closed = Session::begin(survivor.database(), "SELECT pg_advisory_xact_lock(4711)");
    // So that the victims take them up.
    survivor.signal("STOP");
    let through = gateways[0].client(Token::Demo);
    for (door, id) in doors.iter().zip(&ids) {
        let method = match *door {
            "staged" => json!({"name": "web-download", "uri": nginx.url("disk.qcow2")}),
            _ => json!({"name": "glance-direct"}),
        };
        import(&through, id, &json!({ "method": method }));
    }
    let waiting = || survivor.sql(&format!("SELECT count(*) {WAITING}"));
    eventually("each import waits at its door", IMPORTED_S, || waiting() == doors.len().to_string());
    drop(gateways);
    survivor.sql(&format!("SELECT pg_terminate_backend(pid) {WAITING}; DELETE FROM gates"));
    drop(closed);
    survivor.signal("CONT");
    for (door, id) in doors.iter().zip(&ids) {
        if *door == "failed" {
            await_status(&demo, id, "uploading");
            eventually("its task failed", IMPORTED_S, || task(&demo, id)["status"] == "failure");
            demo.delete(&format!("/v2/images/{id}")).expect(204);
        } else {
            await_status(&demo, id, "active");
            assert_active(&demo, id, &disk);
            assert_eq!(task(&demo, id)["status"], "success", "{door}");
        }
    }
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    await_clean(&survivor, &ids[..4], &ids[4..], DATA_GONE_S);
}

#[test]
fn a_store_that_fills_up_fails_the_import_or_is_left_out() {
    let Some(small) = Small::mount() else { return };
    let gateway = Gateway::start(small.0.options());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(62, 9 * MIB);
    let id = demo.create("too large");
    demo.stage(&id, &bytes).expect(204);
    let to_both = |must_succeed: bool| json!({"method": {"name": "glance-direct"}, "stores": ["ceph", "archive"], "all_stores_must_succeed": must_succeed});
    import(&demo, &id, &to_both(true));
    await_status(&demo, &id, "uploading");
    let (failed, image) = (task(&demo, &id), demo.show(&id));
    assert!(
        failed["status"] == "failure" && failed["message"].as_str().unwrap().contains("not enough space"),
        "{failed}"
    );
    assert_eq!(
        (&image["os_glance_failed_import"], &image["os_glance_importing_to_stores"]),
        (&json!("ceph,archive"), &json!(""))
    );
    eventually("only what was staged is left", 20, || {
        let left = left_in_pool(&[&id]);
        left.len() == 1 && left[0].starts_with("staging-") && small.0.files().is_empty()
    });
    import(&demo, &id, &to_both(false));
    await_status(&demo, &id, "active");
    assert_active(&demo, &id, &bytes);
    let (done, image) = (task(&demo, &id), demo.show(&id));
    assert!(
        done["status"] == "success" && done["message"].as_str().unwrap().contains("Store archive failed"),
        "{done}"
    );
    assert_eq!((&image["stores"], &image["os_glance_failed_import"]), (&json!("ceph"), &json!("archive")));
    await_clean(&gateway, &[&id], &[], 20);
    assert_eq!(small.0.files(), [""; 0]);
}

#[test]
fn a_store_that_vanishes_is_left_out_or_waited_for() {
    let Some(nginx) = Nginx::start("limit_rate 1m;") else { return };
    let bytes = random_bytes(63, 12 * MIB);
    nginx.serve("disk.raw", &bytes);
    let archive = Folder::new();
    let elsewhere = archive.0.with_extension("elsewhere");
    let gateway = Gateway::start(archive.options());
    let demo = gateway.client(Token::Demo);
    let vanishes = |must_succeed: bool| {
        let id = demo.create("vanishing");
        let method = json!({"name": "web-download", "uri": nginx.url("disk.raw")});
        import(
            &demo,
            &id,
            &json!({"method": method, "stores": ["ceph", "archive"], "all_stores_must_succeed": must_succeed}),
        );
        eventually("it is written to both", 20, || {
            let in_pool = left_in_pool(&[&id]).iter().any(|name| name.starts_with("uploading-"));
            in_pool && archive.files().iter().any(|name| name.contains(&id))
        });
        std::fs::rename(&archive.0, &elsewhere).unwrap();
        id
    };
    // What is left there is removed when it is back.
    let one = vanishes(false);
    await_status(&demo, &one, "active");
    assert_active(&demo, &one, &bytes);
    let (done, image) = (task(&demo, &one), demo.show(&one));
    assert!(
        done["status"] == "success" && done["message"].as_str().unwrap().contains("Store archive failed"),
        "{done}"
    );
    assert_eq!((&image["stores"], &image["os_glance_failed_import"]), (&json!("ceph"), &json!("archive")));
    assert!(!archive.0.exists(), "nobody makes the folder anew");
    std::fs::rename(&elsewhere, &archive.0).unwrap();
    await_clean(&gateway, &[&one], &[], 40);
    assert_eq!(archive.files(), [""; 0]);
    // Where all are wanted the import waits until it is back.
    let both = vanishes(true);
    let last_error = || task(&demo, &both)["result"]["progress"]["last_error"].is_string();
    eventually("it says why it is tried again", IMPORTED_S, last_error);
    assert_eq!(status_of(&demo, &both), "importing");
    std::fs::rename(&elsewhere, &archive.0).unwrap();
    await_status(&demo, &both, "active");
    assert_active(&demo, &both, &bytes);
    let image = demo.show(&both);
    assert_eq!((&image["stores"], &image["os_glance_failed_import"]), (&json!("ceph,archive"), &json!("")));
    await_clean(&gateway, &[&one, &both], &[], 40);
    let files = archive.files();
    assert!(files.len() == 2 && files.iter().all(|name| name.starts_with(&both)), "{files:?}");
}
