//! Who sees which image, and who may change it: four callers, four visibilities.

use serde_json::{Value, json};
use ureq::SendBody;

use crate::harness::{Answer, Client, Gateway, Options, Token};

/// An image of `p-demo`, or of nobody.
fn make(admin: &Client, visibility: &str, owner: &Value) -> String {
    let body = json!({"name": visibility, "visibility": visibility, "owner": owner, "disk_format": "raw", "container_format": "bare"});
    admin.post("/v2/images", &body).expect(201).json()["id"].as_str().unwrap().to_owned()
}

fn rename(client: &Client, id: &str) -> Answer {
    client.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": "renamed"}]))
}

/// Whether the caller's default list, or the one of that visibility, has the image.
fn listed(client: &Client, query: &str, id: &str) -> bool {
    let page = client.get(&format!("/v2/images{query}")).expect(200).json();
    page["images"].as_array().unwrap().iter().any(|image| image["id"] == json!(id))
}

#[test]
fn callers_see_what_the_visibility_says_and_nothing_else_exists_for_them() {
    let gateway = Gateway::start(Options::default());
    let [admin, demo, alt, reader, ..] = Token::ALL.map(|token| gateway.client(token));
    for (visibility, alt_shows, alt_lists) in
        [("public", true, true), ("community", true, false), ("shared", false, false), ("private", false, false)]
    {
        let id = make(&admin, visibility, &json!("p-demo"));
        let path = format!("/v2/images/{id}");
        for (client, shows, lists) in [
            (&admin, true, visibility != "community"),
            (&demo, true, true),
            (&reader, true, true),
            (&alt, alt_shows, alt_lists),
        ] {
            let answer = client.get(&path);
            assert_eq!(answer.status, if shows { 200 } else { 404 }, "{visibility}");
            assert_eq!(listed(client, "", &id), lists, "{visibility}");
            assert_eq!(listed(client, &format!("?visibility={visibility}"), &id), shows, "{visibility}");
            assert_eq!(listed(client, "?visibility=all", &id), shows, "{visibility}");
            assert_eq!(
                client.get(&format!("{path}/file")).status,
                if !shows {
                    404
                } else if client_is_reader(client, &reader) {
                    403
                } else {
                    204
                },
                "{visibility}"
            );
        }
        // What one may not see is not there; what one sees and may not change is forbidden.
        let foreign = if alt_shows { 403 } else { 404 };
        for (client, status) in [(&alt, foreign), (&reader, 403)] {
            let before = gateway.sql(&format!("SELECT * FROM images WHERE id = '{id}'"));
            assert_eq!(rename(client, &id).status, status, "PATCH {visibility}");
            assert_eq!(client.upload(&id, b"x").status, status, "PUT {visibility}");
            assert_eq!(client.delete(&path).status, status, "DELETE {visibility}");
            assert_eq!(gateway.sql(&format!("SELECT * FROM images WHERE id = '{id}'")), before);
        }
        // An invisible image and none at all answer alike.
        if !alt_shows {
            let nothing = uuid::Uuid::new_v4().to_string();
            let text = |id: &str| alt.get(&format!("/v2/images/{id}")).text().replace(id, "ID");
            assert_eq!(text(&id), text(&nothing));
        }
        assert_eq!(rename(&demo, &id).expect(200).json()["name"], "renamed");
        demo.delete(&path).expect(204);
    }
}

fn client_is_reader(client: &Client, reader: &Client) -> bool {
    std::ptr::eq(client, reader)
}

#[test]
fn a_member_sees_a_shared_image_whatever_it_answered() {
    let gateway = Gateway::start(Options::default());
    let [admin, demo, alt, ..] = Token::ALL.map(|token| gateway.client(token));
    let id = make(&admin, "shared", &json!("p-demo"));
    let path = format!("/v2/images/{id}");
    alt.get(&path).expect(404);
    for status in ["pending", "accepted", "rejected"] {
        gateway.sql(&format!(
            "DELETE FROM image_members; INSERT INTO image_members VALUES ('{id}', 'p-alt', '{status}', now(), now())"
        ));
        assert_eq!(alt.show(&id)["name"], "shared");
        alt.get(&format!("{path}/file")).expect(204);
        assert_eq!(listed(&alt, "", &id), status == "accepted", "{status}");
        assert_eq!(listed(&alt, "?visibility=shared", &id), status == "accepted", "{status}");
        for asked in ["pending", "accepted", "rejected", "all"] {
            let query = format!("?member_status={asked}&visibility=shared");
            assert_eq!(listed(&alt, &query, &id), asked == "all" || asked == status, "{status} {asked}");
            assert!(listed(&demo, &query, &id), "the owner's own are there whatever members said");
        }
        assert_eq!(rename(&alt, &id).status, 403);
        assert_eq!(alt.delete(&path).status, 403);
        assert_eq!(alt.upload(&id, b"x").status, 403);
    }
    // Member rows count for shared images alone.
    for (visibility, shows) in [("private", 404), ("community", 200), ("shared", 200)] {
        demo.patch(&path, &json!([{"op": "replace", "path": "/visibility", "value": visibility}])).expect(200);
        assert_eq!(alt.get(&path).status, shows, "{visibility}");
    }
}

