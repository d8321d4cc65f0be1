//! What bytes are decides, not what they are called: refused before anything is kept, under any name.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Client, Foreign, Gateway, Options, Token, eventually, left_in_pool, random_bytes};

const MIB: usize = 1 << 20;

/// A qcow2 of a disk of 1 GiB with nothing in it.
fn qcow2() -> Vec<u8> {
    let mut bytes = vec![0; 4 * 65536];
    let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(0, b"QFI\xfb");
    put(4, &3u32.to_be_bytes());
    put(20, &16u32.to_be_bytes());
    put(24, &(1u64 << 30).to_be_bytes());
    put(36, &2u32.to_be_bytes());
    put(40, &0x30000u64.to_be_bytes());
    put(48, &0x10000u64.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    put(96, &4u32.to_be_bytes());
    put(100, &104u32.to_be_bytes());
    bytes
}

/// One that shows the content of a file of the host.
fn qcow2_with_backing_file() -> Vec<u8> {
    let mut bytes = qcow2();
    bytes[8..16].copy_from_slice(&0x200u64.to_be_bytes());
    bytes[16..20].copy_from_slice(&11u32.to_be_bytes());
    bytes[0x200..0x20b].copy_from_slice(b"/etc/passwd");
    bytes
}

/// A VMDK whose descriptor has this create type and this extent.
fn vmdk(kind: &str, extent: &str) -> Vec<u8> {
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"{kind}\"\n{extent}\n"
    );
    let mut bytes = vec![0; 128 * 1024];
    let mut put = |offset: usize, value: &[u8]| bytes[offset..offset + value.len()].copy_from_slice(value);
    put(0, b"KDMV");
    put(4, &1u32.to_le_bytes());
    put(12, &4096u64.to_le_bytes());
    put(28, &1u64.to_le_bytes());
    put(36, &20u64.to_le_bytes());
    put(512, text.as_bytes());
    bytes
}

