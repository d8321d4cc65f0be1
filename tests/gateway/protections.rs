//! Property protections: who may see and change which additional properties.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Answer, Client, Gateway, Options, Token, eventually};

/// A file that is gone when the test is over.
struct Rules(PathBuf);

impl Rules {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rockpool-protections-{}.conf", uuid::Uuid::new_v4()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn options(&self, format: &str) -> Options {
        Options::default().set("images", "property_protection_file", self.0.to_str().unwrap()).set(
            "images",
            "property_protection_rule_format",
            format,
        )
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const ROLES: &str = "
[^secret_]
create = admin
read = admin
update = admin
delete = admin
[^dropbox_]
create = member
read = admin
update = admin
delete = admin
[^fixed_]
create = member
read = @
update = !
delete = !
[^seen_]
create = admin
read = reader
update = member
delete = admin
[^hw_|^os_]
create = member
read = reader
update = member
delete = member
";

fn operation(op: &str, name: &str) -> Value {
    json!({"op": op, "path": format!("/{name}"), "value": "changed"})
}

#[track_caller]
fn patch(client: &Client, id: &str, operation: Value) -> Answer {
    client.patch(&format!("/v2/images/{id}"), &json!([operation]))
}

#[track_caller]
fn forbidden(answer: Answer, name: &str) {
    let text = answer.expect(403).text();
    assert!(text.contains(name) && text.contains("is reserved"), "{text}");
}

/// The additional properties of an image, as the database has them.
#[track_caller]
fn stored(gateway: &Gateway, id: &str) -> Value {
    let text = gateway.sql(&format!(
        "SELECT coalesce(jsonb_object_agg(name, value), '{{}}') FROM image_properties WHERE image_id = '{id}'"
    ));
    serde_json::from_str(&text).unwrap()
}

/// Those of the image's members that are called so.
fn shown(image: &Value, names: &[&str]) -> Vec<String> {
    names.iter().filter(|name| image.get(name).is_some()).map(|name| (*name).to_owned()).collect()
}

#[test]
fn properties_belong_to_roles() {
    let rules = Rules::new(ROLES);
    let gateway = Gateway::start(rules.options("roles"));
    let (admin, demo, reader) =
        (gateway.client(Token::Admin), gateway.client(Token::Demo), gateway.client(Token::Reader));
    // Who creates what. A name that no section fits is nobody's.
    for name in ["secret_a", "seen_a", "unheard_of"] {
        forbidden(demo.post("/v2/images", &json!({"hw_a": "1", name: "1"})), name);
    }
    forbidden(admin.post("/v2/images", &json!({"unheard_of": "1"})), "unheard_of");
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "0");
    let created = demo.post("/v2/images", &json!({"hw_a": "1", "fixed_a": "1", "dropbox_a": "1"})).expect(201).json();
    let names = ["dropbox_a", "fixed_a", "hw_a", "secret_a", "seen_a"];
    assert_eq!(shown(&created, &names), ["fixed_a", "hw_a"], "whoever creates may still not read");
    let id = created["id"].as_str().unwrap();
    gateway.sql(&format!(
        "INSERT INTO image_properties VALUES ('{id}', 'secret_a', 'canary-value'), ('{id}', 'seen_a', '1'), ('{id}', 'unheard_of', '1')"
    ));
    let before = stored(&gateway, id);
    // Who sees what, one by one, in a list, and after a change.
    let seen = |client: &Client| {
        let one = client.show(id);
        let listed = client.get("/v2/images").expect(200).json();
        assert_eq!(listed["images"], json!([one]));
        assert!(one.get("unheard_of").is_none());
        shown(&one, &names)
    };
    assert_eq!(seen(&reader), ["fixed_a", "hw_a", "seen_a"]);
    assert_eq!(seen(&demo), ["fixed_a", "hw_a", "seen_a"]);
    let changed = demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": "n"}]));
    let changed = changed.expect(200).json();
    assert_eq!(shown(&changed, &names), ["fixed_a", "hw_a", "seen_a"]);
    assert_eq!(
        shown(&demo.patch(&format!("/v2/images/{id}"), &json!([])).expect(200).json(), &names),
        ["fixed_a", "hw_a", "seen_a"]
    );
    // Nothing was lost by it.
    assert_eq!(stored(&gateway, id), before);
    // Who changes what; what one cannot read is reserved, whether it is there or not.
    for (op, name) in [
        ("replace", "fixed_a"),
        ("add", "fixed_a"),
        ("remove", "fixed_a"),
        ("remove", "seen_a"),
        ("add", "seen_b"),
        ("add", "secret_a"),
        ("replace", "secret_a"),
        ("remove", "secret_a"),
        ("replace", "secret_missing"),
        ("remove", "secret_missing"),
        ("add", "dropbox_a"),
        ("replace", "dropbox_a"),
        ("remove", "dropbox_a"),
        ("add", "unheard_of"),
        ("remove", "unheard_of"),
    ] {
        forbidden(patch(&demo, id, operation(op, name)), name);
        // All or nothing.
        let both = json!([operation("add", "hw_other"), operation(op, name)]);
        forbidden(demo.patch(&format!("/v2/images/{id}"), &both), name);
    }
    patch(&demo, id, operation("replace", "hw_missing")).expect(409);
    assert_eq!(stored(&gateway, id), before);
    patch(&demo, id, operation("replace", "seen_a")).expect(200);
    patch(&demo, id, operation("add", "dropbox_b")).expect(200);
    patch(&demo, id, operation("remove", "hw_a")).expect(200);
    patch(&demo, id, operation("add", "fixed_b")).expect(200);
    // Within one patch, too: what has just been made is there.
    let made_and_changed = json!([operation("add", "fixed_c"), operation("replace", "fixed_c")]);
    forbidden(demo.patch(&format!("/v2/images/{id}"), &made_and_changed), "fixed_c");
    assert_eq!(
        stored(&gateway, id),
        json!({"dropbox_a": "1", "dropbox_b": "changed", "fixed_a": "1", "fixed_b": "changed", "secret_a": "canary-value", "seen_a": "changed", "unheard_of": "1"})
    );
}

