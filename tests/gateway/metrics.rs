//! `/metrics`: what happens is counted, labels stay few whatever clients send, and nothing that is asked holds it up.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    Client, Gateway, Options, SlowDownload, SlowUpload, Token, Wire, eventually, make_certificates, psql, random_bytes,
    rbd, run, servers, skip,
};

/// Values by series, as they are written.
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    fn of(gateway: &Gateway) -> Self {
        Self::parse(&gateway.anonymous().get("/metrics").expect(200).text())
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines.map(|line| line.rsplit_once(' ').unwrap());
        Self(values.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect())
    }

    /// The value of a series, 0 where there is none.
    fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or(0.0)
    }
}

/// A gateway that gathers every second.
fn gateway(options: Options) -> Gateway {
    Gateway::start(options.set("metrics", "gather_interval_s", 1))
}

/// Waits until series have grown by so much, or stand at it where they do not only grow.
#[track_caller]
fn await_values(gateway: &Gateway, before: &Metrics, expected: &[(&str, f64)]) {
    let mut wrong = Vec::new();
    let end = Instant::now() + Duration::from_secs(15);
    while Instant::now() < end {
        let now = Metrics::of(gateway);
        let growth = |series: &str| now.get(series) - before.get(series);
        wrong =
            expected.iter().map(|(series, by)| (*series, *by, growth(series))).filter(|(_, by, is)| by != is).collect();
        if wrong.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("series, expected and found growth: {wrong:#?}");
}

fn requests(method: &str, route: &str, status: u16) -> String {
    format!("rockpool_http_requests_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}}")
}

#[test]
fn what_happens_is_counted() {
    let gateway = gateway(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 3_000_000);
    let before = Metrics::of(&gateway);
    let id = demo.active("counted", &bytes);
    assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
    demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": "again"}])).expect(200);
    demo.get(&format!("/v2/images/{}", Uuid::new_v4())).expect(404);
    gateway.anonymous().get("/v2/images").expect(401);
    gateway.anonymous().get("/no/such/path").expect(300);
    demo.get("/v2/no/such/path").expect(404);
    demo.call("DELETE", "/v2/info/import").expect(405);
    await_values(
        &gateway,
        &before,
        &[
            (&requests("POST", "/v2/images", 201), 1.0),
            (&requests("PUT", "/v2/images/{id}/file", 204), 1.0),
            (&requests("GET", "/v2/images/{id}/file", 200), 1.0),
            (&requests("PATCH", "/v2/images/{id}", 200), 1.0),
            (&requests("GET", "/v2/images/{id}", 404), 1.0),
            (&requests("GET", "/v2/images", 401), 1.0),
            (&requests("DELETE", "/v2/info/import", 405), 1.0),
            (&requests("GET", "other", 300), 1.0),
            (&requests("GET", "other", 404), 1.0),
            ("rockpool_http_request_duration_seconds_count{method=\"PUT\",route=\"/v2/images/{id}/file\"}", 1.0),
            // The description beside the data follows the record.
            ("rockpool_job_runs_total{kind=\"describe\",outcome=\"done\"}", 1.0),
            ("rockpool_job_run_duration_seconds_count{kind=\"describe\"}", 1.0),
            ("rockpool_transfers_running{direction=\"in\"}", 0.0),
            ("rockpool_transfers_running{direction=\"out\"}", 0.0),
        ],
    );
    let now = Metrics::of(&gateway);
    for direction in ["in", "out"] {
        let series = format!("rockpool_http_body_bytes_total{{direction=\"{direction}\"}}");
        let grown = now.get(&series) - before.get(&series);
        // What is beside the data is small, but for the metrics themselves.
        let most = if direction == "in" { 3_010_000.0 } else { 9_000_000.0 };
        assert!((3_000_000.0..most).contains(&grown), "{series}: {grown}");
    }
    let operations = |name: &str| {
        now.get(&format!("rockpool_store_operation_duration_seconds_count{{operation=\"{name}\",store=\"ceph\"}}"))
    };
    for name in ["rados_connect", "rbd_create4", "rbd_open", "rbd_aio_writev", "rbd_aio_read", "rbd_rename"] {
        assert!(operations(name) >= 1.0, "{name}: {:#?}", now.0);
    }
    assert_eq!(now.get(&format!("rockpool_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
    assert_eq!(now.get("rockpool_catalog_connections{state=\"max\"}"), 4.0);
    assert_eq!(now.get("rockpool_transfers_max"), 64.0);
    for dependency in ["postgres", "store/ceph"] {
        assert_eq!(now.get(&format!("rockpool_dependency_up{{dependency=\"{dependency}\"}}")), 1.0, "{dependency}");
    }
    assert!(now.get("rockpool_store_available_bytes{store=\"ceph\"}") > f64::from(1 << 30));
    for series in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_threads",
    ] {
        assert!(now.get(series) > 0.0, "{series}");
    }
    let age = |series: &str| std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - now.get(series);
    for (series, most) in [
        ("process_start_time_seconds", 100.0),
        ("rockpool_gathered_jobs_timestamp_seconds", 20.0),
        ("rockpool_gathered_dependencies_timestamp_seconds", 20.0),
    ] {
        assert!((-1.0..most).contains(&age(series)), "{series}: {}", age(series));
    }
}

#[test]
fn what_is_under_way_shows_as_long_as_it_is() {
    let gateway = gateway(Options::default().set("server", "transfers_max", 2));
    let demo = gateway.client(Token::Demo);
    let (id, other) = (demo.create("slow"), demo.create("no room"));
    let bytes = random_bytes(2, 30 << 20);
    let stored = demo.active("stored", &bytes);
    // The one that asks is itself being answered; jobs may have been looked at while there was one.
    eventually("it is quiet", 10, || {
        let now = Metrics::of(&gateway);
        let jobs = now.get("rockpool_jobs{kind=\"upload\",state=\"writing\"}")
            + now.get("rockpool_leases_held{kind=\"upload\"}");
        now.get("rockpool_http_requests_running") == 1.0 && jobs == 0.0
    });
    let before = Metrics::of(&gateway);
    let mut upload = SlowUpload::begin(&gateway, &id, Some(1000));
    assert!(upload.send(&[7; 500]));
    let download = SlowDownload::begin(&gateway, &stored);
    let running = [
        ("rockpool_transfers_running{direction=\"in\"}", 1.0),
        ("rockpool_transfers_running{direction=\"out\"}", 1.0),
        ("rockpool_jobs{kind=\"upload\",state=\"writing\"}", 1.0),
        ("rockpool_leases_held{kind=\"upload\"}", 1.0),
        ("rockpool_http_requests_running", 2.0),
    ];
    await_values(&gateway, &before, &running);
    demo.upload(&other, b"x").expect(503);
    assert!(Metrics::of(&gateway).get("rockpool_http_connections") >= 2.0);
    assert!(Metrics::of(&gateway).get("rockpool_job_oldest_age_seconds{kind=\"upload\"}") > 0.0);
    drop(download);
    assert!(upload.send(&[7; 500]));
    assert_eq!(upload.answer(), Some(204));
    let over = running.map(|(series, _)| (series, 0.0));
    await_values(&gateway, &before, &over);
    await_values(&gateway, &before, &[("rockpool_transfers_refused_total", 1.0)]);
}

/// Everything that a client can choose, chosen anew.
fn noise(gateway: &Gateway) -> Vec<String> {
    let word = Uuid::new_v4().as_simple().to_string();
    let demo = gateway.client(Token::Demo);
    let id = demo.active(&word, word.as_bytes());
    demo.get(&format!("/v2/images/{id}/file")).expect(200);
    demo.get(&format!("/v2/images/{}?{word}=1", Uuid::new_v4())).expect(404);
    demo.get(&format!("/{word}/{word}")).expect(300);
    demo.get(&format!("/v2/{word}/{word}")).expect(404);
    demo.send("PUT", &format!("/v2/images/{id}/tags/{word}"), &[("content-length", "0")], ureq::SendBody::none())
        .expect(204);
    demo.get_with("/v2/images", &[("x-openstack-request-id", &word)]).expect(200);
    Client::new(&gateway.url, Some(&word)).get("/v2/images").expect(401);
    let mut wire = Wire::connect(&gateway.address);
    let method = word.to_uppercase();
    wire.send(format!("{method} /v2/images HTTP/1.1\r\nhost: {word}\r\nconnection: close\r\n\r\n"));
    assert_eq!(wire.answer().status, 401);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    vec![word, method, id]
}

#[test]
fn labels_do_not_grow_with_clients_and_hold_no_secret() {
    let gateway = gateway(Options::default());
    noise(&gateway);
    let names = || -> BTreeSet<String> {
        Metrics::of(&gateway).0.into_keys().filter(|name| name.starts_with("rockpool_http")).collect()
    };
    eventually("the last ones are counted", 10, || {
        let names = names();
        names.contains(&requests("DELETE", "/v2/images/{id}", 204)) && names.contains(&requests("GET", "/metrics", 200))
    });
    let series = names();
    let words: Vec<String> = (0..5).flat_map(|_| noise(&gateway)).collect();
    assert_eq!(names().difference(&series).collect::<Vec<_>>(), Vec::<&String>::new());
    let answer = gateway.anonymous().get("/metrics").expect(200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    let (login, _) = gateway.database().split_once('@').unwrap();
    let password = login.rsplit_once(':').unwrap().1;
    let keyring = std::fs::read_to_string(servers().ceph.join("client.rockpool.keyring")).unwrap();
    let key = keyring.split_whitespace().last().unwrap();
    let tokens = Token::ALL.map(Token::text);
    let secrets = [password, key, "canary", "p-demo", "u-demo", "rockpool_test_", "127.0.0.1", "openstack_glance"];
    for secret in words.iter().map(String::as_str).chain(tokens).chain(secrets) {
        let line = text.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[test]
fn the_names_of_the_public_exporter_are_there_for_whoever_asks_for_them() {
    let gateway = gateway(Options::default().set("metrics", "openstack_exporter_names", true));
    let (demo, alt) = (gateway.client(Token::Demo), gateway.client(Token::Alt));
    let id = demo.active("a \"quoted\" name", &[1; 1234]);
    let queued = alt.create("queued");
    let bytes =
        format!("openstack_glance_image_bytes{{id=\"{id}\",name=\"a \\\"quoted\\\" name\",tenant_id=\"p-demo\"}}");
    let created = format!(
        "openstack_glance_image_created_at{{hidden=\"false\",id=\"{queued}\",name=\"queued\",status=\"queued\",tenant_id=\"p-alt\",visibility=\"shared\"}}"
    );
    eventually("the images are listed", 10, || {
        let now = Metrics::of(&gateway);
        now.get("openstack_glance_images") == 2.0 && now.get("openstack_glance_up") == 1.0 && now.get(&bytes) == 1234.0
    });
    let at: f64 = gateway
        .sql(&format!("SELECT floor(extract(epoch FROM created_at)) FROM images WHERE id = '{queued}'"))
        .parse()
        .unwrap();
    assert_eq!(Metrics::of(&gateway).get(&created), at);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    eventually("the image is gone", 10, || {
        let now = Metrics::of(&gateway);
        now.get("openstack_glance_images") == 1.0 && !now.0.contains_key(&bytes)
    });
}

#[test]
fn metrics_are_where_the_operator_wants_them() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gateway = gateway(Options::default().set("metrics", "listen", free.as_str()));
    gateway.anonymous().get("/metrics").expect(300);
    let own = Client::new(&format!("http://{free}"), None);
    gateway.client(Token::Demo).get("/v2/images").expect(200);
    eventually("the request is counted", 10, || {
        let text = own.get("/metrics").expect(200).text();
        Metrics::parse(&text).get(&requests("GET", "/v2/images", 200)) == 1.0
    });
    for path in ["/", "/v2/images", "/readyz", "/openapi.json"] {
        own.get(path).expect(404);
    }
    own.call("POST", "/metrics").expect(405);
    assert!(gateway.anonymous().get("/openapi.json").expect(200).json()["paths"].get("/metrics").is_none());
    let off = gateway.sibling_with(Options::default().set("metrics", "enabled", false));
    off.anonymous().get("/metrics").expect(300);
}

#[test]
fn without_its_database_a_gateway_says_so_at_once() {
    let gateway =
        gateway(Options::default().set("catalog", "connect_timeout_s", 1).set("catalog", "acquire_timeout_s", 1));
    let up = "rockpool_dependency_up{dependency=\"postgres\"}";
    let gathered = "rockpool_gathered_jobs_timestamp_seconds";
    eventually("it has gathered", 10, || Metrics::of(&gateway).get(gathered) > 0.0);
    let name = gateway.database().rsplit('/').next().unwrap().to_owned();
    let superuser = servers().postgres;
    psql(&superuser, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    psql(&superuser, &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"));
    let answers_at_once = || {
        let start = Instant::now();
        let now = Metrics::of(&gateway);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        now
    };
    eventually("it notices", 15, || answers_at_once().get(up) == 0.0);
    let old = answers_at_once().get(gathered);
    let health = "rockpool_gathered_dependencies_timestamp_seconds";
    let then = answers_at_once().get(health);
    eventually("what can be asked is asked on", 15, || answers_at_once().get(health) > then);
    assert_eq!(answers_at_once().get(gathered), old, "what cannot be learned grows old");
    psql(&superuser, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    eventually("it is well again", 15, || answers_at_once().get(up) == 1.0 && answers_at_once().get(gathered) > old);
}

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs");

/// Names of metrics in a PromQL expression or any other text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics =
        words.filter(|word| ["rockpool_", "process_", "openstack_glance_"].iter().any(|p| word.starts_with(p)));
    metrics
        .map(|word| {
            ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word).to_owned()
        })
        .collect()
}

/// All values of a key, wherever they are.
fn values<'j>(json: &'j Value, key: &str, found: &mut Vec<&'j str>) {
    match json {
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    other => values(other, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| values(value, key, found)),
        _ => {}
    }
}

/// `promtool`, where `tests/run.sh` has put it.
fn promtool() -> Option<PathBuf> {
    let cached = std::env::var_os("ROCKPOOL_TEST_CACHE").map(|folder| Path::new(&folder).join("promtool"));
    let path = cached.filter(|path| path.exists()).unwrap_or_else(|| "promtool".into());
    Command::new(&path).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok().then_some(path)
}

#[test]
fn rules_and_dashboard_name_what_there_is() {
    let gateway =
        gateway(Options::quick().set("metrics", "openstack_exporter_names", true).set("server", "transfers_max", 1));
    // One of everything: a job, a failure of the store.
    let demo = gateway.client(Token::Demo);
    let id = demo.active("named", &[3; 1000]);
    demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": "again"}])).expect(200);
    let (spec, away) = (format!("images/{id}"), format!("images/{id}-away"));
    rbd(&["mv", &spec, &away]);
    demo.get(&format!("/v2/images/{id}/file")).expect(410);
    rbd(&["mv", &away, &spec]);
    let slow = demo.create("slow");
    let mut upload = SlowUpload::begin(&gateway, &slow, Some(1000));
    assert!(upload.send(&[7; 500]));
    let is = || {
        let text = gateway.anonymous().get("/metrics").expect(200).text();
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        names.map(str::to_owned).collect::<BTreeSet<String>>()
    };
    eventually("there is one of everything", 15, || {
        let names = is();
        ["rockpool_jobs", "rockpool_job_runs_total", "rockpool_store_operation_errors_total"]
            .iter()
            .all(|name| names.contains(*name))
    });
    let mut there = is();
    // And a certificate; its metrics have an address of their own, in plain HTTP.
    let folder = gateway.folder().join("certificates");
    std::fs::create_dir(&folder).unwrap();
    make_certificates(&folder);
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let options = Options::default()
        .set("server", "tls_certificate_file", path("server.crt"))
        .set("server", "tls_key_file", path("server.key"))
        .set("metrics", "listen", free.as_str());
    let _secured = gateway.sibling_unready(options);
    let ends = "rockpool_tls_certificate_end_timestamp_seconds";
    let own = Client::new(&format!("http://{free}"), None);
    eventually("the end of the certificate is told", 20, || {
        let now = own.try_get("/metrics").map(|answer| Metrics::parse(&answer.text()).get(ends)).unwrap_or_default();
        let left_days = (now - std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64()) / 86_400.0;
        (1.9..2.1).contains(&left_days)
    });
    there.insert(ends.into());
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{DOCS}/grafana-dashboard.json")).unwrap()).unwrap();
    let mut expressions = Vec::new();
    values(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 10, "{expressions:?}");
    let rules = std::fs::read_to_string(format!("{DOCS}/prometheus-rules.yaml")).unwrap();
    let explained = std::fs::read_to_string(format!("{DOCS}/metrics.md")).unwrap();
    for (file, text) in [("dashboard", &expressions.join(" ")), ("rules", &rules), ("metrics.md", &explained)] {
        let names = named(text);
        assert!(names.len() > 8, "{file}: {names:?}");
        assert_eq!(
            names.difference(&there).collect::<Vec<_>>(),
            Vec::<&String>::new(),
            "{file} names what is not there"
        );
    }
    assert_eq!(there.difference(&named(&explained)).collect::<Vec<_>>(), Vec::<&String>::new(), "not in metrics.md");
    assert_eq!(upload.send(&[7; 500]).then(|| upload.answer()), Some(Some(204)));
}

#[test]
fn prometheus_takes_the_metrics_and_the_rules() {
    let Some(promtool) = promtool() else { return skip("there is no promtool") };
    run(Command::new(&promtool).args(["check", "rules", &format!("{DOCS}/prometheus-rules.yaml")])).unwrap();
    run(Command::new(&promtool).args(["test", "rules", &format!("{DOCS}/prometheus-rules-test.yaml")])).unwrap();
    let gateway = gateway(Options::default());
    noise(&gateway);
    let text = gateway.anonymous().get("/metrics").expect(200).text();
    let mut check = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stderr));
}
