//! `GET /v2/images/{id}/file`: the whole, a part, or neither.

use std::thread;

use openssl::hash::{MessageDigest, hash};
use serde_json::json;

use crate::harness::{Answer, Client, Gateway, Options, Token, random_bytes};

const BLOCK: usize = 8 << 20;

fn get(client: &Client, id: &str, headers: &[(&str, &str)]) -> Answer {
    client.get_with(&format!("/v2/images/{id}/file"), headers)
}

/// Fails unless the range is answered with these bytes.
#[track_caller]
fn part(client: &Client, id: &str, range: &str, bytes: &[u8], start: usize, end: usize) {
    let answer = get(client, id, &[("range", range)]).expect(206);
    assert_eq!(answer.header("content-range"), format!("bytes {start}-{}/{}", end - 1, bytes.len()), "{range}");
    assert_eq!(answer.header("content-length"), (end - start).to_string(), "{range}");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert!(answer.body == bytes[start..end], "{range}: other bytes came back");
}

/// Data with holes in it: before, over and after the borders of objects and reads.
fn holed() -> Vec<u8> {
    let mut bytes = random_bytes(21, 3 * BLOCK + 5);
    for (from, to) in
        [(0, 70_000), (BLOCK / 2 - 40_000, BLOCK / 2 + 40_000), (BLOCK - 1, BLOCK + 300_000), (2 * BLOCK, 3 * BLOCK)]
    {
        bytes[from..to].fill(0);
    }
    bytes
}

#[test]
fn a_download_carries_what_clients_verify_it_by() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(2, 100_003);
    let id = demo.active("whole", &bytes);
    let answer = get(&demo, &id, &[]).expect(200);
    assert!(answer.body == bytes);
    let hex = |digest| hash(digest, &bytes).unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (name, value) in [
        ("content-type", "application/octet-stream".to_owned()),
        ("content-length", "100003".to_owned()),
        ("accept-ranges", "bytes".to_owned()),
        ("content-md5", hex(MessageDigest::md5())),
        ("etag", format!("\"{}\"", hex(MessageDigest::sha512()))),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    assert!(answer.header("x-openstack-request-id").starts_with("req-"));
    assert!(answer.header("content-range").is_empty());
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn a_range_is_exactly_the_bytes_asked_for() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = holed();
    let id = demo.active("ranges", &bytes);
    let size = bytes.len();
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, size),
        ("bytes=-1", size - 1, size),
        ("bytes=-70000", size - 70_000, size),
        ("bytes=-99999999999", 0, size),
        ("bytes=69999-70000", 69_999, 70_001),
        ("bytes=8388607-8388608", BLOCK - 1, BLOCK + 1),
        ("bytes=8388600-8700000", 8_388_600, 8_700_001),
        ("bytes=4100000-4300000", 4_100_000, 4_300_001),
        ("bytes=4194303-4194304", BLOCK / 2 - 1, BLOCK / 2 + 1),
        ("bytes=1000-25165828", 1000, size),
        ("bytes=25165820-99999999999", 25_165_820, size),
        ("bytes=25165824-25165828", 3 * BLOCK, size),
        ("bytes=16777216-25165823", 2 * BLOCK, 3 * BLOCK),
        ("bytes=16777215-25165824", 2 * BLOCK - 1, 3 * BLOCK + 1),
        ("bytes=5-18446744073709551615", 5, size),
        ("  bytes=7-9  ", 7, 10),
    ] {
        part(&demo, &id, range, &bytes, start, end);
    }
    // Many at once, each from somewhere else.
    thread::scope(|scope| {
        for n in 0..32 {
            let (client, id, bytes) = (demo.clone(), &id, &bytes);
            scope.spawn(move || {
                for round in 0..4 {
                    let start = (n * 7_654_321 + round * 1_234_567) % (size - 1);
                    let end = (start + 1 + n * 30_011).min(size);
                    part(&client, id, &format!("bytes={start}-{}", end - 1), bytes, start, end);
                }
            });
        }
    });
    assert!(get(&demo, &id, &[]).expect(200).body == bytes);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn a_range_that_cannot_be_served_is_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.active("hundred", &random_bytes(3, 100));
    for range in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=18446744073709551615-"] {
        let answer = get(&demo, &id, &[("range", range)]).expect(416);
        assert_eq!(answer.header("content-range"), "bytes */100", "{range}");
        assert!(answer.text().contains("100"), "{range}: {}", answer.text());
    }
    for range in ["bytes=0-1,5-6", "bytes=0-0,-1", "bytes=,", "bytes=0-1,"] {
        assert_eq!(get(&demo, &id, &[("range", range)]).status, 400, "{range}");
    }
    // Nonsense is no range: the reference answers 400 or 416, and never with other bytes than asked for.
    for range in [
        "bytes=",
        "bytes=-",
        "bytes=9-5",
        "bytes=a-b",
        "bytes=1",
        "bytes=+1-2",
        "bytes=0x1-0x2",
        "bytes=--5",
        "items=0-1",
        "bytes 0-1",
        "bytes=99999999999999999999-",
        "bytes=1.5-2",
        "0-1",
    ] {
        let answer = get(&demo, &id, &[("range", range)]);
        assert!(matches!(answer.status, 400 | 416), "{range}: {}", answer.status);
    }
    assert_eq!(get(&demo, &id, &[("range", "bytes=0-1"), ("range", "bytes=5-6")]).status, 400);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

