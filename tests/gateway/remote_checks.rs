//! `http:` checks in policies: a server of the operator's decides.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{FakeKeystone, Fault, Gateway, Options, Token};
use crate::policy::Files;

/// A server that decides: what it was asked, and what it answers to whom.
struct Decider {
    server: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Decider {
    /// `answer` makes the whole response of the whole request; none: the connection stays open without one.
    fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (server, asked) = (listener.local_addr().unwrap().to_string(), Arc::new(Mutex::new(Vec::new())));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || serve(client.unwrap(), &seen, &*answer));
            }
        });
        Self { server, asked }
    }

    /// One that answers with this body.
    fn saying(body: &'static str) -> Self {
        Self::start(move |_| Some(ok(body)))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn serve(mut client: TcpStream, asked: &Mutex<Vec<String>>, answer: &dyn Fn(&str) -> Option<String>) {
    let mut request = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        match client.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(n) => request.extend_from_slice(&bytes[..n]),
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() < length.parse::<usize>().unwrap() {
            continue;
        }
        asked.lock().unwrap().push(text.clone());
        request.clear();
        match answer(&text) {
            Some(response) => client.write_all(response.as_bytes()).unwrap(),
            None => {
                // Until the gateway gives up.
                let _ = client.read(&mut [0; 1]);
                return;
            }
        }
    }
}

/// A gateway with these rules, which may ask these servers.
fn gateway(rules: &Value, servers: &[&str], more: impl FnOnce(Options) -> Options) -> (Gateway, Files) {
    let files = Files::new(rules);
    let servers: Vec<toml::Value> = servers.iter().map(|server| (*server).into()).collect();
    let options = files.options().set("policy", "remote_checks_allowed_hosts", servers);
    (Gateway::start(more(options)), files)
}

/// The fields of a form.
fn fields(request: &str) -> Value {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    form_urlencoded::parse(body.as_bytes())
        .map(|(name, value)| (name.into_owned(), serde_json::from_str::<Value>(&value).unwrap()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn rename(name: &str) -> Value {
    json!([{"op": "replace", "path": "/name", "value": name}])
}

#[test]
fn a_server_decides_and_is_told_who_wants_what() {
    let decider = Decider::start(|request| Some(ok(if request.contains("blue") { "\"True\"" } else { "False" })));
    let url = format!("http://{}/may/%(site)s/%(id)s?v=1", decider.server);
    let rules = json!({"modify_image": "rule:remote", "remote": format!("role:member and {url}")});
    let (gateway, _files) = gateway(&rules, &[&decider.server], |options| options);
    let demo = gateway.client(Token::Demo);
    let id = |site: &str| {
        let image = demo.post("/v2/images", &json!({"name": "old", "site": site})).expect(201).json();
        image["id"].as_str().unwrap().to_owned()
    };
    let (blue, red) = (id("blue/../x?y#z%"), id("red"));
    let name = |id: &str| gateway.sql(&format!("SELECT name FROM images WHERE id = '{id}'"));
    demo.patch(&format!("/v2/images/{blue}"), &rename("new")).expect(200);
    assert_eq!(name(&blue), "new");
    let refused = demo.patch(&format!("/v2/images/{red}"), &rename("new")).expect(403).text();
    assert!(refused.contains("modify_image"), "{refused}");
    assert_eq!(name(&red), "old");

    let asked = decider.asked();
    assert!(
        asked[0].starts_with(&format!("POST /may/blue%2F..%2Fx%3Fy%23z%25/{blue}?v=1 HTTP/1.1\r\n")),
        "attributes stay where they are put: {}",
        asked[0]
    );
    let told = fields(&asked[0]);
    assert_eq!(told["rule"], "modify_image");
    assert_eq!(told["target"]["id"], blue.as_str());
    assert_eq!(told["target"]["site"], "blue/../x?y#z%");
    assert_eq!(told["target"]["owner"], "p-demo");
    assert_eq!(told["target"]["status"], "queued");
    assert_eq!(told["credentials"]["project_id"], "p-demo");
    assert_eq!(told["credentials"]["is_admin"], false);
    assert!(told["credentials"]["roles"].as_array().unwrap().contains(&json!("member")), "{told}");
    for request in asked {
        assert!(!request.contains(Token::Demo.text()) && !request.to_lowercase().contains("x-auth"), "{request}");
    }

    // The command asks, too, and shows the answer.
    let config = gateway.folder().join("rockpool.toml");
    let explain = |image: &str| {
        let caller = "roles=member,reader,project_id=p-demo";
        let output = Command::new(env!("CARGO_BIN_EXE_rockpool"))
            .args(["policy", "explain", "--as", caller, "--action", "modify_image", "--image", image, "--config"])
            .arg(&config)
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = explain(&blue);
    assert!(code == 0 && text.contains("[the server says True]"), "{text}");
    let (code, text) = explain(&red);
    assert!(code == 3 && text.contains("[the server does not say True]"), "{text}");
}

#[test]
fn a_server_can_be_asked_in_json_and_about_each_image_of_a_list() {
    let decider =
        Decider::start(|request| Some(ok(if request.contains("\"name\":\"shown\"") { "True" } else { "False" })));
    let host = decider.server.split(':').next().unwrap();
    let rules = json!({"get_image": format!("http://{}/", decider.server)});
    let (gateway, _files) =
        gateway(&rules, &[host], |options| options.set("policy", "remote_content_type", "application/json"));
    let demo = gateway.client(Token::Demo);
    for name in ["shown", "kept back", "shown"] {
        demo.post("/v2/images", &json!({"name": name})).expect(201);
    }
    let listed = demo.get("/v2/images").expect(200).json();
    let names: Vec<&Value> = listed["images"].as_array().unwrap().iter().map(|image| &image["name"]).collect();
    assert_eq!(names, ["shown", "shown"]);
    let asked = decider.asked();
    let (head, body) = asked.last().unwrap().split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/json"), "{head}");
    let told: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&told["rule"], &told["credentials"]["user_id"]), (&json!("get_image"), &json!("u-demo")));
}

#[test]
fn whatever_is_not_a_clear_yes_is_a_no() {
    let elsewhere = Decider::saying("True");
    let target = format!("http://{}/", elsewhere.server);
    let redirect = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n");
    let long = ok(&"True".repeat(1000));
    for (case, answer) in [
        ("a server that fails", "HTTP/1.1 500 Broken\r\ncontent-length: 4\r\n\r\nTrue"),
        ("a redirect", &redirect),
        ("a long answer", &long),
        ("no HTTP", "True\r\n\r\n"),
    ] {
        let answer = answer.to_owned();
        let decider = Decider::start(move |_| Some(answer.clone()));
        let url = format!("http://{}/", decider.server);
        // Beneath a "not", no answer is no permission either.
        let rules = json!({"add_image": url, "get_images": format!("not {url}")});
        let (gateway, _files) = gateway(&rules, &[&decider.server, &elsewhere.server], |options| options);
        let demo = gateway.client(Token::Demo);
        demo.post("/v2/images", &json!({"name": "x"})).expect(403);
        std::thread::sleep(Duration::from_millis(1100));
        demo.get("/v2/images").expect(403);
        assert_eq!(decider.asked().len(), 2, "{case}: {}", gateway.log());
        assert_eq!(gateway.sql("SELECT count(*) FROM images"), "0", "{case}");
        assert!(gateway.log().contains(&format!("the policy server {}", decider.server)), "{case}: {}", gateway.log());
    }
    assert_eq!(elsewhere.asked(), Vec::<String>::new(), "no redirect is followed");
    let answer_in_words = Decider::saying("true");
    let rules = json!({"add_image": format!("http://{}/", answer_in_words.server)});
    let (gateway, _files) = gateway(&rules, &[&answer_in_words.server], |options| options);
    gateway.client(Token::Demo).post("/v2/images", &json!({"name": "x"})).expect(403);
}

#[test]
fn a_silent_server_holds_up_nobody_else() {
    let decider = Decider::start(|_| None);
    let rules = json!({"add_image": format!("http://{}/", decider.server)});
    let (gateway, _files) = gateway(&rules, &[&decider.server], |options| options.set("policy", "remote_timeout_s", 3));
    let others = gateway.client(Token::Demo);
    others.get("/v2/images").expect(200);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let demo = gateway.client(Token::Demo);
                scope.spawn(move || demo.post("/v2/images", &json!({"name": "x"})).status)
            })
            .collect();
        // More requests wait than the daemon has threads for requests.
        while decider.asked().len() < 8 {
            assert!(began.elapsed() < Duration::from_secs(3), "{} questions", decider.asked().len());
            std::thread::sleep(Duration::from_millis(10));
        }
        let asked = Instant::now();
        others.get("/v2/images").expect(200);
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        for request in waiting {
            assert_eq!(request.join().unwrap(), 403);
        }
    });
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // It is left alone for a moment.
    let again = Instant::now();
    others.post("/v2/images", &json!({"name": "x"})).expect(403);
    assert!(again.elapsed() < Duration::from_secs(3));
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "0");
}