#[test]
fn properties_follow_rules_of_the_policy() {
    let policy = Rules::new("property_writer: 'role:member and project_id:p-demo'\nanyone: '@'\n");
    let rules = Rules::new(
        "[^x_]\ncreate = property_writer\nread = @\nupdate = context_is_admin\ndelete = !\n[^y_]\ncreate = anyone\nread = property_writer\nupdate = @\ndelete = anyone\n",
    );
    let options = rules.options("policies").set("policy", "file", policy.0.to_str().unwrap());
    let options = options.set("policy", "reload_interval_s", 1);
    let gateway = Gateway::start(options.clone());
    let (admin, demo, alt) = (gateway.client(Token::Admin), gateway.client(Token::Demo), gateway.client(Token::Alt));
    forbidden(alt.post("/v2/images", &json!({"x_a": "1"})), "x_a");
    let names = ["x_a", "y_a"];
    assert_eq!(shown(&alt.post("/v2/images", &json!({"y_a": "1"})).expect(201).json(), &names), Vec::<String>::new());
    let image = demo.post("/v2/images", &json!({"x_a": "1", "y_a": "1"})).expect(201).json();
    assert_eq!(shown(&image, &names), names);
    let id = image["id"].as_str().unwrap();
    forbidden(patch(&demo, id, operation("replace", "x_a")), "x_a");
    patch(&demo, id, operation("replace", "y_a")).expect(200);
    patch(&admin, id, operation("replace", "x_a")).expect(200);
    forbidden(patch(&admin, id, operation("remove", "x_a")), "x_a");
    assert_eq!(shown(&admin.show(id), &names), ["x_a"]);
    forbidden(patch(&admin, id, operation("remove", "y_a")), "y_a");
    patch(&demo, id, operation("remove", "y_a")).expect(200);
    assert_eq!(stored(&gateway, id), json!({"x_a": "changed"}));
    // The policy is followed; a rule that has gone is nobody's, and is missed at the next start.
    fs::write(&policy.0, "anyone: '!'\n").unwrap();
    eventually("the policy is read again", 20, || {
        demo.patch(&format!("/v2/images/{id}"), &json!([operation("add", "y_b")])).status == 403
    });
    forbidden(demo.post("/v2/images", &json!({"x_a": "1"})), "x_a");
    let mut next = gateway.sibling_unready(options);
    assert_eq!(next.wait(20), Some(1));
    for words in ["line 2: create = property_writer: the policy has no such rule", rules.0.to_str().unwrap()] {
        assert!(next.log().contains(words), "{words:?} is not in: {}", next.log());
    }
}

