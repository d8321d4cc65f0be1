//! `/v2/metadefs/namespaces/{namespace}/tags`.

use std::thread;

use serde_json::{Value, json};
use ureq::SendBody;

use super::{make, refused, undated};
use crate::harness::{Answer, Client, Gateway, Options, Token};

fn tags(names: &[&str]) -> Value {
    json!({"tags": names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>()})
}

fn names(client: &Client, path: &str) -> Vec<String> {
    let list = client.get(path).expect(200).json();
    list["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn append(client: &Client, path: &str, header: &str, names: &[&str]) -> Answer {
    let text = tags(names).to_string();
    client.send("POST", path, &[("x-openstack-append", header)], SendBody::from_reader(&mut text.as_bytes()))
}

#[test]
fn a_tag_is_made_shown_renamed_and_deleted() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo) = (gateway.client(Token::Admin), gateway.client(Token::Demo));
    let path = format!("{}/tags", make(&admin, &json!({"namespace": "Lab::NS", "visibility": "public"})));
    let created = admin.call("POST", &format!("{path}/t1")).expect(201).json();
    assert_eq!(created["created_at"], created["updated_at"]);
    assert_eq!(undated(created), json!({"name": "t1"}));
    assert_eq!(undated(demo.get(&format!("{path}/t1")).expect(200).json()), json!({"name": "t1"}));
    assert_eq!(demo.get(&path).expect(200).json(), tags(&["t1"]));
    refused(&admin.call("POST", &format!("{path}/t1")), 409, &["t1", "Lab::NS"]);
    admin.call("POST", &format!("{path}/T1")).expect(201);
    admin.call("POST", &format!("{path}/{}", "%C3%BC".repeat(80))).expect(201);
    refused(&admin.call("POST", &format!("{path}/{}", "t".repeat(81))), 400, &["80"]);
    refused(&admin.call("POST", &format!("{path}/a%00b")), 400, &["control"]);
    refused(&admin.post(&format!("{path}/t2"), &json!({"name": "ignored"})), 400, &["body"]);
    assert_eq!(
        undated(admin.put(&format!("{path}/t1"), &json!({"name": "t2"})).expect(200).json()),
        json!({"name": "t2"})
    );
    admin.put(&format!("{path}/t2"), &json!({"name": "t2"})).expect(200);
    refused(&admin.put(&format!("{path}/t2"), &json!({"name": "T1"})), 409, &["T1"]);
    for gone in [
        admin.get(&format!("{path}/t1")),
        admin.delete(&format!("{path}/t1")),
        admin.put(&format!("{path}/t1"), &json!({"name": "x"})),
    ] {
        refused(&gone, 404, &["t1"]);
    }
    for (body, status, word) in [
        (json!({}), 400, "'name' is a required"),
        (json!({"name": ""}), 400, "empty"),
        (json!({"name": "t".repeat(81)}), 400, "80"),
        (json!({"name": 1}), 400, "'name'"),
        (json!({"name": "x", "foo": 1}), 400, "'foo'"),
        (json!({"name": "x", "created_at": "x"}), 403, "read-only"),
        (json!(["x"]), 400, "object"),
    ] {
        refused(&admin.put(&format!("{path}/t2"), &body), status, &[word]);
    }
    admin.delete(&format!("{path}/t2")).expect(204);
    refused(&admin.delete(&format!("{path}/t2")), 404, &["t2"]);
    assert_eq!(gateway.sql("SELECT name FROM metadef_tags ORDER BY id"), format!("T1\n{}", "ü".repeat(80)));
    admin.delete(&path).expect(204);
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_tags"), "0");
    assert_eq!(
        gateway.sql("SELECT type, payload->>'name', payload->>'name_old' FROM events WHERE id > 1 AND payload->>'name' IS DISTINCT FROM repeat('ü', 80) ORDER BY id"),
        "metadef_tag.create|t1|t1\nmetadef_tag.create|T1|T1\nmetadef_tag.update|t2|t1\nmetadef_tag.update|t2|t2\nmetadef_tag.delete|t2|t2\nmetadef_namespace.delete_tags||"
    );
}

