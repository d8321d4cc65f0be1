//! `PUT /v2/images/{id}/file`: what is stored, and what is refused without leaving anything behind.

use std::io::Read;
use std::process::Command;

use openssl::hash::{MessageDigest, hash};
use serde_json::{Value, json};
use ureq::SendBody;

use crate::harness::{Client, Gateway, Options, Token, eventually, left_in_pool, random_bytes, rbd, run, servers};

const MIB: usize = 1 << 20;
/// Size of the objects of an RBD image here.
const BLOCK: usize = 8 * MIB;

fn hex(digest: MessageDigest, bytes: &[u8]) -> String {
    hash(digest, bytes).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of the snapshot that consumers clone, as `rbd` reads them.
fn exported(id: &str) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("rockpool-export-{id}"));
    rbd(&["export", "--no-progress", &format!("images/{id}@snap"), path.to_str().unwrap()]);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    bytes
}

/// Fails unless the image is queued as on its first day, nothing of it is in the pool, no job is left, and
/// an upload works.
#[track_caller]
fn untouched(gateway: &Gateway, client: &Client, id: &str) {
    eventually("the image is queued again", 10, || client.show(id)["status"] == "queued");
    let image = client.show(id);
    for key in ["size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value"] {
        assert!(image[key].is_null(), "{key} of {image}");
    }
    assert!(image.get("stores").is_none(), "{image}");
    eventually("nothing is left in the pool", 10, || left_in_pool(&[id]).is_empty());
    eventually("no job is left", 10, || {
        gateway.sql(&format!("SELECT count(*) FROM jobs WHERE image_id = '{id}'")) == "0"
    });
    assert_eq!(gateway.sql(&format!("SELECT count(*) FROM image_locations WHERE image_id = '{id}'")), "0");
}

#[test]
fn uploads_of_every_size_come_back_byte_for_byte() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for (n, size) in [0, 1, 4095, 4096, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5].into_iter().enumerate() {
        let bytes = random_bytes(n as u64, size);
        for chunked in [false, true] {
            let id = demo.create("sized");
            let answer = if chunked { demo.upload_with(&id, &[], &bytes[..]) } else { demo.upload(&id, &bytes) };
            assert_eq!((answer.status, answer.body.len()), (204, 0), "{size}: {}", answer.text());
            let image = demo.show(&id);
            assert_eq!(image["status"], "active");
            assert_eq!(image["size"], size);
            assert_eq!(image["virtual_size"], if size == 0 { json!(null) } else { json!(size) });
            assert_eq!(image["checksum"], hex(MessageDigest::md5(), &bytes));
            assert_eq!(
                (&image["os_hash_algo"], &image["os_hash_value"]),
                (&json!("sha512"), &json!(hex(MessageDigest::sha512(), &bytes)))
            );
            // Of an empty image: see download::an_empty_image_is_downloaded_like_any_other.
            if size > 0 {
                let answer = demo.get(&format!("/v2/images/{id}/file")).expect(200);
                assert!(answer.body == bytes, "{size} chunked={chunked}: other bytes came back");
            }
            assert!(exported(&id) == bytes, "{size} chunked={chunked}: other bytes are stored");
            let info: Value =
                serde_json::from_str(&rbd(&["info", "--format", "json", &format!("images/{id}")])).unwrap();
            assert_eq!((&info["size"], &info["order"]), (&json!(size), &json!(23)));
            assert_eq!(left_in_pool(&[&id]), [id.as_str()]);
            demo.delete(&format!("/v2/images/{id}")).expect(204);
        }
    }
}

