//! `/v2/images/{id}/members`: who offers, who knows, who answers.

use serde_json::json;

use crate::harness::{Answer, Client, Gateway, Options, Token};

fn ids(answer: Answer) -> Vec<String> {
    let body = answer.expect(200).json();
    assert_eq!(body["schema"], "/v2/schemas/members");
    body["members"].as_array().unwrap().iter().map(|member| member["member_id"].as_str().unwrap().to_owned()).collect()
}

/// A new image of `p-demo` of that visibility.
fn image(gateway: &Gateway, visibility: &str) -> String {
    let id = uuid::Uuid::new_v4().to_string();
    let body = json!({"id": id, "name": visibility, "visibility": visibility, "owner": "p-demo"});
    gateway.client(Token::Admin).post("/v2/images", &body).expect(201);
    id
}

fn stored(gateway: &Gateway, id: &str) -> String {
    gateway.sql(&format!(
        "SELECT string_agg(member || ':' || status, ' ' ORDER BY member) FROM image_members WHERE image_id = '{id}'"
    ))
}

#[test]
fn an_offer_is_made_accepted_rejected_and_taken_back() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo, alt) = (gateway.client(Token::Admin), gateway.client(Token::Demo), gateway.client(Token::Alt));
    let id = image(&gateway, "shared");
    let members = format!("/v2/images/{id}/members");
    let member = format!("{members}/p-alt");
    assert!(ids(demo.get(&members)).is_empty());
    alt.get(&format!("/v2/images/{id}")).expect(404);
    let before = demo.show(&id);
    // 200, not 201; what else is in the body counts for nothing.
    let made = demo.post(&members, &json!({"member": "p-alt", "status": "accepted"})).expect(200).json();
    assert_eq!(
        made,
        json!({"member_id": "p-alt", "image_id": id, "status": "pending", "created_at": made["created_at"],
               "updated_at": made["updated_at"], "schema": "/v2/schemas/member"})
    );
    assert_eq!(made["created_at"].as_str().unwrap().len(), "2024-01-01T00:00:00Z".len());
    demo.post(&members, &json!({"member": "p-alt"})).expect(409);
    assert_eq!(stored(&gateway, &id), "p-alt:pending");
    for client in [&admin, &demo, &alt, &gateway.client(Token::Reader)] {
        assert_eq!(ids(client.get(&members)), ["p-alt"]);
        assert_eq!(client.get(&member).expect(200).json(), made);
    }
    assert_eq!(alt.show(&id), before, "a member sees the image as it is; memberships are no change of it");
    // Only the member answers, and only for itself.
    for client in [&demo, &gateway.client(Token::Reader)] {
        let refused = client.put(&member, &json!({"status": "accepted"})).expect(403);
        assert!(refused.text().contains("modify_member"), "{}", refused.text());
    }
    for status in ["accepted", "rejected", "pending", "accepted"] {
        let answer = alt.put(&member, &json!({"status": status})).expect(200).json();
        assert_eq!((&answer["status"], &answer["created_at"]), (&json!(status), &made["created_at"]));
        assert_eq!(stored(&gateway, &id), format!("p-alt:{status}"));
        assert_eq!(demo.get(&member).expect(200).json(), answer);
    }
    admin.put(&member, &json!({"status": "rejected"})).expect(200);
    // The member may look, and no more.
    alt.get(&format!("/v2/images/{id}/file")).expect(204);
    alt.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/name", "value": "x"}])).expect(403);
    alt.delete(&format!("/v2/images/{id}")).expect(403);
    alt.post(&members, &json!({"member": "p-other"})).expect(403);
    let refused = alt.delete(&member).expect(403);
    assert!(refused.text().contains("delete_member"), "{}", refused.text());
    gateway.client(Token::Reader).delete(&member).expect(403);
    assert_eq!(stored(&gateway, &id), "p-alt:rejected");
    assert!(demo.delete(&member).expect(204).body.is_empty());
    assert_eq!(stored(&gateway, &id), "");
    demo.delete(&member).expect(404);
    alt.get(&format!("/v2/images/{id}")).expect(404);
    alt.get(&members).expect(404);
    // The next offer is a new one.
    assert_eq!(demo.post(&members, &json!({"member": "p-alt"})).expect(200).json()["status"], "pending");
    // What happened is told in the order in which it happened.
    let told = gateway.sql(&format!(
        "SELECT string_agg(type || ':' || (payload->>'member_id') || ':' || (payload->>'status') || ':' || (payload->>'deleted'), ' ' ORDER BY id) FROM events WHERE image_id = '{id}' AND type LIKE 'image.member.%'"
    ));
    let told: Vec<&str> = told.split(' ').collect();
    assert_eq!(told[0], "image.member.create:p-alt:pending:false");
    assert_eq!(told[1], "image.member.update:p-alt:accepted:false");
    assert_eq!(told[told.len() - 2], "image.member.delete:p-alt:rejected:true");
    assert_eq!(told.len(), 1 + 5 + 1 + 1, "{told:?}");
}

