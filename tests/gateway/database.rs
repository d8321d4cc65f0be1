//! A Postgres that is away, slow, cut off at the worst moment, encrypted, or not as expected. Answers are right
//! or 503, uploads survive what they can, and what was answered with 2xx is there afterwards.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Gateway, Options, OwnServers, Proxy, SlowUpload, TAKEOVER_S, Token, assert_active, assert_consistent, await_clean,
    eventually, left_in_pool, make_certificates, psql, random_bytes, run, servers, status_of,
};

/// Timeouts of the catalog in these tests, in seconds.
const PATIENCE_S: u64 = 2;

/// A gateway's options with short timeouts that reaches Postgres through a proxy.
fn through(proxy: &Proxy) -> Options {
    let options = Options::quick().database_hosts(&proxy.address);
    ["connect_timeout_s", "acquire_timeout_s", "statement_timeout_s"]
        .into_iter()
        .fold(options, |options, key| options.set("catalog", key, i64::try_from(PATIENCE_S).unwrap()))
}

#[test]
fn an_upload_survives_the_loss_of_every_connection() {
    let proxy = Proxy::start();
    let gateway = Gateway::start(Options::quick().database_hosts(&proxy.address));
    let demo = gateway.client(Token::Demo);
    let id = demo.create("cut");
    let bytes = random_bytes(1, 30 << 20);
    let mut upload = SlowUpload::begin(&gateway, &id, Some(bytes.len()));
    for part in bytes.chunks(10 << 20) {
        assert!(upload.send(part));
        proxy.cut();
    }
    assert_eq!(upload.finish(), Some(204));
    assert_active(&demo, &id, &bytes);
    // Away for longer than a renewal, but not for longer than the lease.
    let other = demo.create("away");
    let mut upload = SlowUpload::begin(&gateway, &other, Some(bytes.len()));
    assert!(upload.send(&bytes[..10 << 20]));
    eventually("the upload has begun", 5, || status_of(&demo, &other) == "saving");
    proxy.refuse(true);
    proxy.cut();
    thread::sleep(Duration::from_millis(1200));
    proxy.refuse(false);
    assert!(upload.send(&bytes[10 << 20..]));
    assert_eq!(upload.finish(), Some(204));
    assert_active(&demo, &other, &bytes);
    await_clean(&gateway, &[&id, &other], &[], 10);
}

#[test]
fn requests_while_connections_are_cut_again_and_again_are_answered_rightly_or_with_503() {
    let proxy = Proxy::start();
    let gateway = Gateway::start(through(&proxy));
    let over = AtomicBool::new(false);
    let (mut created, mut deleted, mut patched, mut refused) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                // Time for a connection and a few statements, on a busy machine, too.
                thread::sleep(Duration::from_millis(250));
                proxy.cut();
            }
        });
        let lanes: Vec<_> = (0..4)
            .map(|lane| {
                let demo = gateway.client(Token::Demo);
                scope.spawn(move || {
                    let mut outcomes = Vec::new();
                    for round in 0..25 {
                        let id = uuid::Uuid::new_v4().to_string();
                        let path = format!("/v2/images/{id}");
                        let body = json!({"id": id, "name": format!("n-{lane}-{round}"), "disk_format": "raw", "container_format": "bare"});
                        outcomes.push(("POST", id.clone(), demo.post("/v2/images", &body).status));
                        outcomes.push(("LIST", id.clone(), demo.get("/v2/images?limit=3").status));
                        outcomes.push(("PATCH", id.clone(), demo.patch(&path, &json!([{"op": "add", "path": "/colour", "value": "blue"}])).status));
                        outcomes.push(("GET", id.clone(), demo.get(&path).status));
                        if round % 3 == 0 {
                            outcomes.push(("DELETE", id, demo.delete(&path).status));
                        }
                    }
                    outcomes
                })
            })
            .collect();
        // All at the end, so that the cutter ends, too, when one of them is wrong.
        let outcomes: Vec<_> = lanes.into_iter().map(|lane| lane.join()).collect();
        over.store(true, Ordering::SeqCst);
        let mut wrong = Vec::new();
        for (method, id, status) in outcomes.into_iter().flat_map(Result::unwrap) {
            match (method, status) {
                (_, 503) => refused += 1,
                ("POST", 201) => drop(created.insert(id)),
                ("PATCH", 200) => drop(patched.insert(id)),
                ("DELETE", 204) => drop(deleted.insert(id)),
                ("LIST" | "GET", 200) => {}
                // Not if it was made.
                ("PATCH" | "GET" | "DELETE", 404) if !created.contains(&id) => {}
                other => wrong.push(other),
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}\n{}", gateway.log());
    });
    assert!(created.len() > 10, "{} were created, {refused} answers were 503", created.len());
    let demo = gateway.client(Token::Demo);
    eventually("it answers again", 10, || demo.get("/v2/images").status == 200);
    for id in created.difference(&deleted) {
        let image = demo.get(&format!("/v2/images/{id}"));
        // A deletion that was answered with 503 may have got through.
        if image.status == 404 {
            assert_eq!(
                gateway.sql(&format!("SELECT count(*) FROM events WHERE type = 'image.delete' AND image_id = '{id}'")),
                "1",
                "{id} was created and is not there"
            );
            continue;
        }
        assert!(!patched.contains(id) || image.json()["colour"] == "blue", "{id} has lost a change");
    }
    for id in &deleted {
        assert_eq!(status_of(&demo, id), "gone");
    }
    // What is not repeatable has not been repeated.
    assert_eq!(
        gateway.sql("SELECT count(*) FROM (SELECT name FROM images GROUP BY name HAVING count(*) > 1) AS twice"),
        "0"
    );
    assert_eq!(gateway.sql("SELECT count(*) FROM (SELECT image_id FROM events WHERE type = 'image.create' GROUP BY image_id HAVING count(*) > 1) AS twice"), "0");
}

