//! `rockpool fsck` on a gateway under test, and pools of a test's own to run it on.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::gateway::Gateway;
use super::servers::{ceph, rbd, servers};

/// A pool that goes away with the test: what is in it is all the test's.
pub(crate) struct OwnPool(pub(crate) String);

impl OwnPool {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let name = format!("own-{}", &uuid::Uuid::new_v4().as_simple().to_string()[..12]);
        ceph(&["osd", "pool", "create", &name, "1"]);
        rbd(&["pool", "init", &name]);
        Self(name)
    }

    /// The section of a store in it, beside the store `ceph`.
    pub(crate) fn section(&self, store: &str) -> String {
        let ceph = servers().ceph;
        format!(
            "[stores.{store}]\nceph_conf = \"{}\"\nuser = \"admin\"\nkeyring = \"{}\"\npool = \"{}\"\nop_timeout_s = 10\n",
            ceph.join("ceph.conf").display(),
            ceph.join("client.admin.keyring").display(),
            self.0,
        )
    }
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            ceph(&["osd", "pool", "delete", &self.0, &self.0, "--yes-i-really-really-mean-it"]);
        }
    }
}

/// What a command has printed, one JSON object per line, and how it ended.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) lines: Vec<Value>,
    pub(crate) code: Option<i32>,
}

impl Told {
    /// The objects of one sort, such as `found`.
    pub(crate) fn all(&self, sort: &str) -> Vec<&Value> {
        self.lines.iter().filter_map(|line| line.get(sort)).collect()
    }

    /// `kind` and `image` (or `name`) of the objects of one sort, in order.
    pub(crate) fn kinds(&self, sort: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut kinds: Vec<_> = self
            .all(sort)
            .iter()
            .map(|finding| (text(&finding["kind"]), text(finding.get("image").unwrap_or(&finding["name"]))))
            .collect();
        kinds.sort();
        kinds
    }
}

impl Gateway {
    /// A command of the program that prints JSON, one object per line, with this gateway's configuration.
    #[track_caller]
    pub(crate) fn told(&self, command: &str, arguments: &[&str]) -> Told {
        let output = Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .arg(command)
            .args(["--json", "--config"])
            .arg(self.folder().join("rockpool.toml"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
        let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?} {err}"));
        let told = Told { lines: out.lines().map(line).collect(), code: output.status.code() };
        assert!(told.lines.last().is_some_and(|last| last.get("summary").is_some()), "{command}: {out} {err}");
        told
    }

    /// `rockpool fsck`, at once and without mercy for what is young.
    #[track_caller]
    pub(crate) fn fsck(&self, arguments: &[&str]) -> Told {
        self.told("fsck", &[&["--grace-s", "0", "--images-per-s", "0"], arguments].concat())
    }

    /// Fails if anything is wrong with an image that is or was in this gateway's catalog, once its jobs have ended. What
    /// other tests have in the same pool is theirs.
    #[track_caller]
    pub(crate) fn fsck_is_clean(&self) {
        let ids = self.sql("SELECT id FROM image_ids");
        let told = self.fsck(&[]);
        let ours = |finding: &&Value| {
            finding["verdict"] == "problem" && finding["image"].as_str().is_none_or(|image| ids.contains(image))
        };
        // What concerns no image is the catalog's own, or lies in the pool for everybody.
        let wrong: Vec<&Value> =
            told.all("found").into_iter().filter(ours).filter(|finding| finding["kind"] != "startup-check").collect();
        assert!(wrong.is_empty() && told.all("unchecked").is_empty(), "{wrong:#?} {:?}", told.all("unchecked"));
    }
}
