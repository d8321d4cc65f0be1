//! Who a token says that somebody is.

use serde_json::{Value, json};
use ureq::SendBody;

use super::start;
use crate::harness::{Answer, Client, FakeKeystone, Gateway, Options, Token, Wire, eventually, project_token};

#[test]
fn keystone_says_who_a_token_belongs_to() {
    let (keystone, gateway) = start();
    let demo = gateway.client(Token::Demo);
    let image = demo.post("/v2/images", &json!({"name": "mine"})).expect(201).json();
    assert_eq!(image["owner"], "p-demo");
    let path = format!("/v2/images/{}", image["id"].as_str().unwrap());
    gateway.client(Token::Alt).get(&path).expect(404);
    gateway.client(Token::Admin).get(&path).expect(200);
    gateway.client(Token::Reader).get(&path).expect(200);
    gateway.client(Token::Reader).delete(&path).expect(403);
    // Asked once for each token, and once for its own.
    for token in [Token::Admin, Token::Demo, Token::Alt, Token::Reader] {
        assert_eq!(keystone.asked_about(token.text()), 1, "{token:?}");
    }
    assert_eq!(keystone.logins(), 1);
    assert_eq!(gateway.sql("SELECT owner FROM images"), "p-demo");
}

#[test]
fn a_token_that_keystone_does_not_know_is_401_with_the_way_to_keystone() {
    let (keystone, gateway) = start();
    for token in [None, Some("unknown"), Some(""), Some("un known"), Some("un\tknown")] {
        let answer = Client::new(&gateway.url, token).get("/v2/images").expect(401);
        assert_eq!(answer.header("www-authenticate"), format!("Keystone uri=\"{}\"", keystone.url));
    }
    // Neither a token that cannot be one nor the same again is asked about.
    Client::new(&gateway.url, Some("unknown")).get("/v2/images").expect(401);
    Client::new(&gateway.url, Some(&"x".repeat(9000))).get("/v2/images").expect(401);
    assert_eq!(keystone.asked().iter().filter(|asked| asked.method == "GET" && asked.target != "/v3").count(), 1);
    let public = gateway.sibling_with(Options::default().keystone(&keystone.url).set(
        "identity.keystone",
        "www_authenticate_uri",
        "https://ks.example.org:5000/v3",
    ));
    let answer = public.anonymous().get("/v2/images").expect(401);
    assert_eq!(answer.header("www-authenticate"), "Keystone uri=\"https://ks.example.org:5000/v3\"");
}

/// GET of the list with these tokens.
fn list(gateway: &Gateway, user: &str, service: Option<&str>) -> Answer {
    let headers: Vec<(&str, &str)> = service.map(|token| ("x-service-token", token)).into_iter().collect();
    Client::new(&gateway.url, Some(user)).get_with("/v2/images", &headers)
}

#[test]
fn no_header_but_the_tokens_says_who_asks() {
    let (_keystone, gateway) = start();
    let id = gateway.client(Token::Demo).create("mine");
    let forged = [
        ("x-identity-status", "Confirmed"),
        ("x-service-identity-status", "Confirmed"),
        ("x-roles", "admin,service"),
        ("x-service-roles", "service"),
        ("x-user-id", "u-demo"),
        ("x-project-id", "p-demo"),
        ("x-tenant", "p-demo"),
        ("x-system-scope", "all"),
        ("x-is-admin-project", "True"),
        ("x-subject-token", "canary-admin-7c1d"),
        ("openstack-identity-access-rules", "9"),
        ("forwarded", "for=127.0.0.1"),
    ];
    gateway.anonymous().get_with("/v2/images", &forged).expect(401);
    gateway.client(Token::Alt).get_with(&format!("/v2/images/{id}"), &forged).expect(404);
    gateway.client(Token::Reader).send("DELETE", &format!("/v2/images/{id}"), &forged, SendBody::none()).expect(403);
    assert_eq!(gateway.sql("SELECT owner FROM images"), "p-demo");
}

