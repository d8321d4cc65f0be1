//! `/v2/metadefs/namespaces` and `/v2/metadefs/namespaces/{namespace}`.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use ureq::SendBody;

use super::{NAMESPACES, full, make, refused, undated};
use crate::harness::{Client, Gateway, Options, Token};

fn names(client: &Client, query: &str) -> Vec<String> {
    let page = client.get(&format!("{NAMESPACES}{query}")).expect(200).json();
    page["namespaces"].as_array().unwrap().iter().map(|n| n["namespace"].as_str().unwrap().to_owned()).collect()
}

/// All names of a list, by following `next`.
fn walk(client: &Client, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut path = Some(format!("{NAMESPACES}{query}"));
    while let Some(next) = path {
        let page = client.get(&next).expect(200).json();
        all.extend(page["namespaces"].as_array().unwrap().iter().map(|n| n["namespace"].as_str().unwrap().to_owned()));
        assert!(all.len() < 1000, "the list has no end: {query}");
        path = page.get("next").map(|next| next.as_str().unwrap().to_owned());
    }
    all
}

#[test]
fn a_namespace_is_made_shown_and_deleted() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let answer = admin.post(NAMESPACES, &json!({"namespace": "Lab::NS"})).expect(201);
    assert_eq!(answer.header("location"), format!("{}{NAMESPACES}/Lab::NS", gateway.url));
    assert_eq!(answer.header("content-type"), "application/json");
    let expected = json!({
        "namespace": "Lab::NS", "visibility": "private", "protected": false, "owner": "p-admin",
        "self": "/v2/metadefs/namespaces/Lab::NS", "schema": "/v2/schemas/metadefs/namespace",
    });
    let created = answer.json();
    assert_eq!(created["created_at"], created["updated_at"]);
    assert_eq!(undated(created), expected);
    assert_eq!(undated(admin.get(&format!("{NAMESPACES}/Lab::NS")).expect(200).json()), expected);
    assert_eq!(
        gateway.sql("SELECT name, display_name IS NULL, visibility, protected, owner FROM metadef_namespaces"),
        "Lab::NS|t|private|f|p-admin"
    );
    refused(&demo.get(&format!("{NAMESPACES}/Lab::NS")), 404, &["Lab::NS"]);
    refused(&admin.post(NAMESPACES, &json!({"namespace": "Lab::NS"})), 409, &["Lab::NS", "exists"]);
    // Names are told apart by case.
    admin.post(NAMESPACES, &json!({"namespace": "lab::ns"})).expect(201);
    assert!(admin.delete(&format!("{NAMESPACES}/Lab::NS")).expect(204).body.is_empty());
    refused(&admin.delete(&format!("{NAMESPACES}/Lab::NS")), 404, &["Lab::NS"]);
    refused(&admin.get(&format!("{NAMESPACES}/Lab::NS")), 404, &["Lab::NS"]);
    assert_eq!(gateway.sql("SELECT name FROM metadef_namespaces"), "lab::ns");
    assert_eq!(
        gateway.sql(
            "SELECT type, payload->>'namespace', payload->>'namespace_old', payload->>'owner' FROM events ORDER BY id"
        ),
        "metadef_namespace.create|Lab::NS|Lab::NS|p-admin\nmetadef_namespace.create|lab::ns|lab::ns|p-admin\nmetadef_namespace.delete|Lab::NS|Lab::NS|p-admin"
    );
}

