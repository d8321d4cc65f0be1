//! What is stored, as seen from outside: the pool, the record, and whether they agree.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use super::gateway::Gateway;
use super::http::Client;
use super::servers::{ceph, rbd, try_rbd};

/// Every name in the pool and its trash that has one of these texts in it.
pub(crate) fn left_in_pool(ids: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for arguments in [&["ls", "images"][..], &["trash", "ls", "--all", "images"][..]] {
        let listed = rbd(arguments);
        names.extend(listed.lines().filter(|line| ids.iter().any(|id| line.contains(id))).map(str::to_owned));
    }
    names
}

/// SHA-512 in hex.
pub(crate) fn hash(bytes: &[u8]) -> String {
    sha2::Sha512::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The image's status; "gone" for one that is not there.
#[track_caller]
pub(crate) fn status_of(client: &Client, id: &str) -> String {
    let answer = client.get(&format!("/v2/images/{id}"));
    if answer.status == 404 {
        return "gone".into();
    }
    answer.expect(200).json()["status"].as_str().unwrap().to_owned()
}

/// Waits until the pool holds just the `kept` ones of these images, no job is left, and so everything that
/// is in the pool is explained by the catalog.
#[track_caller]
pub(crate) fn await_clean(gateway: &Gateway, kept: &[&str], gone: &[&str], seconds: u64) {
    let all: Vec<&str> = kept.iter().chain(gone).copied().collect();
    let mut expected = kept.to_vec();
    expected.sort_unstable();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    loop {
        let jobs = gateway.sql("SELECT kind, state, image_id, attempts, last_error FROM jobs");
        let mut left = left_in_pool(&all);
        left.sort_unstable();
        if left == expected && jobs.is_empty() {
            return;
        }
        assert!(
            std::time::Instant::now() < end,
            "not clean within {seconds} s: jobs {jobs:?}, in the pool {left:?}, expected {expected:?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Fails unless the image is active, with these bytes, their hash, and a protected snapshot.
#[track_caller]
pub(crate) fn assert_active(client: &Client, id: &str, bytes: &[u8]) {
    let image = client.show(id);
    assert_eq!(image["status"], "active", "{id}");
    assert_eq!(image["size"], bytes.len(), "{id}");
    assert_eq!(image["os_hash_value"], hash(bytes), "{id}");
    // Not assert_eq: nobody wants to see the bytes.
    assert!(client.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes, "{id} holds other bytes");
    let snapshots = rbd(&["snap", "ls", &format!("images/{id}")]);
    assert!(snapshots.lines().any(|line| line.contains(" snap ") && line.contains("yes")), "{id}: {snapshots}");
}

/// After an upload has been broken off somehow: fails unless the image is queued, or active with these
/// bytes. Returns which.
#[track_caller]
pub(crate) fn assert_consistent(client: &Client, id: &str, bytes: &[u8]) -> String {
    let status = status_of(client, id);
    match status.as_str() {
        "queued" => {
            let image = client.show(id);
            assert!(
                image["size"].is_null() && image["os_hash_value"].is_null() && image["checksum"].is_null(),
                "{image}"
            );
            assert!(!left_in_pool(&[id]).iter().any(|name| name == id), "{id} is queued and in the pool");
        }
        "active" => assert_active(client, id, bytes),
        other => panic!("{id} is {other}"),
    }
    status
}

/// An RBD image with a protected snapshot `snap` that no gateway has made. Dropped, it goes.
pub(crate) struct Foreign {
    /// `pool/image`.
    pub(crate) spec: String,
    /// As a location names it.
    pub(crate) url: String,
}

impl Foreign {
    /// Puts these bytes into `images/NAME`.
    #[track_caller]
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Self {
        Self::in_pool("images", name, bytes)
    }

    /// Puts these bytes into `POOL/NAME`.
    #[track_caller]
    pub(crate) fn in_pool(pool: &str, name: &str, bytes: &[u8]) -> Self {
        let file = std::env::temp_dir().join(format!("rockpool-foreign-{}", uuid::Uuid::new_v4()));
        std::fs::write(&file, bytes).unwrap();
        rbd(&["import", "--no-progress", file.to_str().unwrap(), &format!("{pool}/{name}")]);
        std::fs::remove_file(&file).unwrap();
        Self::publish(pool, name)
    }

    /// Makes `images/NAME` of zeros.
    #[track_caller]
    pub(crate) fn sparse(name: &str, size_mib: u64) -> Self {
        rbd(&["create", "--size", &format!("{size_mib}M"), &format!("images/{name}")]);
        Self::publish("images", name)
    }

    #[track_caller]
    fn publish(pool: &str, name: &str) -> Self {
        let spec = format!("{pool}/{name}");
        rbd(&["snap", "create", "--no-progress", &format!("{spec}@snap")]);
        rbd(&["snap", "protect", &format!("{spec}@snap")]);
        Self { url: format!("rbd://{}/{spec}/snap", ceph(&["fsid"])), spec }
    }

    /// Whether it is whole still: readable, with its protected snapshot.
    #[track_caller]
    pub(crate) fn is_whole(&self) -> bool {
        let snapshots = try_rbd(&["snap", "ls", &self.spec]).unwrap_or_default();
        snapshots.lines().any(|line| line.contains(" snap ") && line.contains("yes"))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = try_rbd(&["snap", "unprotect", &format!("{}@snap", self.spec)]);
        let _ = try_rbd(&["snap", "rm", "--no-progress", &format!("{}@snap", self.spec)]);
        let _ = try_rbd(&["rm", "--no-progress", &self.spec]);
    }
}

/// An open transaction on a database, to hold a lock with. Dropped, it is rolled back.
pub(crate) struct Session(Child);

impl Session {
    /// Begins a transaction with one statement and returns when that has been carried out.
    #[track_caller]
    pub(crate) fn begin(url: &str, sql: &str) -> Self {
        let mut psql = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(psql.stdin.as_mut().unwrap(), "BEGIN;\n{sql};\n\\echo locked").unwrap();
        let output = BufReader::new(psql.stdout.as_mut().unwrap());
        assert!(output.lines().any(|line| line.unwrap() == "locked"), "{sql}");
        Self(psql)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

use sha2::Digest as _;
