//! The reference's own answers, as they were recorded.

use std::fs;

use serde_json::{Value, json};

use super::command::run;
use crate::harness::{Answer, Client, Gateway, Options, Token, shared};

/// Exchanges whose answers differ on purpose, by their number: the status that is right, and why.
const OTHERWISE: [(u64, u16, &str); 6] = [
    (1016, 400, "the reference fails on limit=abc"),
    (1019, 400, "the reference fails on an unknown sort key"),
    (1091, 409, "the reference fails when a property takes the name of another one"),
    (1118, 409, "the reference fails when an object takes the name of another one"),
    (1137, 400, "the reference fails on tags without a list"),
    (1146, 400, "the reference fails on an unknown sort key"),
];

/// Before this exchange a tag was made that the recording does not show.
const BEFORE_TAG_SHOW: u64 = 1147;

fn send(client: &Client, exchange: &Value) -> Answer {
    let method = exchange["method"].as_str().unwrap();
    let path = filled(exchange["path"].as_str().unwrap());
    let body = match &exchange["request_body"] {
        Value::Null => return client.call(method, &path),
        Value::String(text) => text.clone(),
        document => filled(&document.to_string()),
    };
    let append = exchange["request_headers"]["X-Openstack-Append"].as_str();
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(append.map(|value| ("x-openstack-append", value)));
    client.send(method, &path, &headers, ureq::SendBody::from_reader(&mut body.as_bytes()))
}

/// Puts in what the recording leaves out.
fn filled(text: &str) -> String {
    text.replace("{run}", "r1")
        .replace("{project:admin}", "p-admin")
        .replace("{project:alt_demo}", "p-alt")
        .replace("{project:demo}", "p-demo")
}

/// A document without times, with addresses as the reference writes them.
fn comparable(document: &Value) -> Value {
    match document {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, _)| !matches!(name.as_str(), "created_at" | "updated_at"));
            // The one thing that the reference loses: a default value that is a list.
            let members = members.filter(|(name, value)| *name != "default" || value.is_string());
            members
                .map(|(name, value)| {
                    let mut value = comparable(value);
                    // In the reference these have no order.
                    if name == "resource_type_associations" {
                        value.as_array_mut().unwrap().sort_by_key(Value::to_string);
                    }
                    (name.clone(), value)
                })
                .collect()
        }
        Value::Array(items) => items.iter().map(comparable).collect(),
        Value::String(text) => json!(text.replace("%2F", "/")),
        other => other.clone(),
    }
}

#[test]
fn recorded_exchanges_with_the_reference_go_the_same_way() {
    let (Some(recording), Some(definitions)) = (shared("traffic.jsonl"), shared("metadefs")) else { return };
    let gateway = Gateway::start(Options::default());
    run(&gateway, &["load", definitions.to_str().unwrap()], 0, &["32 added"]);
    // Files are loaded by name; the reference took them as they came, and this one came last.
    gateway.sql(
        "UPDATE metadef_namespaces SET created_at = now() + interval '1 minute' WHERE name = 'OS::Compute::CPUPinning'",
    );
    let recording = fs::read_to_string(recording).unwrap();
    // Others hold what Python calls JSON.
    let lines = recording.lines().filter(|line| line.contains("/v2/metadefs/"));
    let exchanges = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut compared = 0;
    for exchange in exchanges.filter(|exchange| exchange["path"].as_str().unwrap().starts_with("/v2/metadefs/")) {
        let number = exchange["n"].as_u64().unwrap();
        let what = format!("{number}: {} {}", exchange["method"], exchange["path"]);
        let token = match exchange["user"].as_str().unwrap() {
            "admin" => Token::Admin,
            "alt_demo" => Token::Alt,
            "reader" => Token::Reader,
            _ => Token::Demo,
        };
        if number == BEFORE_TAG_SHOW {
            gateway.client(Token::Admin).call("POST", "/v2/metadefs/namespaces/Lab::NS-r1/tags/t1").expect(201);
        }
        let answer = send(&gateway.client(token), &exchange);
        let recorded = u16::try_from(exchange["status"].as_u64().unwrap()).unwrap();
        let expected = OTHERWISE.iter().find(|(n, _, _)| *n == number).map_or(recorded, |(_, status, _)| *status);
        assert_eq!(answer.status, expected, "{what}: {}", answer.text());
        if let Some(allow) = exchange["response_headers"]["allow"].as_str() {
            assert_eq!(answer.header("allow"), allow, "{what}");
        }
        if let Some(location) = exchange["response_headers"]["location"].as_str() {
            assert_eq!(answer.header("location"), filled(&location.replace("{endpoint}", &gateway.url)), "{what}");
        }
        if answer.status < 300 && answer.status != 204 {
            let mut theirs: Value = serde_json::from_str(&filled(&exchange["response_body"].to_string())).unwrap();
            let mut ours = answer.json();
            // The order in which its files were loaded is known of one of them only.
            if what.contains("marker=OS::Compute::Hypervisor") {
                for document in [&mut theirs, &mut ours] {
                    document["namespaces"] = json!(document["namespaces"].as_array().unwrap().len());
                    document["next"] = json!(document["next"].is_string());
                }
            }
            assert_eq!(comparable(&ours), comparable(&theirs), "{what}");
        }
        compared += 1;
    }
    assert!(compared > 150, "only {compared} exchanges were found");
}