#[test]
fn whatever_comes_with_a_namespace_is_made_with_it_or_not_at_all() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let created = undated(admin.post(NAMESPACES, &full("Lab::Full")).expect(201).json());
    let mut expected = full("Lab::Full");
    let more = json!({
        "protected": false, "owner": "p-admin",
        "self": "/v2/metadefs/namespaces/Lab::Full", "schema": "/v2/schemas/metadefs/namespace",
    });
    expected.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    // As the reference writes them: default values are texts.
    expected["properties"]["p2"]["default"] = json!("3");
    expected["objects"][0]["properties"]["r"]["default"] = json!("True");
    assert_eq!(created, expected);
    // Read again, objects say where they are, and the newest tag is first.
    expected["objects"][0]["self"] = json!("/v2/metadefs/namespaces/Lab::Full/objects/o1");
    expected["objects"][0]["schema"] = json!("/v2/schemas/metadefs/object");
    expected["tags"] = json!([{"name": "t2"}, {"name": "t1"}]);
    let path = format!("{NAMESPACES}/Lab::Full");
    let shown = demo.get(&path).expect(200).json();
    assert!(
        shown["objects"][0]["created_at"].is_string()
            && shown["resource_type_associations"][0]["updated_at"].is_string()
    );
    assert_eq!(undated(shown), expected);
    // What is stored is what was sent.
    assert_eq!(
        gateway.sql("SELECT name, definition FROM metadef_properties ORDER BY id"),
        "p1|{\"title\":\"P1\",\"type\":\"string\",\"enum\":[\"a\",\"b\"]}\np2|{\"title\":\"P2\",\"type\":\"integer\",\"minimum\":1,\"default\":3}"
    );
    assert_eq!(
        gateway.sql("SELECT name, prefix, properties_target FROM metadef_associations ORDER BY id"),
        "OS::Nova::Flavor|hw:|\nOS::Cinder::Volume|hw_|image"
    );
    assert_eq!(
        gateway.sql("SELECT string_agg(name, ',' ORDER BY name), bool_or(protected) FROM metadef_resource_types"),
        "OS::Cinder::Volume,OS::Nova::Flavor|f"
    );
    assert_eq!(
        gateway.sql("SELECT string_agg(type || ' ' || coalesce(payload->>'name', payload->>'namespace'), ', ' ORDER BY id) FROM events"),
        "metadef_namespace.create Lab::Full, metadef_resource_type.create OS::Nova::Flavor, metadef_resource_type.create OS::Cinder::Volume, \
         metadef_object.create o1, metadef_tag.create t1, metadef_tag.create t2, metadef_property.create p1, metadef_property.create p2"
    );
    // Refused for one of its parts, nothing of it is there.
    for (part, value, status) in [
        ("tags", json!([{"name": "t"}, {"name": "t"}]), 409),
        ("objects", json!([{"name": "o"}, {"name": "o"}]), 409),
        ("resource_type_associations", json!([{"name": "r"}, {"name": "r"}]), 409),
        ("tags", json!([{"name": "t".repeat(81)}]), 400),
        ("properties", json!({"p": {"title": "P"}}), 400),
    ] {
        let mut body = full("Lab::Half");
        body[part] = value;
        refused(&admin.post(NAMESPACES, &body), status, &[]);
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_namespaces"), "1");
    // Gone, it leaves nothing but the types of resource.
    admin.delete(&path).expect(204);
    assert_eq!(
        gateway.sql("SELECT (SELECT count(*) FROM metadef_properties), (SELECT count(*) FROM metadef_objects), (SELECT count(*) FROM metadef_tags), (SELECT count(*) FROM metadef_associations), (SELECT count(*) FROM metadef_resource_types)"),
        "0|0|0|0|2"
    );
}