#[test]
fn an_image_of_nobody_is_everybodys_to_see_and_nobodys_to_change() {
    let gateway = Gateway::start(Options::default());
    let [admin, demo, alt, reader, ..] = Token::ALL.map(|token| gateway.client(token));
    for visibility in ["public", "community", "shared", "private"] {
        let id = make(&admin, visibility, &json!(null));
        for client in [&admin, &demo, &alt, &reader] {
            assert_eq!(client.get(&format!("/v2/images/{id}")).status, 200, "{visibility}");
            assert!(listed(client, &format!("?visibility={visibility}"), &id), "{visibility}");
        }
        for client in [&demo, &alt, &reader] {
            assert_eq!(rename(client, &id).status, 403, "{visibility}");
            assert_eq!(client.delete(&format!("/v2/images/{id}")).status, 403, "{visibility}");
        }
    }
}

#[test]
fn what_is_no_id_names_no_image() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let id = demo.create("ids");
    let (compact, nothing) = (id.replace('-', ""), uuid::Uuid::nil().to_string());
    for bad in [
        "x",
        "0",
        "-1",
        "null",
        &compact,
        &format!("{{{id}}}").replace('{', "%7B").replace('}', "%7D"),
        &id[..35],
        &format!("{id}0"),
        &format!("%20{id}"),
        &format!("{id}%0a"),
        &format!("{id}%00"),
        "%F0%9F%90%A7",
        "%ff",
        &nothing,
        "..%2f..",
        "%27%20OR%201=1--",
    ] {
        let path = format!("/v2/images/{bad}");
        for (method, path) in [("GET", path.clone()), ("DELETE", path.clone()), ("GET", format!("{path}/file"))] {
            let answer = demo.send(method, &path, &[], SendBody::none());
            assert!(
                answer.status == 404 || (answer.status == 400 && bad == "%ff"),
                "{method} {path}: {} {}",
                answer.status,
                answer.text()
            );
        }
        let status = demo.upload(bad, b"x").status;
        assert!(status == 404 || (status == 400 && bad == "%ff"), "{bad}: {status}");
        let status = rename(&demo, bad).status;
        assert!(status == 404 || (status == 400 && bad == "%ff"), "{bad}: {status}");
    }
    assert_eq!(demo.show(&id)["name"], "ids");
}

#[test]
fn locations_are_shown_as_the_operator_says() {
    let fsid = crate::harness::run(std::process::Command::new("ceph").args([
        "--conf",
        crate::harness::servers().ceph.join("ceph.conf").to_str().unwrap(),
        "fsid",
    ]))
    .unwrap();
    for (direct, multiple) in [(true, false), (false, true), (true, true), (false, false)] {
        let options = Options::default().set("images", "show_image_direct_url", direct).set(
            "images",
            "show_multiple_locations",
            multiple,
        );
        let gateway = Gateway::start(options);
        let demo = gateway.client(Token::Demo);
        let queued = demo.show(&demo.create("queued"));
        assert!(queued.get("direct_url").is_none() && queued.get("stores").is_none());
        assert_eq!(queued.get("locations"), multiple.then(|| json!([])).as_ref());
        let id = demo.active("located", b"bytes");
        let url = format!("rbd://{fsid}/images/{id}/snap");
        let page = demo.get("/v2/images?name=located").expect(200).json();
        for image in [&demo.show(&id), &page["images"][0]] {
            assert_eq!(image["stores"], "ceph");
            assert_eq!(image.get("direct_url"), direct.then(|| json!(url)).as_ref());
            let locations = multiple.then(|| json!([{"url": url, "metadata": {"store": "ceph"}}]));
            assert_eq!(image.get("locations"), locations.as_ref());
        }
        assert_eq!(gateway.sql("SELECT store, url FROM image_locations"), format!("ceph|{url}"));
        demo.delete(&format!("/v2/images/{id}")).expect(204);
    }
}
