//! `[policy]`: rules from files, what they change in answers, and the command that looks at them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Client, Gateway, Options, Token, eventually};

/// A folder with policy files that goes away with the test.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(rules: &Value) -> Self {
        let folder = std::env::temp_dir().join(format!("rockpool-policy-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        let files = Self(folder);
        files.write(&rules.to_string());
        files
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.join("policy.yaml")
    }

    /// As editors do it: the new file takes the old one's name.
    fn write(&self, text: &str) {
        let new = self.0.join("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.path()).unwrap();
    }

    pub(crate) fn options(&self) -> Options {
        Options::default().set("policy", "file", self.path().to_str().unwrap())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn rockpool(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rockpool")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn create(client: &Client, attributes: Value) -> String {
    client.post("/v2/images", &attributes).expect(201).json()["id"].as_str().unwrap().to_owned()
}

fn image(id: &str) -> String {
    format!("/v2/images/{id}")
}

fn ids(answer: Answer) -> Vec<String> {
    let images = answer.expect(200).json()["images"].as_array().unwrap().clone();
    images.iter().map(|image| image["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_forbidden_is_hidden_from_those_who_may_not_even_see_it() {
    let files = Files::new(&json!({
        "get_image": "role:reader and not 'secret':%(kind)s",
        "delete_image": "!",
        "upload_image": "role:nobody",
        "publicize_image": [["role:member"]],
    }));
    let gateway = Gateway::start(files.options());
    let [admin, demo] = [Token::Admin, Token::Demo].map(|token| gateway.client(token));
    let secret = create(&demo, json!({"kind": "secret"}));
    let open = create(&demo, json!({"kind": "open", "visibility": "public"}));
    let nothing = uuid::Uuid::nil().to_string();
    for (client, who) in [(&demo, "demo"), (&admin, "admin")] {
        // An action that is permitted works on what cannot be seen, as in the reference.
        client.patch(&image(&secret), &json!([{"op": "add", "path": "/name", "value": who}])).expect(200);
        assert_eq!(gateway.sql(&format!("SELECT name FROM images WHERE id = '{secret}'")), who);
        client.get(&image(&secret)).expect(404);
        client.get(&image(&open)).expect(200);
        assert_eq!(ids(client.get("/v2/images")), [open.as_str()]);
        // Nobody may: 404 for what is not seen, as for what is not there, and 403 with the rule's name for what is.
        let hidden = client.delete(&image(&secret)).expect(404).text();
        assert_eq!(
            hidden.replace(&secret, ""),
            client.delete(&image(&nothing)).expect(404).text().replace(&nothing, "")
        );
        assert!(client.delete(&image(&open)).expect(403).text().contains("delete_image"));
        client.upload(&secret, b"x").expect(404);
        assert!(client.upload(&open, b"x").expect(403).text().contains("upload_image"));
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM images WHERE status = 'queued'"), "2");
}

#[test]
fn a_list_has_no_gaps_where_a_policy_hides_images() {
    let files = Files::new(&json!({"get_image": "role:reader and not 'secret':%(kind)s"}));
    let gateway = Gateway::start(files.options());
    let demo = gateway.client(Token::Demo);
    // Newest first, the hidden ones are more than one answer is picked from; then every fifth can be seen.
    for n in 1..=60 {
        let kind = if n % 5 == 0 && n <= 25 { "open" } else { "secret" };
        create(&demo, json!({"name": format!("i{n}"), "kind": kind}));
    }
    let (mut seen, mut pages) = (Vec::new(), 0);
    let mut path = "/v2/images?limit=3".to_owned();
    loop {
        let page = demo.get(&path).expect(200).json();
        let images = page["images"].as_array().unwrap();
        assert!(images.len() <= 3, "{page}");
        seen.extend(images.iter().map(|image| image["name"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, ["i25", "i20", "i15", "i10", "i5"]);
    assert!(pages < 5, "{pages} pages for 5 images");
    // A page of nothing, too, is for those only who may list.
    demo.get("/v2/images?limit=0").expect(200);
    gateway.client(Token::Service).get("/v2/images?limit=0").expect(403);
}

#[test]
fn an_administrator_is_whom_the_policy_says() {
    let files = Files::new(&json!({"context_is_admin": "user_id:u-alt and role:member"}));
    let gateway = Gateway::start(files.options());
    let [admin, demo, alt] = [Token::Admin, Token::Demo, Token::Alt].map(|token| gateway.client(token));
    let private = create(&demo, json!({"visibility": "private"}));
    alt.get(&image(&private)).expect(200);
    assert_eq!(ids(alt.get("/v2/images")), [private.as_str()]);
    alt.patch(&image(&private), &json!([{"op": "replace", "path": "/visibility", "value": "public"}])).expect(200);
    // The role alone is worth nothing now.
    let private = create(&demo, json!({"visibility": "private"}));
    admin.get(&image(&private)).expect(404);
    admin.post("/v2/images", &json!({"visibility": "public"})).expect(403);
    admin.post("/v2/images", &json!({"owner": "p-demo"})).expect(403);
    assert_eq!(gateway.sql("SELECT count(*) FROM images"), "2");
}

#[test]
fn admin_counts_as_a_service_until_the_policy_is_strict() {
    let detail = "/v2/info/stores/detail";
    let gateway = Gateway::start(Options::default());
    for (token, status) in [(Token::Service, 200), (Token::Admin, 200), (Token::Demo, 403), (Token::Reader, 403)] {
        gateway.client(token).get(detail).expect(status);
    }
    let files = Files::new(&json!({"service_api": "role:service", "stores_info_detail": "rule:service_api"}));
    let strict = Gateway::start(files.options());
    for (token, status) in [(Token::Service, 200), (Token::Admin, 403), (Token::Demo, 403), (Token::Reader, 403)] {
        strict.client(token).get(detail).expect(status);
    }
}

/// The rules let any reader see any shared image; that only members do is up to the catalog. Both together have to
/// come to the documented visibility, wherever images are shown.
#[test]
fn rules_and_catalog_together_show_what_is_to_be_seen() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    for visibility in ["private", "shared", "community", "public"] {
        for membership in [None, Some("pending"), Some("accepted"), Some("rejected")] {
            for owner in [Some("p-demo"), None] {
                let id = create(&demo, json!({"disk_format": "raw", "container_format": "bare"}));
                let owner_sql = owner.map_or("NULL".to_owned(), |owner| format!("'{owner}'"));
                gateway.sql(&format!(
                    "UPDATE images SET visibility = '{visibility}', owner = {owner_sql} WHERE id = '{id}'"
                ));
                if let Some(status) = membership {
                    gateway.sql(&format!(
                        "INSERT INTO image_members (image_id, member, status, created_at, updated_at) VALUES ('{id}', 'p-alt', '{status}', now(), now())"
                    ));
                }
                for token in [Token::Demo, Token::Reader, Token::Alt, Token::Service, Token::Admin] {
                    let client = gateway.client(token);
                    let own = owner.is_some() && matches!(token, Token::Demo | Token::Reader);
                    let member = visibility == "shared" && membership.is_some() && token == Token::Alt;
                    let open = matches!(visibility, "public" | "community") || owner.is_none();
                    // Another service's user has neither the role reader nor member.
                    let seen = token == Token::Admin || (token != Token::Service && (own || member || open));
                    let what = format!("{visibility} {membership:?} {owner:?} {token:?}");
                    assert_eq!(client.get(&image(&id)).status, if seen { 200 } else { 404 }, "{what}");
                    let download = match (seen, token) {
                        (false, _) => 404,
                        (true, Token::Reader) => 403,
                        // There is no data.
                        (true, _) => 204,
                    };
                    assert_eq!(client.get(&format!("/v2/images/{id}/file")).status, download, "{what}");
                    if token != Token::Service {
                        let all = "/v2/images?visibility=all&member_status=all&limit=1000";
                        assert_eq!(ids(client.get(all)).contains(&id), seen, "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn files_are_followed_and_a_broken_one_changes_nothing() {
    let files = Files::new(&json!({}));
    let gateway = Gateway::start(files.options().set("policy", "reload_interval_s", 1));
    let demo = gateway.client(Token::Demo);
    let publish = || demo.post("/v2/images", &json!({"visibility": "public"})).status;
    assert_eq!(publish(), 403);
    files.write("publicize_image: role:member\nadd_imag: '!'");
    eventually("the file is read", 10, || publish() == 201);
    eventually("its typo is logged", 10, || gateway.log().contains("did you mean add_image?"));
    files.write("publicize_image: '!'\nadd_image: role:member and");
    let complaint = format!("{}:2: rule add_image, at character 16", files.path().display());
    eventually("the mistake is logged", 10, || gateway.log().contains(&complaint));
    assert_eq!(publish(), 201, "the rules before stay in force");
    fs::remove_file(files.path()).unwrap();
    eventually("the missing file is logged", 10, || gateway.log().contains("policy.yaml cannot be read"));
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(gateway.log().matches("the policy cannot be used").count(), 2, "each is said once: {}", gateway.log());
    assert_eq!(publish(), 201);
    files.write("{}");
    eventually("the defaults are back", 10, || publish() == 403);
}

#[test]
fn sighup_reads_the_files_at_once() {
    let files = Files::new(&json!({"publicize_image": "!"}));
    let folder = files.0.join("d");
    fs::create_dir(&folder).unwrap();
    let dirs = vec![toml::Value::from(folder.to_str().unwrap())];
    let gateway = Gateway::start(files.options().set("policy", "reload_interval_s", 3600).set("policy", "dirs", dirs));
    let demo = gateway.client(Token::Demo);
    let publish = || demo.post("/v2/images", &json!({"visibility": "public"})).status;
    fs::write(folder.join("50-publish.json"), r#"{"publicize_image": "role:member"}"#).unwrap();
    assert_eq!(publish(), 403);
    gateway.signal("HUP");
    eventually("the overlay is read", 10, || publish() == 201);
}

#[test]
fn a_start_with_a_broken_policy_is_refused() {
    let files = Files::new(&json!({}));
    let gateway = Gateway::start(files.options().set("policy", "reload_interval_s", 3600));
    let config = gateway.folder().join("rockpool.toml");
    files.write("get_image: role:reader or\nget_images: https://opa.example.org/\nget_task: (role:x");
    for command in [&["config", "check"][..], &["serve"]] {
        let output = rockpool(&[command, &["--config", config.to_str().unwrap()]].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        for words in [
            "policy.yaml:1: rule get_image",
            "policy.yaml:2: rule get_images",
            "policy.yaml:3: rule get_task",
            "remote_checks_allowed_hosts",
        ] {
            assert!(text.contains(words), "{words:?} is not in: {text}");
        }
    }
    fs::remove_file(files.path()).unwrap();
    let output = rockpool(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("policy.yaml cannot be read"), "{}", said(&output));
}

#[test]
fn the_command_lists_and_checks_rules() {
    let rules = json!({"publicize_image": [["role:publisher"]], "ours": "role:x", "get_image": "rule:ours"});
    let files = Files::new(&rules);
    let gateway = Gateway::start(files.options());
    let config = gateway.folder().join("rockpool.toml");
    let config = config.to_str().unwrap();
    let list = rockpool(&["policy", "list", "--config", config]);
    let text = said(&list);
    let origin = format!("{}:1", files.path().display());
    for line in [
        "\"get_images\": \"rule:context_is_admin or (role:reader and project_id:%(project_id)s)\"  # default",
        &format!("\"publicize_image\": [[\"role:publisher\"]]  # {origin}, instead of \"rule:context_is_admin\""),
        &format!("\"ours\": \"role:x\"  # {origin}"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in: {text}");
    }
    // What is listed is a policy file that means the same.
    let copy = files.0.join("copy.yaml");
    fs::write(&copy, &list.stdout).unwrap();
    let output = rockpool(&["policy", "check", copy.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let json = rockpool(&["policy", "list", "--json", "--config", config]).stdout;
    assert_eq!(serde_json::from_slice::<Vec<Value>>(&json).unwrap().len(), text.lines().count());

    let cases = files.0.join("cases.jsonl");
    let case = |role: &str, allowed: bool| {
        let target = json!({"visibility": "public"});
        json!({"rule": "get_image", "credentials": {"roles": [role]}, "target": target, "allowed": allowed})
    };
    let check = || rockpool(&["policy", "check", files.path().to_str().unwrap(), "--cases", cases.to_str().unwrap()]);
    fs::write(&cases, format!("{}\n{}\n", case("X", true), case("y", false))).unwrap();
    assert_eq!(check().status.code(), Some(0), "{}", said(&check()));
    assert!(said(&check()).contains("2 cases, 0 decided otherwise"));
    fs::write(&cases, format!("{}\n{}\n", case("x", true), case("y", true))).unwrap();
    assert_eq!(check().status.code(), Some(1));
    assert!(said(&check()).contains("cases.jsonl:2: get_image is denied"), "{}", said(&check()));
    fs::write(&cases, "{\"rule\": 1}").unwrap();
    assert!(said(&check()).contains("cases.jsonl:1"), "{}", said(&check()));
    files.write("a: b");
    let broken = rockpool(&["policy", "check", files.path().to_str().unwrap()]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(said(&broken).contains("policy.yaml:1: rule a, at character 1: 'b' is no check"), "{}", said(&broken));
}

#[test]
fn the_command_explains_a_verdict() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    let shared = create(&demo, json!({"visibility": "shared"}));
    demo.post(&format!("/v2/images/{shared}/members"), &json!({"member": "p-alt"})).expect(200);
    let config = gateway.folder().join("rockpool.toml");
    let explain = |caller: &str, action: &str, more: &[&str]| {
        let fixed = ["policy", "explain", "--config", config.to_str().unwrap(), "--as", caller, "--action", action];
        let output = rockpool(&[&fixed[..], more].concat());
        (output.status.code().unwrap(), said(&output))
    };
    let nothing = uuid::Uuid::nil().to_string();
    for (caller, action, image, code, words) in [
        ("roles=member,reader,project_id=p-demo", "get_image", shared.as_str(), 0, "the target has \"p-demo\""),
        ("roles=reader,project_id=p-alt", "get_image", &shared, 0, "-> yes       project_id:%(member_id)s"),
        (
            "roles=reader,project_id=p-alt",
            "download_image",
            &shared,
            3,
            "role:member    [the caller's roles are ['reader']]",
        ),
        ("roles=member,reader,project_id=p-alt", "delete_image", &shared, 3, "The answer is 403"),
        (
            "roles=member,reader,project_id=p-other",
            "get_image",
            &shared,
            3,
            "the answer is 404, whatever the policy says",
        ),
        ("roles=admin,project_id=p-admin", "delete_image", &shared, 0, "(context_is_admin)"),
        (
            "roles=member,reader,project_id=p-alt",
            "modify_image",
            "owner=p-demo,visibility=private",
            3,
            "The answer is 404",
        ),
        (
            "roles=member,project_id=p-alt",
            "modify_member",
            "owner=p-demo,visibility=shared,member_id=p-alt",
            0,
            "permits",
        ),
        ("roles=member,project_id=p-alt", "get_imagee", "owner=p-demo", 1, "did you mean get_image?"),
        ("rolls=member", "get_image", "owner=p-demo", 1, "there is no \"rolls\""),
        ("roles=member", "get_image", "visibility=secret", 1, "visibility"),
        ("roles=member", "get_image", &nothing, 1, "there is no image"),
    ] {
        let (found, text) = explain(caller, action, &["--image", image]);
        assert_eq!(found, code, "{caller} {action}: {text}");
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
    // Its verdicts are the gateway's.
    let alt = gateway.client(Token::Alt);
    alt.get(&image(&shared)).expect(200);
    alt.delete(&image(&shared)).expect(403);

    let (code, text) =
        explain("roles=reader", "get_metadef_tags", &["--namespace", "owner=x,visibility=public", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["allowed"], &json["explanation"]["rule"]), (0, &json!(true), &json!("get_metadef_tags")));
    let (code, text) = explain("roles=reader", "tasks_api_access", &["--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["allowed"], &json["is_admin"]), (3, &json!(false), &json!(false)));
}
