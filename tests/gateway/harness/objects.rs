//! A server of objects of a test's own: radosgw, which speaks S3 and Swift, on the test cluster.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use ureq::SendBody;

use super::http::Client;
use super::servers::{run, servers};
use super::{eventually, skip};

/// Longest wait for the server, whose pools the first one makes.
const START_TIMEOUT_S: u64 = 120;
const SECRET: &str = "canary-object-secret-5d1e";

/// A radosgw with a user and a bucket of the test's own. The container of Swift is the same bucket.
pub(crate) struct Objects {
    /// Base URL.
    pub(crate) url: String,
    /// Name of the bucket, and of the user.
    pub(crate) bucket: String,
    process: Child,
    folder: PathBuf,
}

impl Objects {
    /// Starts one. Where it is not installed, the test counts as skipped.
    pub(crate) fn start() -> Option<Self> {
        if Command::new("radosgw").arg("--version").output().is_err() {
            skip("radosgw is not installed");
            return None;
        }
        let bucket = format!("test-{}", uuid::Uuid::new_v4().as_simple());
        let folder = std::env::temp_dir().join(format!("rockpool-{bucket}"));
        std::fs::create_dir(&folder).unwrap();
        let keyring = folder.join("keyring");
        let caps = ["mon", "allow rw", "osd", "allow rwx", "mgr", "allow rw", "-o"];
        super::servers::ceph(
            &[&["auth", "get-or-create", "client.objects"][..], &caps, &[keyring.to_str().unwrap()]].concat(),
        );
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new("radosgw")
            .args(["-f", "-n", "client.objects", "--admin-socket=", "-c"])
            .arg(servers().ceph.join("ceph.conf"))
            .arg("-k")
            .arg(&keyring)
            .arg(format!("--rgw-frontends=beast endpoint={address}"))
            .arg(format!("--log-file={}", folder.join("log").display()))
            // The cluster has one OSD, and other pools.
            .args(["--rgw_rados_pool_pg_num_min=1", "--osd_pool_default_pg_num=1"])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { url: format!("http://{address}"), bucket, process, folder };
        let anybody = Client::new(&server.url, None);
        eventually("radosgw answers", START_TIMEOUT_S, || {
            anybody.try_get("/").is_some_and(|answer| answer.status == 200)
        });
        server.make_bucket();
        Some(server)
    }

    fn make_bucket(&self) {
        let (user, key) = (format!("--uid={}", self.bucket), format!("--secret={SECRET}"));
        let name = format!("--display-name={}", self.bucket);
        self.admin(&[
            "user",
            "create",
            &user,
            &name,
            &format!("--access-key={}", self.bucket),
            &format!("--secret-key={SECRET}"),
        ]);
        let swift = format!("--subuser={}:swift", self.bucket);
        self.admin(&["subuser", "create", &user, &swift, "--access=full", "--key-type=swift", &key]);
        let client = Client::new(&self.url, None);
        let login = [("x-auth-user", &*format!("{}:swift", self.bucket)), ("x-auth-key", SECRET)];
        let token = client.get_with("/auth/v1.0", &login);
        let token = token.header("x-auth-token").to_owned();
        let made =
            client.send("PUT", &format!("/swift/v1/{}", self.bucket), &[("x-auth-token", &token)], SendBody::none());
        made.expect(201);
    }

    fn admin(&self, arguments: &[&str]) -> String {
        let ceph = servers().ceph;
        run(Command::new("radosgw-admin")
            .env_remove("CEPH_ARGS")
            .arg("-c")
            .arg(ceph.join("ceph.conf"))
            .args(["--id", "admin", "-k"])
            .arg(ceph.join("client.admin.keyring"))
            .args(arguments))
        .unwrap_or_else(|e| panic!("{e}"))
    }

    /// Names of everything in the bucket, parts of unfinished uploads included.
    pub(crate) fn list(&self) -> Vec<String> {
        let text = self.admin(&["bucket", "list", &format!("--bucket={}", self.bucket), "--allow-unordered"]);
        let entries: Value = serde_json::from_str(&text).unwrap();
        entries.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    }

    /// The section of an S3 store, without its head.
    pub(crate) fn s3(&self) -> String {
        format!(
            "type = \"s3\"\nendpoint = \"{}\"\nbucket = \"{bucket}\"\naccess_key_id = \"{bucket}\"\nsecret_access_key = \"{SECRET}\"\npart_size_mib = 5\n",
            self.url,
            bucket = self.bucket,
        )
    }

    /// The section of a Swift store, without its head.
    pub(crate) fn swift(&self) -> String {
        format!(
            "type = \"swift\"\nendpoint = \"{url}/swift/v1\"\ncontainer = \"{bucket}\"\nauth_url = \"{url}/auth/v1.0\"\nuser = \"{bucket}:swift\"\nkey = \"{SECRET}\"\npart_size_mib = 5\n",
            url = self.url,
            bucket = self.bucket,
        )
    }

    /// The secret that nobody may be told.
    pub(crate) fn secret(&self) -> &'static str {
        SECRET
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        let user = format!("--uid={}", self.bucket);
        self.admin(&["user", "rm", &user, "--purge-data"]);
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
