//! `rockpool metadefs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{NAMESPACES, full, make, undated};
use crate::harness::{Gateway, Options, Token, shared};

fn rockpool(gateway: &Gateway, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rockpool"));
    command.arg("metadefs").args(arguments).arg("--config").arg(gateway.folder().join("rockpool.toml"));
    command.stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the command; fails unless it ends with this code and says all of this.
#[track_caller]
pub(super) fn run(gateway: &Gateway, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let output = rockpool(gateway, arguments).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: {word:?} is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A folder with these files, in the gateway's own.
fn folder(gateway: &Gateway, name: &str, files: &[(&str, &str)]) -> String {
    let folder = gateway.folder().join(name);
    fs::create_dir_all(&folder).unwrap();
    for (file, text) in files {
        fs::write(folder.join(file), text).unwrap();
    }
    folder.to_str().unwrap().to_owned()
}

/// The definitions in a folder by namespace, with what goes without saying.
fn definitions(folder: &Path) -> BTreeMap<String, Value> {
    let mut definitions = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let mut definition: Value = serde_json::from_str(&fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
        let name = definition["namespace"].as_str().unwrap().to_owned();
        let members = definition.as_object_mut().unwrap();
        for (member, value) in [
            ("visibility", json!("private")),
            ("protected", json!(false)),
            ("resource_type_associations", json!([])),
            ("properties", json!({})),
            ("objects", json!([])),
            ("tags", json!([])),
        ] {
            members.entry(member).or_insert(value);
        }
        assert!(definitions.insert(name, definition).is_none(), "a namespace is there twice");
    }
    definitions
}

/// All that is stored of metadata definitions, but when it was made.
fn stored(gateway: &Gateway) -> String {
    gateway.sql(
        "SELECT name, display_name, description, visibility, protected, owner FROM metadef_namespaces ORDER BY name;
         SELECT n.name, a.name, prefix, properties_target FROM metadef_associations a JOIN metadef_namespaces n ON n.id = namespace_id ORDER BY 1, 2;
         SELECT n.name, p.name, definition FROM metadef_properties p JOIN metadef_namespaces n ON n.id = namespace_id ORDER BY 1, 2;
         SELECT n.name, o.name, o.description, required, properties FROM metadef_objects o JOIN metadef_namespaces n ON n.id = namespace_id ORDER BY 1, 2;
         SELECT n.name, t.name FROM metadef_tags t JOIN metadef_namespaces n ON n.id = namespace_id ORDER BY 1, 2;
         SELECT name, protected FROM metadef_resource_types ORDER BY name",
    )
}

#[test]
fn glances_own_definitions_are_loaded_and_exported_again() {
    let Some(source) = shared("metadefs") else { return };
    let gateway = Gateway::start(Options::default());
    let path = source.to_str().unwrap();
    run(
        &gateway,
        &["load", path],
        0,
        &["32 added, 0 merged, 0 overwritten, 0 kept as they were, 0 not loaded", "OS::Compute::Watchdog: added"],
    );
    assert_eq!(gateway.sql("SELECT count(*), count(DISTINCT owner), min(owner) FROM metadef_namespaces"), "32|1|admin");
    assert_eq!(
        gateway.sql("SELECT string_agg(name, ',' ORDER BY name), bool_and(protected) FROM metadef_resource_types"),
        "OS::Cinder::Volume,OS::Glance::Image,OS::Nova::Aggregate,OS::Nova::Flavor,OS::Nova::Server,OS::Trove::Instance|t"
    );
    let first = stored(&gateway);
    let out = gateway.folder().join("out");
    run(&gateway, &["export", out.to_str().unwrap()], 0, &["32 written"]);
    let expected = definitions(&source);
    assert_eq!(expected.len(), 32);
    assert_eq!(definitions(&out), expected);
    // Once more changes nothing, however it is done; what was exported is what was loaded.
    for (arguments, summary) in [
        (vec!["load", path], "0 added, 0 merged, 0 overwritten, 32 kept"),
        (vec!["load", path, "--merge"], "0 added, 0 merged, 0 overwritten, 32 kept"),
        (vec!["load", path, "--merge", "--prefer-new"], "0 added, 0 merged, 0 overwritten, 32 kept"),
        (vec!["load", path, "--merge", "--prefer_new"], "32 kept"),
        (vec!["load", out.to_str().unwrap(), "--merge", "--prefer-new"], "32 kept"),
        (vec!["load", path, "--overwrite"], "0 added, 0 merged, 32 overwritten, 0 kept"),
        (vec!["load", out.to_str().unwrap(), "--merge", "--overwrite"], "32 overwritten"),
    ] {
        run(&gateway, &arguments, 0, &[summary]);
        assert_eq!(stored(&gateway), first, "{arguments:?}");
    }
    // Through the API everything of them is there.
    let admin = gateway.client(Token::Admin);
    for (name, definition) in &expected {
        let shown = admin.get(&format!("{NAMESPACES}/{name}")).expect(200).json();
        assert_eq!(shown["description"], definition["description"], "{name}");
        assert_eq!(shown["protected"], definition["protected"], "{name}");
        for member in ["resource_type_associations", "properties", "objects", "tags"] {
            let there = |document: &Value| match &document[member] {
                Value::Object(members) => members.keys().cloned().collect::<Vec<_>>(),
                Value::Array(items) => items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect(),
                _ => Vec::new(),
            };
            assert_eq!(there(&shown), there(definition), "{name}: {member}");
        }
    }
    let page = gateway.client(Token::Reader).get(&format!("{NAMESPACES}?limit=1000")).expect(200).json();
    let public = expected.values().filter(|definition| definition["visibility"] == "public").count();
    assert_eq!(page["namespaces"].as_array().unwrap().len(), public);
    run(&gateway, &["unload", path], 0, &["32 removed"]);
    run(&gateway, &["unload", path], 0, &["0 removed"]);
    assert_eq!(stored(&gateway), "");
}

#[test]
fn a_namespace_that_is_there_stays_is_merged_or_made_anew() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let mut body = full("Lab::Full");
    body["owner"] = json!("p-demo");
    let path = make(&admin, &body);
    let before = undated(admin.get(&path).expect(200).json());
    let file = json!({
        "namespace": "Lab::Full", "display_name": "New", "visibility": "public", "protected": true,
        "resource_type_associations": [{"name": "OS::Nova::Flavor", "prefix": "new:"}, {"name": "OS::Nova::Server", "prefix": null, "properties_target": null}],
        "properties": {"p1": {"title": "New", "type": "string"}, "p3": {"title": "P3", "type": "number", "default": 1.50}},
        "objects": [{"name": "o1", "description": "new", "properties": null}, {"name": "o2"}],
        "tags": [{"name": "t2"}, {"name": "t3"}],
    });
    let dir = folder(
        &gateway,
        "in",
        &[("full.json", &file.to_string()), ("README.txt", "not JSON"), ("other.json", r#"{"namespace": "Other"}"#)],
    );
    fs::create_dir(Path::new(&dir).join("folder.json")).unwrap();
    run(
        &gateway,
        &["load", &dir],
        0,
        &[
            "Lab::Full: kept as it was",
            "Other: added",
            "1 added, 0 merged, 0 overwritten, 1 kept as they were, 0 not loaded",
        ],
    );
    assert_eq!(undated(admin.get(&path).expect(200).json()), before);
    assert_eq!(
        gateway.sql("SELECT visibility, protected, owner FROM metadef_namespaces WHERE name = 'Other'"),
        "private|f|admin"
    );
    // Merged: what it lacked is added.
    run(&gateway, &["load", &dir, "--merge"], 0, &["Lab::Full: merged, 4 changes", "0 added, 1 merged"]);
    let merged = undated(admin.get(&path).expect(200).json());
    for member in ["display_name", "protected", "owner"] {
        assert_eq!(merged[member], before[member], "{member}");
    }
    assert_eq!(merged["properties"]["p1"], before["properties"]["p1"]);
    assert_eq!(merged["objects"][0], before["objects"][0]);
    assert_eq!(merged["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["p1", "p2", "p3"]);
    assert_eq!(merged["tags"], json!([{"name": "t3"}, {"name": "t2"}, {"name": "t1"}]));
    assert_eq!(merged["resource_type_associations"][2], json!({"name": "OS::Nova::Server"}));
    assert_eq!(
        gateway.sql("SELECT string_agg(name, ',') FROM metadef_resource_types WHERE protected"),
        "OS::Nova::Server"
    );
    // The new is preferred: what differs is replaced, and what the file does not know stays.
    run(&gateway, &["load", &dir, "--merge", "--prefer-new"], 0, &["Lab::Full: merged, 4 changes"]);
    let newer = undated(admin.get(&path).expect(200).json());
    assert_eq!(
        (&newer["display_name"], &newer["protected"], &newer["owner"]),
        (&json!("New"), &json!(true), &json!("admin"))
    );
    assert!(newer.get("description").is_none());
    assert_eq!(newer["properties"]["p1"], json!({"title": "New", "type": "string"}));
    assert_eq!(newer["properties"]["p2"], before["properties"]["p2"]);
    assert_eq!(newer["objects"][0]["description"], "new");
    assert_eq!(newer["objects"][0]["properties"], json!({}));
    assert_eq!(newer["resource_type_associations"][0]["prefix"], "new:");
    assert_eq!(newer["tags"].as_array().unwrap().len(), 3);
    run(&gateway, &["load", &dir, "--merge", "--prefer-new"], 0, &["Lab::Full: kept as it was"]);
    // Made anew, although it is protected: nothing of the old is left.
    run(&gateway, &["load", &dir, "--overwrite"], 0, &["Lab::Full: overwritten", "2 overwritten"]);
    let anew = undated(admin.get(&path).expect(200).json());
    assert_eq!(anew["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["p1", "p3"]);
    assert_eq!(anew["tags"], json!([{"name": "t3"}, {"name": "t2"}]));
    // Nobody is told: files are no clients.
    assert_eq!(gateway.sql("SELECT count(*) FROM events WHERE payload->>'namespace' = 'Other'"), "0");
    // One file by itself; what makes no sense; where nothing is.
    run(&gateway, &["load", &format!("{dir}/other.json"), "--overwrite"], 0, &["1 overwritten"]);
    run(&gateway, &["load", &dir, "--prefer-new"], 2, &["--merge"]);
    run(&gateway, &["load", &dir, "--merge", "--prefer-new", "--overwrite"], 2, &["--overwrite"]);
    let empty = folder(&gateway, "empty", &[]);
    run(&gateway, &["load", &empty], 1, &[&empty, "no JSON file"]);
    run(&gateway, &["load", "/nonexistent/metadefs"], 1, &["/nonexistent/metadefs"]);
}

#[test]
fn a_bad_file_is_named_and_the_others_are_loaded() {
    let gateway = Gateway::start(Options::default());
    make(&gateway.client(Token::Admin), &json!({"namespace": "There", "tags": [{"name": "t"}]}));
    let bad: [(&str, &str, &str); 9] = [
        ("cut.json", "{\"namespace\": \"Cut\"", "no JSON"),
        ("list.json", "[]", "object"),
        ("nameless.json", "{\"display_name\": \"x\"}", "'namespace'"),
        ("null.json", "{\"namespace\": null}", "'namespace'"),
        (
            "type.json",
            r#"{"namespace": "Type", "tags": [{"name": "t"}], "properties": {"p": {"title": "P", "type": "blob"}}}"#,
            "'properties.p.type'",
        ),
        ("twice.json", r#"{"namespace": "Twice", "objects": [{"name": "o"}, {"name": "o"}]}"#, "twice"),
        ("unknown.json", r#"{"namespace": "Unknown", "foo": 1}"#, "'foo'"),
        ("binary.json", "\u{0}\u{1}", "no JSON"),
        (
            "there.json",
            r#"{"namespace": "There", "tags": [{"name": "u"}], "objects": [{"name": 7}]}"#,
            "'objects[0].name'",
        ),
    ];
    let mut files: Vec<(&str, &str)> = bad.iter().map(|(file, text, _)| (*file, *text)).collect();
    files.push(("a.json", r#"{"namespace": "A"}"#));
    files.push((
        "z.json",
        r#"{"namespace": "Z", "self": "/x", "created_at": "2020-01-01T00:00:00Z", "description": null}"#,
    ));
    let dir = folder(&gateway, "in", &files);
    fs::write(Path::new(&dir).join("large.json"), format!("{{\"namespace\": \"{}\"}}", "x".repeat(5_000_000))).unwrap();
    fs::write(Path::new(&dir).join("bytes.json"), b"{\"namespace\": \"\xff\"}").unwrap();
    let text = run(
        &gateway,
        &["load", &dir, "--merge"],
        1,
        &["2 added, 0 merged, 0 overwritten, 0 kept as they were, 11 not loaded", "A: added", "Z: added"],
    );
    for (file, _, word) in bad.iter().chain([&("large.json", "", "larger"), &("bytes.json", "", "no JSON")]) {
        let line = text
            .lines()
            .find(|line| line.contains(&format!("{file}: not loaded")))
            .unwrap_or_else(|| panic!("{file}: {text}"));
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
    assert_eq!(gateway.sql("SELECT string_agg(name, ',' ORDER BY name) FROM metadef_namespaces"), "A,There,Z");
    assert_eq!(gateway.sql("SELECT string_agg(name, ',') FROM metadef_tags"), "t");
    // What is not understood is not half removed.
    run(&gateway, &["unload", &dir], 1, &["nothing was removed"]);
    run(&gateway, &["unload", &format!("{dir}/z.json")], 0, &["1 removed"]);
    assert_eq!(gateway.sql("SELECT string_agg(name, ',' ORDER BY name) FROM metadef_namespaces"), "A,There");
    run(&gateway, &["unload"], 0, &["2 removed"]);
    assert_eq!(stored(&gateway), "");
    // A file that would make a namespace too large leaves it as it was.
    let many = |from: usize| -> String {
        let tags: Vec<Value> = (from..from + 6000).map(|n| json!({"name": format!("n{n}")})).collect();
        json!({"namespace": "Many", "tags": tags}).to_string()
    };
    let dir = folder(&gateway, "many", &[("1.json", &many(0)), ("2.json", &many(6000))]);
    run(&gateway, &["load", &dir, "--merge"], 1, &["2.json: not loaded", "10000 tags", "1 added"]);
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_tags"), "6000");
}

#[test]
fn what_clients_made_is_exported_and_loaded_elsewhere() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    make(&admin, &full("Lab::Full"));
    make(
        &admin,
        &json!({"namespace": "Lab Full", "owner": "p-demo", "objects": [{"name": "a/b", "required": [], "properties": {}}]}),
    );
    make(&admin, &json!({"namespace": "漢字/../x"}));
    let before = stored(&gateway);
    let out = gateway.folder().join("new/folder");
    for _ in 0..2 {
        run(&gateway, &["export", out.to_str().unwrap()], 0, &["3 written"]);
    }
    let mut files: Vec<PathBuf> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let names: Vec<&str> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["Lab-Full-2.json", "Lab-Full.json", "x.json"]);
    let other = Gateway::start(Options::default());
    run(&other, &["load", out.to_str().unwrap()], 0, &["3 added"]);
    assert_eq!(
        stored(&other).replace("|t\n", "|f\n").trim_end_matches("|t"),
        before.replace("|t\n", "|f\n").trim_end_matches("|f")
    );
    // A place where nothing can be written, and a database that is not there.
    fs::write(gateway.folder().join("file"), "").unwrap();
    run(&gateway, &["export", gateway.folder().join("file").to_str().unwrap()], 1, &["file"]);
    fs::create_dir_all(out.join("../blocked/Lab-Full.json")).unwrap();
    run(
        &gateway,
        &["export", out.join("../blocked").to_str().unwrap()],
        1,
        &["Lab::Full was not written", "2 written", "1 not written"],
    );
    other.sql("DELETE FROM schema_version WHERE version > 1");
    run(&other, &["load", out.to_str().unwrap()], 1, &["rockpool db check"]);
}

#[test]
fn loads_at_the_same_time_do_not_disturb_each_other() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let files: Vec<(String, String)> =
        (0..10).map(|n| (format!("{n}.json"), full(&format!("Lab::{n}")).to_string())).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let dir = folder(&gateway, "in", &files);
    let mut loads: Vec<_> = [vec![], vec!["--merge"], vec!["--merge", "--prefer-new"], vec![]]
        .iter()
        .map(|options| {
            let arguments: Vec<&str> = ["load", &dir].into_iter().chain(options.iter().copied()).collect();
            rockpool(&gateway, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    while loads.iter_mut().any(|load| load.try_wait().unwrap().is_none()) {
        admin.get(&format!("{NAMESPACES}?limit=1000")).expect(200);
        admin.post(
            NAMESPACES,
            &json!({"namespace": "Lab::9", "resource_type_associations": [{"name": "OS::Nova::Flavor"}]}),
        );
    }
    for load in loads {
        let output = load.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM metadef_namespaces"), "10");
    assert!(gateway.sql("SELECT count(*) FROM metadef_tags").parse::<u32>().unwrap() >= 18);
}
