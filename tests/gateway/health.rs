//! `/healthcheck`, `/livez`, `/readyz`.

use std::fs;

use serde_json::json;
use ureq::SendBody;

use crate::harness::{Gateway, Options, Wire, eventually};

fn raw(gateway: &Gateway, method: &str, accept: Option<&str>) -> crate::harness::Answer {
    let mut wire = Wire::connect(&gateway.address);
    let accept = accept.map(|accept| format!("accept: {accept}\r\n")).unwrap_or_default();
    wire.send(format!("{method} /healthcheck HTTP/1.1\r\nhost: x\r\n{accept}\r\n"));
    if method == "HEAD" { wire.head() } else { wire.answer() }
}

#[test]
fn the_health_check_answers_as_oslo_middleware_does() {
    let gateway = Gateway::start(Options::default());
    let disable = gateway.folder().join("disable");
    for (up, status, head_status, reason) in
        [(true, 200, 204, "OK"), (false, 503, 503, "DISABLED BY FILE"), (true, 200, 204, "OK")]
    {
        if up {
            let _ = fs::remove_file(&disable);
        } else {
            fs::write(&disable, "").unwrap();
        }
        for accept in [None, Some("*/*"), Some("text/plain"), Some("image/png")] {
            let answer = raw(&gateway, "GET", accept);
            assert_eq!((answer.status, answer.text().as_str()), (status, reason), "{accept:?}");
            assert_eq!(answer.header("content-type"), "text/plain; charset=UTF-8");
            assert!(answer.header("x-openstack-request-id").starts_with("req-"));
        }
        let answer = raw(&gateway, "GET", Some("application/json"));
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/json"));
        assert_eq!(
            answer.text(),
            format!("{{\n    \"detailed\": false,\n    \"reasons\": [\n        \"{reason}\"\n    ]\n}}")
        );
        let answer = raw(&gateway, "GET", Some("text/html"));
        assert_eq!(answer.header("content-type"), "text/html; charset=UTF-8");
        assert!(answer.text().starts_with("<HTML>") && answer.text().contains(&format!("<TD>{reason}</TD>")));
        let answer = raw(&gateway, "HEAD", None);
        assert_eq!(answer.status, head_status);
        // Only a load balancer is told to go away: the API works on.
        gateway.client(crate::harness::Token::Demo).get("/v2/images").expect(200);
        assert_eq!(gateway.anonymous().get("/readyz").status, 200);
    }
    assert_eq!(gateway.anonymous().send("POST", "/healthcheck", &[], SendBody::none()).status, 405);
}

#[test]
fn the_process_is_alive_and_ready_for_anybody_who_asks() {
    let gateway = Gateway::start(Options::default());
    let anonymous = gateway.anonymous();
    assert_eq!(anonymous.get("/livez").expect(200).text(), "ok\n");
    assert_eq!(anonymous.get("/readyz").expect(200).text(), "ok\n");
    for path in ["/readyz?verbose", "/readyz?verbose=1", "/readyz?a=b&verbose"] {
        let answer = anonymous.get(path).expect(200);
        assert_eq!(answer.header("content-type"), "application/json");
        let body = answer.json();
        assert_eq!(
            (&body["ready"], &body["draining"], &body["transfers_running"]),
            (&json!(true), &json!(false), &json!(0))
        );
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
        let checks = body["checks"].as_array().unwrap();
        let names: Vec<&str> = checks.iter().map(|check| check["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["postgres", "store/ceph"]);
        for check in checks {
            assert_eq!(check["state"], "ok", "{check}");
            assert!(check["latency_ms"].as_f64().unwrap() > 0.0, "{check}");
        }
        assert!(checks[1]["available_bytes"].as_u64().unwrap() > 1 << 30, "{}", checks[1]);
    }
}

#[test]
fn a_gateway_without_its_database_is_alive_and_not_ready() {
    let gateway = Gateway::start(Options::default().set("catalog", "connect_timeout_s", 1).set(
        "catalog",
        "acquire_timeout_s",
        1,
    ));
    let anonymous = gateway.anonymous();
    let name = gateway.database().rsplit('/').next().unwrap().to_owned();
    let superuser = crate::harness::servers().postgres;
    // Nobody connects to it any more, and nobody stays.
    crate::harness::psql(&superuser, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false"));
    crate::harness::psql(
        &superuser,
        &format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
    );
    eventually("the gateway notices", 10, || anonymous.get("/readyz").status == 503);
    assert_eq!(anonymous.get("/livez").status, 200);
    assert_eq!(anonymous.get("/healthcheck").status, 200);
    let body = anonymous.get("/readyz?verbose").expect(503).json();
    assert_eq!(
        (&body["ready"], &body["checks"][0]["state"], &body["checks"][1]["state"]),
        (&json!(false), &json!("failed"), &json!("ok"))
    );
    assert!(body["checks"][0]["problem"].as_str().unwrap().len() > 5, "{body}");
    let answer = gateway.client(crate::harness::Token::Demo).get_with("/v2/images", &[("accept", "application/json")]);
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    assert!(!answer.text().contains(&name) && !answer.text().contains("postgres"), "{}", answer.text());
    crate::harness::psql(&superuser, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true"));
    eventually("the gateway recovers", 15, || anonymous.get("/readyz").status == 200);
    gateway.client(crate::harness::Token::Demo).get("/v2/images").expect(200);
}