#[test]
fn a_service_token_needs_the_role() {
    let (keystone, gateway) = start();
    keystone.know("service", project_token("nova", "service", &["Service"], 3600));
    keystone.know("expired-service", project_token("nova", "service", &["service"], -10));
    let demo = Token::Demo.text();
    list(&gateway, demo, Some("service")).expect(200);
    // Valid tokens of people, of an administrator even, are none of a service.
    for token in [Token::Demo.text(), Token::Admin.text(), "unknown", "expired-service", "", " ", "ser vice"] {
        let answer = list(&gateway, demo, Some(token));
        assert_eq!(answer.status, 401, "{token:?}");
        assert!(answer.header("www-authenticate").starts_with("Keystone uri="));
    }
    // It does not replace the user's.
    Client::new(&gateway.url, None).get_with("/v2/images", &[("x-service-token", "service")]).expect(401);
    list(&gateway, "unknown", Some("service")).expect(401);
    // Before anything else: the path, the body, and the scope of the user's token.
    let mut unscoped = project_token("demo", "demo", &["member"], 3600);
    unscoped["token"].as_object_mut().unwrap().remove("project");
    keystone.know("unscoped", unscoped);
    list(&gateway, "unscoped", Some("unknown")).expect(401);
    let wrong = [("x-service-token", "unknown"), ("content-type", "application/json")];
    let client = gateway.client(Token::Demo);
    client.get_with("/v2/nothing", &wrong).expect(401);
    client.send("POST", "/v2/images", &wrong, SendBody::from_reader(&mut "{".as_bytes())).expect(401);
    client.send("DELETE", "/v2/images/no-id", &wrong, SendBody::none()).expect(401);
}

#[test]
fn which_roles_make_a_service_is_an_option() {
    let keystone = FakeKeystone::start();
    for role in ["service", "cloud_service", "member"] {
        keystone.know(&format!("{role}-token"), project_token("x", "service", &[role], 3600));
    }
    keystone.know("expired", project_token("demo", "demo", &["member", "reader"], -60));
    let options = Options::default().keystone(&keystone.url);
    let roles = toml::Value::from(vec!["Cloud_Service", "other"]);
    let strict = Gateway::start(options.clone().set("identity.keystone", "service_token_roles", roles.clone()));
    list(&strict, Token::Demo.text(), Some("cloud_service-token")).expect(200);
    list(&strict, Token::Demo.text(), Some("service-token")).expect(401);
    // Not required: a token without the role does no harm, and no good.
    let lax = strict.sibling_with(options.set("identity.keystone", "service_token_roles", roles).set(
        "identity.keystone",
        "service_token_roles_required",
        false,
    ));
    list(&lax, Token::Demo.text(), Some("member-token")).expect(200);
    list(&lax, "expired", Some("member-token")).expect(401);
    list(&lax, "expired", Some("cloud_service-token")).expect(200);
    list(&lax, Token::Demo.text(), Some("unknown")).expect(401);
}

#[test]
fn an_expired_token_is_good_only_beside_a_service_token() {
    let (keystone, gateway) = start();
    keystone.know("service", project_token("nova", "service", &["service"], 3600));
    keystone.know("expired", project_token("demo", "demo", &["member", "reader"], -60));
    list(&gateway, "expired", None).expect(401);
    // Having been refused as a user's does not count here.
    list(&gateway, "expired", Some("service")).expect(200);
    // Nor does having been good here count there.
    list(&gateway, "expired", None).expect(401);
    list(&gateway, "expired", Some(Token::Demo.text())).expect(401);
    list(&gateway, "expired", Some(Token::Admin.text())).expect(401);
    list(&gateway, "expired", Some("expired")).expect(401);
    // Two expired ones do not vouch for each other.
    keystone.know("expired-service", project_token("nova", "service", &["service"], -60));
    list(&gateway, "expired", Some("expired-service")).expect(401);
    list(&gateway, "expired-service", Some("expired-service")).expect(401);
    // One that is still good is asked about both ways.
    keystone.know("short", project_token("demo", "demo", &["member", "reader"], 5));
    list(&gateway, "short", Some("service")).expect(200);
    list(&gateway, "short", None).expect(200);
    eventually("it has expired", 30, || list(&gateway, "short", None).status == 401);
    list(&gateway, "short", Some("service")).expect(200);
}

