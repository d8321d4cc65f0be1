//! `/v2/metadefs/namespaces/{namespace}/properties`.

use serde_json::{Value, json};

use super::{full, make, refused};
use crate::harness::{Gateway, Options, Token};

#[test]
fn a_property_is_made_shown_replaced_and_deleted() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let path = format!("{}/properties", make(&admin, &json!({"namespace": "Lab::NS", "visibility": "public"})));
    assert_eq!(demo.get(&path).expect(200).json(), json!({"properties": {}}));
    let list = json!({
        "name": "prop", "title": "Prop", "type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1, "maxItems": 5,
        "uniqueItems": true, "description": "d", "default": ["a"], "readonly": false, "operators": ["<in>", "<or>"],
    });
    // The reference answers null for a default value that is a list; nothing is gained by losing it.
    assert_eq!(admin.post(&path, &list).expect(201).json(), list);
    let number = json!({"name": "num", "title": "Num", "type": "integer", "minimum": 1, "maximum": 10, "default": 3});
    let mut shown = number.clone();
    shown["default"] = json!("3");
    assert_eq!(admin.post(&path, &number).expect(201).json(), shown);
    assert_eq!(demo.get(&format!("{path}/num")).expect(200).json(), shown);
    assert_eq!(demo.get(&path).expect(200).json(), json!({"properties": {"prop": list, "num": shown}}));
    assert_eq!(
        gateway.sql("SELECT definition FROM metadef_properties WHERE name = 'num'"),
        "{\"title\":\"Num\",\"type\":\"integer\",\"minimum\":1,\"maximum\":10,\"default\":3}"
    );
    for (default, text) in [
        (json!(true), json!("True")),
        (json!(1.5), json!("1.5")),
        (json!(-7), json!("-7")),
        (json!("x"), json!("x")),
        (Value::Null, Value::Null),
    ] {
        let body = json!({"name": "default", "title": "D", "type": null, "default": default});
        let answer = admin.post(&path, &body).expect(201).json();
        assert_eq!((&answer["default"], &answer["type"]), (&text, &Value::Null));
        admin.delete(&format!("{path}/default")).expect(204);
    }
    refused(&admin.post(&path, &json!({"name": "prop", "title": "t", "type": "string"})), 409, &["prop", "Lab::NS"]);
    let next = json!({"name": "prop2", "title": "Changed", "type": "string"});
    assert_eq!(admin.put(&format!("{path}/prop"), &next).expect(200).json(), next);
    assert_eq!(
        gateway.sql("SELECT name, definition FROM metadef_properties WHERE name LIKE 'prop%'"),
        "prop2|{\"title\":\"Changed\",\"type\":\"string\"}"
    );
    refused(
        &admin.put(&format!("{path}/prop2"), &json!({"name": "num", "title": "t", "type": "string"})),
        409,
        &["num"],
    );
    for gone in [
        admin.get(&format!("{path}/prop")),
        admin.delete(&format!("{path}/prop")),
        admin.put(&format!("{path}/prop"), &next),
    ] {
        refused(&gone, 404, &["prop"]);
    }
    admin.delete(&format!("{path}/prop2")).expect(204);
    admin.delete(&path).expect(204);
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_properties"), "0");
    assert_eq!(
        gateway.sql("SELECT type, payload->>'name', payload->>'name_old', payload->>'title' FROM events WHERE id > 1 AND payload->>'name' IS DISTINCT FROM 'default' ORDER BY id"),
        "metadef_property.create|prop|prop|Prop\nmetadef_property.create|num|num|Num\nmetadef_property.update|prop2|prop|Changed\n\
         metadef_property.delete|prop2|prop2|Changed\nmetadef_namespace.delete_properties|||"
    );
}