#[test]
fn a_resource_type_puts_its_prefix_before_every_property() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let path = make(&admin, &full("Lab::Full"));
    let plain = demo.get(&path).expect(200).json();
    let prefixed = demo.get(&format!("{path}?resource_type=OS::Nova::Flavor")).expect(200).json();
    assert_eq!(prefixed["properties"]["hw:p1"], plain["properties"]["p1"]);
    assert_eq!(prefixed["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["hw:p1", "hw:p2"]);
    assert_eq!(prefixed["objects"][0]["required"], json!(["hw:q"]));
    assert_eq!(prefixed["objects"][0]["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["hw:q", "hw:r"]);
    assert_eq!(prefixed["objects"][0]["name"], "o1");
    assert_eq!(prefixed["tags"], plain["tags"]);
    for query in ["?resource_type=OS::Cinder::Volume", "?resource_type=OS%3A%3ACinder%3A%3AVolume"] {
        assert_eq!(demo.get(&format!("{path}{query}")).expect(200).json()["objects"][0]["required"], json!(["hw_q"]));
    }
    for same in ["?resource_type=nosuch", "?resource_type=", "?"] {
        assert_eq!(demo.get(&format!("{path}{same}")).expect(200).json(), plain, "{same}");
    }
    for bad in ["?foo=bar", "?resource_type=a&resource_type=b", "?resource_type=%00", "?resource_type=%FF"] {
        refused(&demo.get(&format!("{path}{bad}")), 400, &[]);
    }
}

#[test]
fn a_put_replaces_every_attribute_and_nothing_else() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let mut body = full("Lab::Full");
    body["owner"] = json!("p-alt");
    let path = make(&admin, &body);
    gateway.sql("UPDATE metadef_namespaces SET created_at = '2020-01-01Z', updated_at = '2020-01-01Z'");
    // As glanceclient does it: all that was shown is sent back, but for what is read-only at the top.
    let mut document = admin.get(&path).expect(200).json();
    for name in ["self", "schema", "created_at", "updated_at"] {
        document.as_object_mut().unwrap().remove(name);
    }
    document["description"] = json!("changed");
    let answer = admin.put(&path, &document).expect(200).json();
    assert_eq!(answer["created_at"], "2020-01-01T00:00:00Z");
    assert_ne!(answer["updated_at"], "2020-01-01T00:00:00Z");
    assert_eq!(
        undated(answer),
        json!({
            "namespace": "Lab::Full", "display_name": "Full", "description": "changed", "visibility": "public", "protected": false,
            "owner": "p-alt", "self": "/v2/metadefs/namespaces/Lab::Full", "schema": "/v2/schemas/metadefs/namespace",
        })
    );
    // What is not said falls back; the parts stay, under the new name, too.
    let renamed = format!("{NAMESPACES}/Lab::Other");
    let answer = undated(admin.put(&path, &json!({"namespace": "Lab::Other"})).expect(200).json());
    assert_eq!(
        answer,
        json!({
            "namespace": "Lab::Other", "visibility": "private", "protected": false, "owner": "p-admin",
            "self": renamed, "schema": "/v2/schemas/metadefs/namespace",
        })
    );
    refused(&admin.get(&path), 404, &[]);
    let whole = admin.get(&renamed).expect(200).json();
    assert_eq!(whole["objects"][0]["self"], format!("{renamed}/objects/o1"));
    assert_eq!(whole["tags"], json!([{"name": "t2"}, {"name": "t1"}]));
    refused(&demo.get(&renamed), 404, &[]);
    assert_eq!(
        gateway.sql("SELECT type, payload->>'namespace', payload->>'namespace_old' FROM events WHERE type LIKE '%update' ORDER BY id"),
        "metadef_namespace.update|Lab::Full|Lab::Full\nmetadef_namespace.update|Lab::Other|Lab::Full"
    );
    // A name that another one has.
    make(&admin, &json!({"namespace": "Lab::Taken"}));
    refused(&admin.put(&renamed, &json!({"namespace": "Lab::Taken"})), 409, &["Lab::Taken"]);
    admin.put(&renamed, &json!({"namespace": "Lab::Other"})).expect(200);
    refused(&admin.put(&format!("{NAMESPACES}/nosuch"), &json!({"namespace": "nosuch"})), 404, &["nosuch"]);
    refused(&admin.put(&renamed, &json!({"description": "x"})), 400, &["namespace", "required"]);
    assert_eq!(
        gateway.sql("SELECT name, visibility FROM metadef_namespaces ORDER BY id"),
        "Lab::Other|private\nLab::Taken|private"
    );
}

#[test]
fn a_protected_namespace_is_changed_but_not_deleted() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = make(&admin, &json!({"namespace": "Lab::NS", "protected": true}));
    refused(&admin.delete(&path), 403, &["protected", "Lab::NS"]);
    assert_eq!(gateway.sql("SELECT protected FROM metadef_namespaces"), "t");
    admin.put(&path, &json!({"namespace": "Lab::NS", "protected": true, "description": "d"})).expect(200);
    refused(&admin.delete(&path), 403, &["protected"]);
    admin.put(&path, &json!({"namespace": "Lab::NS"})).expect(200);
    admin.delete(&path).expect(204);
    assert_eq!(gateway.sql("SELECT count(*) FROM events WHERE type = 'metadef_namespace.delete'"), "1");
}

#[test]
fn readers_read_what_is_theirs_and_what_is_public_and_administrators_write() {
    let gateway = Gateway::start(Options::default());
    let [admin, demo, alt, reader] =
        [Token::Admin, Token::Demo, Token::Alt, Token::Reader].map(|token| gateway.client(token));
    for (name, visibility, owner) in [
        ("public", "public", "p-admin"),
        ("demo", "private", "p-demo"),
        ("demo-public", "public", "p-demo"),
        ("alt", "private", "p-alt"),
    ] {
        make(&admin, &json!({"namespace": name, "visibility": visibility, "owner": owner}));
    }
    for (client, visible) in [
        (&admin, vec!["alt", "demo", "demo-public", "public"]),
        (&demo, vec!["demo", "demo-public", "public"]),
        (&reader, vec!["demo", "demo-public", "public"]),
        (&alt, vec!["alt", "demo-public", "public"]),
    ] {
        assert_eq!(names(client, "?sort_key=namespace&sort_dir=asc"), visible);
        for name in ["public", "demo", "demo-public", "alt"] {
            let status = if visible.contains(&name) { 200 } else { 404 };
            assert_eq!(client.get(&format!("{NAMESPACES}/{name}")).status, status, "{name}");
        }
    }
    let before = gateway.sql("SELECT * FROM metadef_namespaces ORDER BY id");
    for client in [&demo, &alt, &reader] {
        refused(&client.post(NAMESPACES, &json!({"namespace": "new"})), 403, &["add_metadef_namespace"]);
        for (name, status) in [("public", 403), ("demo-public", 403)] {
            let path = format!("{NAMESPACES}/{name}");
            refused(&client.put(&path, &json!({"namespace": name})), status, &["modify_metadef_namespace"]);
            refused(&client.delete(&path), status, &["delete_metadef_namespace"]);
        }
    }
    // One's own, but no right to write; another's, which is not there.
    refused(&demo.delete(&format!("{NAMESPACES}/demo")), 403, &["delete_metadef_namespace"]);
    for name in ["alt", "nosuch"] {
        let path = format!("{NAMESPACES}/{name}");
        let texts = [demo.get(&path), demo.delete(&path), demo.put(&path, &json!({"namespace": name}))]
            .map(|answer| answer.expect(404).text().replace(name, "NAME"));
        assert!(texts.iter().all(|text| text == &texts[0]), "{texts:?}");
        assert!(texts[0].contains("NAME"), "{texts:?}");
    }
    // A mistake in the document comes before the question who may.
    refused(&demo.post(NAMESPACES, &json!({"namespace": 1})), 400, &["namespace"]);
    for path in [NAMESPACES.to_owned(), format!("{NAMESPACES}/public")] {
        assert_eq!(gateway.anonymous().get(&path).status, 401);
    }
    assert_eq!(gateway.sql("SELECT * FROM metadef_namespaces ORDER BY id"), before);
}

#[test]
fn a_document_that_does_not_fit_is_refused_by_name() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = make(&admin, &json!({"namespace": "there"}));
    let long = |count| json!("n".repeat(count));
    let cases = [
        (json!({}), 400, "'namespace' is a required"),
        (json!([]), 400, "object"),
        (json!("x"), 400, "object"),
        (json!(null), 400, "object"),
        (json!({"namespace": null}), 400, "'namespace'"),
        (json!({"namespace": ""}), 400, "empty"),
        (json!({"namespace": long(81)}), 400, "80"),
        (json!({"namespace": "a\u{0}"}), 400, "control"),
        (json!({"namespace": "a\nb"}), 400, "control"),
        (json!({"namespace": "\u{1F427}"}), 400, "4 byte"),
        (json!({"namespace": "n", "foo": "bar"}), 400, "'foo'"),
        (json!({"namespace": "n", "visibility": "x"}), 400, "'visibility'"),
        (json!({"namespace": "n", "visibility": "shared"}), 400, "public, private"),
        (json!({"namespace": "n", "protected": "yes"}), 400, "'protected'"),
        (json!({"namespace": "n", "protected": null}), 400, "'protected'"),
        (json!({"namespace": "n", "display_name": long(81)}), 400, "'display_name'"),
        (json!({"namespace": "n", "description": long(501)}), 400, "'description'"),
        (json!({"namespace": "n", "owner": long(256)}), 400, "'owner'"),
        (json!({"namespace": "n", "owner": 7}), 400, "'owner'"),
        (json!({"namespace": "n", "created_at": "x"}), 403, "'created_at' is read-only"),
        (json!({"namespace": "n", "updated_at": null}), 403, "'updated_at' is read-only"),
        (json!({"namespace": "n", "self": "/x"}), 403, "'self' is read-only"),
        (json!({"namespace": "n", "schema": "/x"}), 403, "'schema' is read-only"),
        (json!({"namespace": "n", "tags": "x"}), 400, "'tags'"),
        (json!({"namespace": "n", "tags": ["x"]}), 400, "'tags[0]'"),
        (json!({"namespace": "n", "tags": [{}]}), 400, "'tags[0].name' is a required"),
        (json!({"namespace": "n", "tags": [{"name": "x", "foo": 1}]}), 400, "'tags[0].foo'"),
        (json!({"namespace": "n", "objects": {}}), 400, "'objects'"),
        (json!({"namespace": "n", "objects": [{"name": long(81)}]}), 400, "'objects[0].name'"),
        (json!({"namespace": "n", "objects": [{"name": "o", "required": ["a", "a"]}]}), 400, "twice"),
        (
            json!({"namespace": "n", "objects": [{"name": "o", "properties": {"p": {"type": "string"}}}]}),
            400,
            "'objects[0].properties.p.title'",
        ),
        (json!({"namespace": "n", "properties": []}), 400, "'properties'"),
        (json!({"namespace": "n", "properties": {"": {"title": "t", "type": "string"}}}), 400, "empty"),
        (json!({"namespace": "n", "properties": {"p": 1}}), 400, "'properties.p'"),
        (json!({"namespace": "n", "properties": {"p": {"title": "t", "type": "blob"}}}), 400, "'properties.p.type'"),
        (
            json!({"namespace": "n", "properties": {"p": {"title": "t", "type": "string", "default": {"a": ["\u{0}"]}}}}),
            400,
            "control",
        ),
        (
            json!({"namespace": "n", "resource_type_associations": [{"prefix": "x"}]}),
            400,
            "'resource_type_associations[0].name'",
        ),
        (json!({"namespace": "n", "resource_type_associations": [{"name": "x", "prefix": long(81)}]}), 400, "prefix"),
    ];
    for (body, status, word) in &cases {
        refused(&admin.post(NAMESPACES, body), *status, &[word]);
        refused(&admin.put(&path, body), *status, &[word]);
    }
    for body in ["", "{", "{\"namespace\": \"n\"", "namespace=n", "\u{feff}{}"] {
        let send = |method: &str, path: &str| {
            admin.send(
                method,
                path,
                &[("content-type", "application/json")],
                SendBody::from_reader(&mut body.as_bytes()),
            )
        };
        refused(&send("POST", NAMESPACES), 400, &[]);
        refused(&send("PUT", &path), 400, &[]);
    }
    // At the limits, in characters; markup and quotes are text.
    let most = json!({
        "namespace": "ü".repeat(80), "display_name": "ü".repeat(80), "description": "ü".repeat(500), "owner": "o".repeat(255),
        "tags": [{"name": "'; DROP TABLE metadef_tags; --"}, {"name": "<script>"}],
    });
    let answer = admin.post(NAMESPACES, &most).expect(201);
    assert!(answer.header("location").ends_with(&"%C3%BC".repeat(80)), "{}", answer.header("location"));
    let shown = admin.get(&format!("{NAMESPACES}/{}", "%C3%BC".repeat(80))).expect(200).json();
    assert_eq!(shown["namespace"], most["namespace"]);
    assert_eq!(shown["tags"], json!([{"name": "<script>"}, {"name": "'; DROP TABLE metadef_tags; --"}]));
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_namespaces"), "2");
}