/// A token of an application credential with these access rules: service, method, path.
fn restricted(rules: &[(&str, &str, &str)], services: &[&str]) -> Value {
    let mut body = project_token("demo", "demo", &["member", "reader"], 3600);
    body["token"]["methods"] = json!(["application_credential"]);
    let rules = rules
        .iter()
        .map(|(service, method, path)| json!({"id": "r", "service": service, "method": method, "path": path}));
    body["token"]["application_credential"] =
        json!({"id": "c", "name": "limited", "restricted": true, "access_rules": rules.collect::<Vec<_>>()});
    body["token"]["catalog"] = services
        .iter()
        .map(|kind| json!({"type": kind, "id": format!("s-{kind}"), "name": kind, "endpoints": []}))
        .collect();
    body
}

#[test]
fn access_rules_are_kept() {
    let (keystone, gateway) = start();
    let id = gateway.client(Token::Demo).create("mine");
    let (image, file) = (format!("/v2/images/{id}"), format!("/v2/images/{id}/file"));
    let requests = [
        ("GET", "/v2/images"),
        ("GET", image.as_str()),
        ("GET", file.as_str()),
        ("GET", "/v2/schemas/image"),
        ("POST", "/v2/images"),
        ("DELETE", "/v2/images/00000000-0000-0000-0000-000000000000"),
    ];
    let path = |path: &str, allowed: [bool; 6]| (vec![("image", "GET", path.to_owned())], allowed);
    let one = |service, method, path: &str, allowed: [bool; 6]| (vec![(service, method, path.to_owned())], allowed);
    let (yes, no) = (true, false);
    let cases = [
        path("/v2/images", [yes, no, no, no, no, no]),
        path("/v2/images/*", [no, yes, no, no, no, no]),
        path("/v2/images/{image_id}", [no, yes, no, no, no, no]),
        path("/v2/images/{image_id}/file", [no, no, yes, no, no, no]),
        path("/v2/images/**", [no, yes, yes, no, no, no]),
        path("/v2/**", [yes, yes, yes, yes, no, no]),
        path("**", [yes, yes, yes, yes, no, no]),
        path("/v2/*", [yes, no, no, no, no, no]),
        path("/images", [no; 6]),
        path("/v2/image", [no; 6]),
        one("image", "POST", "/v2/images", [no, no, no, no, yes, no]),
        one("image", "DELETE", "/v2/images/*", [no, no, no, no, no, yes]),
        one("compute", "GET", "**", [no; 6]),
        one("IMAGE", "GET", "**", [no; 6]),
        one("image", "get", "**", [no; 6]),
        one("image", "*", "**", [no; 6]),
        (Vec::new(), [no; 6]),
        (
            vec![("image", "GET", "/v2/images".to_owned()), ("image", "POST", "/v2/images".to_owned())],
            [yes, no, no, no, yes, no],
        ),
    ];
    keystone.know("service", project_token("nova", "service", &["service"], 3600));
    for (n, (rules, allowed)) in cases.iter().enumerate() {
        let rules: Vec<_> = rules.iter().map(|(service, method, path)| (*service, *method, path.as_str())).collect();
        let token = format!("limited-{n}");
        keystone.know(&token, restricted(&rules, &["image", "compute"]));
        let client = Client::new(&gateway.url, Some(&token));
        for ((method, path), allowed) in requests.iter().zip(allowed) {
            let send = |client: &Client, headers: &[(&str, &str)]| {
                if *method == "POST" {
                    client.post(path, &json!({}))
                } else {
                    client.send(method, path, headers, SendBody::none())
                }
            };
            let answer = send(&client, &[]);
            let refused = answer.status == 403 && answer.text().contains("access rules");
            assert_eq!(refused, !allowed, "{rules:?} {method} {path}: {} {}", answer.status, answer.text());
            if refused {
                assert!(answer.text().contains(&format!("{method} {path}")), "{}", answer.text());
            }
        }
        // A service that passes the request on answers for it.
        client.get_with("/v2/images", &[("x-service-token", "service")]).expect(200);
        client.get_with("/v2/images", &[("x-service-token", Token::Admin.text())]).expect(401);
    }
    // Another way to write the version is another way to write the same path, not a way around.
    keystone.know("limited", restricted(&[("image", "GET", "/v2/schemas/*")], &["image"]));
    let client = Client::new(&gateway.url, Some("limited"));
    for path in
        ["/v2.0/images", "/v2.18/images", "//v2/images", "/v2/images?x=/v2/schemas/image", "/v2/schemas/../images"]
    {
        assert!(client.get(path).status != 200, "{path}");
    }
    client.get("/v2.0/schemas/image").expect(200);
}

