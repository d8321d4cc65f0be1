//! A Keystone of a test's own, in this process: it says what the test wants, and breaks as the test wants.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::certificates::make_certificates;
use super::gateway::Token;

/// User, password and project of the gateways; the password must not show anywhere.
pub(crate) const OWN_USER: &str = "rockpool-service";
pub(crate) const OWN_PASSWORD: &str = "canary-own-password-3b7a";
/// An application credential of the gateways.
pub(crate) const OWN_CREDENTIAL: (&str, &str) = ("own-credential-id", "canary-own-secret-88e1");

/// How it misbehaves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// It does not.
    None,
    /// Closes every connection at once.
    Down,
    /// Answers later.
    Slow(Duration),
    /// Answers that to every question.
    Status(u16),
    /// Answers 200 (201) with this body.
    Body(String),
    /// As many bytes of one JSON string.
    Huge(usize),
    /// Half an answer, then nothing.
    Cut,
    /// Every other question gets 503.
    Flaky,
    /// Gives no tokens to gateways.
    NoLogins,
}

/// A question that it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HashMap<String, String>,
}

struct State {
    tokens: Mutex<HashMap<String, Value>>,
    own: Mutex<HashSet<String>>,
    own_seconds: Mutex<i64>,
    own_password: Mutex<String>,
    registered_limits: Mutex<HashMap<String, i64>>,
    /// By project and resource.
    limits: Mutex<HashMap<(String, String), i64>>,
    fault: Mutex<Fault>,
    asked: Mutex<Vec<Asked>>,
    /// Questions being answered, and the most that there ever were at once.
    running: AtomicUsize,
    running_max: AtomicUsize,
    stopped: Mutex<bool>,
}

/// A running one. Dropped, it takes no more connections.
pub(crate) struct FakeKeystone {
    /// Base URL without version.
    pub(crate) url: String,
    address: String,
    state: Arc<State>,
}

/// The body that describes a token for a project, ending in `seconds`. A test changes it as it likes.
pub(crate) fn project_token(user: &str, project: &str, roles: &[&str], seconds: i64) -> Value {
    let now = OffsetDateTime::now_utc();
    let text = |time: OffsetDateTime| time.format(&Rfc3339).unwrap();
    json!({"token": {
        "methods": ["password"],
        "user": {"id": format!("u-{user}"), "name": user, "domain": {"id": "default", "name": "Default"}, "password_expires_at": null},
        "project": {"id": format!("p-{project}"), "name": project, "domain": {"id": "default", "name": "Default"}},
        "is_domain": false,
        "roles": roles.iter().map(|role| json!({"id": format!("r-{role}"), "name": role})).collect::<Vec<_>>(),
        "audit_ids": ["x"],
        "issued_at": text(now - time::Duration::seconds(600)),
        "expires_at": text(now + time::Duration::seconds(seconds)),
    }})
}

impl FakeKeystone {
    /// Starts one that knows the tokens of the harness.
    pub(crate) fn start() -> Self {
        Self::launch(None)
    }

    /// As `start`, over TLS. `ca.pem` in the folder has signed its certificate, for `localhost` alone.
    pub(crate) fn start_tls(folder: &Path) -> Self {
        make_certificates(folder);
        let chain = CertificateDer::pem_file_iter(folder.join("server.crt")).unwrap().map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let mut keystone = Self::launch(Some(Arc::new(config)));
        keystone.url = keystone.url.replace("http://127.0.0.1", "https://localhost");
        keystone
    }