fn create(client: &Client, disk_format: &str, container_format: &str) -> String {
    let body = json!({"name": "inspected", "disk_format": disk_format, "container_format": container_format});
    client.post("/v2/images", &body).expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// Fails unless the image is queued again with this reason, nothing of it is kept, and a proper upload works.
#[track_caller]
fn refused(gateway: &Gateway, client: &Client, disk_format: &str, bytes: &[u8], status: u16, why: &str) {
    let id = create(client, disk_format, "bare");
    let answer = client.upload(&id, bytes).expect(status);
    assert!(answer.text().contains(why), "{}", answer.text());
    let image = client.show(&id);
    assert_eq!(image["status"], "queued");
    assert!(image["os_glance_upload_failure"].as_str().unwrap().contains(why), "{image}");
    for key in ["size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"] {
        assert!(image[key].is_null(), "{key} of {image}");
    }
    eventually("nothing is left in the pool", 10, || left_in_pool(&[&id]).is_empty());
    let rows = |table: &str| gateway.sql(&format!("SELECT count(*) FROM {table} WHERE image_id = '{id}'"));
    eventually("no job is left", 10, || rows("jobs") == "0");
    assert_eq!(rows("image_locations"), "0");
    client
        .patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/disk_format", "value": "raw"}]))
        .expect(200);
    client.upload(&id, b"a disk").expect(204);
    client.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn the_content_decides_and_nothing_is_kept_of_what_is_refused() {
    let gateway = Gateway::start(Options::default().set("inspection", "virtual_size_cap_bytes", 2i64 << 40));
    let demo = gateway.client(Token::Demo);
    // Good ones, and the size of the disk in them.
    for (disk_format, bytes, virtual_size) in [
        ("qcow2", qcow2(), json!(1u64 << 30)),
        ("vmdk", vmdk("monolithicSparse", "RW 4096 SPARSE \"a.vmdk\""), json!(4096 * 512)),
        ("raw", random_bytes(1, 70_000), json!(70_000)),
        ("ami", random_bytes(1, 70_000), Value::Null),
        ("qcow2", Vec::new(), Value::Null),
    ] {
        let id = create(&demo, disk_format, "bare");
        demo.upload(&id, &bytes).expect(204);
        assert_eq!(demo.show(&id)["virtual_size"], virtual_size, "{disk_format}");
        let stored = gateway.sql(&format!("SELECT virtual_size_bytes FROM images WHERE id = '{id}'"));
        assert_eq!(stored, virtual_size.as_u64().map_or(String::new(), |size| size.to_string()));
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
    // What is not what it is called.
    refused(&gateway, &demo, "raw", &qcow2(), 415, "disk_format is raw, but the data is qcow2");
    refused(&gateway, &demo, "vmdk", &qcow2(), 415, "disk_format is vmdk, but the data is qcow2");
    refused(&gateway, &demo, "qcow2", &random_bytes(2, 9 * MIB), 415, "disk_format is qcow2, but the data is raw");
    refused(&gateway, &demo, "iso", b"short", 415, "disk_format is iso, but the data is raw");
    // What is dangerous, under any name.
    let backed = qcow2_with_backing_file();
    refused(&gateway, &demo, "qcow2", &backed, 415, "backing file");
    refused(&gateway, &demo, "raw", &backed, 415, "backing file");
    let flat = vmdk("monolithicFlat", "RW 4096 FLAT \"/etc/passwd\" 0");
    refused(&gateway, &demo, "vmdk", &flat, 415, "check descriptor");
    refused(&gateway, &demo, "raw", &flat, 415, "check descriptor");
    let text = b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 1 FLAT \"/etc/passwd\" 0\n";
    refused(&gateway, &demo, "vmdk", text, 415, "a descriptor alone");
    // A bomb: 256 KiB that say they are 64 TiB.
    let mut bomb = qcow2();
    bomb[24..32].copy_from_slice(&(64u64 << 40).to_be_bytes());
    bomb[36..40].copy_from_slice(&(1u32 << 17).to_be_bytes());
    refused(&gateway, &demo, "qcow2", &bomb, 413, "virtual_size_cap_bytes");
    // A disk with something behind the first block that says at last what it is.
    let mut fixed = random_bytes(3, 9 * MIB);
    let mut footer = [0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[28..32].copy_from_slice(b"win ");
    footer[48..56].copy_from_slice(&(9 * MIB as u64).to_be_bytes());
    footer[60..64].copy_from_slice(&2u32.to_be_bytes());
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    fixed.extend(footer);
    refused(&gateway, &demo, "raw", &fixed, 415, "disk_format is raw, but the data is vhd");
    let id = create(&demo, "vhd", "bare");
    demo.upload(&id, &fixed).expect(204);
    assert_eq!(demo.show(&id)["virtual_size"], 9 * MIB);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn an_upload_is_refused_before_all_of_it_has_come() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = create(&demo, "qcow2", "bare");
    let mut upload = crate::harness::SlowUpload::begin(&gateway, &id, Some(1 << 30));
    upload.send(&qcow2_with_backing_file());
    upload.send(&vec![7; 8 * MIB]);
    assert_eq!(upload.answer(), Some(415));
    assert_eq!(demo.show(&id)["status"], "queued");
}

#[test]
fn the_operator_may_be_less_strict_but_not_careless() {
    let gateway = Gateway::start(Options::default().set("inspection", "require_image_format_match", false));
    let demo = gateway.client(Token::Demo);
    let id = create(&demo, "vmdk", "bare");
    demo.upload(&id, &qcow2()).expect(204);
    assert!(demo.show(&id)["virtual_size"].is_null());
    assert!(gateway.log().contains("disk_format is vmdk, but the data is qcow2"));
    refused(&gateway, &demo, "raw", &qcow2_with_backing_file(), 415, "backing file");

    let gateway = gateway.sibling_with(Options::default().set("inspection", "accept_foreign_as_raw", true).set(
        "inspection",
        "vmdk_allowed_types",
        vec!["streamOptimized".to_owned()],
    ));
    let demo = gateway.client(Token::Demo);
    let id = create(&demo, "raw", "bare");
    demo.upload(&id, &qcow2()).expect(204);
    assert_eq!(demo.show(&id)["virtual_size"], 4 * 65536);
    refused(&gateway, &demo, "raw", &qcow2_with_backing_file(), 415, "backing file");
    let sparse = vmdk("monolithicSparse", "RW 4096 SPARSE \"a.vmdk\"");
    refused(&gateway, &demo, "vmdk", &sparse, 415, "allowed: streamOptimized");
}

#[test]
fn what_is_wrapped_is_not_held_against_its_name() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for (container, status) in [("ova", 204), ("compressed", 204), ("bare", 415)] {
        let id = create(&demo, "vmdk", container);
        demo.upload(&id, &random_bytes(5, 100_000)).expect(status);
        assert!(demo.show(&id)["virtual_size"].is_null());
        let answer = demo.upload(&create(&demo, "qcow2", container), &qcow2_with_backing_file()).expect(415);
        assert!(answer.text().contains("backing file"));
    }
}

#[test]
fn what_a_service_registers_is_looked_at_before_it_is_an_image() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let mut far = random_bytes(6, 9 * MIB);
    far[..4].copy_from_slice(b"QFI\xfb");
    for (bytes, status, why) in [
        (qcow2_with_backing_file(), 415, "backing file"),
        (qcow2(), 415, "disk_format is raw, but the data is qcow2"),
        (far, 415, "qcow2"),
        (random_bytes(6, 9 * MIB), 202, ""),
    ] {
        let id = create(&demo, "raw", "bare");
        let foreign = Foreign::new(&id, &bytes);
        let body = json!({"url": foreign.url});
        let answer =
            demo.post_for_user(&format!("/v2/images/{id}/locations"), &body, Token::Service.text()).expect(status);
        assert!(answer.text().contains(why), "{}", answer.text());
        let rows = |table: &str| gateway.sql(&format!("SELECT count(*) FROM {table} WHERE image_id = '{id}'"));
        if status == 202 {
            eventually("the image is active", 20, || demo.show(&id)["status"] == "active");
        } else {
            assert_eq!((&demo.show(&id)["status"], rows("image_locations")), (&json!("queued"), "0".into()));
            assert_eq!(rows("jobs"), "0");
        }
        // Nothing of somebody else's is touched.
        assert!(foreign.is_whole());
    }
}

#[test]
fn what_is_imported_is_refused_for_the_same_reasons() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    for (disk_format, bytes, why) in [
        ("raw", qcow2(), "disk_format is raw, but the data is qcow2"),
        ("iso", random_bytes(9, 9 * MIB), "disk_format is iso, but the data is raw"),
        ("vmdk", qcow2_with_backing_file(), "backing file"),
    ] {
        let id = create(&demo, disk_format, "bare");
        let staged = demo.stage(&id, &bytes);
        if staged.status == 204 {
            let method = json!({"method": {"name": "glance-direct"}});
            demo.post(&format!("/v2/images/{id}/import"), &method).expect(202);
            eventually("it fails", 30, || demo.show(&id)["os_glance_upload_failure"].is_string());
        } else {
            staged.expect(415);
        }
        let failure = demo.show(&id)["os_glance_upload_failure"].as_str().unwrap().to_owned();
        assert!(failure.contains(why), "{failure}");
        assert_eq!(gateway.sql(&format!("SELECT count(*) FROM image_locations WHERE image_id = '{id}'")), "0");
        demo.delete(&format!("/v2/images/{id}")).expect(204);
        crate::harness::await_clean(&gateway, &[], &[&id], 20);
    }
}

#[test]
fn the_command_says_what_an_upload_would() {
    let folder = std::env::temp_dir().join(format!("rockpool-inspect-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let inspect = |bytes: &[u8], arguments: &[&str]| {
        let path = folder.join("file");
        std::fs::write(&path, bytes).unwrap();
        let run =
            Command::new(env!("CARGO_BIN_EXE_rockpool")).arg("inspect").args(arguments).arg(&path).output().unwrap();
        (run.status.code().unwrap(), String::from_utf8(run.stdout).unwrap())
    };
    let (code, text) = inspect(&qcow2(), &[]);
    assert_eq!(code, 0);
    for line in ["format        qcow2\n", "virtual size  1073741824\n", "verdict       accepted\n"] {
        assert!(text.contains(line), "{text}");
    }
    let (code, text) = inspect(&qcow2_with_backing_file(), &["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["accepted"], &report["format"]), (3, &json!(false), &json!("qcow2")));
    assert_eq!(report["faults"][0]["check"], "backing_file");
    assert!(report["reason"].as_str().unwrap().contains("backing file"));
    let (code, text) = inspect(&qcow2(), &["--disk-format", "raw"]);
    assert!(code == 3 && text.contains("disk_format is raw, but the data is qcow2"), "{text}");
    assert_eq!(inspect(&random_bytes(8, 100), &["--disk-format", "raw"]).0, 0);
    // A boot sector without a partition is no disk.
    let mut sector = vec![0; 512];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    assert_eq!(inspect(&sector, &[]).0, 3);
    std::fs::remove_dir_all(&folder).unwrap();
    let missing = Command::new(env!("CARGO_BIN_EXE_rockpool")).args(["inspect", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8(missing.stderr).unwrap().contains("/nowhere cannot be read"));
}