#[test]
fn a_restricted_credential_needs_an_image_service_in_its_catalog() {
    let (keystone, gateway) = start();
    keystone.know("without", restricted(&[("image", "GET", "**")], &["compute", "volumev3"]));
    keystone.know("with", restricted(&[("image", "GET", "**")], &["image"]));
    list(&gateway, "with", None).expect(200);
    let answer = list(&gateway, "without", None).expect(403);
    assert!(answer.text().contains("catalog"), "{}", answer.text());
    // One without rules may do whatever its user may.
    let mut free = restricted(&[], &[]);
    free["token"]["application_credential"].as_object_mut().unwrap().remove("access_rules");
    keystone.know("free", free);
    list(&gateway, "free", None).expect(200);
}

#[test]
fn white_space_around_a_token_is_no_part_of_it_and_control_characters_are_refused() {
    let (keystone, gateway) = start();
    keystone.know("service", project_token("nova", "service", &["service"], 3600));
    let ask = |headers: &str| {
        let mut wire = Wire::connect(&gateway.address);
        wire.send(format!("GET /v2/images HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n"));
        wire.answer().status
    };
    let token = Token::Demo.text();
    for headers in [
        format!("x-auth-token:{token}"),
        format!("x-auth-token: \t {token} \t"),
        format!("x-auth-token: {token}\r\nx-service-token:  service "),
    ] {
        assert_eq!(ask(&headers), 200, "{headers:?}");
    }
    let before = keystone.asked().len();
    for headers in [
        format!("x-auth-token: {token}\ttail"),
        format!("x-auth-token: {token}\u{a0}"),
        "x-auth-token: \u{1f511}".to_owned(),
        format!("x-auth-token: {token}\r\nx-service-token: ser\tvice"),
        format!("x-auth-token: {token}\r\nx-service-token:"),
    ] {
        assert_eq!(ask(&headers), 401, "{headers:?}");
    }
    for headers in [
        format!("x-auth-token: {token}\u{7f}"),
        format!("x-auth-token: {token}\0"),
        format!("x-auth-token: {token}\x01"),
        format!("x-auth-token: {token}\x0b"),
    ] {
        assert!(matches!(ask(&headers), 400 | 401), "{headers:?}");
    }
    assert_eq!(keystone.asked().len(), before, "Keystone was asked about what cannot be a token");
}

#[test]
fn a_token_that_is_not_for_a_project_is_403_and_says_what_to_do() {
    let (keystone, gateway) = start();
    for (name, field, value) in [
        ("a domain", "domain", json!({"id": "default", "name": "Default"})),
        ("the system", "system", json!({"all": true})),
        ("anything", "user", Value::Null),
    ] {
        for role in ["admin", "reader", "service"] {
            let mut body = project_token("demo", "demo", &[role], 3600);
            body["token"].as_object_mut().unwrap().remove("project");
            if !value.is_null() {
                body["token"][field] = value.clone();
            }
            let token = format!("{field}-{role}");
            keystone.know(&token, body);
            let client = Client::new(&gateway.url, Some(&token));
            for path in ["/v2/images", "/v2/images/00000000-0000-0000-0000-000000000000", "/v2/schemas/image"] {
                let answer = client.get(path).expect(403);
                assert!(
                    answer.text().contains(name) && answer.text().contains("scoped to a project"),
                    "{}",
                    answer.text()
                );
            }
            client.post("/v2/images", &json!({})).expect(403);
        }
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "0");
    // As a service's token the scope does not matter: its roles do.
    list(&gateway, Token::Demo.text(), Some("system-service")).expect(200);
    list(&gateway, Token::Demo.text(), Some("system-admin")).expect(401);
}

