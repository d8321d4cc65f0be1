//! Schemas: the reference's in structure, and true of what is served.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Options, Token, shared};

/// A schema without what may differ: descriptions, the order of members, and of names in lists.
fn structure(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => members
            .iter()
            // A property may be called "description": that one is an object.
            .filter(|(name, value)| *name != "description" || value.is_object())
            .map(|(name, value)| (name.clone(), structure(value)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(structure).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        other => other.clone(),
    }
}

fn schema(client: &Client, name: &str) -> Value {
    client.get(&format!("/v2/schemas/{name}")).expect(200).json()
}

#[track_caller]
pub(crate) fn assert_same(ours: &Value, theirs: &Value, name: &str) {
    assert!(ours["name"].is_string() && theirs["name"].is_string(), "{name}");
    assert_eq!(structure(ours), structure(theirs), "{name}");
}

#[test]
fn schemas_are_the_references_in_structure() {
    let Some(folder) = shared("schemas") else { return };
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let reference = |name: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join(format!("{name}.json"))).unwrap()).unwrap()
    };
    for name in ["image", "images", "member", "members", "task", "tasks"] {
        assert_same(&schema(&demo, name), &reference(name), name);
    }
    let file = gateway.folder().join("schema-image.json");
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        gateway.sibling_with(Options::default().set("images", "image_schema_file", file.to_str().unwrap()))
    };
    let none = with("{}");
    for (name, file) in [("image", "image-no-custom-file"), ("images", "images-no-custom-file")] {
        assert_same(&schema(&none.client(Token::Demo), name), &reference(file), file);
    }
    // The extended form, made of what the reference served for it.
    let sample = reference("image-extended-required-sample");
    let custom: serde_json::Map<String, Value> = sample["properties"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, property)| property["is_base"] == json!(false))
        .map(|(name, property)| (name.clone(), property.clone()))
        .collect();
    let extended = with(&json!({"properties": custom, "required": sample["required"]}).to_string());
    assert_same(&schema(&extended.client(Token::Demo), "image"), &sample, "image-extended-required-sample");
}

#[test]
fn everybody_with_a_token_reads_every_schema() {
    let gateway = Gateway::start(Options::default());
    for name in ["image", "images", "member", "members", "task", "tasks"] {
        let first = schema(&gateway.client(Token::Admin), name);
        assert_eq!(first["name"], name);
        for token in Token::ALL {
            assert_eq!(schema(&gateway.client(token), name), first);
        }
        assert_eq!(gateway.anonymous().get(&format!("/v2/schemas/{name}")).status, 401);
    }
}

#[test]
fn an_image_has_what_its_schema_says() {
    let options = Options::default().set("images", "show_multiple_locations", true);
    let gateway = Gateway::start(options);
    let demo = gateway.client(Token::Demo);
    let id = demo.active("described", b"bytes");
    let image = demo.show(&id);
    let described = schema(&demo, "image");
    let base = |schema: &Value| -> BTreeSet<String> {
        let properties = schema["properties"].as_object().unwrap().iter();
        properties.filter(|(_, property)| property["is_base"] != json!(false)).map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(image.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>(), base(&described));
    for (name, value) in image.as_object().unwrap() {
        let property = &described["properties"][name];
        let types = property["type"].as_array().cloned().unwrap_or_else(|| vec![property["type"].clone()]);
        let actual = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        assert!(types.contains(&json!(actual)), "{name}: {value} is no {types:?}");
        if let Some(names) = property["enum"].as_array() {
            assert!(names.contains(value), "{name}: {value}");
        }
        // What the schema calls read-only cannot be written, and nothing else is refused as such.
        let refused = demo.patch(
            &format!("/v2/images/{id}"),
            &json!([{"op": "replace", "path": format!("/{name}"), "value": value}]),
        );
        let read_only = refused.status == 403 && refused.text().contains("read-only");
        let special = matches!(name.as_str(), "id" | "stores");
        assert!(special || read_only == (property["readOnly"] == json!(true)), "{name}: {}", refused.text());
    }
    // The configured formats are those of the schema.
    let few = gateway.sibling_with(Options::default().set("images", "disk_formats", vec!["raw"]));
    let formats = schema(&few.client(Token::Demo), "image")["properties"]["disk_format"]["enum"].clone();
    assert_eq!(formats, json!([null, "raw"]));
}

#[test]
fn a_file_describes_properties_and_makes_them_mandatory() {
    let gateway = Gateway::start(Options::default());
    let file = gateway.folder().join("schema-image.json");
    let text = json!({
        "properties": {
            "rack": {"type": "string", "pattern": "^r[0-9]+$", "description": "Where"},
            "grade": {"type": ["null", "string"], "enum": [null, "gold", "tin"]},
        },
        "required": ["rack", "name"],
    });
    std::fs::write(&file, text.to_string()).unwrap();
    let described = gateway.sibling_with(Options::default().set("images", "image_schema_file", file.to_str().unwrap()));
    let demo = described.client(Token::Demo);
    let shown = schema(&demo, "image");
    assert_eq!(
        shown["properties"]["rack"],
        json!({"type": "string", "pattern": "^r[0-9]+$", "description": "Where", "is_base": false})
    );
    assert!(shown["properties"].get("kernel_id").is_none(), "the usual ones are replaced");
    assert_eq!(shown["required"], json!(["name", "rack"]));
    for (body, word) in [
        (json!({"name": "n"}), "'rack' is a required property"),
        (json!({"rack": "r1"}), "'name' is a required property"),
        (json!({"name": "n", "rack": "1"}), "'rack' must be a text like ^r[0-9]+$"),
        (json!({"name": "n", "rack": null}), "'rack' must be a string"),
        (json!({"name": "n", "rack": "r1", "grade": "lead"}), "'grade' must be one of gold, tin or null"),
    ] {
        let answer = demo.post("/v2/images", &body).expect(400);
        assert!(answer.text().contains(&word.replace('\'', "&#x27;")), "{body}: {}", answer.text());
    }
    let made = demo
        .post("/v2/images", &json!({"name": "n", "rack": "r1", "grade": null, "kernel_id": "any"}))
        .expect(201)
        .json();
    assert_eq!((&made["rack"], &made["grade"], &made["kernel_id"]), (&json!("r1"), &json!(null), &json!("any")));
    let path = format!("/v2/images/{}", made["id"].as_str().unwrap());
    let answer = demo.patch(&path, &json!([{"op": "remove", "path": "/rack"}])).expect(400);
    assert!(answer.text().contains("required"), "{}", answer.text());
    demo.patch(&path, &json!([{"op": "replace", "path": "/rack", "value": "x"}])).expect(400);
    let changed = demo.patch(&path, &json!([{"op": "replace", "path": "/rack", "value": "r2"}])).expect(200).json();
    assert_eq!(changed["rack"], "r2");
    assert_eq!(
        gateway.sql("SELECT string_agg(name || '=' || value, ',' ORDER BY name) FROM image_properties"),
        "grade=,kernel_id=any,rack=r2"
    );
    // Images from before the file can still be changed otherwise.
    let old = gateway.client(Token::Demo).post("/v2/images", &json!({"name": "old"})).expect(201).json();
    let path = format!("/v2/images/{}", old["id"].as_str().unwrap());
    demo.patch(&path, &json!([{"op": "add", "path": "/x", "value": "y"}])).expect(200);
}
