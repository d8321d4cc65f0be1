//! A gateway under test.

use std::fs::File;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use toml::{Table, Value};

use super::http::Client;
use super::keystone::{OWN_PASSWORD, OWN_USER};
use super::servers::{FAR_POOL, FAR_USER, far_keyring, psql, servers};

/// Longest wait for a gateway to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time until a record that a dead [`Options::quick`] gateway worked on has been dealt with: its
/// lease, the interval of looking, and three seconds to do it.
pub(crate) const TAKEOVER_S: u64 = 3 + 1 + 3;

/// Who asks. The tokens are the same in every gateway under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    /// Administrator, project `p-admin`.
    Admin,
    /// Member of project `p-demo`.
    Demo,
    /// Member of project `p-alt`.
    Alt,
    /// Reader of project `p-demo`.
    Reader,
    /// Another service, such as Nova: role `service` on project `p-service`.
    Service,
}

impl Token {
    pub(crate) const ALL: [Self; 5] = [Self::Admin, Self::Demo, Self::Alt, Self::Reader, Self::Service];

    /// The token itself.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Admin => "canary-admin-7c1d",
            Self::Demo => "canary-demo-19ae",
            Self::Alt => "canary-alt-52bf",
            Self::Reader => "canary-reader-e0d3",
            Self::Service => "canary-service-93b8",
        }
    }

    /// User, project and role.
    pub(super) fn entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Admin => ("admin", "admin", "admin"),
            Self::Demo => ("demo", "demo", "member"),
            Self::Alt => ("alt", "alt", "member"),
            Self::Reader => ("reader", "demo", "reader"),
            Self::Service => ("service", "service", "service"),
        }
    }
}

/// How a gateway differs from the usual one.
#[derive(Clone, Default)]
pub(crate) struct Options {
    changes: Vec<(String, String, Option<Value>)>,
    ceph_user: Option<String>,
    database_hosts: Option<String>,
    sections: String,
    keystone: Option<String>,
}

impl Options {
    /// Sets one option of the configuration, such as `("images", "checksum", false)`. The section of the
    /// only store is `stores.ceph`.
    pub(crate) fn set(mut self, section: &str, key: &str, value: impl Into<Value>) -> Self {
        self.changes.push((section.into(), key.into(), Some(value.into())));
        self
    }

    /// Leaves one option out.
    pub(crate) fn unset(mut self, section: &str, key: &str) -> Self {
        self.changes.push((section.into(), key.into(), None));
        self
    }

    /// Short leases, so that others take over within [`TAKEOVER_S`].
    pub(crate) fn quick() -> Self {
        Self::default().set("jobs", "lease_s", 3).set("jobs", "poll_interval_s", 1)
    }

    /// Uses another cephx user, with the keyring that the test cluster has for it.
    pub(crate) fn ceph_user(mut self, user: &str) -> Self {
        self.ceph_user = Some(user.into());
        self
    }

    /// Adds the section `stores.far`, a store in the pool [`FAR_POOL`] with a cephx user of its own. The store `ceph`
    /// stays the default one.
    pub(crate) fn far_store(self) -> Self {
        self.sections(&far_section())
    }

    /// Adds sections, as TOML. The store `ceph` stays the default one.
    pub(crate) fn sections(mut self, text: &str) -> Self {
        self.sections += text;
        self
    }

    /// Has its tokens validated by the Keystone at this URL. The section is `identity.keystone`.
    pub(crate) fn keystone(mut self, url: &str) -> Self {
        self.keystone = Some(url.into());
        self
    }

    /// Reaches its database by another way, such as `127.0.0.1:7000` of a proxy; several hosts with commas.
    pub(crate) fn database_hosts(mut self, hosts: &str) -> Self {
        self.database_hosts = Some(hosts.into());
        self
    }
}

/// The section of the second store.
fn far_section() -> String {
    format!(
        "[stores.far]\nceph_conf = \"{}\"\nuser = \"{FAR_USER}\"\nkeyring = \"{}\"\npool = \"{FAR_POOL}\"\nop_timeout_s = 10\n",
        servers().ceph.join("ceph.conf").display(),
        far_keyring().display(),
    )
}

/// A database that goes away with its last gateway.
struct Database {
    name: String,
    url: String,
}

