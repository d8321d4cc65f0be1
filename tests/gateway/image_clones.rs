//! `rockpool image clones`: who uses an image, and how much of it.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Gateway, Options, Token, new_user, random_bytes, rbd};

const MIB: usize = 1 << 20;

/// The command's output, and its exit code.
fn clones(gateway: &Gateway, id: &str, more: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_rockpool"))
        .args(["image", "clones", id, "--config"])
        .arg(gateway.folder().join("rockpool.toml"))
        .args(more)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (text, output.status.code())
}

fn clones_json(gateway: &Gateway, id: &str) -> (Value, Option<i32>) {
    let (text, code) = clones(gateway, id, &["--json"]);
    (serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")), code)
}

/// Clones the image into the pool of machines.
fn clone(id: &str, name: &str, format: &str) {
    let clone = format!("vms/{name}");
    rbd(&["clone", "--rbd-default-clone-format", format, &format!("images/{id}@snap"), &clone]);
}

/// A gateway whose Ceph user may look into the pool of machines.
fn seeing() -> Gateway {
    new_user("rockpool-seeing", "profile rbd", "profile rbd pool=images, profile rbd-read-only pool=vms");
    Gateway::start(Options::default().ceph_user("rockpool-seeing"))
}

#[test]
fn every_clone_is_listed_with_its_user_and_its_bytes() {
    let gateway = seeing();
    let demo = gateway.client(Token::Demo);
    // Two objects of data, a hole of one, and one more.
    let mut bytes = random_bytes(1, 16 * MIB);
    bytes.extend(vec![0; 8 * MIB]);
    bytes.extend(random_bytes(2, 8 * MIB));
    let id = demo.active("used", &bytes);
    let (none, code) = clones_json(&gateway, &id);
    assert_eq!((&none["clones"], &none["complete"], code), (&json!([]), &json!(true), Some(0)), "{none}");
    assert_eq!((&none["id"], &none["name"]), (&json!(id), &json!("used")));
    let (machine, volume, gone) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let (instance, cinder) = (format!("{machine}_disk"), format!("volume-{volume}"));
    let (trashed, other) = (format!("{gone}_disk"), format!("by-hand-{machine}"));
    clone(&id, &instance, "1");
    clone(&id, &cinder, "2");
    clone(&id, &trashed, "2");
    clone(&id, &other, "1");
    // The instance writes over the first object of the image.
    let write = ["bench", "--io-type", "write", "--io-size", "8M", "--io-total", "8M", "--io-threads", "1"];
    rbd(&[write.as_slice(), &[format!("vms/{instance}").as_str()]].concat());
    rbd(&["trash", "mv", &format!("vms/{trashed}")]);
    let (found, code) = clones_json(&gateway, &id);
    assert_eq!((&found["complete"], code), (&json!(true), Some(0)), "{found}");
    let all = found["clones"].as_array().unwrap();
    assert_eq!(all.len(), 4, "{found}");
    let named =
        |name: &str| all.iter().find(|clone| clone["image"] == name).unwrap_or_else(|| panic!("{name}: {found}"));
    let (whole, object) = (json!(24 * MIB), json!(8 * MIB));
    for (name, service, kind, user, own, shared, trash) in [
        (&instance, json!("nova"), json!("instance"), json!(machine), &object, &json!(16 * MIB), false),
        (&cinder, json!("cinder"), json!("volume"), json!(volume), &json!(0), &whole, false),
        (&trashed, json!("nova"), json!("instance"), json!(gone), &json!(0), &whole, true),
        (&other, Value::Null, Value::Null, Value::Null, &json!(0), &whole, false),
    ] {
        let clone = named(name);
        assert_eq!((&clone["service"], &clone["kind"], &clone["id"]), (&service, &kind, &user), "{clone}");
        assert_eq!(
            (&clone["store"], &clone["pool"], &clone["in_trash"]),
            (&json!("ceph"), &json!("vms"), &json!(trash))
        );
        assert_eq!(clone["size_bytes"], 32 * MIB, "{clone}");
        assert_eq!((&clone["own_bytes"], &clone["shared_bytes"]), (own, shared), "{clone}");
    }
    // For people.
    let (text, code) = clones(&gateway, &id, &[]);
    assert_eq!(code, Some(0));
    assert!(
        text.starts_with(&format!("Image {id} (used) has 4 clone(s), with 8.0 MiB of their own and 88.0 MiB shared")),
        "{text}"
    );
    for line in [
        format!("vms/{instance}"),
        format!("nova instance {machine}"),
        format!("cinder volume {volume}"),
        format!("vms/{trashed} (in the trash)"),
    ] {
        assert!(text.contains(&line), "{line}: {text}");
    }
    // The image is as it was: a look changes nothing.
    assert!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes);
    // A clone that has become independent is none any more.
    rbd(&["flatten", "--no-progress", &format!("vms/{cinder}")]);
    assert_eq!(clones_json(&gateway, &id).0["clones"].as_array().unwrap().len(), 3);
    let entries: Value = serde_json::from_str(&rbd(&["trash", "ls", "vms", "--format", "json"])).unwrap();
    let entry = entries.as_array().unwrap().iter().find(|entry| entry["name"] == json!(trashed)).unwrap();
    rbd(&["trash", "rm", "--no-progress", "--force", &format!("vms/{}", entry["id"].as_str().unwrap())]);
    for name in [&instance, &cinder, &other] {
        rbd(&["rm", "--no-progress", &format!("vms/{name}")]);
    }
    assert_eq!(clones_json(&gateway, &id).0["clones"], json!([]));
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn clones_that_cannot_be_seen_are_said() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("hidden clones", &random_bytes(3, 300_000));
    let name = format!("{}_disk", Uuid::new_v4());
    clone(&id, &name, "1");
    let (found, code) = clones_json(&gateway, &id);
    assert_eq!((&found["complete"], &found["clones"], code), (&json!(false), &json!([]), Some(3)), "{found}");
    assert!(found["problems"][0].as_str().unwrap().contains("profile rbd-read-only"), "{found}");
    let (text, code) = clones(&gateway, &id, &[]);
    assert_eq!(code, Some(3));
    assert!(text.contains("no clones that can be seen") && text.contains("NOT ALL: store ceph"), "{text}");
    rbd(&["rm", "--no-progress", &format!("vms/{name}")]);
    // A store that is lost, an image without data, and no image.
    gateway.sql("UPDATE image_locations SET store = 'lost'");
    let (found, code) = clones_json(&gateway, &id);
    assert_eq!((found["problems"][0].as_str(), code), (Some("store lost: it is not configured here"), Some(3)));
    let queued = demo.create("queued");
    assert_eq!(clones_json(&gateway, &queued).0["complete"], true);
    for id in ["no-id", "5bb0c1f7-0000-4000-8000-0123456789ab"] {
        let (text, code) = clones(&gateway, id, &[]);
        assert_eq!((text.trim(), code), (format!("rockpool: No image found with ID {id}").as_str(), Some(1)));
    }
    gateway.sql("UPDATE image_locations SET store = 'ceph'");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}
