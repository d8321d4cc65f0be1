//! Every route for everybody: the statuses are in `matrix.md`, for people to read and to compare with.
//!
//! A new route is a new line in [`ROWS`]. `ROCKPOOL_TEST_WRITE_MATRIX=1` writes the file anew; look at its difference
//! before you commit it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use ureq::SendBody;

use crate::harness::{Client, Gateway, Options, Token};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gateway/matrix.md");

/// Who asks: images and namespaces belong to the project of the reader and the member.
const ROLES: [(&str, Option<Token>); 6] = [
    ("no token", None),
    ("other project", Some(Token::Alt)),
    ("reader", Some(Token::Reader)),
    ("member", Some(Token::Demo)),
    ("admin", Some(Token::Admin)),
    ("service", Some(Token::Service)),
];

/// The one task that there is; it is of the project of the reader and the member.
const TASK: &str = "00000000-0000-4000-8000-000000000001";
/// Visibilities of images; of a shared one the other project is a member.
const IMAGES: [&str; 4] = ["private", "shared", "community", "public"];
/// Visibilities of namespaces.
const NAMESPACES: [&str; 2] = ["private", "public"];

/// What is sent along.
#[derive(Clone, Copy)]
enum Sent {
    Nothing,
    Json(&'static str),
    Patch(&'static str),
    Bytes,
}

use Sent::{Bytes, Json, Nothing, Patch};

/// Every route, and what it is asked with. `{id}` and `{image}` become an image, `{namespace}` a namespace with an
/// object `o`, a property `p` and a tag `t`.
const ROWS: &[(&str, &str, Sent)] = &[
    ("GET", "/versions", Nothing),
    ("HEAD", "/versions", Nothing),
    ("POST", "/versions", Nothing),
    ("GET", "/versions/", Nothing),
    ("HEAD", "/versions/", Nothing),
    ("POST", "/versions/", Nothing),
    ("GET", "/healthcheck", Nothing),
    ("HEAD", "/healthcheck", Nothing),
    ("GET", "/livez", Nothing),
    ("HEAD", "/livez", Nothing),
    ("GET", "/readyz", Nothing),
    ("HEAD", "/readyz", Nothing),
    ("GET", "/metrics", Nothing),
    ("GET", "/v2", Nothing),
    ("GET", "/v2/images", Nothing),
    ("POST", "/v2/images", Json(r#"{"name": "n"}"#)),
    ("GET", "/v2/images/{id}", Nothing),
    ("PATCH", "/v2/images/{id}", Patch(r#"[{"op": "add", "path": "/x", "value": "y"}]"#)),
    ("DELETE", "/v2/images/{id}", Nothing),
    ("PUT", "/v2/images/{id}/file", Bytes),
    ("PUT", "/v2/images/{id}/stage", Bytes),
    ("POST", "/v2/images/{id}/import", Json(r#"{"method": {"name": "glance-direct"}}"#)),
    ("GET", "/v2/images/{id}/file", Nothing),
    ("GET", "/v2/images/{id}/members", Nothing),
    ("POST", "/v2/images/{id}/members", Json(r#"{"member": "p-new"}"#)),
    ("GET", "/v2/images/{id}/members/{member}", Nothing),
    ("PUT", "/v2/images/{id}/members/{member}", Json(r#"{"status": "accepted"}"#)),
    ("DELETE", "/v2/images/{id}/members/{member}", Nothing),
    ("PUT", "/v2/images/{id}/tags/{tag}", Nothing),
    ("DELETE", "/v2/images/{id}/tags/{tag}", Nothing),
    ("POST", "/v2/images/{id}/actions/deactivate", Nothing),
    ("POST", "/v2/images/{id}/actions/reactivate", Nothing),
    ("GET", "/v2/images/{id}/tasks", Nothing),
    ("GET", "/v2/images/{id}/locations", Nothing),
    ("POST", "/v2/images/{id}/locations", Json(r#"{"url": "rbd://f/images/nothing/snap"}"#)),
    ("DELETE", "/v2/stores/{store}/{image}", Nothing),
    ("GET", "/v2/tasks", Nothing),
    ("POST", "/v2/tasks", Json(r#"{"type": "import", "input": {}}"#)),
    ("GET", "/v2/tasks/{id}", Nothing),
    ("DELETE", "/v2/tasks/{id}", Nothing),
    ("GET", "/v2/cache", Nothing),
    ("DELETE", "/v2/cache", Nothing),
    ("PUT", "/v2/cache/{id}", Nothing),
    ("DELETE", "/v2/cache/{id}", Nothing),
    ("GET", "/v2/cache/nodes/{id}", Nothing),
    ("POST", "/v2/cache/clean", Nothing),
    ("POST", "/v2/cache/prune", Nothing),
    ("GET", "/v2/info/import", Nothing),
    ("GET", "/v2/info/stores", Nothing),
    ("GET", "/v2/info/stores/detail", Nothing),
    ("GET", "/v2/info/usage", Nothing),
    ("GET", "/v2/schemas/image", Nothing),
    ("GET", "/v2/schemas/images", Nothing),
    ("GET", "/v2/schemas/member", Nothing),
    ("GET", "/v2/schemas/members", Nothing),
    ("GET", "/v2/schemas/task", Nothing),
    ("GET", "/v2/schemas/tasks", Nothing),
    ("GET", "/v2/schemas/metadefs/{name}", Nothing),
    ("GET", "/v2/metadefs/resource_types", Nothing),
    ("GET", "/v2/metadefs/namespaces", Nothing),
    ("POST", "/v2/metadefs/namespaces", Json(r#"{"namespace": "NEW"}"#)),
    ("GET", "/v2/metadefs/namespaces/{namespace}", Nothing),
    ("PUT", "/v2/metadefs/namespaces/{namespace}", Json(r#"{"namespace": "NEW"}"#)),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}", Nothing),
    ("GET", "/v2/metadefs/namespaces/{namespace}/resource_types", Nothing),
    ("POST", "/v2/metadefs/namespaces/{namespace}/resource_types", Json(r#"{"name": "OS::Nova::Server"}"#)),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}/resource_types/{name}", Nothing),
    ("GET", "/v2/metadefs/namespaces/{namespace}/properties", Nothing),
    (
        "POST",
        "/v2/metadefs/namespaces/{namespace}/properties",
        Json(r#"{"name": "q", "title": "Q", "type": "string"}"#),
    ),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}/properties", Nothing),
    ("GET", "/v2/metadefs/namespaces/{namespace}/properties/{name}", Nothing),
    (
        "PUT",
        "/v2/metadefs/namespaces/{namespace}/properties/{name}",
        Json(r#"{"name": "p", "title": "Q", "type": "string"}"#),
    ),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}/properties/{name}", Nothing),
    ("GET", "/v2/metadefs/namespaces/{namespace}/objects", Nothing),
    ("POST", "/v2/metadefs/namespaces/{namespace}/objects", Json(r#"{"name": "q"}"#)),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}/objects", Nothing),
    ("GET", "/v2/metadefs/namespaces/{namespace}/objects/{name}", Nothing),
    ("PUT", "/v2/metadefs/namespaces/{namespace}/objects/{name}", Json(r#"{"name": "o"}"#)),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}/objects/{name}", Nothing),
    ("GET", "/v2/metadefs/namespaces/{namespace}/tags", Nothing),
    ("POST", "/v2/metadefs/namespaces/{namespace}/tags", Json(r#"{"tags": [{"name": "q"}]}"#)),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}/tags", Nothing),
    ("GET", "/v2/metadefs/namespaces/{namespace}/tags/{name}", Nothing),
    ("POST", "/v2/metadefs/namespaces/{namespace}/tags/{name}", Nothing),
    ("PUT", "/v2/metadefs/namespaces/{namespace}/tags/{name}", Json(r#"{"name": "t2"}"#)),
    ("DELETE", "/v2/metadefs/namespaces/{namespace}/tags/{name}", Nothing),
    ("GET", "/openapi.json", Nothing),
];

/// What a route is about.
#[derive(Clone, Copy, PartialEq)]
enum Subject {
    Nothing,
    Image,
    Namespace,
}

fn subject(path: &str) -> Subject {
    if path.starts_with("/v2/tasks") {
        Subject::Nothing
    } else if path.contains("{id}") || path.contains("{image}") {
        Subject::Image
    } else if path.contains("{namespace}") {
        Subject::Namespace
    } else {
        Subject::Nothing
    }
}

/// Things to ask about, made when they are needed and kept until somebody has changed them.
struct Things<'g> {
    gateway: &'g Gateway,
    admin: Client,
    /// By visibility and status.
    images: BTreeMap<(&'static str, &'static str), String>,
    namespaces: BTreeMap<&'static str, String>,
}

impl Things<'_> {
    fn image(&mut self, visibility: &'static str, status: &'static str) -> String {
        let (gateway, admin) = (self.gateway, &self.admin);
        let make = || {
            let attributes = json!({"owner": "p-demo", "visibility": visibility, "tags": ["blue"], "disk_format": "raw", "container_format": "bare"});
            let image = admin.post("/v2/images", &attributes).expect(201).json();
            let id = image["id"].as_str().unwrap().to_owned();
            if visibility == "shared" {
                admin.post(&format!("/v2/images/{id}/members"), &json!({"member": "p-alt"})).expect(200);
            }
            if status != "queued" {
                gateway.client(Token::Demo).upload(&id, b"data").expect(204);
            }
            if status == "deactivated" {
                admin.call("POST", &format!("/v2/images/{id}/actions/deactivate")).expect(204);
            }
            id
        };
        self.images.entry((visibility, status)).or_insert_with(make).clone()
    }

    fn namespace(&mut self, visibility: &'static str) -> String {
        let admin = &self.admin;
        let make = || {
            let name = format!("ns-{}", uuid::Uuid::new_v4());
            let whole = json!({
                "namespace": name, "owner": "p-demo", "visibility": visibility,
                "objects": [{"name": "o"}], "properties": {"p": {"title": "P", "type": "string"}}, "tags": [{"name": "t"}],
                "resource_type_associations": [{"name": "OS::Glance::Image"}],
            });
            admin.post("/v2/metadefs/namespaces", &whole).expect(201);
            name
        };
        self.namespaces.entry(visibility).or_insert_with(make).clone()
    }

    /// The status that each of [`ROLES`] gets.
    fn row(&mut self, (method, template, sent): (&str, &str, Sent), visibility: &'static str) -> Vec<u16> {
        let image_status = match template {
            "/v2/images/{id}/actions/deactivate" | "/v2/stores/{store}/{image}" | "/v2/images/{id}/locations"
                if method != "POST" || template.ends_with("deactivate") =>
            {
                "active"
            }
            "/v2/images/{id}/actions/reactivate" => "deactivated",
            _ => "queued",
        };
        let part = match template {
            _ if template.contains("/schemas/") => "namespace",
            _ if template.contains("/resource_types/") => "OS::Glance::Image",
            _ if template.contains("/properties/") => "p",
            _ if template.contains("/objects/") => "o",
            _ if method == "POST" => "t3",
            _ => "t",
        };
        let ask = |things: &mut Self, token: Option<Token>| {
            let (mut path, mut namespace) = (template.to_owned(), format!("ns-{}", uuid::Uuid::new_v4()));
            match subject(template) {
                Subject::Nothing => path = path.replace("{id}", TASK),
                Subject::Image => {
                    let id = things.image(visibility, image_status);
                    path = path.replace("{id}", &id).replace("{image}", &id);
                }
                Subject::Namespace => namespace = things.namespace(visibility),
            }
            for (name, value) in [
                ("namespace", namespace.as_str()),
                ("member", "p-alt"),
                ("tag", "blue"),
                ("store", "ceph"),
                ("name", part),
            ] {
                path = path.replace(&format!("{{{name}}}"), value);
            }
            let client = token.map_or_else(|| things.gateway.anonymous(), |token| things.gateway.client(token));
            let (media_type, body) = match sent {
                Nothing => (None, String::new()),
                Json(text) => (Some("application/json"), text.replace("NEW", &namespace)),
                Patch(text) => (Some("application/openstack-images-v2.1-json-patch"), text.to_owned()),
                Bytes => (Some("application/octet-stream"), "data".to_owned()),
            };
            let status = match media_type {
                None => client.call(method, &path).status,
                Some(name) => {
                    client
                        .send(method, &path, &[("content-type", name)], SendBody::from_reader(&mut body.as_bytes()))
                        .status
                }
            };
            // Nobody asks about what has been changed.
            if !matches!(method, "GET" | "HEAD") && status < 300 {
                things.images.remove(&(visibility, image_status));
                things.namespaces.remove(visibility);
            }
            status
        };
        ROLES.iter().map(|(_, token)| ask(self, *token)).collect()
    }
}

fn table(things: &mut Things<'_>, title: &str, wanted: Subject, visibility: &'static str) -> String {
    let names = ROLES.map(|(name, _)| name).join(" | ");
    let mut text = format!("\n## {title}\n\n| | {names} |\n|---|{}\n", "---|".repeat(ROLES.len()));
    for row in ROWS.iter().filter(|(_, template, _)| subject(template) == wanted) {
        let statuses: Vec<String> = things.row(*row, visibility).iter().map(u16::to_string).collect();
        text.push_str(&format!("| {} {} | {} |\n", row.0, row.1, statuses.join(" | ")));
    }
    text
}

#[test]
fn everybody_gets_what_the_matrix_says() {
    let gateway = Gateway::start(Options::default());
    let mut things = Things {
        gateway: &gateway,
        admin: gateway.client(Token::Admin),
        images: BTreeMap::new(),
        namespaces: BTreeMap::new(),
    };
    gateway.sql(&format!(
        "INSERT INTO tasks (id, type, status, owner, input, created_at, updated_at) VALUES ('{TASK}', 'import', 'pending', 'p-demo', '{{}}', now(), now())"
    ));
    let mut text = String::from(
        "# Who may do what\n\nThe status of every request, with the default policy. Images and namespaces belong to the project of \"reader\" and\n\
         \"member\"; \"admin\" and \"service\" have projects of their own. Written by `tests/gateway/matrix.rs`.\n",
    );
    text.push_str(&table(&mut things, "Nothing in particular", Subject::Nothing, ""));
    for visibility in IMAGES {
        let member = if visibility == "shared" { ", the other project a member" } else { "" };
        text.push_str(&table(&mut things, &format!("An image: {visibility}{member}"), Subject::Image, visibility));
    }
    for visibility in NAMESPACES {
        text.push_str(&table(&mut things, &format!("A namespace: {visibility}"), Subject::Namespace, visibility));
    }
    if std::env::var_os("ROCKPOOL_TEST_WRITE_MATRIX").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let expected = std::fs::read_to_string(FILE).unwrap();
    let differences: Vec<String> = expected
        .lines()
        .zip(text.lines())
        .filter(|(expected, found)| expected != found)
        .map(|(expected, found)| format!("\n- {expected}\n+ {found}"))
        .collect();
    assert!(differences.is_empty(), "{FILE} says otherwise:{}", differences.join(""));
    assert_eq!(expected.lines().count(), text.lines().count(), "{FILE} has other lines");
    assert!(!text.contains("| 5"), "nobody gets an error of ours");
}

#[test]
fn no_route_is_missing_in_the_matrix() {
    let gateway = Gateway::start(Options::default());
    let document: Value = gateway.anonymous().get("/openapi.json").expect(200).json();
    let mut served = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "head", "post", "put", "patch", "delete"].iter().filter(|m| item.get(**m).is_some()) {
            served.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let listed: BTreeSet<String> = ROWS.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(listed.len(), ROWS.len(), "a row is there twice");
    assert!(served.len() > 50, "{served:?}");
    assert_eq!(served.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "routes without a row");
    assert_eq!(listed.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "rows without a route");
}