#[test]
fn administrators_have_the_roles_that_they_have() {
    let rules = Rules::new(ROLES);
    let gateway = Gateway::start(rules.options("roles"));
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let created =
        admin.post("/v2/images", &json!({"secret_a": "1", "fixed_a": "1", "owner": "p-demo"})).expect(201).json();
    assert_eq!(shown(&created, &["secret_a", "fixed_a"]), ["secret_a", "fixed_a"]);
    let id = created["id"].as_str().unwrap();
    patch(&admin, id, operation("replace", "secret_a")).expect(200);
    forbidden(patch(&admin, id, operation("remove", "fixed_a")), "fixed_a");
    patch(&admin, id, operation("remove", "secret_a")).expect(200);
    assert_eq!(shown(&demo.show(id), &["secret_a", "fixed_a"]), ["fixed_a"]);
}

#[test]
fn a_filter_does_not_tell_what_cannot_be_read() {
    let rules = Rules::new(ROLES);
    let gateway = Gateway::start(rules.options("roles"));
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let document = json!({"secret_a": "canary-value", "hw_a": "1", "visibility": "public"});
    let id = admin.post("/v2/images", &document).expect(201).json()["id"].as_str().unwrap().to_owned();
    let found = |client: &Client, query: &str| {
        client.get(&format!("/v2/images?{query}")).expect(200).json()["images"].as_array().unwrap().len()
    };
    assert_eq!((found(&admin, "secret_a=canary-value"), found(&admin, "secret_a=other")), (1, 0));
    for query in ["secret_a=canary-value", "secret_a=other", "hw_a=1&secret_a=canary-value", "secret_missing=x"] {
        assert_eq!(found(&demo, query), 0, "{query}");
    }
    assert_eq!(found(&demo, "hw_a=1"), 1);
    assert!(!demo.get("/v2/images").expect(200).text().contains("canary-value"));
    assert!(!demo.get(&format!("/v2/images/{id}")).expect(200).text().contains("canary-value"));
}

#[test]
fn a_file_that_cannot_be_used_keeps_the_gateway_from_starting() {
    let broken = Rules::new("[^a\ncreate = admin\n[^x_]\ncreate = @,!\nread = @\nwrite = @\nupdate = @\n");
    let missing = Rules::new("");
    fs::remove_file(&missing.0).unwrap();
    for (rules, words) in [
        (&broken, &["line 1: ", "line 4: ", "exclude each other", "line 6: unknown key 'write'", "may delete"][..]),
        (&missing, &["images.property_protection_file", "cannot be read"]),
    ] {
        let mut gateway = Gateway::start_unready(rules.options("roles"));
        assert_eq!(gateway.wait(20), Some(1));
        let log = gateway.log();
        for word in words {
            assert!(log.contains(word), "{word:?} is not in: {log}");
        }
        assert!(log.contains(rules.0.to_str().unwrap()), "{log}");
    }
}