#[test]
fn with_a_resource_type_a_property_goes_by_the_name_that_it_has_there() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let namespace = make(&admin, &full("Lab::Full"));
    admin.post(&format!("{namespace}/resource_types"), &json!({"name": "plain"})).expect(201);
    let path = format!("{namespace}/properties");
    let property = json!({"name": "p1", "title": "P1", "type": "string", "enum": ["a", "b"]});
    for query in [
        "p1",
        "p1?resource_type=",
        "hw:p1?resource_type=OS::Nova::Flavor",
        "hw_p1?resource_type=OS::Cinder::Volume",
        "p1?resource_type=plain",
    ] {
        assert_eq!(demo.get(&format!("{path}/{query}")).expect(200).json(), property, "{query}");
    }
    for (query, word) in [
        ("p1?resource_type=nosuch", "nosuch"),
        ("p1?resource_type=OS::Nova::Flavor", "hw:"),
        ("hw_p1?resource_type=OS::Nova::Flavor", "hw:"),
        ("hw:nosuch?resource_type=OS::Nova::Flavor", "nosuch"),
        ("hw:p1", "hw:p1"),
        ("hw:?resource_type=OS::Nova::Flavor", "property"),
    ] {
        refused(&demo.get(&format!("{path}/{query}")), 404, &[word]);
    }
    for bad in ["foo=bar", "resource_type=a&foo=bar", "resource_type=a&resource_type=a"] {
        refused(&demo.get(&format!("{path}/p1?{bad}")), 400, &["Query parameter"]);
    }
}

#[test]
fn a_property_that_does_not_fit_is_refused_by_name() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = format!("{}/properties", make(&admin, &json!({"namespace": "Lab::NS"})));
    admin.post(&path, &json!({"name": "there", "title": "t", "type": "string"})).expect(201);
    let good = json!({"name": "p", "title": "t", "type": "string"});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body[name] = value;
        body
    };
    let without = |name: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(name);
        body
    };
    for (body, status, word) in [
        (json!({}), 400, "is a required"),
        (json!("p"), 400, "object"),
        (without("name"), 400, "'name' is a required"),
        (without("title"), 400, "'title' is a required"),
        (without("type"), 400, "'type' is a required"),
        (with("type", json!("blob")), 400, "'type'"),
        (with("type", json!(["string"])), 400, "'type'"),
        (with("name", json!("p".repeat(81))), 400, "80"),
        (with("name", json!("")), 400, "empty"),
        (with("title", json!(1)), 400, "'title'"),
        (with("foo", json!(1)), 400, "'foo'"),
        (with("confidential", json!(true)), 400, "'confidential'"),
        (with("operators", json!("<in>")), 400, "'operators'"),
        (with("operators", json!([1])), 400, "'operators'"),
        (with("minimum", json!("1")), 400, "'minimum'"),
        (with("maxLength", json!(-1)), 400, "'maxLength'"),
        (with("minLength", json!(1.5)), 400, "'minLength'"),
        (with("maxItems", json!("1")), 400, "'maxItems'"),
        (with("pattern", json!(1)), 400, "'pattern'"),
        (with("enum", json!("a")), 400, "'enum'"),
        (with("enum", json!(["\u{0}"])), 400, "control"),
        (with("default", json!("\u{1F427}")), 400, "4 byte"),
        (with("default", json!({"\u{0}": 1})), 400, "control"),
        (with("readonly", json!("false")), 400, "'readonly'"),
        (with("uniqueItems", json!(0)), 400, "'uniqueItems'"),
        (with("additionalItems", json!({})), 400, "'additionalItems'"),
        (with("items", json!([])), 400, "'items'"),
        (with("items", json!({"type": "blob"})), 400, "'items.type'"),
        (with("items", json!({"type": "string", "minLength": 1})), 400, "'items.minLength'"),
        (with("required", json!(["a", "a"])), 400, "twice"),
        (with("self", json!("x")), 400, "'self'"),
    ] {
        refused(&admin.post(&path, &body), status, &[word]);
        refused(&admin.put(&format!("{path}/there"), &body), status, &[word]);
    }
    for body in [
        r#"{"name": "p", "title": "t", "type": "string", "default": 1e999}"#,
        &format!("{}1{}", "[".repeat(200), "]".repeat(200)),
    ] {
        refused(&admin.send_json("POST", &path, body), 400, &["JSON"]);
    }
    assert_eq!(gateway.sql("SELECT string_agg(name, ',') FROM metadef_properties"), "there");
}
