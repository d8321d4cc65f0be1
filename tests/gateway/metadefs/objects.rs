//! `/v2/metadefs/namespaces/{namespace}/objects`.

use serde_json::json;

use super::{make, refused, undated};
use crate::harness::{Gateway, Options, Token};

#[test]
fn an_object_is_made_shown_replaced_and_deleted() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let path = format!("{}/objects", make(&admin, &json!({"namespace": "Lab::NS", "visibility": "public"})));
    // What is written is answered; what is read says of everything that it is not there.
    let answer = undated(admin.post(&path, &json!({"name": "bare"})).expect(201).json());
    let place = json!({"name": "bare", "self": "/v2/metadefs/namespaces/Lab::NS/objects/bare", "schema": "/v2/schemas/metadefs/object"});
    assert_eq!(answer, place);
    let mut bare = place;
    bare["required"] = json!([]);
    bare["properties"] = json!({});
    assert_eq!(undated(demo.get(&format!("{path}/bare")).expect(200).json()), bare);
    let body = json!({
        "name": "obj", "description": "An\nobject", "required": ["a"],
        "properties": {"b": {"title": "B", "type": "boolean", "default": true}, "a": {"title": "A", "type": "string"}},
    });
    let mut object = body.clone();
    object["properties"]["b"]["default"] = json!("True");
    object["self"] = json!("/v2/metadefs/namespaces/Lab::NS/objects/obj");
    object["schema"] = json!("/v2/schemas/metadefs/object");
    assert_eq!(undated(admin.post(&path, &body).expect(201).json()), object);
    assert_eq!(undated(demo.get(&format!("{path}/obj")).expect(200).json()), object);
    assert_eq!(
        undated(demo.get(&path).expect(200).json()),
        json!({"objects": [bare, object], "schema": "v2/schemas/metadefs/objects"})
    );
    assert_eq!(
        gateway.sql("SELECT name, description, required, properties FROM metadef_objects ORDER BY id"),
        "bare|||\nobj|An\nobject|[\"a\"]|{\"b\":{\"title\":\"B\",\"type\":\"boolean\",\"default\":true},\"a\":{\"title\":\"A\",\"type\":\"string\"}}"
    );
    refused(&admin.post(&path, &json!({"name": "obj"})), 409, &["obj", "Lab::NS"]);
    // A PUT replaces all of it, the name, too.
    gateway.sql("UPDATE metadef_objects SET created_at = '2020-01-01Z', updated_at = '2020-01-01Z'");
    let answer =
        admin.put(&format!("{path}/obj"), &json!({"name": "obj2", "description": "changed"})).expect(200).json();
    assert_eq!(answer["created_at"], "2020-01-01T00:00:00Z");
    assert_ne!(answer["updated_at"], "2020-01-01T00:00:00Z");
    assert_eq!(
        undated(answer),
        json!({"name": "obj2", "description": "changed", "self": "/v2/metadefs/namespaces/Lab::NS/objects/obj2", "schema": "/v2/schemas/metadefs/object"})
    );
    assert_eq!(
        gateway.sql("SELECT name, description, required, properties FROM metadef_objects WHERE name LIKE 'obj%'"),
        "obj2|changed||"
    );
    refused(&admin.put(&format!("{path}/obj2"), &json!({"name": "bare"})), 409, &["bare"]);
    for gone in [
        admin.get(&format!("{path}/obj")),
        admin.delete(&format!("{path}/obj")),
        admin.put(&format!("{path}/obj"), &json!({"name": "obj"})),
    ] {
        refused(&gone, 404, &["obj"]);
    }
    assert!(admin.delete(&format!("{path}/obj2")).expect(204).body.is_empty());
    // A name with a slash is taken and cannot be reached, as in the reference.
    admin.post(&path, &json!({"name": "a/b"})).expect(201);
    assert_eq!(demo.get(&format!("{path}/a%2Fb")).status, 404);
    assert_eq!(demo.get(&format!("{path}/a/b")).status, 404);
    admin.delete(&path).expect(204);
    admin.delete(&path).expect(204);
    assert_eq!(demo.get(&path).expect(200).json()["objects"], json!([]));
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_objects"), "0");
    assert_eq!(
        gateway.sql("SELECT type, payload->>'namespace', payload->>'name', payload->>'name_old', payload->>'description' FROM events WHERE id > 1 ORDER BY id"),
        "metadef_object.create|Lab::NS|bare|bare|\nmetadef_object.create|Lab::NS|obj|obj|An\nobject\nmetadef_object.update|Lab::NS|obj2|obj|changed\n\
         metadef_object.delete|Lab::NS|obj2|obj2|changed\nmetadef_object.create|Lab::NS|a/b|a/b|\n\
         metadef_namespace.delete_objects|Lab::NS|||\nmetadef_namespace.delete_objects|Lab::NS|||"
    );
}

#[test]
fn an_object_that_does_not_fit_is_refused_by_name() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = format!("{}/objects", make(&admin, &json!({"namespace": "Lab::NS"})));
    admin.post(&path, &json!({"name": "there"})).expect(201);
    for (body, status, word) in [
        (json!({}), 400, "'name' is a required"),
        (json!([]), 400, "object"),
        (json!({"name": 1}), 400, "'name'"),
        (json!({"name": ""}), 400, "empty"),
        (json!({"name": "o".repeat(81)}), 400, "80"),
        (json!({"name": "o\u{7f}"}), 400, "control"),
        (json!({"name": "o", "foo": 1}), 400, "'foo'"),
        (json!({"name": "o", "description": null}), 400, "'description'"),
        (json!({"name": "o", "required": "x"}), 400, "'required'"),
        (json!({"name": "o", "required": [1]}), 400, "'required'"),
        (json!({"name": "o", "required": ["x", "x"]}), 400, "twice"),
        (json!({"name": "o", "properties": ["p"]}), 400, "'properties'"),
        (json!({"name": "o", "properties": {"p": {"type": "blob"}}}), 400, "'properties.p.type'"),
        (json!({"name": "o", "properties": {"p": {"title": "t"}}}), 400, "'properties.p.type'"),
        (json!({"name": "o", "properties": {"p".repeat(81): {"title": "t", "type": "string"}}}), 400, "80"),
        (
            json!({"name": "o", "properties": {"p": {"title": "t", "type": "string", "foo": 1}}}),
            400,
            "'properties.p.foo'",
        ),
        (json!({"name": "o", "created_at": "x"}), 403, "'created_at' is read-only"),
        (json!({"name": "o", "updated_at": "x"}), 403, "'updated_at' is read-only"),
        (json!({"name": "o", "self": "x"}), 403, "'self' is read-only"),
        (json!({"name": "o", "schema": "x"}), 403, "'schema' is read-only"),
    ] {
        refused(&admin.post(&path, &body), status, &[word]);
        refused(&admin.put(&format!("{path}/there"), &body), status, &[word]);
    }
    for bad in [
        "limit=0",
        "limit=-1",
        "limit=abc",
        "limit=",
        "sort_dir=up",
        "sort_key=bogus",
        "visibility=x",
        "limit=1&limit=1",
    ] {
        refused(&admin.get(&format!("{path}?{bad}")), 400, &[]);
    }
    for same in ["?limit=1", "?sort_key=name&sort_dir=asc&limit=1", "?marker=there", "?foo=bar", "?visibility=public"] {
        assert_eq!(
            admin.get(&format!("{path}{same}")).expect(200).json()["objects"].as_array().unwrap().len(),
            1,
            "{same}"
        );
    }
    assert_eq!(gateway.sql("SELECT string_agg(name, ',') FROM metadef_objects"), "there");
}