#[test]
fn a_request_that_takes_no_body_or_no_such_method_is_refused() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = make(&admin, &json!({"namespace": "there"}));
    for (method, path) in [("GET", NAMESPACES), ("GET", &path), ("DELETE", &path)] {
        let answer = admin.send(
            method,
            path,
            &[("content-type", "application/json")],
            SendBody::from_reader(&mut "{}".as_bytes()),
        );
        refused(&answer, 400, &["body"]);
    }
    for (method, path, allow) in [
        ("PUT", NAMESPACES, "GET, POST"),
        ("DELETE", NAMESPACES, "GET, POST"),
        ("PATCH", &path, "GET, PUT, DELETE"),
        ("POST", &path, "GET, PUT, DELETE"),
        ("HEAD", &path, "GET, PUT, DELETE"),
    ] {
        let answer = admin.send(method, path, &[], SendBody::none());
        assert_eq!((answer.status, answer.header("allow")), (405, allow), "{method} {path}");
    }
    for missing in ["/v2/metadefs", "/v2/metadefs/", "/v2/metadefs/namespaces/", "/v2/metadefs/nosuch"] {
        assert_eq!(admin.get(missing).status, 404, "{missing}");
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_namespaces"), "1");
}

/// Namespaces with ties in every column that sorts.
fn crowd(gateway: &Gateway) {
    gateway.sql(
        "INSERT INTO metadef_namespaces (name, display_name, description, visibility, protected, owner, created_at, updated_at)
         SELECT 'n' || lpad(n::text, 2, '0'), (ARRAY[NULL, '', 'a', 'B'])[1 + n % 4], (ARRAY[NULL, 'x', 'ä'])[1 + n % 3],
           (ARRAY['public', 'private'])[1 + n % 2], n % 3 = 0, (ARRAY['p-demo', 'p-alt', 'p-admin'])[1 + n % 3],
           timestamptz '2024-01-01Z' + make_interval(days => n % 4), timestamptz '2024-02-01Z' + make_interval(days => n % 5)
         FROM generate_series(1, 40) n;
         INSERT INTO metadef_resource_types (name, protected) VALUES ('A', false), ('B', false), ('C', false);
         INSERT INTO metadef_associations (namespace_id, name)
         SELECT n.id, t.name FROM metadef_namespaces n, metadef_resource_types t WHERE n.id % 2 = 0 AND t.name = 'A' OR n.id % 3 = 0 AND t.name = 'B'",
    );
}

