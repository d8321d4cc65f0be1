//! `/v2/tasks` and `/v2/images/{id}/tasks`.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{
    Client, Gateway, Nginx, Options, Token, assert_active, await_clean, eventually, random_bytes, status_of,
};

fn page(client: &Client, query: &str) -> Value {
    client.get(&format!("/v2/tasks{query}")).expect(200).json()
}

fn ids(page: &Value) -> Vec<String> {
    page["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

/// All ids of a list, by following `next`.
fn walk(client: &Client, query: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut path = Some(format!("/v2/tasks{query}"));
    while let Some(next) = path {
        let page = client.get(&next).expect(200).json();
        all.extend(ids(&page));
        assert!(all.len() < 1000, "the list has no end: {query}");
        path = page.get("next").map(|next| next.as_str().unwrap().to_owned());
    }
    all
}

/// Forty tasks with ties and missing values in every column that sorts; every fourth has ended well, every fourth
/// badly, within the last hours.
fn crowd(gateway: &Gateway) {
    gateway.sql(
        "INSERT INTO tasks (id, type, status, owner, user_id, request_id, image_id, input, result, message, created_at, updated_at)
         SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, (ARRAY['import', 'api_image_import', 'location_import'])[1 + n % 3],
           (ARRAY['pending', 'processing', 'success', 'failure'])[1 + n % 4], (ARRAY[NULL, 'p-demo', 'p-alt', 'p-demo'])[1 + n % 4],
           (ARRAY[NULL, 'u-demo', 'u-alt'])[1 + n % 3], (ARRAY[NULL, 'req-1'])[1 + n % 2],
           CASE WHEN n % 5 = 0 THEN NULL ELSE ('00000000-0000-4000-9000-' || lpad((n % 3)::text, 12, '0'))::uuid END,
           '{\"a\": 1}', NULL, 'm', now() - make_interval(secs => n % 7), now() - make_interval(hours => n % 4)
         FROM generate_series(1, 40) n",
    );
}

/// One task by SQL; `rest` are its other columns.
fn insert(gateway: &Gateway, id: &str, columns: &str, values: &str) {
    gateway.sql(&format!("INSERT INTO tasks (id, type, created_at, updated_at, {columns}) VALUES ('{id}', 'api_image_import', '2026-01-02 03:04:05.000678Z', {values})"));
}

#[test]
fn a_task_is_shown_whole_and_listed_in_short() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    assert_eq!(page(&admin, ""), json!({"tasks": [], "first": "/v2/tasks", "schema": "/v2/schemas/tasks"}));
    let (id, image) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
    insert(
        &gateway,
        &id,
        "status, owner, user_id, request_id, image_id, input, result, message",
        &format!(
            "now() - interval '1 hour', 'failure', 'p-demo', 'u-demo', 'req-1', '{image}', '{{\"method\": {{\"name\": \"web-download\"}}}}', '{{}}', 'no <b>route</b>'"
        ),
    );
    let seconds = |sql: &str| {
        gateway.sql(&format!("SELECT to_char(({sql}) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM tasks"))
    };
    let whole = json!({
        "id": id, "type": "api_image_import", "status": "failure", "owner": "p-demo", "input": {"method": {"name": "web-download"}},
        "result": {}, "message": "no <b>route</b>", "image_id": image, "request_id": "req-1", "user_id": "u-demo",
        "created_at": "2026-01-02T03:04:05Z", "updated_at": seconds("updated_at"), "expires_at": seconds("updated_at + interval '48 hours'"),
        "self": format!("/v2/tasks/{id}"), "schema": "/v2/schemas/task",
    });
    assert_eq!(admin.get(&format!("/v2/tasks/{id}")).expect(200).json(), whole);
    let mut short = whole.clone();
    for name in ["input", "result", "message", "image_id", "request_id", "user_id"] {
        short.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(page(&admin, "")["tasks"], json!([short]));
    // Of one that runs there is less to tell.
    let running = uuid::Uuid::new_v4().to_string();
    insert(&gateway, &running, "status", "now(), 'pending'");
    let shown = admin.get(&format!("/v2/tasks/{running}")).expect(200).json();
    for name in ["expires_at", "image_id", "request_id", "user_id"] {
        assert!(shown.get(name).is_none(), "{name}: {shown}");
    }
    for (name, value) in
        [("owner", json!(null)), ("input", json!(null)), ("result", json!(null)), ("message", json!(""))]
    {
        assert_eq!(shown[name], value, "{name}");
    }
    admin.get(&format!("/v2/tasks/{}", id.to_uppercase())).expect(200);
    for missing in [&uuid::Uuid::new_v4().to_string(), "x", "%00", "%27", &"t".repeat(300), &id.replace('-', "")] {
        admin.get(&format!("/v2/tasks/{missing}")).expect(404);
    }
}

#[test]
fn paging_in_every_order_visits_every_task_once() {
    let gateway = Gateway::start(Options::default().set("images", "api_limit_max", 40));
    crowd(&gateway);
    let admin = gateway.client(Token::Admin);
    let everything: BTreeSet<String> = ids(&page(&admin, "?limit=1000")).into_iter().collect();
    assert_eq!(everything.len(), 40);
    assert_eq!(ids(&page(&admin, "")).len(), 25);
    for key in
        ["id", "type", "status", "owner", "user_id", "request_id", "image_id", "created_at", "updated_at", "expires_at"]
    {
        for direction in ["asc", "desc"] {
            let query = format!("?sort_key={key}&sort_dir={direction}");
            let whole = ids(&page(&admin, &format!("{query}&limit=40")));
            assert_eq!(whole.iter().cloned().collect::<BTreeSet<_>>(), everything, "{query}");
            assert_eq!(walk(&admin, &format!("{query}&limit=7")), whole, "{query}");
            let mut other = ids(&page(
                &admin,
                &format!("?sort_key={key}&limit=40&sort_dir={}", if direction == "asc" { "desc" } else { "asc" }),
            ));
            other.reverse();
            assert_eq!(other, whole, "{key}");
        }
    }
    let newest = gateway.sql("SELECT id FROM tasks ORDER BY created_at DESC, id DESC");
    assert_eq!(ids(&page(&admin, "?limit=40")), newest.lines().collect::<Vec<_>>());
    let by_owner = gateway.sql("SELECT id FROM tasks ORDER BY coalesce(owner, '') ASC, created_at ASC, id ASC");
    assert_eq!(ids(&page(&admin, "?limit=40&sort_key=owner&sort_dir=asc")), by_owner.lines().collect::<Vec<_>>());
    // The links echo what was asked for.
    let first = page(&admin, "?status=success&limit=3&owner=p-alt&x=a%26b&sort_dir=asc");
    assert_eq!(first["first"], "/v2/tasks?status=success&limit=3&owner=p-alt&x=a%26b&sort_dir=asc");
    let next = format!("{}&marker={}", first["first"].as_str().unwrap(), ids(&first)[2]);
    assert_eq!(first["next"], next);
    assert_eq!(
        page(&admin, "?limit=0"),
        json!({"tasks": [], "first": "/v2/tasks?limit=0", "schema": "/v2/schemas/tasks"})
    );
}

#[test]
fn filters_select_what_they_say() {
    let gateway = Gateway::start(Options::default());
    crowd(&gateway);
    let admin = gateway.client(Token::Admin);
    let image = "00000000-0000-4000-9000-000000000001";
    let owner_and_type = "owner = 'p-demo' AND type = 'import'";
    for (query, condition) in [
        ("status=success", "status = 'success'"),
        ("status=pending", "status = 'pending'"),
        ("type=import", "type = 'import'"),
        ("owner=p-demo", "owner = 'p-demo'"),
        ("owner=p-demo&type=import", owner_and_type),
        ("user_id=u-alt", "user_id = 'u-alt'"),
        ("request_id=req-1", "request_id = 'req-1'"),
        (&format!("image_id={image}"), &format!("image_id = '{image}'")),
        ("id=00000000-0000-4000-8000-000000000009", "id = '00000000-0000-4000-8000-000000000009'"),
        ("id=nothing", "false"),
        ("owner=", "false"),
        ("status=", "false"),
        ("owner=%27%20OR%201=1--", "false"),
        ("nothing=x", "true"),
        ("nothing=x&nothing=y", "true"),
    ] {
        let mut expected: Vec<String> =
            gateway.sql(&format!("SELECT id FROM tasks WHERE {condition}")).lines().map(str::to_owned).collect();
        let mut found = ids(&page(&admin, &format!("?limit=100&{query}")));
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{query}");
        assert!(condition == "false" || !expected.is_empty(), "{query}");
    }
    for bad in [
        "limit=x",
        "limit=-1",
        "limit=",
        "marker=x",
        "marker=",
        &format!("marker={}", uuid::Uuid::new_v4()),
        "sort_key=input",
        "sort_key=nothing",
        "sort_key=",
        "sort_key=id;DROP",
        "sort_dir=up",
        "sort_dir=",
        "status=done",
        "type=export",
        "type=location_import",
        "status=success&status=failure",
        "limit=1&limit=2",
        "owner=%00",
        "owner=%ff",
        "%00=x",
        &format!("owner={}", "x".repeat(20_000)),
    ] {
        let answer = admin.get(&format!("/v2/tasks?{bad}"));
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
}

#[test]
fn the_task_api_is_for_administrators_unless_the_policy_says_otherwise() {
    let gateway = Gateway::start(Options::default());
    crowd(&gateway);
    let id = "00000000-0000-4000-8000-000000000001";
    for token in [Token::Demo, Token::Alt, Token::Reader] {
        let client = gateway.client(token);
        // Whatever else is wrong, that is said first.
        for answer in [
            client.get("/v2/tasks"),
            client.get("/v2/tasks?limit=x"),
            client.get(&format!("/v2/tasks/{id}")),
            client.get("/v2/tasks/nothing"),
            client.delete(&format!("/v2/tasks/{id}")),
            client.send_json("POST", "/v2/tasks", "{"),
            client.post("/v2/tasks", &json!({"type": "import", "input": {}})),
        ] {
            assert_eq!(answer.status, 403, "{}", answer.text());
            assert!(answer.text().contains("tasks_api_access"), "{}", answer.text());
        }
    }
    gateway.anonymous().get("/v2/tasks").expect(401);
    // Opened to all, it shows each project its own, and what is nobody's.
    let rules = gateway.folder().join("policy.yaml");
    std::fs::write(&rules, "tasks_api_access: \"\"\n").unwrap();
    let open = gateway.sibling_with(Options::default().set("policy", "file", rules.to_str().unwrap()));
    for (token, project) in [(Token::Demo, "p-demo"), (Token::Alt, "p-alt")] {
        let client = open.client(token);
        let mut expected: Vec<String> = open
            .sql(&format!("SELECT id FROM tasks WHERE owner = '{project}' OR owner IS NULL"))
            .lines()
            .map(str::to_owned)
            .collect();
        expected.sort();
        let mut seen = walk(&client, "?limit=7");
        seen.sort();
        assert_eq!(seen, expected);
        let hidden = open.sql(&format!("SELECT id FROM tasks WHERE owner <> '{project}' LIMIT 1"));
        let unknown = uuid::Uuid::new_v4().to_string();
        let text = |id: &str| client.get(&format!("/v2/tasks/{id}")).expect(404).text().replace(id, "ID");
        assert_eq!(text(&hidden), text(&unknown));
        let text = |id: &str| client.get(&format!("/v2/tasks?marker={id}")).expect(400).text().replace(id, "ID");
        assert_eq!(text(&hidden), text(&unknown));
        client.get(&format!("/v2/tasks/{}", expected[0])).expect(200);
    }
}

#[test]
fn a_task_is_never_deleted_by_hand_and_no_bad_one_is_made() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let id = uuid::Uuid::new_v4().to_string();
    insert(&gateway, &id, "status", "now(), 'pending'");
    for path in [format!("/v2/tasks/{id}"), format!("/v2/tasks/{}", uuid::Uuid::new_v4())] {
        let answer = admin.delete(&path);
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"));
        for method in ["PUT", "PATCH", "POST", "HEAD"] {
            let answer = admin.call(method, &path);
            assert_eq!((answer.status, answer.header("allow")), (405, "GET, DELETE"), "{method}");
        }
    }
    for method in ["PUT", "PATCH", "DELETE", "HEAD"] {
        let answer = admin.call(method, "/v2/tasks");
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, POST"), "{method}");
    }
    let good = json!({"type": "import", "input": {"import_from": "https://9.9.9.9/y", "import_from_format": "raw", "image_properties": {"name": "n"}}});
    let with = |name: &str, value: Value| {
        let mut body = good.clone();
        body["input"][name] = value;
        body
    };
    for (body, why) in [
        (json!([]), "object"),
        (json!("import"), "object"),
        (json!({"input": {}}), "type"),
        (json!({"type": "import"}), "input"),
        (json!({"type": "export", "input": {}}), "type"),
        (json!({"type": "api_image_import", "input": {}}), "import"),
        (json!({"type": "import", "input": []}), "input"),
        (json!({"type": "import", "input": {}}), "import_from"),
        (json!({"type": "import", "input": {"import_from": 5}}), "import_from"),
        (json!({"type": "import", "input": {"import_from": "file:///etc/passwd"}}), "File based imports"),
        (json!({"type": "import", "input": {"import_from": "ftp://x/y"}}), "import_from"),
        (json!({"type": "import", "input": {"import_from": "http://x/y"}}), "import_from_format"),
        (json!({"type": "import", "input": good["input"], "owner": 5}), "owner"),
        (with("import_from", json!("http://127.0.0.1/y")), "Invalid URL"),
        (with("import_from", json!("http://192.0.2.1:22/y")), "Invalid URL"),
        (with("import_from_format", json!("floppy")), "import_from_format"),
        (with("image_properties", json!({"disk_format": "qcow2"})), "becomes raw here"),
        (with("image_properties", json!({"disk_format": "floppy"})), "floppy"),
        (with("image_properties", json!({"container_format": "box"})), "container_format"),
        (with("image_properties", json!({"min_disk": -1})), "min_disk"),
        (with("image_properties", json!({"rockpool_expected_hash": "sha256:12"})), "rockpool_expected_hash"),
    ] {
        let answer = admin.post("/v2/tasks", &body).expect(400);
        assert!(answer.text().contains(why), "{body}: {}", answer.text());
    }
    admin.post("/v2/tasks", &with("image_properties", json!({"os_glance_x": "y"}))).expect(403);
    let taken = admin.create("taken");
    admin.post("/v2/tasks", &with("image_properties", json!({"id": taken}))).expect(409);
    let methods = vec![toml::Value::from("glance-direct")];
    let without = gateway.sibling_with(Options::default().set("import", "methods", methods));
    let answer = without.client(Token::Admin).post("/v2/tasks", &good).expect(400);
    assert!(answer.text().contains("without web-download"), "{}", answer.text());
    // Neither an image nor a job is left of that.
    assert_eq!(gateway.sql("SELECT count(*) FROM images UNION ALL SELECT count(*) FROM jobs"), "1\n0");
    for text in ["", "{", "import", &"[".repeat(5000)] {
        admin.send_json("POST", "/v2/tasks", text).expect(400);
    }
    assert_eq!(gateway.sql("SELECT count(*) FROM tasks"), "1");
}

#[test]
fn a_task_makes_an_image_and_fills_it() {
    let Some(nginx) = Nginx::start("") else { return };
    let gateway =
        Gateway::start(Options::quick().sections("[fetch]\nallowed_hosts = [\"localhost\"]\nallowed_ports = []\n"));
    let admin = gateway.client(Token::Admin);
    let bytes = random_bytes(51, (3 << 20) + 5);
    nginx.serve("disk.raw", &bytes);
    let file = gateway.folder().join("disk.raw");
    let packed = gateway.folder().join("disk.qcow2");
    std::fs::write(&file, random_bytes(52, 2 << 20)).unwrap();
    let arguments = ["convert", "-f", "raw", "-O", "qcow2", file.to_str().unwrap(), packed.to_str().unwrap()];
    assert!(std::process::Command::new("qemu-img").args(arguments).status().unwrap().success());
    nginx.serve("disk.qcow2", &std::fs::read(packed).unwrap());
    let begin = |name: &str, format: &str, properties: Value| {
        let input =
            json!({"import_from": nginx.url(name), "import_from_format": format, "image_properties": properties});
        let answer = admin.post("/v2/tasks", &json!({"type": "import", "input": input})).expect(201);
        let task = answer.json();
        assert_eq!(answer.header("location"), format!("{}{}", gateway.url, task["self"].as_str().unwrap()));
        assert_eq!((&task["status"], &task["type"], &task["input"]), (&json!("pending"), &json!("import"), &input));
        assert_eq!((&task["owner"], &task["result"], &task["message"]), (&json!("p-admin"), &Value::Null, &json!("")));
        assert_eq!(
            (&task["schema"], &task["request_id"]),
            (&json!("/v2/schemas/task"), &json!(answer.header("x-openstack-request-id")))
        );
        task["id"].as_str().unwrap().to_owned()
    };
    let end = |id: &str| {
        let task = || admin.get(&format!("/v2/tasks/{id}")).expect(200).json();
        eventually("the task ends", 60, || ["success", "failure"].contains(&task()["status"].as_str().unwrap()));
        task()
    };
    let properties =
        json!({"name": "made", "disk_format": "raw", "owner": "p-demo", "visibility": "public", "os_distro": "debian"});
    let id = begin("disk.raw", "raw", properties);
    let task = end(&id);
    let image = task["result"]["image_id"].as_str().unwrap().to_owned();
    assert_eq!((&task["status"], &task["message"]), (&json!("success"), &json!("")), "{task}");
    assert_eq!((&task["result"], &task["image_id"]), (&json!({"image_id": image}), &json!(image)));
    let demo = gateway.client(Token::Demo);
    assert_active(&demo, &image, &bytes);
    let made = demo.show(&image);
    for (name, value) in [
        ("name", "made"),
        ("owner", "p-demo"),
        ("visibility", "public"),
        ("os_distro", "debian"),
        ("container_format", "bare"),
    ] {
        assert_eq!(made[name], value, "{made}");
    }
    // Somebody who wants raw may say in what form it comes.
    let id = begin("disk.qcow2", "qcow2", json!({"disk_format": "raw"}));
    let converted = end(&id)["result"]["image_id"].as_str().unwrap().to_owned();
    assert_active(&admin, &converted, &random_bytes(52, 2 << 20));
    assert_eq!(admin.show(&converted)["disk_format"], "raw");
    // What is not as it was said is not taken: the image waits for another import.
    for (name, format, why) in [("none", "raw", "404"), ("disk.qcow2", "raw", "qcow2")] {
        let task = end(&begin(name, format, json!({})));
        let image = task["result"]["image_id"].as_str().unwrap().to_owned();
        assert!(task["status"] == "failure" && task["message"].as_str().unwrap().contains(why), "{task}");
        assert_eq!(status_of(&admin, &image), "queued");
        admin.delete(&format!("/v2/images/{image}")).expect(204);
    }
    assert_eq!(ids(&page(&admin, "?type=import")).len(), 4);
    await_clean(&gateway, &[&image, &converted], &[], 20);
}

#[test]
fn the_tasks_of_an_image_are_told_to_whoever_asked_for_them() {
    let gateway = Gateway::start(Options::default());
    let (admin, demo, alt) = (gateway.client(Token::Admin), gateway.client(Token::Demo), gateway.client(Token::Alt));
    let image = demo.create("with tasks");
    let path = format!("/v2/images/{image}/tasks");
    assert_eq!(demo.get(&path).expect(200).json(), json!({"tasks": []}));
    let [first, second, third] = [0; 3].map(|_| uuid::Uuid::new_v4().to_string());
    let with = |id: &str, owner: &str, created: &str| {
        gateway.sql(&format!(
            "INSERT INTO tasks (id, type, status, owner, user_id, request_id, image_id, input, message, created_at, updated_at)
             VALUES ('{id}', 'api_image_import', 'success', {owner}, 'u', 'r', '{image}', '{{\"a\": 1}}', 'm', '{created}', '2126-01-02 03:04:05.000678Z')"
        ));
    };
    with(&first, "'p-demo'", "2026-01-01 00:00:00.000001Z");
    with(&second, "'p-alt'", "2026-01-01 00:00:00.1Z");
    with(&third, "NULL", "2026-01-01 00:00:01Z");
    let other = demo.create("without");
    let seen = |client: &Client| -> Vec<String> { ids(&client.get(&path).expect(200).json()) };
    assert_eq!(seen(&admin), [&first[..], &second, &third]);
    assert_eq!(seen(&demo), [&first[..], &third]);
    assert_eq!(seen(&gateway.client(Token::Reader)), [&first[..], &third]);
    assert_eq!(demo.get(&format!("/v2/images/{other}/tasks")).expect(200).json(), json!({"tasks": []}));
    assert_eq!(
        demo.get(&path).expect(200).json()["tasks"][0],
        json!({
            "id": first, "type": "api_image_import", "status": "success", "owner": "p-demo", "user_id": "u", "request_id": "r", "image_id": image,
            "input": {"a": 1}, "result": null, "message": "m", "deleted": false, "deleted_at": null,
            "created_at": "2026-01-01T00:00:00.000001", "updated_at": "2126-01-02T03:04:05.000678", "expires_at": "2126-01-04T03:04:05.000678",
        })
    );
    // Whoever does not see the image sees none of its tasks; a member sees its own.
    alt.get(&path).expect(404);
    gateway.sql(&format!("INSERT INTO image_members VALUES ('{image}', 'p-alt', 'pending', now(), now())"));
    assert_eq!(seen(&alt), [&second[..], &third]);
    for missing in [uuid::Uuid::new_v4().to_string(), "x".into()] {
        demo.get(&format!("/v2/images/{missing}/tasks")).expect(404);
    }
    for method in ["POST", "PUT", "PATCH", "DELETE", "HEAD"] {
        assert_eq!(demo.call(method, &path).status, 404, "{method}");
    }
    demo.send_json("GET", &path, "{}").expect(400);
    // They outlive it.
    demo.delete(&format!("/v2/images/{image}")).expect(204);
    demo.get(&path).expect(404);
    admin.get(&format!("/v2/tasks/{first}")).expect(200);
}

#[test]
fn a_task_that_has_ended_is_forgotten_in_time() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    let image = admin.create("with tasks");
    let insert = |status: &str, hours: u32| {
        let id = uuid::Uuid::new_v4().to_string();
        let values = format!("now() - interval '{hours} hours', '{status}', '{image}'");
        insert(&gateway, &id, "status, image_id", &values);
        id
    };
    let (kept, ended) = (insert("success", 47), insert("failure", 49));
    let running = [insert("processing", 1000), insert("pending", 1000)];
    admin.get(&format!("/v2/tasks/{kept}")).expect(200);
    admin.get(&format!("/v2/tasks/{ended}")).expect(404);
    admin.get(&format!("/v2/tasks?marker={ended}")).expect(400);
    for path in ["/v2/tasks".to_owned(), format!("/v2/images/{image}/tasks")] {
        let mut seen = ids(&admin.get(&path).expect(200).json());
        let mut expected = [kept.clone(), running[0].clone(), running[1].clone()];
        seen.sort();
        expected.sort();
        assert_eq!(seen, expected, "{path}");
    }
    // Whoever keeps them for longer still has it, until one removes it that does not.
    let patient = gateway.sibling_with(Options::default().set("tasks", "time_to_live_h", 50));
    patient.client(Token::Admin).get(&format!("/v2/tasks/{ended}")).expect(200);
    let impatient = gateway.sibling_with(Options::default().set("tasks", "time_to_live_h", 48));
    eventually("it is removed", 10, || gateway.sql(&format!("SELECT count(*) FROM tasks WHERE id = '{ended}'")) == "0");
    assert_eq!(gateway.sql("SELECT count(*) FROM tasks"), "3");
    impatient.client(Token::Admin).get(&format!("/v2/tasks/{kept}")).expect(200);
}