#[test]
fn a_postgres_that_does_not_answer_means_503_within_bounds() {
    let proxy = Proxy::start();
    let gateway = Gateway::start(through(&proxy));
    let demo = gateway.client(Token::Demo);
    let id = demo.create("stalled");
    // All connections of the pool are open, as after any busy hour.
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| demo.get("/v2/images").expect(200));
        }
    });
    proxy.stall(true);
    let calls =
        [("GET", format!("/v2/images/{id}")), ("GET", "/v2/images".to_owned()), ("DELETE", format!("/v2/images/{id}"))];
    thread::scope(|scope| {
        for (method, path) in &calls {
            let demo = &demo;
            scope.spawn(move || {
                let start = Instant::now();
                let answer = demo.send(method, path, &[], ureq::SendBody::none()).expect(503);
                assert_ne!(answer.header("retry-after"), "");
                // A connection and a statement, twice at the most.
                let bound = Duration::from_secs(4 * PATIENCE_S + 2);
                assert!(start.elapsed() < bound, "{method} {path} took {:?}", start.elapsed());
            });
        }
    });
    let start = Instant::now();
    gateway.anonymous().get("/readyz").expect(503);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    for path in ["/livez", "/healthcheck", "/metrics"] {
        let start = Instant::now();
        gateway.anonymous().get(path).expect(200);
        assert!(start.elapsed() < Duration::from_secs(1), "{path}: {:?}", start.elapsed());
    }
    proxy.stall(false);
    eventually("it answers again", 10, || {
        demo.get("/v2/images").status == 200 && gateway.anonymous().get("/readyz").status == 200
    });
    assert!(["queued", "gone"].contains(&status_of(&demo, &id).as_str()));
}

#[test]
fn an_upload_whose_lease_cannot_be_renewed_stops_by_itself() {
    let proxy = Proxy::start();
    let fenced = Gateway::start(through(&proxy));
    let survivor = fenced.sibling_with(Options::quick());
    let demo = survivor.client(Token::Demo);
    let id = demo.create("fenced");
    let bytes = random_bytes(2, 40 << 20);
    let mut upload = SlowUpload::begin(&fenced, &id, Some(bytes.len()));
    assert!(upload.send(&bytes[..20 << 20]));
    eventually("the attempt is in the pool", 10, || left_in_pool(&[&id]).len() == 1);
    proxy.stall(true);
    let stalled = Instant::now();
    // Before the lease of three seconds is over, the gateway writes no more; whatever the client sends.
    thread::sleep(Duration::from_secs(3));
    assert!(fenced.log().contains("its work is given up"), "{}", fenced.log());
    eventually("the record is taken over", TAKEOVER_S, || status_of(&demo, &id) == "queued");
    demo.upload(&id, &bytes).expect(204);
    let _ = upload.send(&bytes[20 << 20..]);
    let answer = upload.answer();
    assert!(answer.is_none_or(|status| status >= 400), "{answer:?}");
    assert!(stalled.elapsed() < Duration::from_secs(30), "{:?}", stalled.elapsed());
    proxy.stall(false);
    await_clean(&survivor, &[&id], &[], 75);
    assert_active(&demo, &id, &bytes);
}