impl Drop for Database {
    fn drop(&mut self) {
        psql(&servers().postgres, &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// A running gateway. Dropped, it is killed.
pub(crate) struct Gateway {
    /// Base URL.
    pub(crate) url: String,
    /// `host:port`.
    pub(crate) address: String,
    folder: PathBuf,
    process: Child,
    options: Options,
    database: Arc<Database>,
}

impl Gateway {
    /// Starts a gateway on a database of its own.
    pub(crate) fn start(options: Options) -> Self {
        let gateway = Self::start_unready(options);
        gateway.await_ready();
        gateway
    }

    /// Starts as many gateways at the same moment, on one empty database.
    pub(crate) fn start_all(options: &Options, count: usize) -> Vec<Self> {
        let first = Self::start_unready(options.clone());
        let mut gateways: Vec<Self> =
            (1..count).map(|_| Self::launch(options.clone(), Arc::clone(&first.database))).collect();
        gateways.push(first);
        for gateway in &gateways {
            gateway.await_ready();
        }
        gateways
    }

    /// As `start`, for a gateway that may never be ready.
    pub(crate) fn start_unready(options: Options) -> Self {
        let name = format!("rockpool_test_{}", uuid::Uuid::new_v4().as_simple());
        let superuser = servers().postgres;
        psql(&superuser, &format!("CREATE DATABASE {name}"));
        let (base, _) = superuser.rsplit_once('/').unwrap();
        let database = Arc::new(Database { url: format!("{base}/{name}"), name });
        Self::launch(options, database)
    }

    /// Starts another gateway on the same database.
    pub(crate) fn sibling(&self) -> Self {
        self.sibling_with(self.options.clone())
    }

    /// Starts a gateway with other options on the same database.
    pub(crate) fn sibling_with(&self, options: Options) -> Self {
        let gateway = self.sibling_unready(options);
        gateway.await_ready();
        gateway
    }

    /// As `sibling_with`, for a gateway that may never be ready.
    pub(crate) fn sibling_unready(&self, options: Options) -> Self {
        Self::launch(options, Arc::clone(&self.database))
    }

    fn launch(options: Options, database: Arc<Database>) -> Self {
        let folder = std::env::temp_dir().join(format!("rockpool-test-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        // A port that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = folder.join("rockpool.toml");
        std::fs::write(&config, Self::config(&options, &database, &folder, &address)).unwrap();
        let log = File::create(folder.join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { url: format!("http://{address}"), address, folder, process, options, database }
    }

    fn config(options: &Options, database: &Database, folder: &std::path::Path, address: &str) -> String {
        let ceph = servers().ceph;
        let database_url = match &options.database_hosts {
            None => database.url.clone(),
            Some(hosts) => {
                let (login, rest) = database.url.split_once('@').unwrap();
                format!("{login}@{hosts}/{}", rest.split_once('/').unwrap().1)
            }
        };
        let user = options.ceph_user.as_deref().unwrap_or("rockpool");
        let identity = match &options.keystone {
            None => local_identity(),
            Some(url) => format!(
                "mode = \"keystone\"\n[identity.keystone]\nauth_url = \"{url}\"\nusername = \"{OWN_USER}\"\npassword = \"{OWN_PASSWORD}\"\nproject_name = \"service\"\n"
            ),
        };
        let text = format!(
            "[server]\nlisten = \"{address}\"\nhealthcheck_disable_path = \"{}\"\n[catalog]\nurl = \"{}\"\npool_size = 4\n\
             [stores.ceph]\nceph_conf = \"{}\"\nuser = \"{user}\"\nkeyring = \"{}\"\nop_timeout_s = 10\n\
             [images]\n[inspection]\n[log]\n[metrics]\n[jobs]\n[import]\n[tasks]\n[flood]\n[cors]\n[limits]\n[policy]\n[identity]\n{identity}",
            folder.join("disable").display(),
            database_url,
            ceph.join("ceph.conf").display(),
            ceph.join(format!("client.{user}.keyring")).display(),
        );
        let mut document: Table = format!("{text}{}", options.sections).parse().unwrap();
        if document["stores"].as_table().unwrap().len() > 1 {
            document["images"].as_table_mut().unwrap().insert("default_store".into(), "ceph".into());
        }
        for (section, key, value) in &options.changes {
            let table = section.split('.').fold(&mut document, |table, name| table[name].as_table_mut().unwrap());
            match value {
                Some(value) => table.insert(key.clone(), value.clone()),
                None => table.remove(key),
            };
        }
        document.to_string()
    }

    fn await_ready(&self) {
        let end = Instant::now() + START_TIMEOUT;
        let client = Client::new(&self.url, None);
        while client.try_get("/readyz").is_none_or(|answer| answer.status != 200) {
            assert!(Instant::now() < end, "the gateway is not ready: {}", self.log());
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// A client with a token.
    pub(crate) fn client(&self, token: Token) -> Client {
        Client::new(&self.url, Some(token.text()))
    }

    /// A client without a token.
    pub(crate) fn anonymous(&self) -> Client {
        Client::new(&self.url, None)
    }

    /// URL of the gateway's database.
    pub(crate) fn database(&self) -> &str {
        &self.database.url
    }

    /// One statement on the gateway's database.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        psql(&self.database.url, sql)
    }

    /// Its own folder: `rockpool.toml`, `log`, and `disable` for its health check.
    pub(crate) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends it a signal, such as `KILL`, `STOP`, `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status().unwrap();
        assert!(status.success(), "kill -{name}");
    }

    /// Waits for it to end and returns its exit code; `None` after a deadly signal.
    pub(crate) fn wait(&mut self, seconds: u64) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the gateway still runs after {seconds} s: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Also when it is stopped: SIGKILL gets through.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.url, self.log());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Users, projects and tokens of the harness, as the configuration has them.
fn local_identity() -> String {
    let tokens: String = Token::ALL
        .iter()
        .map(|token| {
            let (user, project, role) = token.entry();
            let digest = sha2::Sha256::digest(token.text().as_bytes());
            let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("[[identity.tokens]]\nsha256 = \"{hex}\"\nuser = \"{user}\"\nproject = \"{project}\"\nroles = [\"{role}\"]\n")
        })
        .collect();
    let people: String = ["admin", "demo", "alt", "reader", "service"]
        .iter()
        .map(|name| format!("[[identity.users]]\nid = \"u-{name}\"\nname = \"{name}\"\n"))
        .collect();
    let projects: String = ["admin", "demo", "alt", "service"]
        .iter()
        .map(|name| format!("[[identity.projects]]\nid = \"p-{name}\"\nname = \"{name}\"\n"))
        .collect();
    format!("mode = \"local\"\n{people}{projects}{tokens}")
}

use sha2::Digest as _;
