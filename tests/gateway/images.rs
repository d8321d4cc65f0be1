//! The life of an image, seen from both sides.

use crate::harness::{Gateway, Options, Token, random_bytes, rbd, try_rbd};

#[test]
fn an_upload_is_stored_as_glance_would() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let bytes = random_bytes(1, 20_000_003);
    let id = demo.active("first", &bytes);
    let image = demo.show(&id);
    assert_eq!(image["status"], "active");
    assert_eq!(image["size"], 20_000_003);
    let info = rbd(&["info", &format!("images/{id}")]);
    assert!(info.contains("order 23"), "{info}");
    assert!(
        rbd(&["snap", "ls", &format!("images/{id}")])
            .lines()
            .any(|line| line.contains(" snap ") && line.contains("yes"))
    );
    assert_eq!(demo.get(&format!("/v2/images/{id}/file")).expect(200).body, bytes);
    demo.delete(&format!("/v2/images/{id}")).expect(204);
    assert!(try_rbd(&["info", &format!("images/{id}")]).is_err());
    assert!(!rbd(&["trash", "ls", "images"]).contains(&id));
}