#[test]
fn many_tags_replace_those_that_are_there_or_are_added_to_them() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = format!("{}/tags", make(&admin, &json!({"namespace": "Lab::NS"})));
    let stored = || gateway.sql("SELECT coalesce(string_agg(name, ',' ORDER BY id), '') FROM metadef_tags");
    assert_eq!(admin.post(&path, &tags(&["s1", "s2"])).expect(201).json(), tags(&["s1", "s2"]));
    assert_eq!(admin.post(&path, &tags(&["s3", "s2", "s1"])).expect(201).json(), tags(&["s3", "s2", "s1"]));
    assert_eq!(stored(), "s3,s2,s1");
    for (header, expected) in [
        ("True", "s3,s2,s1,a0"),
        (" yes ", "s3,s2,s1,a0,a1"),
        ("1", "s3,s2,s1,a0,a1,a2"),
        ("on", "s3,s2,s1,a0,a1,a2,a3"),
    ] {
        let name = format!("a{}", expected.matches('a').count() - 1);
        assert_eq!(append(&admin, &path, header, &[&name]).expect(201).json(), tags(&[&name]));
        assert_eq!(stored(), expected);
    }
    // One of them is there: none is added, none is removed.
    refused(&append(&admin, &path, "true", &["b", "s3"]), 409, &["s3"]);
    for header in ["perhaps", "false", "", "2"] {
        refused(&append(&admin, &path, header, &["d", "d"]), 409, &["'d'"]);
    }
    assert_eq!(stored(), "s3,s2,s1,a0,a1,a2,a3");
    // None at all: nothing is changed, as in the reference.
    assert_eq!(admin.post(&path, &tags(&[])).expect(201).json(), tags(&[]));
    assert_eq!(stored(), "s3,s2,s1,a0,a1,a2,a3");
    append(&admin, &path, "perhaps", &["s9"]).expect(201);
    assert_eq!(stored(), "s9");
    for (body, word) in [
        (json!({}), "'tags' is a required"),
        (json!([]), "object"),
        (json!({"tags": "x"}), "'tags'"),
        (json!({"tags": ["x"]}), "'tags[0]'"),
        (json!({"tags": [{}]}), "'tags[0].name' is a required"),
        (json!({"tags": [{"name": "x"}, {"name": 1}]}), "'tags[1].name'"),
        (json!({"tags": [{"name": "x", "foo": 1}]}), "'tags[0].foo'"),
        (json!({"tags": [{"name": "x", "created_at": "2020-01-01T00:00:00Z"}]}), "'tags[0].created_at'"),
        (json!({"tags": [{"name": "t".repeat(81)}]}), "80"),
        (json!({"tags": [], "foo": 1}), "'foo'"),
    ] {
        refused(&admin.post(&path, &body), 400, &[word]);
    }
    // A bound on what one namespace holds, however it is reached.
    let numbered =
        |from: usize, count: usize| -> Vec<String> { (from..from + count).map(|n| format!("n{n}")).collect() };
    let most = numbered(0, 10_000);
    let most: Vec<&str> = most.iter().map(String::as_str).collect();
    admin.post(&path, &tags(&most)).expect(201);
    refused(&append(&admin, &path, "true", &["one more"]), 413, &["10000 tags"]);
    refused(&admin.call("POST", &format!("{path}/another")), 413, &["10000 tags"]);
    let more = numbered(0, 10_001);
    refused(&admin.post(&path, &tags(&more.iter().map(String::as_str).collect::<Vec<_>>())), 413, &["10001"]);
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_tags"), "10000");
}