#[test]
fn a_member_knows_itself_alone() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo, alt) = (gateway.client(Token::Admin), gateway.client(Token::Demo), gateway.client(Token::Alt));
    let id = image(&gateway, "shared");
    let members = format!("/v2/images/{id}/members");
    for project in ["p-alt", "x1", "p-demo", "no such project", "p-admin"] {
        demo.post(&members, &json!({"member": project})).expect(200);
    }
    let all = ["p-alt", "x1", "p-demo", "no such project", "p-admin"];
    assert_eq!(ids(demo.get(&members)), all, "oldest first");
    assert_eq!(ids(admin.get(&members)), all);
    assert_eq!(ids(alt.get(&members)), ["p-alt"]);
    // Another member is to it what no member is.
    let text = |client: &Client, project: &str| {
        let answer = client.get(&format!("{members}/{project}"));
        (answer.status, answer.text().replace(project, "X"))
    };
    assert_eq!(text(&alt, "x1").0, 404);
    assert_eq!(text(&alt, "x1"), text(&alt, "nosuch"));
    for (method, body) in [("PUT", Some(json!({"status": "accepted"}))), ("DELETE", None)] {
        for (client, project) in [(&alt, "x1"), (&alt, "nosuch"), (&demo, "nosuch"), (&admin, "nosuch")] {
            let path = format!("{members}/{project}");
            let answer = match &body {
                Some(body) => client.put(&path, body),
                None => client.call(method, &path),
            };
            assert_eq!(answer.status, 404, "{method} {project}: {}", answer.text());
        }
    }
    assert_eq!(demo.get(&format!("{members}/no%20such%20project")).expect(200).json()["member_id"], "no such project");
    // An owner that is a member, too, still is no member that answers.
    demo.put(&format!("{members}/p-demo"), &json!({"status": "accepted"})).expect(403);
    assert!(stored(&gateway, &id).contains("p-demo:pending"));
}

#[test]
fn only_shared_images_have_members() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo, alt) = (gateway.client(Token::Admin), gateway.client(Token::Demo), gateway.client(Token::Alt));
    for visibility in ["private", "public", "community"] {
        let id = image(&gateway, visibility);
        let members = format!("/v2/images/{id}/members");
        // From when it was shared.
        gateway.sql(&format!("INSERT INTO image_members VALUES ('{id}', 'p-alt', 'accepted', now(), now())"));
        for client in [&admin, &demo] {
            client.get(&members).expect(403);
            client.post(&members, &json!({"member": "p-other"})).expect(403);
            client.get(&format!("{members}/p-alt")).expect(404);
            client.put(&format!("{members}/p-alt"), &json!({"status": "rejected"})).expect(403);
            client.delete(&format!("{members}/p-alt")).expect(403);
        }
        let seen = if visibility == "private" { 404 } else { 403 };
        alt.get(&members).expect(seen);
        alt.post(&members, &json!({"member": "p-other"})).expect(seen);
        alt.put(&format!("{members}/p-alt"), &json!({"status": "rejected"})).expect(seen);
        alt.delete(&format!("{members}/p-alt")).expect(seen);
        alt.get(&format!("{members}/p-alt")).expect(404);
        assert_eq!(stored(&gateway, &id), "p-alt:accepted");
        // Shared again, the members are there again.
        demo.patch(&format!("/v2/images/{id}"), &json!([{"op": "replace", "path": "/visibility", "value": "shared"}]))
            .expect(200);
        assert_eq!(ids(alt.get(&members)), ["p-alt"]);
    }
}