/// What happens while a commit is cut off.
#[derive(Clone, Copy)]
enum Step {
    Create,
    Upload,
    AbandonedUpload,
    Delete,
}

#[test]
fn a_connection_lost_at_a_commit_leaves_things_done_or_undone() {
    // A statement whose transaction is the one to be cut, by what the gateway is about.
    let commits = [
        (Step::Create, "-- image_insert"),
        (Step::Upload, "-- job_insert"),
        (Step::Upload, "-- job_progress"),
        (Step::Upload, "-- location_set"),
        (Step::AbandonedUpload, "-- upload_abort"),
        (Step::Delete, "-- job_insert"),
        (Step::Delete, "-- job_state"),
        (Step::Delete, "-- image_forget"),
    ];
    let cases: Vec<_> = [false, true].into_iter().flat_map(|forward| commits.map(|commit| (commit, forward))).collect();
    // Two gateways each: more at a time would only show what a busy machine does.
    for few in cases.chunks(4) {
        thread::scope(|scope| {
            for &((step, statement), forward) in few {
                scope.spawn(move || cut_at_commit(step, statement, forward));
            }
        });
    }
}

#[track_caller]
fn cut_at_commit(step: Step, statement: &str, forward: bool) {
    let bytes = random_bytes(3, 1_000_000);
    let proxy = Proxy::start();
    let plain = Gateway::start(Options::quick());
    let made = plain.client(Token::Demo).active("made", &bytes);
    // Its connections have prepared nothing yet: every statement's text goes over the wire.
    let gateway = plain.sibling_with(through(&proxy));
    let demo = gateway.client(Token::Demo);
    let what = format!("{statement}, forwarded: {forward}");
    let id = if matches!(step, Step::Create) {
        uuid::Uuid::new_v4().to_string()
    } else {
        plain.client(Token::Demo).create("new")
    };
    proxy.cut_at_commit_after(statement, forward);
    let status = match step {
        Step::Create => {
            demo.post("/v2/images", &json!({"id": id, "name": "new", "disk_format": "raw", "container_format": "bare"}))
                .status
        }
        Step::Upload => demo.upload(&id, &bytes).status,
        Step::AbandonedUpload => {
            let mut upload = SlowUpload::begin(&gateway, &id, Some(bytes.len()));
            assert!(upload.send(&bytes[1..]));
            eventually("the attempt is in the pool", 10, || left_in_pool(&[&id]).len() == 1);
            drop(upload);
            503
        }
        Step::Delete => demo.delete(&format!("/v2/images/{made}")).status,
    };
    eventually(&format!("the commit is cut: {what} ({status})"), 5, || proxy.cuts_at_commit() == 1);
    assert!(matches!(status, 201 | 204 | 503), "{what}: {status}");
    // What got through may still be on its way to the disk.
    eventually(&format!("no transaction is open: {what}"), 10, || {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'";
        plain.sql(open) == "0"
    });
    // The next gateway that looks puts it right.
    if matches!(step, Step::Delete) {
        eventually(&format!("the deletion ends: {what}"), TAKEOVER_S + 5, || {
            plain.sql("SELECT count(*) FROM jobs") == "0"
        });
        if status_of(&demo, &made) == "gone" {
            await_clean(&plain, &[], &[&made], 5);
            eventually("its record is gone", 5, || {
                plain.sql(&format!("SELECT count(*) FROM images WHERE id = '{made}'")) == "0"
            });
        } else {
            assert_eq!(status, 503, "{what}");
            assert_active(&demo, &made, &bytes);
            demo.delete(&format!("/v2/images/{made}")).expect(204);
        }
        return;
    }
    eventually(&format!("the record is settled: {what}"), TAKEOVER_S, || status_of(&demo, &id) != "saving");
    match (step, status) {
        (Step::Create, 201) => assert_eq!(status_of(&demo, &id), "queued", "{what}"),
        (Step::Create, _) if status_of(&demo, &id) == "gone" => return,
        (Step::Upload, 204) => assert_active(&demo, &id, &bytes),
        _ => drop(assert_consistent(&demo, &id, &bytes)),
    }
    if status_of(&demo, &id) == "queued" {
        demo.upload(&id, &bytes).expect(204);
    }
    await_clean(&plain, &[&made, &id], &[], 20);
    assert_active(&demo, &id, &bytes);
    for id in [id, made] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn one_connection_serves_many_clients_without_a_deadlock() {
    let gateway = Gateway::start(Options::default().set("catalog", "pool_size", 1));
    thread::scope(|scope| {
        for lane in 0..32 {
            let demo = gateway.client(Token::Demo);
            scope.spawn(move || {
                let bytes = random_bytes(100 + lane, 50_000);
                let id = demo.create("many");
                let path = format!("/v2/images/{id}");
                demo.patch(&path, &json!([{"op": "add", "path": "/lane", "value": lane.to_string()}])).expect(200);
                if lane % 4 == 0 {
                    demo.upload(&id, &bytes).expect(204);
                    assert!(demo.get(&format!("{path}/file")).expect(200).body == bytes);
                }
                assert_eq!(demo.show(&id)["lane"], lane.to_string());
                demo.get("/v2/images").expect(200);
                demo.delete(&path).expect(204);
            });
        }
    });
    // Bytes that stream hold no connection.
    let demo = gateway.client(Token::Demo);
    let uploads: Vec<(String, SlowUpload)> = (0..4)
        .map(|_| {
            let id = demo.create("stream");
            let mut upload = SlowUpload::begin(&gateway, &id, Some(1000));
            assert!(upload.send(&[7; 999]));
            (id, upload)
        })
        .collect();
    demo.get("/v2/images").expect(200);
    for (id, mut upload) in uploads {
        assert!(upload.send(&[7]));
        assert_eq!(upload.finish(), Some(204));
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

fn postgres_address() -> String {
    let url = servers().postgres;
    url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned()
}

#[test]
fn of_several_hosts_the_one_that_works_is_used() {
    let gateway = Gateway::start(Options::default().database_hosts(&format!("127.0.0.1:1,{}", postgres_address())));
    let demo = gateway.client(Token::Demo);
    let id = demo.active("failover", &random_bytes(4, 100_000));
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn a_host_that_takes_connections_and_never_answers_does_not_keep_the_next_one_from_being_used() {
    let frozen = Proxy::start();
    frozen.stall(true);
    let gateway =
        Gateway::start(Options::default().database_hosts(&format!("{},{}", frozen.address, postgres_address())).set(
            "catalog",
            "connect_timeout_s",
            2,
        ));
    gateway.client(Token::Demo).get("/v2/images").expect(200);
}

/// Runs `rockpool db` on a gateway's database.
fn db(gateway: &Gateway, command: &str) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["db", command, "--config"])
        .arg(gateway.folder().join("rockpool.toml"))
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
    )
}

#[test]
fn the_schema_is_checked_upgraded_once_and_refused_when_it_is_newer() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("kept");
    let newest: i32 = gateway.sql("SELECT max(version) FROM schema_version").parse().unwrap();
    assert_eq!(db(&gateway, "check").0, 0);
    for _ in 0..2 {
        let (code, text) = db(&gateway, "upgrade");
        assert!(code == 0 && text.contains("already"), "{text}");
    }
    demo.show(&id);

    gateway.sql(&format!("INSERT INTO schema_version (version) VALUES ({})", newest + 1));
    assert_eq!(db(&gateway, "check").0, 4);
    let (code, text) = db(&gateway, "upgrade");
    assert!(code == 1 && text.contains("newer"), "{text}");
    let mut refused = gateway.sibling_unready(Options::default());
    assert_eq!(refused.wait(10), Some(1));
    assert!(refused.log().contains("newer rockpool"), "{}", refused.log());
    gateway.sql(&format!("DELETE FROM schema_version WHERE version = {}", newest + 1));

    gateway.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    assert_eq!(db(&gateway, "check").0, 3);
    // A look changes nothing.
    assert_eq!(gateway.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    assert_eq!(db(&gateway, "upgrade").0, 0);
    assert_eq!(db(&gateway, "check").0, 0);
    gateway.sibling().client(Token::Demo).create("works");
}

#[test]
fn ten_gateways_that_start_at_once_upgrade_an_empty_database_once() {
    let gateways = Gateway::start_all(&Options::default(), 10);
    // Each version by one of them, whichever.
    let mut applied: Vec<String> = gateways
        .iter()
        .filter_map(|gateway| gateway.log().split_once("applied=[").map(|(_, rest)| rest.to_owned()))
        .flat_map(|rest| rest.split(']').next().unwrap().split(", ").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    applied.sort_unstable();
    assert_eq!(applied.join("\n"), gateways[0].sql("SELECT version FROM schema_version ORDER BY version::text"));
    let id = gateways[0].client(Token::Demo).create("shared");
    for gateway in &gateways {
        gateway.client(Token::Demo).show(&id);
    }
}

/// A Postgres of a test's own, which speaks TLS with a certificate for `localhost`.
struct TlsPostgres(OwnServers);

impl TlsPostgres {
    fn start() -> Self {
        let postgres = Self(OwnServers::start("pg-up"));
        make_certificates(&postgres.0.folder);
        let script = r#"
            set -e
            cd "$1"
            install -m 600 server.key server.crt postgres/
            [ "$(id -u)" != 0 ] || chown postgres: postgres/server.key postgres/server.crt
            echo "ssl = on" >> postgres/postgresql.conf
            sed -i 's/^host /hostssl /' postgres/pg_hba.conf
        "#;
        run(Command::new("bash").args(["-c", script, "tls"]).arg(&postgres.0.folder)).unwrap();
        postgres.0.signal("postgres", "HUP");
        let url = format!("{}?sslmode=require", postgres.url("127.0.0.1"));
        eventually("Postgres speaks TLS", 10, || {
            run(Command::new("psql").args(["-X", "-d", &url, "-c", "SELECT 1"])).is_ok()
        });
        postgres
    }

    fn url(&self, host: &str) -> String {
        let password = std::fs::read_to_string(self.0.folder.join("pg-postgres.password")).unwrap();
        format!("postgres://postgres:{}@{host}:{}/postgres", password.trim(), self.0.postgres_port)
    }

    fn options(&self, host: &str, tls: &str, ca: Option<&str>) -> Options {
        let options = Options::quick().set("catalog", "url", self.url(host)).set("catalog", "tls", tls);
        match ca {
            Some(name) => options.set("catalog", "tls_ca_file", self.0.folder.join(name).to_str().unwrap()),
            None => options,
        }
    }

    /// Stops it in good order, or as if it had crashed.
    fn stop(&self, crash: bool) {
        if crash {
            let pid = self.0.pid("postgres");
            self.0.signal("postgres", "QUIT");
            eventually("Postgres has ended", 20, || !std::path::Path::new("/proc").join(&pid).exists());
        } else {
            self.0.control("pg-down");
        }
    }
}

#[test]
fn connections_to_postgres_are_encrypted_and_its_certificate_is_verified_as_configured() {
    let postgres = TlsPostgres::start();
    for (host, tls, ca) in [("127.0.0.1", "require", None), ("localhost", "verify-full", Some("ca.pem"))] {
        let gateway = Gateway::start(postgres.options(host, tls, ca));
        gateway.client(Token::Demo).create("encrypted");
        let plain = psql(
            &format!("{}?sslmode=require", postgres.url("127.0.0.1")),
            "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'rockpool'",
        );
        let (encrypted, plain) = plain.split_once('|').unwrap();
        assert!(encrypted.parse::<u32>().unwrap() > 0 && plain == "0", "{encrypted} encrypted, {plain} not");
    }
    for (host, tls, ca) in [
        ("127.0.0.1", "verify-full", Some("ca.pem")),
        ("localhost", "verify-full", Some("other-ca.pem")),
        ("localhost", "verify-full", None),
        ("localhost", "disable", None),
    ] {
        let mut gateway = Gateway::start_unready(postgres.options(host, tls, ca));
        assert_eq!(gateway.wait(15), Some(1), "{host} {tls} {ca:?}: {}", gateway.log());
        assert!(!gateway.log().contains(" serving"), "{}", gateway.log());
    }
    restarts_are_survived(&postgres);
}

/// Restarts of Postgres, orderly and by a crash, while an upload runs.
fn restarts_are_survived(postgres: &TlsPostgres) {
    let gateway =
        Gateway::start(postgres.options("localhost", "verify-full", Some("ca.pem")).set("jobs", "lease_s", 10));
    let demo = gateway.client(Token::Demo);
    let id = demo.create("restart");
    let bytes = random_bytes(5, 30 << 20);
    let mut upload = SlowUpload::begin(&gateway, &id, Some(bytes.len()));
    for (part, crash) in bytes.chunks(15 << 20).zip([false, true]) {
        assert!(upload.send(part));
        eventually("the upload has begun", 5, || status_of(&demo, &id) == "saving");
        postgres.stop(crash);
        assert_eq!(demo.get("/v2/images").status, 503);
        postgres.0.control("pg-up");
        eventually("it answers again", 10, || demo.get("/v2/images").status == 200);
    }
    assert_eq!(upload.finish(), Some(204));
    assert_active(&demo, &id, &bytes);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}
