//! `rockpool image readiness`: whether Nova and Cinder clone an image.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Client, Foreign, Gateway, Options, Token, ceph, random_bytes, rbd};

/// The command's answer as JSON, and its exit code.
fn readiness(gateway: &Gateway, id: &str) -> (Value, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["image", "readiness", id, "--json", "--config"])
        .arg(gateway.folder().join("rockpool.toml"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answer = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {:?}", output.stderr));
    (answer, output.status.code())
}

fn act(client: &Client, id: &str, action: &str) {
    client.call("POST", &format!("/v2/images/{id}/actions/{action}")).expect(204);
}

/// The finding of `check` in a list.
#[track_caller]
fn finding<'f>(findings: &'f Value, check: &str) -> &'f Value {
    let found = findings.as_array().unwrap().iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("{check} is not among {findings}"))
}

/// Fails unless the image will not be cloned for this one reason, and the advice has all of these words.
#[track_caller]
fn unready(gateway: &Gateway, id: &str, check: &str, words: &[&str]) {
    let (answer, code) = readiness(gateway, id);
    assert_eq!((&answer["ready"], code), (&json!(false), Some(3)), "{answer}");
    let copy = answer["copies"][0]["findings"].as_array().cloned().unwrap_or_default();
    let all = answer["findings"].as_array().unwrap().iter().chain(&copy);
    let problems: Vec<&Value> = all.filter(|finding| finding["verdict"] == "problem").collect();
    let [problem] = problems[..] else { panic!("one problem was expected: {problems:?}") };
    assert_eq!(problem["check"], check, "{problem}");
    let text = problem.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text}");
    }
}

#[test]
fn an_uploaded_image_is_ready_and_whoever_asks_learns_where_from() {
    let gateway = Gateway::start(Options::default().far_store().set("stores.far", "weight", -5));
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 300_000);
    let id = demo.active("ready", &bytes);
    let (answer, code) = readiness(&gateway, &id);
    assert_eq!((&answer["ready"], code), (&json!(true), Some(0)), "{answer}");
    let copy = &answer["copies"][0];
    assert_eq!((&copy["store"], &copy["ready"]), (&json!("ceph"), &json!(true)));
    for (check, found) in [("snapshot", "snap, protected"), ("features", "layering"), ("objects", "8 MiB")] {
        assert_eq!(finding(&copy["findings"], check)["found"], found, "{check}");
    }
    assert_eq!(finding(&copy["findings"], "cluster")["found"], ceph(&["fsid"]));
    let caps = finding(&copy["findings"], "caps")["advice"].as_str().unwrap().to_owned();
    assert!(caps.contains("profile rbd-read-only pool=images"), "{caps}");
    // For people.
    let output = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["image", "readiness", &id, "--config"])
        .arg(gateway.folder().join("rockpool.toml"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with(&format!("Nova and Cinder clone image {id} (ready) from: ceph.")), "{text}");
    assert!(text.contains(copy["url"].as_str().unwrap()) && !text.contains("FIX"), "{text}");
    // Not an image.
    let output = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["image", "readiness", "no-id", "--config"])
        .arg(gateway.folder().join("rockpool.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No image found with ID no-id"));
}

#[test]
fn every_reason_in_the_record_is_named_with_what_to_do() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let bytes = random_bytes(2, 200_000);
    let queued = demo.create("queued");
    let (answer, code) = readiness(&gateway, &queued);
    assert_eq!((&answer["ready"], code), (&json!(false), Some(3)));
    assert_eq!(answer["copies"], json!([]));
    assert!(finding(&answer["findings"], "status")["found"].as_str().unwrap().contains("queued"));
    let id = demo.active("image", &bytes);
    act(&admin, &id, "deactivate");
    unready(&gateway, &id, "status", &["deactivated", "--activate"]);
    act(&admin, &id, "reactivate");
    gateway.sql(&format!("UPDATE images SET disk_format = 'qcow2' WHERE id = '{id}'"));
    unready(&gateway, &id, "disk_format", &["qcow2", "only raw is cloned"]);
    gateway.sql(&format!("UPDATE images SET disk_format = 'raw', container_format = 'ovf' WHERE id = '{id}'"));
    let (answer, code) = readiness(&gateway, &id);
    assert_eq!((finding(&answer["findings"], "container_format")["verdict"].as_str(), code), (Some("note"), Some(0)));
    let empty = demo.active("boot from volume", &[]);
    unready(&gateway, &empty, "size", &["0 bytes", "boots from a volume"]);
    let hidden = gateway.sibling_with(Options::default().set("images", "show_image_direct_url", false));
    gateway.sql("UPDATE images SET container_format = 'bare'");
    unready(&hidden, &id, "direct_url", &["not shown", "show_image_direct_url = true"]);
}