#[test]
fn roles_are_those_of_the_token_whatever_their_case() {
    let (keystone, gateway) = start();
    let id = gateway.client(Token::Demo).create("mine");
    let path = format!("/v2/images/{id}");
    // An administrator of whatever project is one of the cloud, as in Glance.
    keystone.know("admin-elsewhere", project_token("boss", "elsewhere", &["ADMIN"], 3600));
    keystone.know("member-here", project_token("other", "demo", &["Member", "Reader"], 3600));
    keystone.know("nothing-here", project_token("other", "demo", &[], 3600));
    // Roles come as Keystone says: it has implied what is implied already.
    keystone.know("only-member", project_token("other", "demo", &["member"], 3600));
    let client = |token: &str| Client::new(&gateway.url, Some(token));
    assert_eq!(client("admin-elsewhere").get(&path).expect(200).json()["owner"], "p-demo");
    client("member-here").get(&path).expect(200);
    client("nothing-here").get("/v2/images").expect(403);
    client("only-member").get("/v2/images").expect(403);
    client("member-here").delete(&path).expect(204);
}

#[test]
fn the_id_of_the_request_goes_to_keystone_and_into_the_log() {
    let (keystone, gateway) = start();
    let answer = gateway.client(Token::Demo).get("/v2/images").expect(200);
    let ours = answer.header("x-openstack-request-id").to_owned();
    let asked = |token: Token| {
        keystone
            .asked()
            .into_iter()
            .find(|asked| asked.headers.get("x-subject-token").is_some_and(|subject| subject == token.text()))
            .unwrap()
    };
    assert_eq!(asked(Token::Demo).headers["x-openstack-request-id"], ours);
    // A request that is a part of something greater is logged everywhere with the id of that.
    let global = format!("req-{}", uuid::Uuid::new_v4());
    gateway.client(Token::Alt).get_with("/v2/images", &[("x-openstack-request-id", &global)]).expect(200);
    assert_eq!(asked(Token::Alt).headers["x-openstack-request-id"], global);
    eventually("the line is written", 5, || gateway.log().contains(&global));
    let longest = "r".repeat(64);
    gateway.client(Token::Reader).get_with("/v2/images", &[("x-openstack-request-id", &longest)]).expect(200);
    assert_eq!(asked(Token::Reader).headers["x-openstack-request-id"], longest);
    let before = keystone.asked().len();
    gateway.client(Token::Admin).get_with("/v2/images", &[("x-openstack-request-id", &"r".repeat(65))]).expect(431);
    assert_eq!(keystone.asked().len(), before);
}

#[test]
fn a_location_call_without_a_service_token_is_said_in_the_log() {
    let (keystone, gateway) = start();
    keystone.know("service", project_token("nova", "service", &["service"], 3600));
    keystone.know("expired", project_token("demo", "demo", &["member", "reader"], -60));
    let path = format!("/v2/images/{}/locations", gateway.client(Token::Demo).create("snapshot"));
    let warned = || gateway.log().contains("send_service_user_token");
    // As Nova asks: for a user, whose token may have expired during a long snapshot.
    let beside = [("x-service-token", "service"), ("content-type", "application/json")];
    let body = json!({"url": "rbd://no/such/place/snap"}).to_string();
    for token in [Token::Demo.text(), "expired"] {
        let client = Client::new(&gateway.url, Some(token));
        let answer = client.send("POST", &path, &beside, SendBody::from_reader(&mut body.as_bytes()));
        assert_eq!(answer.status, 400, "the place is wrong, not the caller: {}", answer.text());
    }
    Client::new(&gateway.url, Some("service")).get(&path).expect(200);
    assert!(!warned(), "{}", gateway.log());
    gateway
        .client(Token::Demo)
        .send("POST", &path, &beside[1..], SendBody::from_reader(&mut body.as_bytes()))
        .expect(403);
    assert!(warned(), "{}", gateway.log());
}