    fn launch(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            tokens: Mutex::default(),
            own: Mutex::default(),
            own_seconds: Mutex::new(3600),
            own_password: Mutex::new(OWN_PASSWORD.into()),
            registered_limits: Mutex::default(),
            limits: Mutex::default(),
            fault: Mutex::new(Fault::None),
            asked: Mutex::default(),
            running: AtomicUsize::new(0),
            running_max: AtomicUsize::new(0),
            stopped: Mutex::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if *shared.stopped.lock().unwrap() {
                    return;
                }
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                let Ok(client) = client else { continue };
                let _ = client.set_nodelay(true);
                std::thread::spawn(move || match tls {
                    None => state.serve(client),
                    Some(config) => state.serve(StreamOwned::new(ServerConnection::new(config).unwrap(), client)),
                });
            }
        });
        let keystone = Self { url: format!("http://{address}"), address, state };
        for token in Token::ALL {
            let (user, project, role) = token.entry();
            let roles: &[&str] = match role {
                "admin" => &["admin", "member", "reader"],
                "member" => &["member", "reader"],
                other => &[other],
            };
            keystone.know(token.text(), project_token(user, project, roles, 3600));
        }
        keystone
    }

    /// Makes a token known, or changes what it is.
    pub(crate) fn know(&self, token: &str, body: Value) {
        self.state.tokens.lock().unwrap().insert(token.to_owned(), body);
    }

    /// Revokes a token.
    pub(crate) fn revoke(&self, token: &str) {
        self.state.tokens.lock().unwrap().remove(token).expect("the token was known");
    }

    /// Revokes all tokens that gateways have got for themselves.
    pub(crate) fn revoke_own(&self) {
        self.state.own.lock().unwrap().clear();
    }

    /// Changes the password of the gateways, which revokes their tokens.
    pub(crate) fn change_own_password(&self, password: &str) {
        *self.state.own_password.lock().unwrap() = password.into();
        self.revoke_own();
    }

    /// How long the tokens live that gateways get for themselves from now on.
    pub(crate) fn own_tokens_live(&self, seconds: i64) {
        *self.state.own_seconds.lock().unwrap() = seconds;
    }

    /// Registers a limit of all projects, such as `image_count_total`, or changes it.
    pub(crate) fn register_limit(&self, resource: &str, limit: i64) {
        self.state.registered_limits.lock().unwrap().insert(resource.to_owned(), limit);
    }

    /// Gives one project another limit than all.
    pub(crate) fn limit(&self, project: &str, resource: &str, limit: i64) {
        self.state.limits.lock().unwrap().insert((project.to_owned(), resource.to_owned()), limit);
    }

    pub(crate) fn fault(&self, fault: Fault) {
        *self.state.fault.lock().unwrap() = fault;
    }

    /// All that it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// How often it was asked about a token.
    pub(crate) fn asked_about(&self, token: &str) -> usize {
        let asked = self.state.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.headers.get("x-subject-token").is_some_and(|subject| subject == token))
            .count()
    }

    /// How often a gateway asked for a token of its own.
    pub(crate) fn logins(&self) -> usize {
        self.asked().iter().filter(|asked| asked.method == "POST").count()
    }

    /// The most questions that it ever had to answer at the same time.
    pub(crate) fn running_max(&self) -> usize {
        self.state.running_max.load(Ordering::SeqCst)
    }
}

impl Drop for FakeKeystone {
    fn drop(&mut self) {
        *self.state.stopped.lock().unwrap() = true;
        let _ = TcpStream::connect(&self.address);
    }
}

impl State {
    fn serve(&self, client: impl Read + Write) {
        let mut reader = BufReader::new(client);
        while let Some((asked, body)) = question(&mut reader) {
            let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
            self.running_max.fetch_max(running, Ordering::SeqCst);
            let goes_on = self.reply(reader.get_mut(), &asked, &body);
            self.running.fetch_sub(1, Ordering::SeqCst);
            if !goes_on {
                return;
            }
        }
    }

