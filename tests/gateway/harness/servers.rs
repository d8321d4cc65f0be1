//! The servers that `tests/run.sh` has started.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Where they are.
pub(crate) struct Servers {
    /// State folder of the Ceph node; `ceph/cluster.sh` says what is in it.
    pub(crate) ceph: PathBuf,
    /// URL of a superuser of Postgres.
    pub(crate) postgres: String,
}

/// The servers, as the environment names them.
pub(crate) fn servers() -> Servers {
    let variable = |name: &str| {
        std::env::var(name).unwrap_or_else(|_| {
            panic!("{name} is not set: these tests are run by tests/run.sh, which starts the servers they need")
        })
    };
    Servers {
        ceph: PathBuf::from(variable("ROCKPOOL_TEST_CEPH_DIR")),
        postgres: variable("ROCKPOOL_TEST_DATABASE_URL"),
    }
}

/// Pool of the second store, for tests with two.
pub(crate) const FAR_POOL: &str = "images-far";
/// Its cephx user.
pub(crate) const FAR_USER: &str = "rockpool-far";

/// Keyring of [`FAR_USER`]. The first call makes the user and the pool.
pub(crate) fn far_keyring() -> PathBuf {
    static KEYRING: OnceLock<PathBuf> = OnceLock::new();
    let made = || {
        ceph(&["osd", "pool", "create", FAR_POOL, "8"]);
        rbd(&["pool", "init", FAR_POOL]);
        new_user(FAR_USER, "profile rbd", &format!("profile rbd pool={FAR_POOL}"))
    };
    KEYRING.get_or_init(made).clone()
}

/// Makes a cephx user, unless it is there, and returns its keyring.
#[track_caller]
pub(crate) fn new_user(user: &str, mon: &str, osd: &str) -> PathBuf {
    let keyring = servers().ceph.join(format!("client.{user}.keyring"));
    ceph(&[
        "auth",
        "get-or-create",
        &format!("client.{user}"),
        "mon",
        mon,
        "osd",
        osd,
        "mgr",
        "profile rbd",
        "-o",
        keyring.to_str().unwrap(),
    ]);
    keyring
}

/// Runs a command and returns its output, or what it said when it failed.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let out = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        Ok(out)
    } else {
        Err(format!("{command:?}: {}: {out} {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// `rbd` as the cluster's administrator.
pub(crate) fn try_rbd(arguments: &[&str]) -> Result<String, String> {
    rbd_as("admin", arguments)
}

/// `rbd` as another user, whose keyring lies beside the administrator's.
pub(crate) fn rbd_as(user: &str, arguments: &[&str]) -> Result<String, String> {
    let folder = servers().ceph;
    run(Command::new("rbd")
        .env_remove("CEPH_ARGS")
        .arg("--conf")
        .arg(folder.join("ceph.conf"))
        .args(["--id", user, "--keyring"])
        .arg(folder.join(format!("client.{user}.keyring")))
        .args(arguments))
}

/// `rbd` that must succeed.
#[track_caller]
pub(crate) fn rbd(arguments: &[&str]) -> String {
    try_rbd(arguments).unwrap_or_else(|e| panic!("{e}"))
}

/// `ceph` as the cluster's administrator.
#[track_caller]
pub(crate) fn ceph(arguments: &[&str]) -> String {
    run(Command::new("ceph")
        .env_remove("CEPH_ARGS")
        .arg("--conf")
        .arg(servers().ceph.join("ceph.conf"))
        .args(["--id", "admin"])
        .args(arguments))
    .unwrap_or_else(|e| panic!("{e}"))
}

/// One SQL statement; rows as lines, columns separated by `|`.
#[track_caller]
pub(crate) fn psql(url: &str, sql: &str) -> String {
    run(Command::new("psql").args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", sql]))
        .unwrap_or_else(|e| panic!("{e}"))
}