#[test]
fn a_list_of_tags_is_whole_or_in_pages() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let path = format!("{}/tags", make(&admin, &json!({"namespace": "Lab::NS"})));
    admin.post(&path, &tags(&["b", "d", "a"])).expect(201);
    append(&admin, &path, "true", &["c", "ä", "B"]).expect(201);
    gateway.sql("UPDATE metadef_tags SET updated_at = now() + interval '1 hour' WHERE name = 'd'");
    assert_eq!(names(&admin, &path), ["B", "ä", "c", "a", "d", "b"], "the newest first");
    assert_eq!(names(&admin, &format!("{path}?sort_dir=asc")), ["b", "d", "a", "c", "ä", "B"]);
    assert_eq!(names(&admin, &format!("{path}?sort_key=updated_at&limit=1")), ["d"]);
    for key in ["name", "created_at", "updated_at", "id"] {
        for direction in ["asc", "desc"] {
            let query = format!("{path}?sort_key={key}&sort_dir={direction}");
            let whole = names(&admin, &query);
            assert_eq!(whole.len(), 6);
            for limit in [1, 2, 4] {
                let mut walked: Vec<String> = names(&admin, &format!("{query}&limit={limit}"));
                loop {
                    let marker = walked.last().unwrap().replace('ä', "%C3%A4");
                    let next = names(&admin, &format!("{query}&limit={limit}&marker={marker}"));
                    if next.is_empty() {
                        break;
                    }
                    walked.extend(next);
                }
                assert_eq!(walked, whole, "{query}");
            }
        }
    }
    assert!(names(&admin, &format!("{path}?limit=0")).is_empty());
    assert_eq!(names(&admin, &format!("{path}?foo=bar&visibility=public")).len(), 6);
    for (bad, status) in [
        ("limit=abc", 400),
        ("limit=-1", 400),
        ("sort_key=foo", 400),
        ("sort_key=owner", 400),
        ("sort_dir=up", 400),
        ("visibility=x", 400),
        ("marker=nosuch", 404),
    ] {
        refused(&admin.get(&format!("{path}?{bad}")), status, &[]);
    }
}

#[test]
fn parallel_calls_neither_lose_nor_double_a_tag() {
    const CALLERS: usize = 8;
    let gateways = Gateway::start_all(&Options::default(), 2);
    let admin = gateways[0].client(Token::Admin);
    let path = format!("{}/tags", make(&admin, &json!({"namespace": "Lab::NS"})));
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
    // Added by many, all of them are there.
    let statuses = at_once(&|client, n| append(client, &path, "true", &[&format!("a{n}"), &format!("b{n}")]).status);
    assert_eq!(statuses, [201; CALLERS]);
    assert_eq!(gateways[0].sql("SELECT count(*), count(DISTINCT name) FROM metadef_tags"), "16|16");
    // The same ones, added by many, in any order: one succeeds.
    let statuses = at_once(&|client, n| {
        let mut both = ["x", "y"];
        both.rotate_left(n % 2);
        append(client, &path, "true", &both).status
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), CALLERS - 1, "{statuses:?}");
    // Replaced by many, the tags of one are there, all of them and no others.
    for _ in 0..5 {
        let statuses = at_once(&|client, n| {
            let mine: Vec<String> = (0..20).map(|k| format!("r{n}-{k}")).chain(["common".into()]).collect();
            client.post(&path, &tags(&mine.iter().map(String::as_str).collect::<Vec<_>>())).status
        });
        assert_eq!(statuses, [201; CALLERS]);
        assert_eq!(
            gateways[0].sql("SELECT count(*), count(DISTINCT split_part(name, '-', 1)) FROM metadef_tags"),
            "21|2"
        );
    }
    // One name, made by many; and one namespace, deleted by many while others fill it.
    let statuses = at_once(&|client, _| client.call("POST", &format!("{path}/one")).status);
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    let namespace = path.trim_end_matches("/tags");
    let statuses = at_once(&|client, n| match n % 2 {
        0 => client.delete(namespace).status,
        _ => append(client, &path, "true", &[&format!("late{n}")]).status,
    });
    assert!(statuses.iter().all(|status| matches!(status, 201 | 204 | 404)), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 204).count(), 1, "{statuses:?}");
    assert_eq!(
        gateways[0].sql("SELECT (SELECT count(*) FROM metadef_namespaces), (SELECT count(*) FROM metadef_tags)"),
        "0|0"
    );
}