    /// Answers one question; whether the connection stays open.
    fn reply(&self, client: &mut impl Write, asked: &Asked, body: &[u8]) -> bool {
        let count = {
            let mut all = self.asked.lock().unwrap();
            all.push(asked.clone());
            all.len()
        };
        let fault = self.fault.lock().unwrap().clone();
        let error = |status: u16| {
            (status, String::new(), json!({"error": {"code": status, "title": "x", "message": "x"}}).to_string())
        };
        let (status, headers, text) = match fault {
            Fault::Down => return false,
            Fault::Cut => {
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"token\":");
                return false;
            }
            Fault::Status(status) => error(status),
            Fault::Flaky if count % 2 == 1 => error(503),
            Fault::NoLogins if asked.method == "POST" => error(503),
            Fault::Body(body) if asked.method == "POST" => (201, "x-subject-token: own\r\n".into(), body),
            Fault::Body(body) => (200, String::new(), body),
            Fault::Huge(bytes) => (200, String::new(), format!("\"{}\"", "x".repeat(bytes))),
            Fault::Slow(pause) => {
                let end = Instant::now() + pause;
                while Instant::now() < end && *self.fault.lock().unwrap() != Fault::None {
                    std::thread::sleep(Duration::from_millis(10));
                }
                self.answer(asked, body)
            }
            Fault::None | Fault::Flaky | Fault::NoLogins => self.answer(asked, body),
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n",
            text.len()
        );
        client.write_all(head.as_bytes()).and_then(|()| client.write_all(text.as_bytes())).is_ok()
    }

    fn answer(&self, asked: &Asked, body: &[u8]) -> (u16, String, String) {
        let error = |status: u16| {
            (status, String::new(), json!({"error": {"code": status, "title": "x", "message": "x"}}).to_string())
        };
        let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
        match (asked.method.as_str(), path) {
            ("GET", "/v3") => (200, String::new(), json!({"version": {"id": "v3.14", "status": "stable"}}).to_string()),
            ("POST", "/v3/auth/tokens") => {
                if !is_own(&serde_json::from_slice(body).unwrap(), &self.own_password.lock().unwrap()) {
                    return error(401);
                }
                let token = format!("canary-own-token-{}", uuid::Uuid::new_v4());
                let mut issued = project_token("service", "service", &["service"], 0);
                let now = OffsetDateTime::now_utc();
                let seconds = *self.own_seconds.lock().unwrap();
                issued["token"]["issued_at"] = json!(now.format(&Rfc3339).unwrap());
                issued["token"]["expires_at"] =
                    json!((now + time::Duration::seconds(seconds)).format(&Rfc3339).unwrap());
                let endpoint = |id: &str, url: &str| json!({"id": id, "interface": "public", "region": "RegionOne", "region_id": "RegionOne", "url": url});
                issued["token"]["catalog"] = json!([
                    {"type": "identity", "id": "s-identity", "name": "keystone", "endpoints": [endpoint("e-identity", "http://127.0.0.1:1/v3")]},
                    {"type": "image", "id": "s-image", "name": "glance", "endpoints": [endpoint("e-image", "http://127.0.0.1:9292")]},
                ]);
                self.own.lock().unwrap().insert(token.clone());
                (201, format!("x-subject-token: {token}\r\n"), issued.to_string())
            }
            ("GET", _)
                if !self.own.lock().unwrap().contains(asked.headers.get("x-auth-token").map_or("", String::as_str)) =>
            {
                error(401)
            }
            ("GET", "/v3/registered_limits") => {
                let limits = self.registered_limits.lock().unwrap();
                let all = limits.iter().map(|(name, limit)| {
                    json!({"id": name, "service_id": "s-image", "region_id": "RegionOne", "resource_name": name, "default_limit": limit, "description": null})
                });
                (
                    200,
                    String::new(),
                    json!({"registered_limits": all.collect::<Vec<_>>(), "links": {"next": null}}).to_string(),
                )
            }
            ("GET", "/v3/limits") => {
                let limits = self.limits.lock().unwrap();
                let asked_for = limits.iter().filter(|((project, _), _)| {
                    query.split('&').any(|filter| *filter == format!("project_id={project}"))
                });
                let all = asked_for.map(|((project, name), limit)| {
                    json!({"id": name, "service_id": "s-image", "region_id": "RegionOne", "project_id": project, "domain_id": null, "resource_name": name, "resource_limit": limit})
                });
                (200, String::new(), json!({"limits": all.collect::<Vec<_>>(), "links": {"next": null}}).to_string())
            }
            ("GET", "/v3/auth/tokens") => {
                let subject = asked.headers.get("x-subject-token").cloned().unwrap_or_default();
                let tokens = self.tokens.lock().unwrap();
                let Some(body) = tokens.get(&subject) else { return error(404) };
                let expires_at =
                    OffsetDateTime::parse(body["token"]["expires_at"].as_str().unwrap(), &Rfc3339).unwrap();
                if expires_at <= OffsetDateTime::now_utc() && !query.contains("allow_expired=1") {
                    return error(404);
                }
                let restricted = body["token"]["application_credential"]["access_rules"].is_array();
                if restricted && !asked.headers.contains_key("openstack-identity-access-rules") {
                    return error(401);
                }
                let mut body = body.clone();
                if query.contains("nocatalog") {
                    body["token"].as_object_mut().unwrap().remove("catalog");
                }
                (200, format!("x-subject-token: {subject}\r\n"), body.to_string())
            }
            _ => error(404),
        }
    }
}

/// Whether these are the gateway's credentials.
fn is_own(body: &Value, password: &str) -> bool {
    let identity = &body["auth"]["identity"];
    let user = &identity["password"]["user"];
    let by_password = identity["methods"] == json!(["password"])
        && user["name"] == OWN_USER
        && user["domain"] == json!({"name": "Default"})
        && user["password"] == password
        && body["auth"]["scope"]["project"] == json!({"name": "service", "domain": {"name": "Default"}});
    let (id, secret) = OWN_CREDENTIAL;
    let by_credential = identity["methods"] == json!(["application_credential"])
        && identity["application_credential"] == json!({"id": id, "secret": secret})
        && body["auth"]["scope"].is_null();
    by_password || by_credential
}

fn question(reader: &mut BufReader<impl Read>) -> Option<(Asked, Vec<u8>)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((Asked { method, target, headers }, body))
}
