//! `PUT .../file` of images that become raw: what is stored is what `qemu-img convert -O raw` makes of the same file.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use ureq::SendBody;

use crate::harness::{
    Client, Gateway, Nginx, Options, SlowUpload, TAKEOVER_S, Token, assert_active, await_clean, eventually,
    left_in_pool, random_bytes, rbd, status_of,
};
use crate::vmware;

const MIB: usize = 1 << 20;
/// How long a dead client of Ceph counts as a user of what it had open, and the retries on top of it.
const DATA_GONE_S: u64 = 75;

/// A folder for the files of a test. Dropped, it goes.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("rockpool-convert-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    #[track_caller]
    fn qemu_img(&self, from: &str, to: &str, options: &[&str], bytes: &[u8]) -> Vec<u8> {
        let (source, target) = (self.0.join("source"), self.0.join("target"));
        std::fs::write(&source, bytes).unwrap();
        let files = [source.to_str().unwrap(), target.to_str().unwrap()];
        let arguments = [&["convert", "-f", from, "-O", to][..], options, &files[..]].concat();
        assert!(Command::new("qemu-img").args(arguments).status().unwrap().success());
        std::fs::read(&target).unwrap()
    }

    /// A disk in a format.
    #[track_caller]
    fn image(&self, format: &str, options: &[&str], disk: &[u8]) -> Vec<u8> {
        self.qemu_img("raw", format, options, disk)
    }

    /// The disk in a file, as `qemu-img` sees it.
    #[track_caller]
    fn raw(&self, format: &str, file: &[u8]) -> Vec<u8> {
        self.qemu_img(format, "raw", &[], file)
    }

    /// A file, packed by a tool.
    #[track_caller]
    fn packed(&self, tool: &str, bytes: &[u8]) -> Vec<u8> {
        let path = self.0.join("packed");
        std::fs::write(&path, bytes).unwrap();
        let output = Command::new(tool).args(["-c", path.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{tool}");
        output.stdout
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn md5(bytes: &[u8]) -> String {
    let digest = openssl::hash::hash(openssl::hash::MessageDigest::md5(), bytes).unwrap();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A queued image of this format that asks to become raw.
#[track_caller]
fn asking(client: &Client, disk_format: &str) -> String {
    create(client, &json!({"disk_format": disk_format, "container_format": "bare", "rockpool_convert": "raw"}))
}

#[track_caller]
fn create(client: &Client, document: &Value) -> String {
    client.post("/v2/images", document).expect(201).json()["id"].as_str().unwrap().to_owned()
}

/// A disk with data, holes, and an odd end.
fn disk(seed: u64) -> Vec<u8> {
    let mut disk = random_bytes(seed, 5 * MIB + 3 * 512);
    disk[MIB..3 * MIB + 4096].fill(0);
    disk
}

/// Fails unless the image holds this disk, as the record, the database and the pool have it.
#[track_caller]
fn assert_raw(gateway: &Gateway, id: &str, disk: &[u8], received: &[u8]) {
    let demo = gateway.client(Token::Demo);
    assert_active(&demo, id, disk);
    let image = demo.show(id);
    assert_eq!((&image["disk_format"], &image["container_format"]), (&"raw".into(), &"bare".into()));
    assert_eq!(image["virtual_size"], disk.len());
    let row = gateway.sql(&format!(
        "SELECT disk_format, size_bytes, checksum, converted, os_hash_algo FROM images WHERE id = '{id}'"
    ));
    assert_eq!(row, format!("raw|{}|{}|t|sha512", disk.len(), md5(received)));
    // The MD5 is not that of what is served.
    assert_eq!(demo.get(&format!("/v2/images/{id}/file")).expect(200).header("content-md5"), "");
    assert_eq!(rbd(&["image-meta", "get", &format!("images/{id}"), "rockpool.disk_format"]), "raw");
}

#[test]
fn every_format_becomes_raw_as_qemu_img_has_it() {
    let (gateway, scratch) = (Gateway::start(Options::quick()), Scratch::new());
    let demo = gateway.client(Token::Demo);
    let disk = disk(1);
    let cases: [(&str, &str, &[&str]); 6] = [
        ("qcow2", "qcow2", &[]),
        ("qcow2", "qcow2", &["-c", "-o", "compression_type=zstd"]),
        ("vmdk", "vmdk", &["-o", "subformat=monolithicSparse"]),
        ("vhd", "vpc", &[]),
        ("vhdx", "vhdx", &[]),
        ("vdi", "vdi", &[]),
    ];
    for (disk_format, name, options) in cases {
        let file = scratch.image(name, options, &disk);
        let id = asking(&demo, disk_format);
        demo.upload(&id, &file).expect(204);
        assert_raw(&gateway, &id, &scratch.raw(name, &file), &file);
        await_clean(&gateway, &[&id], &[], 15);
        assert_eq!(demo.show(&id)["rockpool_convert"], "raw");
    }
    assert_eq!(gateway.log().matches("an upload was staged").count(), cases.len());
}

#[test]
fn what_can_be_decoded_as_it_comes_is_never_staged() {
    let (gateway, scratch) = (Gateway::start(Options::quick()), Scratch::new());
    let demo = gateway.client(Token::Demo);
    let disk = disk(2);
    let stream = vmware::stream(&disk);
    assert!(scratch.raw("vmdk", &stream) == disk, "qemu-img does not read what the test writes");
    let id = asking(&demo, "vmdk");
    // Of unknown length.
    demo.upload_with(&id, &[], &stream[..]).expect(204);
    assert_raw(&gateway, &id, &disk, &stream);
    for tool in ["gzip", "xz", "bzip2"] {
        let packed = scratch.packed(tool, &disk);
        let id = asking(&demo, "raw");
        demo.upload(&id, &packed).expect(204);
        assert_raw(&gateway, &id, &disk, &packed);
    }
    assert!(!gateway.log().contains("an upload was staged"), "{}", gateway.log());
    // Packed and by tables: once.
    let packed = scratch.packed("gzip", &scratch.image("qcow2", &[], &disk));
    let id = asking(&demo, "qcow2");
    demo.upload(&id, &packed).expect(204);
    assert_raw(&gateway, &id, &disk, &packed);
    assert_eq!(gateway.log().matches("an upload was staged").count(), 1);
    await_clean(&gateway, &[&id], &[], 15);
    // A stream that is cut off, or not what it is called, leaves nothing.
    for (disk_format, bytes, status, words) in [
        ("vmdk", &stream[..stream.len() - 600], 415, "footer"),
        ("raw", &packed[..packed.len() - 9], 415, "gzip"),
        ("raw", &packed[..], 415, "qcow2"),
    ] {
        let id = asking(&demo, disk_format);
        let text = demo.upload(&id, bytes).expect(status).text();
        assert!(text.contains(words), "{text}");
        assert_eq!(status_of(&demo, &id), "queued");
        eventually("nothing is left", 15, || left_in_pool(&[&id]).is_empty());
    }
}

#[test]
fn a_download_is_decoded_as_it_comes_too() {
    let Some(nginx) = Nginx::start("") else { return };
    let fetch = "[fetch]\nallowed_hosts = [\"localhost\"]\nallowed_ports = []\nrange_mib = 1\n";
    let (gateway, scratch) = (Gateway::start(Options::quick().sections(fetch)), Scratch::new());
    let demo = gateway.client(Token::Demo);
    let disk = disk(6);
    for (name, disk_format, bytes) in [
        ("disk.vmdk", "vmdk", vmware::stream(&disk)),
        ("disk.gz", "raw", scratch.packed("gzip", &disk)),
        ("disk.qcow2.gz", "qcow2", scratch.packed("gzip", &scratch.image("qcow2", &[], &disk))),
    ] {
        nginx.serve(name, &bytes);
        let id = create(&demo, &json!({"disk_format": disk_format, "container_format": "bare"}));
        let method = json!({"method": {"name": "web-download", "uri": nginx.url(name)}});
        demo.post(&format!("/v2/images/{id}/import"), &method).expect(202);
        eventually("it is active", 60, || status_of(&demo, &id) == "active");
        assert_raw(&gateway, &id, &disk, &bytes);
        await_clean(&gateway, &[&id], &[], 20);
    }
    // Cut off, it is no image.
    let cut = &vmware::stream(&disk)[..2 * MIB];
    nginx.serve("cut.vmdk", cut);
    let id = create(&demo, &json!({"disk_format": "vmdk", "container_format": "bare"}));
    let method = json!({"method": {"name": "web-download", "uri": nginx.url("cut.vmdk")}});
    demo.post(&format!("/v2/images/{id}/import"), &method).expect(202);
    eventually("it fails", 60, || status_of(&demo, &id) == "queued");
    assert!(demo.show(&id)["os_glance_upload_failure"].is_string());
    await_clean(&gateway, &[], &[&id], 20);
}

#[test]
fn the_option_says_who_is_asked() {
    let scratch = Scratch::new();
    let disk = disk(3);
    let file = scratch.image("qcow2", &[], &disk);
    let plain = json!({"disk_format": "qcow2", "container_format": "bare"});
    let first = Gateway::start(Options::quick());
    let folder = first.folder().join("store");
    std::fs::create_dir(&folder).unwrap();
    let section = format!("[stores.folder]\ntype = \"file\"\ndata_dir = \"{}\"\n", folder.display());
    // 1. On request, which is the default.
    let demo = first.client(Token::Demo);
    let id = create(&demo, &plain);
    demo.upload(&id, &file).expect(204);
    assert_kept(&first, &id, &file);
    let wrong = create(&demo, &json!({"disk_format": "qcow2", "container_format": "bare", "rockpool_convert": "vmdk"}));
    let text = demo.upload(&wrong, &file).expect(400).text();
    assert!(text.contains("rockpool_convert") && text.contains("raw"), "{text}");
    assert_eq!(status_of(&demo, &wrong), "queued");
    // 2. Never.
    let never = first.sibling_with(Options::quick().set("images", "convert_on_upload", "never"));
    let demo = never.client(Token::Demo);
    let id = asking(&demo, "qcow2");
    demo.upload(&id, &file).expect(204);
    assert_kept(&never, &id, &file);
    // 3. Always, but for stores that nothing is cloned from, and for what is wrapped.
    let always = never.sibling_with(Options::quick().set("images", "convert_on_upload", "always").sections(&section));
    let demo = always.client(Token::Demo);
    let id = create(&demo, &plain);
    demo.upload(&id, &file).expect(204);
    assert_raw(&always, &id, &disk, &file);
    let raw = demo.active("raw", &disk);
    assert_active(&demo, &raw, &disk);
    assert_eq!(demo.show(&raw)["checksum"], md5(&disk));
    let elsewhere = asking(&demo, "qcow2");
    let length = file.len().to_string();
    demo.upload_with(&elsewhere, &[("content-length", &length), ("x-image-meta-store", "folder")], &file[..])
        .expect(204);
    assert_kept(&always, &elsewhere, &file);
    let wrapped = create(&demo, &json!({"disk_format": "qcow2", "container_format": "ovf"}));
    demo.upload(&wrapped, &file).expect(204);
    assert_kept(&always, &wrapped, &file);
}

/// Fails unless the image is the very file.
#[track_caller]
fn assert_kept(gateway: &Gateway, id: &str, file: &[u8]) {
    let demo = gateway.client(Token::Demo);
    let answer = demo.get(&format!("/v2/images/{id}/file")).expect(200);
    assert!(answer.body == file, "{id} holds other bytes");
    assert_eq!(answer.header("content-md5"), md5(file));
    let row =
        gateway.sql(&format!("SELECT disk_format, size_bytes, checksum, converted FROM images WHERE id = '{id}'"));
    assert_eq!(row, format!("qcow2|{}|{}|f", file.len(), md5(file)));
}

#[test]
fn what_cannot_be_converted_leaves_a_queued_image_and_nothing_else() {
    let (gateway, scratch) =
        (Gateway::start(Options::quick().set("limits", "user_storage_quota", "9MB")), Scratch::new());
    let demo = gateway.client(Token::Demo);
    let good = scratch.image("qcow2", &[], &disk(4));
    let mut broken = good.clone();
    // The header is in order, but the first table of clusters lies beyond the end.
    let tables = u64::from_be_bytes(*broken[40..].first_chunk().unwrap()) as usize;
    broken[tables..tables + 8].copy_from_slice(&(1_u64 << 63 | 1 << 40).to_be_bytes());
    // What is in it is an image again, and more than there is room for.
    let nested = scratch.image("qcow2", &[], &good);
    let large = scratch.image("qcow2", &[], &vec![0; 12 * MIB]);
    let cases =
        [(&broken[..], 415, "cut off"), (&nested, 415, "the data is qcow2"), (&large, 413, "user_storage_quota")];
    for (bytes, status, words) in cases {
        let id = asking(&demo, "qcow2");
        let text = demo.upload(&id, bytes).expect(status).text();
        assert!(text.contains(words), "{text}");
        let image = demo.show(&id);
        assert!(image["status"] == "queued" && image["size"].is_null() && image["checksum"].is_null(), "{image}");
        assert_eq!(image["disk_format"], "qcow2");
        assert!(image["os_glance_upload_failure"].as_str().unwrap().contains(words), "{image}");
        await_clean(&gateway, &[], &[&id], 15);
    }
    // A client that goes away in the middle.
    let id = asking(&demo, "qcow2");
    let mut upload = SlowUpload::begin(&gateway, &id, Some(good.len()));
    assert!(upload.send(&good[..good.len() / 2]));
    eventually("it is being staged", 15, || left_in_pool(&[&id]).iter().any(|name| name.starts_with("staging-")));
    drop(upload);
    eventually("it is queued again", 15, || status_of(&demo, &id) == "queued");
    await_clean(&gateway, &[], &[&id], 15);
    demo.upload(&id, &good).expect(204);
    assert_raw(&gateway, &id, &disk(4), &good);
    // What counts is what is stored.
    let used = gateway.sql("SELECT sum(size_bytes) FROM images");
    assert_eq!(used, disk(4).len().to_string());
}

#[test]
fn a_gateway_killed_while_it_converts_leaves_nothing_or_all_of_it() {
    let mut gateways = Gateway::start_all(&Options::quick(), 2);
    let victim = gateways.pop().unwrap();
    let survivor = gateways.pop().unwrap();
    let (demo, scratch) = (survivor.client(Token::Demo), Scratch::new());
    let disk = random_bytes(5, 48 * MIB);
    let file = scratch.image("qcow2", &[], &disk);
    let (staging, writing) = (asking(&demo, "qcow2"), asking(&demo, "qcow2"));
    // One whose bytes are still coming, one that is being written.
    let mut upload = SlowUpload::begin(&victim, &staging, Some(file.len()));
    assert!(upload.send(&file[..file.len() / 2]));
    let kept = |id: &str, prefix: &str| left_in_pool(&[id]).iter().any(|name| name.starts_with(prefix));
    eventually("it is being staged", 15, || kept(&staging, "staging-"));
    let (through, id, bytes) = (victim.client(Token::Demo), writing.clone(), file.clone());
    let sent = std::thread::spawn(move || {
        let headers = [("content-type", "application/octet-stream")];
        let path = format!("/v2/images/{id}/file");
        through.try_send("PUT", &path, &headers, SendBody::from_reader(&mut &bytes[..])).map(|answer| answer.status)
    });
    eventually("it is being written", 30, || kept(&writing, "uploading-") || status_of(&demo, &writing) == "active");
    victim.signal("KILL");
    let answer = sent.join().unwrap();
    for id in [&staging, &writing] {
        eventually("it is taken over", TAKEOVER_S, || ["queued", "active"].contains(&status_of(&demo, id).as_str()));
    }
    let status = status_of(&demo, &writing);
    assert!(answer != Some(204) || status == "active", "what was said to be stored is lost");
    if status == "active" {
        assert_raw(&survivor, &writing, &disk, &file);
    }
    let left: Vec<&str> = if status == "active" { vec![&writing] } else { Vec::new() };
    await_clean(&survivor, &left, &[&staging, &writing], DATA_GONE_S);
}

#[test]
fn an_image_deleted_while_it_is_converted_takes_everything_along() {
    let (gateway, scratch) = (Gateway::start(Options::quick()), Scratch::new());
    let demo = gateway.client(Token::Demo);
    let file = scratch.image("qcow2", &[], &random_bytes(7, 32 * MIB));
    let (coming, writing) = (asking(&demo, "qcow2"), asking(&demo, "qcow2"));
    // Before all of it has come.
    let mut upload = SlowUpload::begin(&gateway, &coming, None);
    assert!(upload.send(&file[..file.len() / 2]));
    let kept = |id: &str, prefix: &str| left_in_pool(&[id]).iter().any(|name| name.starts_with(prefix));
    eventually("it is being staged", 15, || kept(&coming, "staging-"));
    demo.delete(&format!("/v2/images/{coming}")).expect(204);
    assert_eq!(upload.answer(), Some(410));
    // While it is read and written, if it is not there by then.
    let mut upload = SlowUpload::begin(&gateway, &writing, Some(file.len()));
    assert!(upload.send(&file));
    eventually("it is written", 30, || kept(&writing, "uploading-") || status_of(&demo, &writing) == "active");
    demo.delete(&format!("/v2/images/{writing}")).expect(204);
    assert!([Some(410), Some(204)].contains(&upload.answer()));
    await_clean(&gateway, &[], &[&coming, &writing], 20);
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "0");
}

#[test]
fn what_a_dead_gateway_had_staged_goes_although_its_image_is_whole() {
    let gateway = Gateway::start(Options::quick());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("whole", b"all of it");
    // As far as an upload has come that dies right after its image was active.
    let (job, staging) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    rbd(&["create", "--size", "8M", &format!("images/staging-{id}-{}", staging.as_simple())]);
    let payload = json!({"store": "ceph", "version": 2, "staging": [staging]});
    gateway.sql(&format!(
        "INSERT INTO jobs (id, kind, image_id, state, payload, lease_expires_at) VALUES ('{job}', 'upload', '{id}', 'sweeping', '{payload}', now())"
    ));
    await_clean(&gateway, &[&id], &[], 20);
    assert_active(&demo, &id, b"all of it");
}
