//! `rockpool config check`, and start-ups that cannot work: what is said, and with which exit code.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use toml::{Table, Value};

use crate::harness::{Gateway, Options, Token, eventually, rbd, servers};

/// Longest that a start-up which cannot work may take.
const FAIL_TIMEOUT: Duration = Duration::from_secs(25);

fn rockpool(arguments: &[&str], file: &Path, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockpool"));
    command.args(arguments).arg("--config").arg(file).envs(environment.iter().copied());
    let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + FAIL_TIMEOUT;
    while process.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            process.kill().unwrap();
            panic!(
                "rockpool {arguments:?} still runs: {}",
                String::from_utf8_lossy(&process.wait_with_output().unwrap().stderr)
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    process.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The configuration of a gateway that works, with changes; its file lies in the gateway's folder.
fn changed(gateway: &Gateway, changes: &[(&str, &str, Value)]) -> std::path::PathBuf {
    let mut document: Table = fs::read_to_string(gateway.folder().join("rockpool.toml")).unwrap().parse().unwrap();
    document["server"].as_table_mut().unwrap().insert("listen".into(), Value::from("127.0.0.1:0"));
    for (section, key, value) in changes {
        let table = section.split('.').fold(&mut document, |table, name| table[name].as_table_mut().unwrap());
        table.insert((*key).to_owned(), value.clone());
    }
    let path = gateway.folder().join("changed.toml");
    fs::write(&path, document.to_string()).unwrap();
    path
}

/// Fails unless `serve` ends by itself with exit code 1 and says all of this.
#[track_caller]
fn start_fails(gateway: &Gateway, changes: &[(&str, &str, Value)], words: &[&str]) {
    let output = rockpool(&["serve"], &changed(gateway, changes), &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    let password = servers().postgres.split(':').nth(2).unwrap().split('@').next().unwrap().to_owned();
    assert!(!text.contains(&password), "a password is in: {text}");
}

#[test]
fn a_valid_configuration_is_called_so() {
    let gateway = Gateway::start(Options::default());
    let output = rockpool(&["config", "check"], &gateway.folder().join("rockpool.toml"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("is valid"));
    let output = rockpool(&["db", "check"], &gateway.folder().join("rockpool.toml"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let folder = std::env::temp_dir().join(format!("rockpool-config-{}", uuid::Uuid::new_v4()));
    fs::create_dir(&folder).unwrap();
    let file = folder.join("rockpool.toml");
    let text = r#"
        [server]
        listen = "nowhere"
        header_timeout_s = 0
        public_endpoint = "image.example.org"
        typo = 1
        [log]
        format = "xml"
        [catalog]
        url = "mysql://root:hunter2secret@db/glance"
        pool_size = 0
        [stores.ceph]
        ceph_conf = "/nonexistent/ceph.conf"
        user = "client.glance"
        keyring = "/nonexistent/keyring"
        chunk_size_mib = 7
        op_timeout_s = 0
        [stores."a,b"]
        user = "x"
        [images]
        hashing_algorithm = "crc32"
        default_store = "tape"
        api_limit_max = 0
        [jobs]
        lease_s = 0
        [identity]
        mode = "local"
        [[identity.users]]
        id = "u"
        name = "alice"
        [[identity.tokens]]
        sha256 = "not hex"
        user = "bob"
        project = "nothing"
        roles = ["admin"]
        [surplus]
        a = 1
    "#;
    fs::write(&file, text).unwrap();
    let output = rockpool(&["config", "check"], &file, &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for word in [
        "listen",
        "header_timeout_s",
        "public_endpoint",
        "typo",
        "format",
        "catalog.url",
        "pool_size",
        "/nonexistent/ceph.conf",
        "without 'client.'",
        "/nonexistent/keyring",
        "chunk_size_mib",
        "op_timeout_s",
        "a,b",
        "hashing_algorithm",
        "tape",
        "api_limit_max",
        "lease_s",
        "sha256",
        "bob",
        "nothing",
        "surplus",
    ] {
        assert!(text.contains(word), "{word:?} is not named in: {text}");
    }
    assert!(!text.contains("hunter2secret"), "{text}");
    // The same when it is to serve.
    assert_eq!(rockpool(&["serve"], &file, &[]).status.code(), Some(1));
    for (content, word) in
        [("", "[catalog]"), ("[server\nlisten", "TOML"), ("[server]\nlisten = \"127.0.0.1:0\"\n", "identity")]
    {
        fs::write(&file, content).unwrap();
        let output = rockpool(&["config", "check"], &file, &[]);
        assert!(output.status.code() == Some(1) && said(&output).contains(word), "{content:?}: {}", said(&output));
    }
    let output = rockpool(&["config", "check"], &folder.join("missing.toml"), &[]);
    assert!(output.status.code() == Some(1) && said(&output).contains("missing.toml"), "{}", said(&output));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_database_that_cannot_be_used_is_named() {
    let gateway = Gateway::start(Options::default());
    let url = gateway.database().to_owned();
    let (base, name) = url.rsplit_once('/').unwrap();
    let (user, host) = base.split_once("://").unwrap().1.split_once('@').unwrap();
    let user = user.split(':').next().unwrap();
    let with = |url: String| [("catalog", "url", Value::from(url))];
    start_fails(
        &gateway,
        &with(format!("postgres://{user}:wrong-canary-pw@{host}/{name}")),
        &["catalog.url", "password"],
    );
    start_fails(
        &gateway,
        &with(format!("{base}/rockpool_no_such_database")),
        &["catalog.url", "rockpool_no_such_database"],
    );
    start_fails(
        &gateway,
        &with("postgres://nobody@127.0.0.1:1/rockpool".to_owned()),
        &["catalog.url", "Is Postgres running"],
    );
    // A wrong password is not repeated anywhere.
    let file = changed(&gateway, &with(format!("postgres://{user}:wrong-canary-pw@{host}/{name}")));
    assert!(!said(&rockpool(&["serve"], &file, &[])).contains("wrong-canary-pw"));
    // The environment has the last word, for the URL and for the password.
    let output = rockpool(&["db", "check"], &file, &[("ROCKPOOL_CATALOG_URL", &url)]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let password = url.split("://").nth(1).unwrap().split('@').next().unwrap().split_once(':').unwrap().1;
    let output = rockpool(&["db", "check"], &file, &[("ROCKPOOL_CATALOG_PASSWORD", password)]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // A schema from the future is refused, whatever it is.
    gateway.sql("SELECT 1");
    let tables = gateway.sql("SELECT table_name FROM information_schema.columns WHERE column_name = 'version' AND table_name <> 'images' AND table_schema = 'public'");
    let table = tables.lines().next().expect("a table tells the schema's version");
    gateway.sql(&format!("INSERT INTO {table} (version) VALUES (999)"));
    start_fails(&gateway, &[], &["999"]);
    let output = rockpool(&["db", "check"], &gateway.folder().join("rockpool.toml"), &[]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
}

#[test]
fn a_pool_key_or_right_that_is_missing_is_named() {
    let gateway = Gateway::start(Options::default());
    let ceph = servers().ceph;
    start_fails(
        &gateway,
        &[("stores.ceph", "pool", Value::from("no-such-pool"))],
        &["store ceph", "no-such-pool", "ceph osd pool create"],
    );
    // A key that is well formed and not the user's.
    let wrong = gateway.folder().join("wrong.keyring");
    fs::write(&wrong, "[client.rockpool]\n\tkey = AQBmXmNnAAAAABAAq0bT1jU4dWwDoGUnAZyGGQ==\n").unwrap();
    start_fails(
        &gateway,
        &[("stores.ceph", "keyring", Value::from(wrong.to_str().unwrap()))],
        &["store ceph", "client.rockpool", "key"],
    );
    fs::write(&wrong, "no keyring at all").unwrap();
    start_fails(
        &gateway,
        &[("stores.ceph", "keyring", Value::from(wrong.to_str().unwrap()))],
        &["store ceph", "keyring"],
    );
    // A user without a keyring of its own.
    start_fails(&gateway, &[("stores.ceph", "user", Value::from("nosuchuser"))], &["store ceph", "client.nosuchuser"]);
    // Nova may read the pool, and no more.
    let nova = ceph.join("client.nova.keyring");
    let changes =
        [("stores.ceph", "user", Value::from("nova")), ("stores.ceph", "keyring", Value::from(nova.to_str().unwrap()))];
    start_fails(
        &gateway,
        &changes,
        &["store ceph", "client.nova", "may not write to the pool images", "ceph auth caps client.nova"],
    );
    // No monitor there: said within the time that was given.
    let conf = gateway.folder().join("ceph.conf");
    fs::write(&conf, "[global]\nmon_host = 127.0.0.1:1\n").unwrap();
    let changes = [
        ("stores.ceph", "ceph_conf", Value::from(conf.to_str().unwrap())),
        ("stores.ceph", "connect_timeout_s", Value::from(2)),
    ];
    start_fails(&gateway, &changes, &["store ceph", "monitor"]);
    // Nothing of all that is left in the pool; other tests' gateways are being started at the same time.
    eventually("no check is left", 30, || !rbd(&["ls", "images"]).contains("startup-check"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let gateway = Gateway::start(Options::default());
    start_fails(
        &gateway,
        &[("server", "listen", Value::from(gateway.address.as_str()))],
        &["server.listen", &gateway.address, "in use"],
    );
    // The gateway that has it is not disturbed.
    gateway.client(Token::Demo).get("/v2/images").expect(200);
}
