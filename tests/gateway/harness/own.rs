//! Servers of a test's own, to stop and to break.

use std::path::PathBuf;
use std::process::Command;

use super::servers::run;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/ceph/cluster.sh");
/// Where first ports are looked for: below those that the kernel gives to anybody.
const PORTS: std::ops::Range<u128> = 20_000..30_000;
/// Ports that one node takes.
const PORTS_PER_NODE: u128 = 50;

/// A Ceph node or a Postgres that goes away with the test.
pub(crate) struct OwnServers {
    /// As `ceph/cluster.sh` describes it.
    pub(crate) folder: PathBuf,
    /// Port of Postgres.
    pub(crate) postgres_port: u16,
}

impl OwnServers {
    /// Starts what `command` of `ceph/cluster.sh` starts: `up` or `pg-up`.
    #[track_caller]
    pub(crate) fn start(command: &str) -> Self {
        let random = uuid::Uuid::new_v4();
        let nodes = (PORTS.end - PORTS.start) / PORTS_PER_NODE;
        let port = u16::try_from(PORTS.start + random.as_u128() % nodes * PORTS_PER_NODE).unwrap();
        let folder = std::env::temp_dir().join(format!("rockpool-own-{}", &random.as_simple().to_string()[..8]));
        let servers = Self { folder, postgres_port: port + 2 };
        let mut start = servers.script(command);
        run(start.env("ROCKPOOL_CLUSTER_PORT", port.to_string()).env("ROCKPOOL_CLUSTER_THROWAWAY", "1")).unwrap();
        servers
    }

    fn script(&self, command: &str) -> Command {
        let mut script = Command::new("bash");
        script.args([SCRIPT, command]).arg(&self.folder);
        script
    }

    /// Another command of `ceph/cluster.sh`, such as `pg-down`.
    #[track_caller]
    pub(crate) fn control(&self, command: &str) {
        run(&mut self.script(command)).unwrap();
    }

    /// Sends a signal to one of the servers, such as `osd`.
    #[track_caller]
    pub(crate) fn signal(&self, server: &str, signal: &str) {
        run(Command::new("kill").args([&format!("-{signal}"), self.pid(server).trim()])).unwrap();
    }

    /// The process id of one of the servers.
    #[track_caller]
    pub(crate) fn pid(&self, server: &str) -> String {
        std::fs::read_to_string(self.folder.join(format!("run/{server}.pid"))).unwrap().trim().to_owned()
    }
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        let _ = run(&mut self.script("wipe"));
    }
}