#[test]
fn only_servers_that_are_named_are_asked() {
    let files = Files::new(&json!({"add_image": "http://policy.example.org:8181/v1"}));
    let file = files.path();
    let check = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_rockpool")).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    // A file alone says nothing of what is allowed.
    let (code, text) = check(&["policy", "check", file.to_str().unwrap()]);
    assert!(code == 0 && text.contains("warning: ") && text.contains("policy.example.org:8181"), "{text}");
    for (allowed, code) in [
        (&[][..], 1),
        (&["example.org"], 1),
        (&["policy.example.org:80"], 1),
        (&["Policy.Example.Org"], 0),
        (&["other", "policy.example.org:8181"], 0),
    ] {
        let (started, _files) = gateway(&json!({}), allowed, |options| options);
        let config = started.folder().join("rockpool.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let mut document: toml::Table = text.parse().unwrap();
        document["policy"]["file"] = file.to_str().unwrap().into();
        let changed = started.folder().join("changed.toml");
        std::fs::write(&changed, document.to_string()).unwrap();
        let (found, text) = check(&["config", "check", "--config", changed.to_str().unwrap()]);
        assert_eq!(found, code, "{allowed:?}: {text}");
        let complaint = format!("{}:1: rule add_image asks the server policy.example.org:8181", file.display());
        assert_eq!(text.contains(&complaint), code == 1, "{text}");
    }
}

#[test]
fn an_https_server_has_to_prove_who_it_is() {
    let files = Files::new(&json!({}));
    let folder = files.path().parent().unwrap().to_owned();
    let keystone = FakeKeystone::start_tls(&folder);
    let server = keystone.url.strip_prefix("https://").unwrap();
    keystone.fault(Fault::Body("True".into()));
    let rules = json!({"add_image": format!("https://{server}/")});
    let post = |gateway: &Gateway| gateway.client(Token::Demo).post("/v2/images", &json!({"name": "x"})).status;
    let (stranger, _rules) = gateway(&rules, &[server], |options| options);
    assert_eq!(post(&stranger), 403, "{}", stranger.log());
    let ca = folder.join("ca.pem");
    let (known, _rules) =
        gateway(&rules, &[server], |options| options.set("policy", "remote_cafile", ca.to_str().unwrap()));
    assert_eq!(post(&known), 201, "{}", known.log());
}