#[test]
fn a_stream_in_tiny_and_odd_pieces_is_the_same_image() {
    /// Gives out its bytes a few at a time.
    struct Trickle<'a>(&'a [u8], usize);
    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for (piece, size) in [(1, 3000), (4099, BLOCK + 4099), (16_385, BLOCK + 1)] {
        let bytes = random_bytes(piece as u64, size);
        let id = demo.create("trickled");
        demo.upload_with(&id, &[], Trickle(&bytes, piece)).expect(204);
        assert_eq!(demo.show(&id)["os_hash_value"], hex(MessageDigest::sha512(), &bytes));
        assert!(exported(&id) == bytes, "pieces of {piece}");
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn hashes_are_those_that_the_operator_chose() {
    for (algorithm, digest) in [
        ("sha256", Some(MessageDigest::sha256())),
        ("sha384", Some(MessageDigest::sha384())),
        ("sha1", Some(MessageDigest::sha1())),
        ("none", None),
    ] {
        let checksum = algorithm == "sha256";
        let gateway = Gateway::start(
            Options::default().set("images", "hashing_algorithm", algorithm).set("images", "checksum", checksum),
        );
        let demo = gateway.client(Token::Demo);
        let bytes = random_bytes(7, BLOCK + 77);
        let id = demo.active("hashed", &bytes);
        let image = demo.show(&id);
        assert_eq!(image["checksum"], if checksum { json!(hex(MessageDigest::md5(), &bytes)) } else { json!(null) });
        assert_eq!(image["os_hash_algo"], if digest.is_some() { json!(algorithm) } else { json!(null) });
        assert_eq!(image["os_hash_value"], digest.map_or(json!(null), |digest| json!(hex(digest, &bytes))));
        let answer = demo.get(&format!("/v2/images/{id}/file")).expect(200);
        assert!(answer.body == bytes);
        assert_eq!(answer.headers.contains_key("content-md5"), checksum);
        assert!(answer.header("etag").len() > 2, "{algorithm}: {:?}", answer.header("etag"));
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn zeros_take_no_space_and_are_read_back() {
    const SIZE: usize = 5 * BLOCK + 12_345;
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    // What the OSD has allocated: `rbd du` counts an object up to its last byte.
    let used = |id: &str| -> u64 {
        let info: Value = serde_json::from_str(&rbd(&["info", "--format", "json", &format!("images/{id}")])).unwrap();
        let prefix = info["block_name_prefix"].as_str().unwrap();
        let conf = servers().ceph.join("ceph.conf");
        let extents = (0..SIZE.div_ceil(BLOCK)).filter_map(|n| {
            // An object that was never written is not there.
            run(Command::new("rados").arg("-c").arg(&conf).args([
                "-p",
                "images",
                "mapext",
                &format!("{prefix}.{n:016x}"),
            ]))
            .ok()
        });
        let length = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
        extents.map(|text| text.lines().map(length).sum::<u64>()).sum()
    };
    let data = random_bytes(3, SIZE);
    // A piece of data of `dense` bytes at every multiple of `every`, off by `shift`.
    for (dense, every, shift, bound) in [
        (0, 1, 0, 0),
        (1, BLOCK, BLOCK - 1, 6 * 4096),
        (4096, 64 * 1024, 0, 700 * 4096),
        (4096, MIB, 100, 50 * 2 * 4096),
        (64 * 1024, MIB, 4096, 41 * 64 * 1024),
        (BLOCK, 2 * BLOCK, 0, 3 * BLOCK),
        (512, 4096, 512, SIZE),
        (SIZE, SIZE, 0, SIZE + 4096),
    ] {
        let mut bytes = vec![0; SIZE];
        let mut at = shift;
        while at < SIZE && dense > 0 {
            let end = (at + dense).min(SIZE);
            bytes[at..end].copy_from_slice(&data[at..end]);
            at += every;
        }
        for chunked in [false, true] {
            let id = demo.create("sparse");
            let answer = if chunked { demo.upload_with(&id, &[], &bytes[..]) } else { demo.upload(&id, &bytes) };
            assert_eq!(answer.status, 204, "{}", answer.text());
            let image = demo.show(&id);
            assert_eq!((&image["size"], &image["checksum"]), (&json!(SIZE), &json!(hex(MessageDigest::md5(), &bytes))));
            assert!(
                demo.get(&format!("/v2/images/{id}/file")).expect(200).body == bytes,
                "{dense} every {every}: other bytes came back"
            );
            assert!(exported(&id) == bytes, "{dense} every {every}: other bytes are stored");
            let used = used(&id);
            assert!(used <= bound as u64, "{dense} every {every}: {used} bytes are stored, {bound} would do");
            demo.delete(&format!("/v2/images/{id}")).expect(204);
        }
    }
}

#[test]
fn a_declared_size_must_be_the_real_one() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(9, 300_000);
    let id = demo.create("declared");
    for (declared, word) in [
        ("299999", "mismatch"),
        ("300001", "mismatch"),
        ("-1", "whole number"),
        ("abc", "whole number"),
        ("", "whole number"),
        ("3e5", "whole number"),
        ("+300000", "whole number"),
        ("0x493e0", "whole number"),
        ("300000, 300000", "whole number"),
        ("18446744073709551616", "whole number"),
        ("18446744073709551615", "maximum"),
        ("9223372036854775808", "maximum"),
    ] {
        let expected = if word == "maximum" { 413 } else { 400 };
        let answer = demo.upload_with(&id, &[("x-openstack-image-size", declared)], &bytes[..]);
        assert_eq!(answer.status, expected, "{declared}: {}", answer.text());
        assert!(answer.text().contains(word), "{declared}: {}", answer.text());
        untouched(&gateway, &demo, &id);
    }
    // It contradicts the length of the body, or is said twice.
    let answer =
        demo.upload_with(&id, &[("x-openstack-image-size", "300001"), ("content-length", "300000")], &bytes[..]);
    assert_eq!(answer.status, 400, "{}", answer.text());
    let answer = demo.upload_with(
        &id,
        &[("x-openstack-image-size", "300000"), ("x-openstack-image-size", "300000")],
        &bytes[..],
    );
    assert_eq!(answer.status, 400, "{}", answer.text());
    untouched(&gateway, &demo, &id);
    // The right one is taken, chunked or not, and for a larger one than the size itself nothing is left over.
    demo.upload_with(&id, &[("x-openstack-image-size", "300000")], &bytes[..]).expect(204);
    assert_eq!(demo.show(&id)["size"], 300_000);
    let second = demo.create("declared twice");
    demo.upload_with(&second, &[("x-openstack-image-size", "300000"), ("content-length", "300000")], &bytes[..])
        .expect(204);
    for id in [id, second] {
        assert!(exported(&id) == bytes);
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn what_exceeds_the_cap_is_refused_and_leaves_nothing() {
    let cap = 2 * MIB + 100;
    let gateway = Gateway::start(Options::default().set("images", "image_size_cap_bytes", i64::try_from(cap).unwrap()));
    let demo = gateway.client(Token::Demo);
    let id = demo.create("capped");
    let bytes = random_bytes(11, 3 * BLOCK);
    for over in [cap + 1, 3 * BLOCK] {
        let length = over.to_string();
        for headers in [&[("content-length", length.as_str())][..], &[("x-openstack-image-size", length.as_str())], &[]]
        {
            let answer = demo.upload_with(&id, headers, &bytes[..over]);
            assert_eq!(answer.status, 413, "{headers:?}: {}", answer.text());
            assert!(answer.text().contains("image_size_cap"), "{}", answer.text());
            untouched(&gateway, &demo, &id);
        }
    }
    demo.upload_with(&id, &[], &bytes[..cap]).expect(204);
    assert_eq!(demo.show(&id)["size"], cap);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn uploads_that_may_not_be_are_refused() {
    let gateway = Gateway::start(Options::default());
    let [admin, demo, alt, reader, ..] = Token::ALL.map(|token| gateway.client(token));
    let id = demo.create("refused");
    let path = format!("/v2/images/{id}/file");
    // Media types.
    for media_type in [
        "application/json",
        "text/plain",
        "application/octet-streams",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "",
    ] {
        let answer = demo.send("PUT", &path, &[("content-type", media_type)], SendBody::from_reader(&mut &b"data"[..]));
        assert_eq!(answer.status, 415, "{media_type}: {}", answer.text());
        assert!(answer.text().contains("application/octet-stream"), "{}", answer.text());
    }
    assert_eq!(demo.send("PUT", &path, &[], SendBody::from_reader(&mut &b"data"[..])).status, 415);
    // Stores.
    for store in ["nothing", "CEPH", "", "os_glance_staging_store", "ceph,ceph"] {
        let answer = demo.upload_with(&id, &[("x-image-meta-store", store)], &b"data"[..]);
        assert_eq!(answer.status, 400, "{store}: {}", answer.text());
    }
    // Callers.
    assert_eq!(reader.upload(&id, b"data").status, 403);
    assert_eq!(alt.upload(&id, b"data").status, 404);
    assert_eq!(gateway.anonymous().upload(&id, b"data").status, 401);
    for unknown in [uuid::Uuid::new_v4().to_string(), "x".to_owned()] {
        assert_eq!(demo.upload(&unknown, b"data").status, 404);
    }
    untouched(&gateway, &demo, &id);
    // Formats.
    for body in [json!({}), json!({"disk_format": "raw"}), json!({"container_format": "bare"})] {
        let id = demo.post("/v2/images", &body).expect(201).json()["id"].as_str().unwrap().to_owned();
        let answer = demo.upload(&id, b"data");
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        assert!(answer.text().contains("_format must be set"), "{}", answer.text());
        untouched(&gateway, &demo, &id);
    }
    // The store that there is, a parameter of the media type, and the administrator are fine.
    let headers = [("x-image-meta-store", "ceph"), ("content-type", "Application/Octet-Stream; charset=binary")];
    let answer = admin.send("PUT", &path, &headers, SendBody::from_reader(&mut &b"data"[..]));
    assert_eq!(answer.status, 204, "{}", answer.text());
    // Data is there: once and for ever.
    for client in [&demo, &admin] {
        for bytes in [&b"other"[..], b""] {
            let answer = client.upload(&id, bytes);
            assert_eq!(answer.status, 409, "{}", answer.text());
            assert!(answer.text().contains("active"), "{}", answer.text());
        }
    }
    assert_eq!(exported(&id), b"data");
    assert_eq!(demo.get(&path).expect(200).body, b"data");
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert_eq!(demo.upload(&id, b"data").status, 404);
}

#[test]
fn a_refusal_reaches_a_client_that_sends_on() {
    let gateway = Gateway::start(Options::default().set("images", "image_size_cap_bytes", 1000));
    let demo = gateway.client(Token::Demo);
    let id = demo.create("refused early");
    let bytes = vec![1; 40 * MIB];
    let length = bytes.len().to_string();
    for headers in [&[("content-length", length.as_str())][..], &[]] {
        assert_eq!(demo.upload_with(&id, headers, &bytes[..]).status, 413);
        assert_eq!(gateway.anonymous().upload_with(&id, headers, &bytes[..]).status, 401);
        assert_eq!(demo.upload_with(&uuid::Uuid::new_v4().to_string(), headers, &bytes[..]).status, 404);
    }
    untouched(&gateway, &demo, &id);
}

#[test]
fn at_most_so_many_transfers_run_at_once() {
    let gateway = Gateway::start(Options::default().set("server", "transfers_max", 1));
    let demo = gateway.client(Token::Demo);
    let (first, second) = (demo.create("first"), demo.create("second"));
    let mut wire = crate::harness::Wire::connect(&gateway.address);
    wire.send(format!("PUT /v2/images/{first}/file HTTP/1.1\r\nhost: x\r\nx-auth-token: {}\r\ncontent-type: application/octet-stream\r\ncontent-length: 4\r\n\r\nda", Token::Demo.text()));
    eventually("the first is being stored", 10, || demo.show(&first)["status"] == "saving");
    let answer = demo.upload(&second, b"data");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(!answer.header("retry-after").is_empty());
    untouched(&gateway, &demo, &second);
    wire.send("ta");
    assert_eq!(wire.answer().status, 204);
    demo.upload(&second, b"data").expect(204);
    for id in [first, second] {
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}

#[test]
fn the_rbd_image_is_laid_out_as_glance_does() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let body = json!({"name": "laid out", "disk_format": "raw", "container_format": "bare", "os_distro": "debian"});
    let id = demo.post("/v2/images", &body).expect(201).json()["id"].as_str().unwrap().to_owned();
    demo.upload(&id, &random_bytes(1, BLOCK + 1)).expect(204);
    let snapshots: Value =
        serde_json::from_str(&rbd(&["snap", "ls", "--format", "json", &format!("images/{id}")])).unwrap();
    assert_eq!(snapshots.as_array().unwrap().len(), 1);
    assert_eq!(
        (&snapshots[0]["name"], &snapshots[0]["protected"], &snapshots[0]["size"]),
        (&json!("snap"), &json!("true"), &json!(BLOCK + 1))
    );
    let info: Value = serde_json::from_str(&rbd(&["info", "--format", "json", &format!("images/{id}")])).unwrap();
    assert!(info["features"].as_array().unwrap().contains(&json!("layering")), "{info}");
    let image = demo.show(&id);
    let meta: Value =
        serde_json::from_str(&rbd(&["image-meta", "list", "--format", "json", &format!("images/{id}")])).unwrap();
    for (key, value) in [
        ("name", "laid out"),
        ("owner", "p-demo"),
        ("disk_format", "raw"),
        ("container_format", "bare"),
        ("size", "8388609"),
        ("state", "ready"),
        ("os_hash_algo", "sha512"),
        ("created_at", image["created_at"].as_str().unwrap()),
        ("checksum", image["checksum"].as_str().unwrap()),
        ("os_hash_value", image["os_hash_value"].as_str().unwrap()),
        ("visibility", "shared"),
        ("properties", r#"{"os_distro":"debian"}"#),
    ] {
        assert_eq!(meta[format!("rockpool.{key}")], value, "{key}");
    }
    // Nova clones it, with Nova's rights.
    let ceph = servers().ceph;
    let clone = format!("vms/clone-{id}");
    let nova = |arguments: &[&str]| {
        run(Command::new("rbd").arg("--conf").arg(ceph.join("ceph.conf")).args(["--id", "nova"]).args(arguments))
            .unwrap_or_else(|e| panic!("{e}"))
    };
    nova(&["clone", &format!("images/{id}@snap"), &clone]);
    nova(&["rm", "--no-progress", &clone]);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}