#[test]
fn every_reason_in_the_pool_is_named_with_what_to_do() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(3, 200_000);
    let id = demo.active("image", &bytes);
    let spec = format!("images/{id}");
    let snap = format!("{spec}@snap");
    let ready = || readiness(&gateway, &id).1 == Some(0);
    rbd(&["snap", "unprotect", &snap]);
    unready(&gateway, &id, "snapshot", &["is not protected", &format!("rbd snap protect {snap}")]);
    rbd(&["snap", "rm", "--no-progress", &snap]);
    unready(&gateway, &id, "snapshot", &["there is no snapshot snap", &format!("rbd snap create {snap}")]);
    // What it advises helps.
    rbd(&["snap", "create", "--no-progress", &snap]);
    rbd(&["snap", "protect", &snap]);
    assert!(ready());
    gateway.sql(&format!("UPDATE images SET size_bytes = size_bytes + 1 WHERE id = '{id}'"));
    unready(&gateway, &id, "data", &["200000 bytes are stored, 200001 are recorded"]);
    gateway.sql(&format!("UPDATE images SET size_bytes = size_bytes - 1 WHERE id = '{id}'"));
    rbd(&["mv", &spec, &format!("{spec}-away")]);
    unready(&gateway, &id, "data", &["it is not there", "rbd trash ls"]);
    rbd(&["mv", &format!("{spec}-away"), &spec]);
    assert!(ready());
    // A URL of another cluster, which is the classic.
    gateway.sql("UPDATE image_locations SET url = replace(url, 'rbd://', 'rbd://0')");
    unready(&gateway, &id, "data", &["is not in pool images of cluster"]);
    gateway.sql("UPDATE image_locations SET url = replace(url, 'rbd://0', 'rbd://'), store = 'lost'");
    unready(&gateway, &id, "store", &["not configured", "[stores.lost]"]);
    gateway.sql("UPDATE image_locations SET store = 'ceph'");
    // Made by others: no layering, other objects, itself a clone.
    let odd = format!("images/odd-{id}");
    rbd(&["create", "--size", "1M", "--object-size", "4M", "--image-feature", "exclusive-lock", &odd]);
    rbd(&["snap", "create", "--no-progress", &format!("{odd}@snap")]);
    let url = format!("rbd://{}/{odd}/snap", ceph(&["fsid"]));
    gateway.sql(&format!("UPDATE image_locations SET url = '{url}', owned = false"));
    gateway.sql("UPDATE images SET size_bytes = 1048576");
    let (answer, code) = readiness(&gateway, &id);
    let findings = &answer["copies"][0]["findings"];
    assert_eq!(code, Some(3));
    assert_eq!(finding(findings, "features")["verdict"], "problem", "{answer}");
    assert!(finding(findings, "objects")["found"].as_str().unwrap().starts_with("4096 KiB"), "{answer}");
    rbd(&["snap", "rm", "--no-progress", &format!("{odd}@snap")]);
    rbd(&["rm", "--no-progress", &odd]);
    let parent = Foreign::new(&format!("parent-{id}"), &bytes);
    rbd(&["clone", &format!("{}@snap", parent.spec), &odd]);
    rbd(&["snap", "create", "--no-progress", &format!("{odd}@snap")]);
    rbd(&["snap", "protect", &format!("{odd}@snap")]);
    gateway.sql("UPDATE images SET size_bytes = 200000");
    let (answer, code) = readiness(&gateway, &id);
    let link = finding(&answer["copies"][0]["findings"], "parent");
    assert_eq!((link["verdict"].as_str(), code), (Some("note"), Some(0)), "{answer}");
    assert!(link["advice"].as_str().unwrap().contains("rbd flatten"), "{answer}");
    rbd(&["snap", "unprotect", &format!("{odd}@snap")]);
    rbd(&["snap", "rm", "--no-progress", &format!("{odd}@snap")]);
    rbd(&["rm", "--no-progress", &odd]);
    rbd(&["snap", "unprotect", &snap]);
    rbd(&["snap", "rm", "--no-progress", &snap]);
    rbd(&["rm", "--no-progress", &spec]);
}
