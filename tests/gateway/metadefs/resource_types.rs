//! `/v2/metadefs/resource_types`, and what a namespace applies to.

use serde_json::json;

use super::{make, refused, undated};
use crate::harness::{Gateway, Options, Token};

#[test]
fn a_namespace_is_applied_to_types_of_resource() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let namespace = make(&admin, &json!({"namespace": "Lab::NS", "visibility": "public"}));
    let path = format!("{namespace}/resource_types");
    assert_eq!(demo.get("/v2/metadefs/resource_types").expect(200).json(), json!({"resource_types": []}));
    assert_eq!(demo.get(&path).expect(200).json(), json!({"resource_type_associations": []}));
    let server = json!({"name": "OS::Nova::Server", "prefix": "hw_", "properties_target": "image"});
    let added = admin.post(&path, &server).expect(201).json();
    assert_eq!(added["created_at"], added["updated_at"]);
    assert_eq!(undated(added), server);
    assert_eq!(
        undated(admin.post(&path, &json!({"name": "Lab::Type"})).expect(201).json()),
        json!({"name": "Lab::Type"})
    );
    refused(&admin.post(&path, &json!({"name": "OS::Nova::Server"})), 409, &["OS::Nova::Server", "Lab::NS"]);
    let shown = undated(demo.get(&path).expect(200).json());
    assert_eq!(shown, json!({"resource_type_associations": [server, {"name": "Lab::Type"}]}));
    assert_eq!(
        undated(demo.get(&namespace).expect(200).json())["resource_type_associations"],
        shown["resource_type_associations"]
    );
    let types = json!({"resource_types": [{"name": "OS::Nova::Server"}, {"name": "Lab::Type"}]});
    assert_eq!(undated(demo.get("/v2/metadefs/resource_types").expect(200).json()), types);
    for (body, status, word) in [
        (json!({}), 400, "'name' is a required"),
        (json!([]), 400, "object"),
        (json!({"name": "n".repeat(81)}), 400, "80"),
        (json!({"name": ""}), 400, "empty"),
        (json!({"name": "x", "prefix": "p".repeat(81)}), 400, "'prefix'"),
        (json!({"name": "x", "prefix": null}), 400, "'prefix'"),
        (json!({"name": "x", "properties_target": 1}), 400, "'properties_target'"),
        (json!({"name": "x", "foo": 1}), 400, "'foo'"),
        (json!({"name": "x", "created_at": "x"}), 403, "read-only"),
        (json!({"name": "x", "updated_at": "x"}), 403, "read-only"),
    ] {
        refused(&admin.post(&path, &body), status, &[word]);
    }
    for (method, path, allow) in [
        ("POST", "/v2/metadefs/resource_types", "GET"),
        ("DELETE", &path, "GET, POST"),
        ("GET", &format!("{path}/OS::Nova::Server"), "DELETE"),
    ] {
        let answer = admin.call(method, path);
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
    }
    admin.delete(&format!("{path}/OS::Nova::Server")).expect(204);
    refused(&admin.delete(&format!("{path}/OS::Nova::Server")), 404, &["OS::Nova::Server"]);
    refused(&admin.delete(&format!("{path}/nosuch")), 404, &["nosuch"]);
    // The type itself stays, and is taken again.
    assert_eq!(undated(demo.get("/v2/metadefs/resource_types").expect(200).json()), types);
    admin.post(&path, &json!({"name": "OS::Nova::Server"})).expect(201);
    assert_eq!(
        gateway.sql("SELECT name, protected FROM metadef_resource_types ORDER BY id"),
        "OS::Nova::Server|f\nLab::Type|f"
    );
    assert_eq!(
        gateway.sql("SELECT name, prefix FROM metadef_associations ORDER BY id"),
        "Lab::Type|\nOS::Nova::Server|"
    );
    assert_eq!(
        gateway.sql("SELECT type, payload->>'namespace', payload->>'name', payload->>'prefix' FROM events WHERE id > 1 ORDER BY id"),
        "metadef_resource_type.create|Lab::NS|OS::Nova::Server|hw_\nmetadef_resource_type.create|Lab::NS|Lab::Type|\n\
         metadef_resource_type.delete|Lab::NS|OS::Nova::Server|hw_\nmetadef_resource_type.create|Lab::NS|OS::Nova::Server|"
    );
}