/// librbd ends the process when it is asked which of no bytes are data.
#[test]
fn an_empty_image_is_downloaded_like_any_other() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let empty = demo.active("empty", b"");
    let answer = get(&demo, &empty, &[]).expect(200);
    assert_eq!((answer.header("content-length"), answer.body.len()), ("0", 0));
    assert_eq!(get(&demo, &empty, &[("range", "bytes=0-0")]).expect(416).header("content-range"), "bytes */0");
    demo.delete(&format!("/v2/images/{empty}")).expect(204);
}

#[test]
fn a_client_that_has_the_bytes_gets_none() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(4, 5000);
    let id = demo.active("cached", &bytes);
    let etag = get(&demo, &id, &[]).header("etag").to_owned();
    for known in
        [etag.clone(), format!("\"x\", {etag}"), format!("W/{etag}"), "*".to_owned(), format!("\"a,b\" , {etag}")]
    {
        let answer = get(&demo, &id, &[("if-none-match", &known)]);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{known}");
        assert_eq!(answer.header("etag"), etag);
    }
    for other in ["\"x\"".to_owned(), etag.trim_matches('"').to_owned(), String::new(), etag.replace('"', "'")] {
        assert!(get(&demo, &id, &[("if-none-match", &other)]).expect(200).body == bytes, "{other}");
    }
    // A part goes with the version it is a part of.
    let ranged = |tag: &str| get(&demo, &id, &[("range", "bytes=10-19"), ("if-range", tag)]);
    assert!(ranged(&etag).expect(206).body == bytes[10..20]);
    for other in ["\"x\"".to_owned(), format!("W/{etag}"), "Wed, 21 Oct 2015 07:28:00 GMT".to_owned()] {
        assert!(ranged(&other).expect(200).body == bytes, "{other}");
    }
    assert_eq!(get(&demo, &id, &[("range", "bytes=9999-"), ("if-none-match", &etag)]).status, 304);
    // Nobody without the right to the bytes learns their hash.
    assert_eq!(get(&gateway.client(Token::Alt), &id, &[("if-none-match", &etag)]).status, 404);
    assert_eq!(get(&gateway.client(Token::Reader), &id, &[("if-none-match", "*")]).status, 403);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

#[test]
fn an_image_without_data_has_no_content() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("queued");
    for headers in [&[][..], &[("range", "bytes=0-1")], &[("if-none-match", "*")]] {
        let answer = get(&demo, &id, headers);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{headers:?}");
    }
    assert_eq!(get(&demo, &uuid::Uuid::new_v4().to_string(), &[]).status, 404);
    assert_eq!(get(&gateway.client(Token::Alt), &id, &[]).status, 404);
}

#[test]
fn a_deactivated_image_is_the_administrators_to_download() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    let id = demo.active("withheld", b"bytes");
    gateway.sql(&format!("UPDATE images SET status = 'deactivated' WHERE id = '{id}'"));
    assert_eq!(get(&demo, &id, &[]).status, 403);
    assert_eq!(get(&admin, &id, &[]).expect(200).body, b"bytes");
    assert!(demo.show(&id).get("direct_url").is_none());
    assert!(admin.show(&id).get("direct_url").is_some());
    assert_eq!(demo.show(&id)["status"], json!("deactivated"));
    demo.delete(&format!("/v2/images/{id}")).expect(204);
}

/// The daemon looks at what it writes for answers that have no request id: bytes of an image are none.
#[test]
fn bytes_that_look_like_an_answer_are_still_bytes() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for (size, text) in [
        (16, "HTTP/1.1 400 xx\n"),
        (2 * BLOCK, "HTTP/1.1 400 xx\n"),
        (2 * BLOCK, "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let bytes: Vec<u8> = text.bytes().cycle().take(size).collect();
        let id = demo.active("impostor", &bytes);
        for range in [None, Some("bytes=0-"), Some("bytes=4194304-"), Some("bytes=8388608-8388700")] {
            let headers: Vec<(&str, &str)> = range.into_iter().map(|range| ("range", range)).collect();
            let answer = get(&demo, &id, &headers);
            if answer.status == 416 {
                continue;
            }
            let start =
                range.and_then(|range| range[6..].split('-').next().unwrap().parse::<usize>().ok()).unwrap_or(0);
            assert!(
                answer.body[..] == bytes[start..start + answer.body.len()],
                "{range:?}: other bytes came back: {:?}",
                String::from_utf8_lossy(&answer.body[..200.min(answer.body.len())])
            );
            assert_eq!(answer.body.len().to_string(), answer.header("content-length"));
        }
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}