#[test]
fn paging_in_every_order_visits_every_namespace_once() {
    let gateway = Gateway::start(Options::default());
    crowd(&gateway);
    for (token, count) in [(Token::Admin, 40), (Token::Demo, 27)] {
        let client = gateway.client(token);
        for key in [
            "namespace",
            "display_name",
            "description",
            "visibility",
            "protected",
            "owner",
            "created_at",
            "updated_at",
            "id",
        ] {
            for direction in ["asc", "desc"] {
                let query = format!("?sort_key={key}&sort_dir={direction}");
                let whole = names(&client, &format!("{query}&limit=1000"));
                assert_eq!(whole.iter().collect::<BTreeSet<_>>().len(), count, "{query}");
                for limit in [1, 7] {
                    assert_eq!(walk(&client, &format!("{query}&limit={limit}")), whole, "{query}");
                }
            }
        }
    }
    let admin = gateway.client(Token::Admin);
    let rows = |order: &str| -> Vec<String> {
        gateway
            .sql(&format!("SELECT name FROM metadef_namespaces ORDER BY {order}"))
            .lines()
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(names(&admin, "?limit=1000"), rows("created_at DESC, id DESC"));
    assert_eq!(names(&admin, "?limit=1000&sort_dir=asc"), rows("created_at, id"));
    assert_eq!(names(&admin, "?limit=1000&sort_key=owner&sort_dir=asc"), rows("owner, created_at, id"));
}

#[test]
fn a_list_is_filtered_and_its_links_echo_the_query() {
    let gateway =
        Gateway::start(Options::default().set("images", "api_limit_max", 30).set("images", "limit_param_default", 10));
    crowd(&gateway);
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    for (query, count) in [
        ("", 10),
        ("?limit=5000", 30),
        ("?limit=99999999999999999999999", 30),
        ("?visibility=public&limit=30", 20),
        ("?visibility=private&limit=30", 20),
        ("?resource_types=A&limit=30", 20),
        ("?resource_types=A,B&limit=30", 27),
        ("?resource_types=C", 0),
        ("?resource_types=nosuch", 0),
        ("?resource_types=", 0),
        ("?resource_types=B&visibility=public&limit=30", 6),
        ("?foo=bar&namespace=n01&limit=3", 3),
        ("?limit=0", 0),
    ] {
        assert_eq!(names(&admin, query).len(), count, "{query}");
    }
    assert_eq!(
        admin.get(&format!("{NAMESPACES}?limit=0")).expect(200).json(),
        json!({"namespaces": [], "first": format!("{NAMESPACES}?limit=0"), "schema": "/v2/schemas/metadefs/namespaces"})
    );
    let parse = |link: &Value| -> Vec<(String, String)> {
        let (path, query) = link.as_str().unwrap().split_once('?').unwrap();
        assert_eq!(path, NAMESPACES);
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    };
    let query = "limit=3&resource_types=A%2CB&sort_key=namespace&sort_dir=asc&foo=b%26r";
    let page = admin.get(&format!("{NAMESPACES}?{query}")).expect(200).json();
    let mut asked: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    assert_eq!(parse(&page["first"]), asked);
    asked.push(("marker".into(), "n04".into()));
    assert_eq!(parse(&page["next"]), asked);
    assert_eq!(walk(&admin, &format!("?{query}")).len(), 27);
    // A list shows what a namespace applies to, and nothing else of what it holds.
    let first = &page["namespaces"][0];
    assert_eq!(
        (first["namespace"].as_str(), &undated(first["resource_type_associations"].clone())),
        (Some("n02"), &json!([{"name": "A"}]))
    );
    assert!(first.get("properties").is_none() && first.get("objects").is_none() && first.get("tags").is_none());
    // The last page that is full has another behind it, which is empty.
    let last = admin.get(&format!("{NAMESPACES}?visibility=public&limit=20")).expect(200).json();
    let end = admin.get(last["next"].as_str().unwrap()).expect(200).json();
    assert!(end["namespaces"].as_array().unwrap().is_empty() && end.get("next").is_none(), "{end}");
    for (bad, word) in [
        ("limit=abc", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=1.5", "limit"),
        ("limit=1&limit=2", "limit"),
        ("sort_key=bogus", "sort key: bogus"),
        ("sort_key=", "sort key"),
        ("sort_key=namespace&sort_key=owner", "sort_key"),
        ("sort_dir=up", "sort direction: up"),
        ("visibility=nosuch", "nosuch"),
        ("visibility=", "visibility"),
        ("marker=%00", "marker"),
        ("foo=%FF", "UTF-8"),
    ] {
        refused(&admin.get(&format!("{NAMESPACES}?{bad}")), 400, &[word]);
    }
    // A marker that is not there, and one that this project may not see (n03 is private, and p-demo's; n01 p-alt's).
    assert_eq!(
        gateway.sql("SELECT visibility, owner FROM metadef_namespaces WHERE name IN ('n01', 'n03') ORDER BY name"),
        "private|p-alt\nprivate|p-demo"
    );
    demo.get(&format!("{NAMESPACES}?marker=n03")).expect(200);
    admin.get(&format!("{NAMESPACES}?marker=n01")).expect(200);
    let texts = ["n01", "nosuch"]
        .map(|name| demo.get(&format!("{NAMESPACES}?marker={name}")).expect(404).text().replace(name, "N"));
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn of_many_that_make_one_namespace_or_take_one_name_one_wins() {
    const CALLERS: usize = 8;
    let gateways = Gateway::start_all(&Options::default(), 2);
    let admin = gateways[0].client(Token::Admin);
    let at_once = |send: &(dyn Fn(&Client, usize) -> u16 + Sync)| -> Vec<u16> {
        thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|n| {
                    let client = gateways[n % 2].client(Token::Admin);
                    scope.spawn(move || send(&client, n))
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        })
    };
    for round in 0..5 {
        let name = format!("race-{round}");
        let statuses = at_once(&|client, _| client.post(NAMESPACES, &full(&name)).status);
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), CALLERS - 1, "{statuses:?}");
        for n in 0..CALLERS {
            make(&admin, &json!({"namespace": format!("from-{round}-{n}")}));
        }
        let statuses = at_once(&|client, n| {
            client.put(&format!("{NAMESPACES}/from-{round}-{n}"), &json!({"namespace": format!("to-{round}")})).status
        });
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), CALLERS - 1, "{statuses:?}");
    }
    // What many of them hold is whole.
    assert_eq!(gateways[0].sql("SELECT count(*) FROM metadef_tags"), "10");
    assert_eq!(gateways[0].sql("SELECT count(*) FROM metadef_resource_types"), "2");
    // Two that exchange their names: both names stay, and nobody waits for ever.
    let [one, other] = ["one", "other"].map(|name| make(&admin, &json!({"namespace": name})));
    let (a, b) = (gateways[0].client(Token::Admin), gateways[1].client(Token::Admin));
    for _ in 0..3 {
        thread::scope(|scope| {
            let first = scope.spawn(|| a.put(&one, &json!({"namespace": "other"})).status);
            let second = scope.spawn(|| b.put(&other, &json!({"namespace": "one"})).status);
            assert_eq!((first.join().unwrap(), second.join().unwrap()), (409, 409));
        });
    }
}
