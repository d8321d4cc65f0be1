//! `/v2/metadefs`: metadata definitions.

mod command;
mod golden;
mod namespaces;
mod objects;
mod properties;
mod resource_types;
mod rights;
mod schemas;
mod statements;
mod tags;

use serde_json::{Value, json};

use crate::harness::{Answer, Client};

const NAMESPACES: &str = "/v2/metadefs/namespaces";

/// Makes a namespace and returns its path.
#[track_caller]
fn make(client: &Client, body: &Value) -> String {
    client.post(NAMESPACES, body).expect(201);
    format!("{NAMESPACES}/{}", body["namespace"].as_str().unwrap())
}

/// A namespace with one of everything.
fn full(name: &str) -> Value {
    json!({
        "namespace": name,
        "display_name": "Full",
        "description": "One\nof everything",
        "visibility": "public",
        "resource_type_associations": [
            {"name": "OS::Nova::Flavor", "prefix": "hw:"},
            {"name": "OS::Cinder::Volume", "prefix": "hw_", "properties_target": "image"},
        ],
        "properties": {
            "p1": {"title": "P1", "type": "string", "enum": ["a", "b"]},
            "p2": {"title": "P2", "type": "integer", "minimum": 1, "default": 3},
        },
        "objects": [{
            "name": "o1", "description": "d", "required": ["q"],
            "properties": {"q": {"title": "Q", "type": "integer", "minimum": 0}, "r": {"title": "R", "type": "boolean", "default": true}},
        }],
        "tags": [{"name": "t1"}, {"name": "t2"}],
    })
}

/// Fails unless the answer is a refusal with this status whose text has these words.
#[track_caller]
fn refused(answer: &Answer, status: u16, words: &[&str]) {
    let text = answer.text().replace("&#x27;", "'").replace("&quot;", "\"");
    assert_eq!(answer.status, status, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Takes the times out of a document and fails unless they are times.
fn undated(mut document: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(walk),
            Value::Object(members) => {
                for name in ["created_at", "updated_at"] {
                    if let Some(moment) = members.remove(name) {
                        let text = moment.as_str().unwrap();
                        assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
                    }
                }
                members.values_mut().for_each(walk);
            }
            _ => {}
        }
    }
    walk(&mut document);
    document
}