#[test]
fn what_is_no_member_or_no_answer_is_refused() {
    let gateway = Gateway::start(Options::default());
    let (demo, alt) = (gateway.client(Token::Demo), gateway.client(Token::Alt));
    let id = image(&gateway, "shared");
    let members = format!("/v2/images/{id}/members");
    let member = format!("{members}/p-alt");
    demo.post(&members, &json!({"member": "p-alt"})).expect(200);
    let raw = |client: &Client, method: &str, path: &str, text: &str| {
        let answer = client.send_json(method, path, text);
        assert_eq!(answer.status, 400, "{method} {path} {text}: {}", answer.text());
        answer
    };
    for body in [
        json!({}),
        json!({"Member": "p"}),
        json!({"member": null}),
        json!({"member": ""}),
        json!({"member": 5}),
        json!({"member": 0}),
        json!({"member": true}),
        json!({"member": false}),
        json!({"member": []}),
        json!({"member": ["p-alt"]}),
        json!({"member": {}}),
        json!({"member": {"id": "p"}}),
        json!({"member": "m".repeat(256)}),
        json!({"member": "a\u{0}b"}),
        json!({"member": "a\nb"}),
        json!({"member": "\u{85}"}),
        json!([]),
        json!(["member"]),
        json!("member"),
        json!(null),
        json!(5),
    ] {
        let answer = raw(&demo, "POST", &members, &body.to_string());
        assert!(answer.text().to_lowercase().contains("member"), "{body}: {}", answer.text());
    }
    for text in ["", "{", "{\"member\": \"\u{0}\"}", "member=p", "{\"member\": \"\\ud800\"}", &"[".repeat(5000)] {
        raw(&demo, "POST", &members, text);
        raw(&alt, "PUT", &member, text);
    }
    for body in [
        json!({}),
        json!({"status": null}),
        json!({"status": ""}),
        json!({"status": "maybe"}),
        json!({"status": "Accepted"}),
        json!({"status": "all"}),
        json!({"status": 1}),
        json!({"status": ["accepted"]}),
        json!([]),
        json!("accepted"),
    ] {
        let answer = raw(&alt, "PUT", &member, &body.to_string());
        assert!(answer.text().to_lowercase().contains("status"), "{body}: {}", answer.text());
    }
    assert_eq!(stored(&gateway, &id), "p-alt:pending");
    // Text is text, whatever it would mean elsewhere.
    for project in [
        "'; DROP TABLE image_members; --",
        "<script>alert(1)</script>",
        "a/b",
        "..",
        "%00",
        "żółw",
        "🐧",
        " ",
        &"m".repeat(255),
    ] {
        assert_eq!(demo.post(&members, &json!({"member": project})).expect(200).json()["member_id"], *project);
    }
    let page = demo.get_with(&format!("{members}/%3Cb%3E"), &[("accept", "text/html")]);
    assert!(page.status == 404 && page.text().contains("&lt;b&gt;") && !page.text().contains("<b>"), "{}", page.text());
    // Names that none can have are looked for in vain, and break nothing.
    for name in ["%00", "a%00b", "%0a", "a%2Fb", "a%2fb", &"m".repeat(300), "%27%20OR%201=1--"] {
        for (method, body) in [("GET", ""), ("PUT", "{\"status\": \"accepted\"}"), ("DELETE", "")] {
            for client in [&demo, &alt] {
                let path = format!("{members}/{name}");
                let answer = match body {
                    "" => client.call(method, &path),
                    body => client.send_json(method, &path, body),
                };
                assert_eq!(answer.status, 404, "{method} {name}: {}", answer.text());
            }
        }
    }
    demo.get(&format!("{members}/%ff")).expect(400);
    demo.get("/v2/images/%c3%28/members").expect(400);
    demo.get(&format!("{members}/")).expect(404);
    // No body where none belongs, no verb that there is not.
    for (method, path, status) in
        [("GET", &members, 400), ("GET", &member, 400), ("DELETE", &member, 400), ("PATCH", &members, 405)]
    {
        let answer = demo.send_json(method, path, "{}");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
    }
    for (path, allowed) in [(&members, "GET, POST"), (&member, "GET, PUT, DELETE")] {
        for method in ["PUT", "DELETE", "PATCH", "POST", "HEAD"] {
            if allowed.split(", ").all(|name| name != method) {
                let answer = demo.call(method, path);
                assert_eq!((answer.status, answer.header("allow")), (405, allowed), "{method} {path}");
            }
        }
    }
}

