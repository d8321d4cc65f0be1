//! Who may do what with what a namespace holds: every route, for everybody.

use serde_json::json;

use super::{NAMESPACES, full, make, refused};
use crate::harness::{Client, Gateway, Options, Token};

/// Every route below a namespace that reads: its path.
const READS: [&str; 8] =
    ["resource_types", "properties", "properties/p1", "objects", "objects/o1", "tags", "tags/t1", "tags?limit=1"];

/// Every route below a namespace that writes: method, path, body, success, and the rule that has to allow it.
const WRITES: [(&str, &str, &str, u16, &str); 17] = [
    ("POST", "resource_types", r#"{"name": "R"}"#, 201, "add_metadef_resource_type_association"),
    ("DELETE", "resource_types/R", "", 204, "remove_metadef_resource_type_association"),
    ("POST", "properties", r#"{"name": "p", "title": "t", "type": "string"}"#, 201, "add_metadef_property"),
    ("PUT", "properties/p", r#"{"name": "p", "title": "u", "type": "string"}"#, 200, "modify_metadef_property"),
    ("DELETE", "properties/p", "", 204, "remove_metadef_property"),
    ("DELETE", "properties", "", 204, "delete_metadef_namespace"),
    ("POST", "objects", r#"{"name": "o"}"#, 201, "add_metadef_object"),
    ("PUT", "objects/o", r#"{"name": "o", "description": "d"}"#, 200, "modify_metadef_object"),
    ("DELETE", "objects/o", "", 204, "delete_metadef_object"),
    ("DELETE", "objects", "", 204, "delete_metadef_namespace"),
    ("POST", "tags/t", "", 201, "add_metadef_tag"),
    ("PUT", "tags/t", r#"{"name": "u"}"#, 200, "modify_metadef_tag"),
    ("DELETE", "tags/u", "", 204, "delete_metadef_tag"),
    ("POST", "tags", r#"{"tags": [{"name": "v"}]}"#, 201, "add_metadef_tags"),
    ("DELETE", "tags", "", 204, "delete_metadef_namespace"),
    ("PUT", "", r#"{"namespace": "n", "visibility": "public"}"#, 200, "modify_metadef_namespace"),
    ("DELETE", "", "", 204, "delete_metadef_namespace"),
];

fn send(client: &Client, method: &str, path: &str, body: &str) -> crate::harness::Answer {
    let path = path.trim_end_matches('/');
    if body.is_empty() { client.call(method, path) } else { client.send_json(method, path, body) }
}

/// All that is stored of metadata definitions.
fn stored(gateway: &Gateway) -> String {
    ["namespaces", "associations", "properties", "objects", "tags", "resource_types"]
        .map(|table| gateway.sql(&format!("SELECT * FROM metadef_{table} ORDER BY id")))
        .join("\n--\n")
}

#[test]
fn readers_read_what_they_may_see_and_administrators_alone_write() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let public = make(&admin, &full("public"));
    let mut body = full("private");
    body["visibility"] = json!("private");
    body["owner"] = json!("p-demo");
    let private = make(&admin, &body);
    let before = stored(&gateway);
    for (token, sees_private) in [(Token::Demo, true), (Token::Reader, true), (Token::Alt, false), (Token::Admin, true)]
    {
        let client = gateway.client(token);
        for path in READS {
            client.get(&format!("{public}/{path}")).expect(200);
            let answer = client.get(&format!("{private}/{path}"));
            assert_eq!(answer.status, if sees_private { 200 } else { 404 }, "{token:?} {path}: {}", answer.text());
        }
        if token == Token::Admin {
            continue;
        }
        for (method, path, body, _, rule) in WRITES {
            refused(&send(&client, method, &format!("{public}/{path}"), body), 403, &[rule]);
            let answer = send(&client, method, &format!("{private}/{path}"), body);
            refused(&answer, if sees_private { 403 } else { 404 }, &[if sees_private { rule } else { "private" }]);
        }
    }
    // To one who may not see it, it is as one that is not there.
    let alt = gateway.client(Token::Alt);
    let missing = format!("{NAMESPACES}/nosuch");
    for (method, path, body) in READS.map(|path| ("GET", path, "")).into_iter().chain(WRITES.map(|w| (w.0, w.1, w.2))) {
        let texts = [(&private, "private"), (&missing, "nosuch")].map(|(namespace, name)| {
            send(&alt, method, &format!("{namespace}/{path}"), body).expect(404).text().replace(name, "NAME")
        });
        assert_eq!(texts[0], texts[1], "{method} {path}");
        assert_eq!(
            send(&gateway.anonymous(), method, &format!("{public}/{path}"), body).status,
            401,
            "{method} {path}"
        );
    }
    assert_eq!(stored(&gateway), before, "a refused request changed something");
}

#[test]
fn an_administrator_writes_everything() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let namespace = make(&admin, &json!({"namespace": "n", "owner": "p-alt"}));
    for (method, path, body, success, _) in WRITES {
        send(&admin, method, &format!("{namespace}/{path}"), body).expect(success);
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_namespaces"), "0");
}

#[test]
fn what_a_protected_namespace_holds_is_changed_but_not_deleted() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let mut body = full("n");
    body["protected"] = json!(true);
    let namespace = make(&admin, &body);
    for (method, path, body, success, _) in WRITES {
        // Of what is there from the beginning.
        let path = match (method, path) {
            ("DELETE", "resource_types/R") => "resource_types/OS::Nova::Flavor",
            ("DELETE", "properties/p") => "properties/p1",
            ("DELETE", "objects/o") => "objects/o1",
            ("DELETE", "tags/u") => "tags/t1",
            ("PUT", "") => continue,
            // Tags are replaced as a whole: that is a change.
            ("POST", "tags") => continue,
            (_, path) => path,
        };
        let answer = send(&admin, method, &format!("{namespace}/{path}"), body);
        match method {
            "DELETE" => refused(&answer, 403, &["protected"]),
            _ => assert_eq!(answer.status, success, "{method} {path}: {}", answer.text()),
        }
    }
    // What is not there is not there.
    for path in ["resource_types/nosuch", "properties/nosuch", "objects/nosuch", "tags/nosuch"] {
        refused(&admin.delete(&format!("{namespace}/{path}")), 404, &["nosuch"]);
    }
    assert_eq!(
        gateway.sql("SELECT (SELECT count(*) FROM metadef_associations), (SELECT count(*) FROM metadef_properties), (SELECT count(*) FROM metadef_objects), (SELECT count(*) FROM metadef_tags)"),
        "3|3|2|3"
    );
}

#[test]
fn methods_and_bodies_that_do_not_belong_are_refused() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let namespace = make(&admin, &full("n"));
    let before = stored(&gateway);
    for path in READS {
        refused(&send(&admin, "GET", &format!("{namespace}/{path}"), "{}"), 400, &["body"]);
    }
    for (method, path, _, _, _) in WRITES.into_iter().filter(|write| write.0 == "DELETE") {
        refused(&send(&admin, method, &format!("{namespace}/{path}"), "{}"), 400, &["body"]);
    }
    for (path, allow) in [
        ("properties", "GET, POST, DELETE"),
        ("properties/p1", "GET, PUT, DELETE"),
        ("objects", "GET, POST, DELETE"),
        ("objects/o1", "GET, PUT, DELETE"),
        ("tags", "GET, POST, DELETE"),
        ("tags/t1", "GET, POST, PUT, DELETE"),
        ("resource_types", "GET, POST"),
    ] {
        for method in ["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = send(&admin, method, &format!("{namespace}/{path}"), "");
            assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
        }
    }
    for (method, path, _, _, _) in WRITES.into_iter().filter(|write| !write.2.is_empty()) {
        for body in ["{", "[]", "null", "1", "\"x\"", "not json"] {
            refused(&send(&admin, method, &format!("{namespace}/{path}"), body), 400, &[]);
        }
        refused(&send(&admin, method, &format!("{namespace}/{path}"), ""), 400, &["JSON"]);
    }
    for missing in ["nosuch", "properties/", "properties/p1/", "objects/o1/x", "tags/t1/x"] {
        assert_eq!(admin.get(&format!("{namespace}/{missing}")).status, 404, "{missing}");
    }
    assert_eq!(stored(&gateway), before, "a refused request changed something");
}

/// Every route below a namespace that reads, with the rules without which it is refused.
const RULES_OF_READS: [(&str, &[&str]); 9] = [
    ("", &["list_metadef_resource_types", "get_metadef_objects", "get_metadef_properties", "get_metadef_tags"]),
    ("resource_types", &["list_metadef_resource_types"]),
    ("properties", &["get_metadef_properties"]),
    ("properties/p1", &["get_metadef_property"]),
    ("properties/hw:p1?resource_type=OS::Nova::Flavor", &["get_metadef_property", "get_metadef_resource_type"]),
    ("objects", &["get_metadef_objects"]),
    ("objects/o1", &["get_metadef_object"]),
    ("tags", &["get_metadef_tags"]),
    ("tags/t1", &["get_metadef_tag"]),
];

/// What the policy asks of those who make a namespace with something in it.
const RULES_OF_PARTS: [(&str, &str); 4] = [
    ("resource_type_associations", "add_metadef_resource_type_association"),
    ("objects", "add_metadef_object"),
    ("properties", "add_metadef_property"),
    ("tags", "add_metadef_tag"),
];

#[test]
fn every_rule_governs_its_own_routes() {
    // Members may do everything, but each rule keeps them from what belongs to a project of its own name, and some
    // keep the project p-alt from everything.
    let mut rules: Vec<&str> = RULES_OF_READS.iter().flat_map(|(_, rules)| rules.iter().copied()).collect();
    rules.extend(WRITES.iter().map(|write| write.4));
    rules.extend(["delete_metadef_tags", "get_metadef_namespace", "add_metadef_namespace", "get_metadef_namespaces"]);
    rules.sort_unstable();
    rules.dedup();
    assert_eq!(rules.len(), 26, "Glance has as many");
    let closed_to_alt: Vec<&str> = RULES_OF_PARTS
        .iter()
        .map(|(_, rule)| *rule)
        .chain(["get_metadef_namespaces", "list_metadef_resource_types"])
        .collect();
    let policy: serde_json::Map<String, serde_json::Value> = rules
        .iter()
        .map(|rule| {
            let alt = if closed_to_alt.contains(rule) { " and not 'p-alt':%(project_id)s" } else { "" };
            ((*rule).to_owned(), json!(format!("role:member and not '{rule}':%(project_id)s{alt}")))
        })
        .collect();
    let file = std::env::temp_dir().join(format!("rockpool-policy-{}.json", uuid::Uuid::new_v4()));
    std::fs::write(&file, serde_json::Value::from(policy).to_string()).unwrap();
    let gateway = Gateway::start(Options::default().set("policy", "file", file.to_str().unwrap()));
    std::fs::remove_file(&file).unwrap();
    let (demo, alt) = (gateway.client(Token::Demo), gateway.client(Token::Alt));

    for rule in &rules {
        let mut body = full(rule);
        body["owner"] = json!(rule);
        let namespace = make(&demo, &body);
        for (path, needed) in RULES_OF_READS {
            let answer = send(&demo, "GET", &format!("{namespace}/{path}"), "");
            match (*rule, path) {
                ("get_metadef_namespace", "") => refused(&answer, 404, &[rule]),
                ("get_metadef_resource_type", "resource_types") => {
                    assert_eq!(answer.expect(200).json()["resource_type_associations"], json!([]));
                }
                ("get_metadef_object", "objects") => assert_eq!(answer.expect(200).json()["objects"], json!([])),
                _ if needed.contains(rule) => refused(&answer, 403, &[rule]),
                _ => assert_eq!(answer.status, 200, "{rule}: {path}: {}", answer.text()),
            }
        }
        for (method, path, body, success, needed) in WRITES {
            let body = body.replace("\"n\"", &format!("\"{rule}\", \"owner\": \"{rule}\""));
            let answer = send(&demo, method, &format!("{namespace}/{path}"), &body);
            let denied = *rule == needed || (*rule, method, path) == ("delete_metadef_tags", "DELETE", "tags");
            if denied {
                refused(&answer, 403, &[rule]);
            } else if answer.status != success {
                // What a refused request did not make is not there.
                assert_eq!(answer.status, 404, "{rule}: {method} {path}: {}", answer.text());
            }
        }
    }
    let left = gateway.sql("SELECT string_agg(name, ',') FROM metadef_namespaces");
    assert_eq!(left, "delete_metadef_namespace");

    // A list keeps back what its caller may not be shown, and goes on behind it.
    for owner in ["p-demo", "get_metadef_namespace", "get_metadef_namespace", "p-demo"] {
        let name = format!("list-{}", uuid::Uuid::new_v4());
        make(&demo, &json!({"namespace": name, "owner": owner, "visibility": "public"}));
    }
    let mut shown = 0;
    let mut path = Some(format!("{NAMESPACES}?limit=2"));
    while let Some(next) = path {
        let page = demo.get(&next).expect(200).json();
        shown += page["namespaces"].as_array().unwrap().len();
        path = page.get("next").map(|next| next.as_str().unwrap().to_owned());
    }
    assert_eq!(shown, 3);

    // What comes with a namespace needs its own rule, and lists need theirs.
    alt.post(NAMESPACES, &json!({"namespace": "alt"})).expect(201);
    for (part, rule) in RULES_OF_PARTS {
        let body = json!({"namespace": "more", part: full("x")[part]});
        refused(&alt.post(NAMESPACES, &body), 403, &[rule]);
        demo.post(NAMESPACES, &body).expect(201);
        demo.delete(&format!("{NAMESPACES}/more")).expect(204);
    }
    refused(&alt.get(NAMESPACES), 403, &["get_metadef_namespaces"]);
    refused(&alt.get("/v2/metadefs/resource_types"), 403, &["list_metadef_resource_types"]);
}
