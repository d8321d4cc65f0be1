//! `/v2/schemas/metadefs`.

use serde_json::{Value, json};

use super::{NAMESPACES, full, make};
use crate::harness::{Client, Gateway, Options, Token, shared};
use crate::schemas::assert_same;

const NAMES: [&str; 10] = [
    "namespace",
    "namespaces",
    "resource_type",
    "resource_types",
    "property",
    "properties",
    "object",
    "objects",
    "tag",
    "tags",
];

fn schema(client: &Client, name: &str) -> Value {
    client.get(&format!("/v2/schemas/metadefs/{name}")).expect(200).json()
}

#[test]
fn schemas_are_the_references_in_structure() {
    let Some(folder) = shared("schemas") else { return };
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for name in NAMES {
        let reference = std::fs::read_to_string(folder.join(format!("metadefs-{name}.json"))).unwrap();
        assert_same(&schema(&demo, name), &serde_json::from_str(&reference).unwrap(), name);
    }
}

#[test]
fn everybody_with_a_token_reads_every_schema_and_nothing_else() {
    let gateway = Gateway::start(Options::default());
    for name in NAMES {
        let first = schema(&gateway.client(Token::Admin), name);
        assert_eq!(schema(&gateway.client(Token::Reader), name), first);
        assert_eq!(gateway.anonymous().get(&format!("/v2/schemas/metadefs/{name}")).status, 401);
        let answer = gateway.client(Token::Demo).call("PUT", &format!("/v2/schemas/metadefs/{name}"));
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
    }
    for missing in ["nosuch", "Namespace", "", "namespace/", "%00"] {
        assert_eq!(
            gateway.client(Token::Demo).get(&format!("/v2/schemas/metadefs/{missing}")).status,
            404,
            "{missing}"
        );
    }
}

/// Whatever a document shows is in its schema, and whatever is in its schema and not read-only can be written.
#[test]
fn schemas_are_true_of_what_is_served() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = make(&admin, &full("Lab::Full"));
    for (name, shown) in [
        ("namespace", path.clone()),
        ("object", format!("{path}/objects/o1")),
        ("property", format!("{path}/properties/p2")),
        ("tag", format!("{path}/tags/t1")),
    ] {
        let members = &schema(&admin, name)["properties"];
        for (member, _) in admin.get(&shown).expect(200).json().as_object().unwrap() {
            assert!(members.get(member).is_some(), "{name}: {member} is not in the schema");
        }
    }
    let everything = json!({
        "name": "p", "title": "t", "description": "d", "operators": ["<in>"], "type": "array", "required": ["a"], "minimum": 0.5, "maximum": 9,
        "maxLength": 3, "minLength": 0, "pattern": "^a+$", "enum": ["a", 1, null], "readonly": true, "default": ["a"],
        "items": {"type": "string", "enum": ["a"]}, "maxItems": 2, "minItems": 1, "uniqueItems": true, "additionalItems": false,
    });
    let members = schema(&admin, "property")["properties"].as_object().unwrap().clone();
    assert_eq!(members.keys().collect::<Vec<_>>(), everything.as_object().unwrap().keys().collect::<Vec<_>>());
    let created = admin.post(&format!("{path}/properties"), &everything).expect(201).json();
    assert_eq!(created, everything);
    assert_eq!(admin.get(&format!("{path}/properties/p")).expect(200).json(), everything);
    let members = schema(&admin, "namespace")["properties"].as_object().unwrap().clone();
    for (member, schema) in &members {
        let read_only = schema.get("readOnly").is_some();
        let answer = admin.post(NAMESPACES, &json!({"namespace": "n", member: {"not": "so"}}));
        assert_eq!(answer.status, if read_only { 403 } else { 400 }, "{member}");
    }
}