#[test]
fn an_image_of_another_project_is_one_that_does_not_exist() {
    let gateway = Gateway::start(Options::default());
    let alt = gateway.client(Token::Alt);
    let (hidden, unknown) = (image(&gateway, "shared"), uuid::Uuid::new_v4().to_string());
    gateway.sql(&format!("INSERT INTO image_members VALUES ('{hidden}', 'p-other', 'accepted', now(), now())"));
    let answers = |id: &str| -> Vec<(u16, String)> {
        let members = format!("/v2/images/{id}/members");
        let tag = format!("/v2/images/{id}/tags/t");
        let action = |name: &str| format!("/v2/images/{id}/actions/{name}");
        [
            alt.get(&members),
            alt.post(&members, &json!({"member": "p-alt"})),
            alt.get(&format!("{members}/p-other")),
            alt.put(&format!("{members}/p-alt"), &json!({"status": "accepted"})),
            alt.delete(&format!("{members}/p-other")),
            alt.call("PUT", &tag),
            alt.delete(&tag),
            alt.call("POST", &action("deactivate")),
            alt.call("POST", &action("reactivate")),
        ]
        .into_iter()
        .map(|answer| (answer.status, answer.text().replace(id, "ID")))
        .collect()
    };
    let seen = answers(&hidden);
    assert!(seen.iter().all(|(status, _)| *status == 404), "{seen:?}");
    assert_eq!(seen, answers(&unknown));
    assert_eq!(seen, answers("no-id"));
    assert_eq!(stored(&gateway, &hidden), "p-other:accepted");
}

#[test]
fn there_are_no_more_members_than_the_quota() {
    for (quota, fits) in [(3, 3), (0, 0), (-1, 140)] {
        let gateway = Gateway::start(Options::default().set("images", "image_member_quota", quota));
        let demo = gateway.client(Token::Demo);
        let id = image(&gateway, "shared");
        let members = format!("/v2/images/{id}/members");
        for n in 0..fits {
            demo.post(&members, &json!({"member": format!("m{n}")})).expect(200);
        }
        if quota >= 0 {
            let answer = demo.post(&members, &json!({"member": "more"})).expect(413);
            let attempted = format!("Attempted: {}, Maximum: {quota}", fits + 1);
            assert!(answer.text().contains(&attempted), "{}", answer.text());
            if fits > 0 {
                demo.delete(&format!("{members}/m0")).expect(204);
                demo.post(&members, &json!({"member": "more"})).expect(200);
            }
        }
        assert_eq!(ids(demo.get(&members)).len(), fits);
    }
}
