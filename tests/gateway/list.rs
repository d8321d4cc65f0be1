//! `GET /v2/images`: pages, orders, filters.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, Options, Token};

fn page(client: &Client, path: &str) -> Value {
    client.get(path).expect(200).json()
}

fn ids(page: &Value) -> Vec<String> {
    page["images"].as_array().unwrap().iter().map(|image| image["id"].as_str().unwrap().to_owned()).collect()
}

fn names(client: &Client, query: &str) -> Vec<String> {
    let page = page(client, &format!("/v2/images?{query}"));
    page["images"].as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap_or("").to_owned()).collect()
}

fn sorted_names(client: &Client, query: &str) -> Vec<String> {
    let mut names = names(client, query);
    names.sort();
    names
}

/// All ids of a list, by following `next`.
fn walk(client: &Client, first: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut path = Some(first.to_owned());
    while let Some(next) = path {
        let page = page(client, &next);
        all.extend(ids(&page));
        assert!(all.len() < 1000, "the list has no end: {first}");
        path = page.get("next").map(|next| next.as_str().unwrap().to_owned());
    }
    all
}

/// Images of several owners with ties and missing values in every column that sorts.
fn crowd(gateway: &Gateway) {
    gateway.sql(
        "INSERT INTO image_ids SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid FROM generate_series(1, 60) n;
         INSERT INTO images (id, status, name, visibility, owner, protected, hidden, container_format, disk_format, min_disk_gib, min_ram_mib, size_bytes, created_at, updated_at)
         SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, (ARRAY['queued', 'active', 'deactivated'])[1 + n % 3],
           (ARRAY[NULL, '', 'a', 'B', 'b', 'ä', 'a b'])[1 + n % 7], (ARRAY['private', 'public', 'shared', 'community'])[1 + n % 4],
           (ARRAY['p-demo', 'p-demo', 'p-alt'])[1 + n % 3], false, false,
           (ARRAY[NULL, 'bare', 'ovf'])[1 + n % 3], (ARRAY[NULL, 'raw', 'qcow2', 'iso'])[1 + n % 4], 0, 0,
           CASE WHEN n % 3 = 0 THEN NULL ELSE n % 5 END,
           timestamptz '2024-01-01 00:00:00.1234567Z' + make_interval(secs => n % 4 * 0.000001), timestamptz '2024-02-01Z' + make_interval(days => n % 6)
         FROM generate_series(1, 60) n",
    );
}

const SORT_KEYS: [&str; 8] =
    ["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"];

#[test]
fn paging_in_every_order_visits_every_image_once() {
    let gateway = Gateway::start(Options::default());
    crowd(&gateway);
    for token in [Token::Demo, Token::Admin] {
        let client = gateway.client(token);
        let everything: BTreeSet<String> =
            ids(&page(&client, "/v2/images?limit=1000&visibility=all")).into_iter().collect();
        assert!(everything.len() >= 45, "{}", everything.len());
        for key in SORT_KEYS {
            for direction in ["asc", "desc"] {
                for query in [format!("sort={key}:{direction}"), format!("sort_key={key}&sort_dir={direction}")] {
                    let whole = ids(&page(&client, &format!("/v2/images?{query}&visibility=all&limit=1000")));
                    assert_eq!(whole.len(), everything.len());
                    let walked = walk(&client, &format!("/v2/images?{query}&visibility=all&limit=7"));
                    assert_eq!(walked, whole, "{query}");
                }
            }
        }
        for query in [
            "sort=name:asc,size:desc",
            "sort=size,name:asc,id:asc",
            "sort=status:asc,disk_format:desc,updated_at:asc,created_at:asc",
            "sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc",
            "sort_key=disk_format&sort_key=status&sort_dir=asc",
            "",
            "sort=name:asc,name:desc",
        ] {
            let whole = ids(&page(&client, &format!("/v2/images?{query}&visibility=all&limit=1000")));
            for limit in [1, 7] {
                let walked = walk(&client, &format!("/v2/images?{query}&visibility=all&limit={limit}"));
                assert_eq!(walked, whole, "{query}");
            }
            assert_eq!(whole.iter().cloned().collect::<BTreeSet<_>>(), everything, "{query}");
        }
    }
}

#[test]
fn an_order_is_the_one_asked_for() {
    let gateway = Gateway::start(Options::default());
    crowd(&gateway);
    let admin = gateway.client(Token::Admin);
    let values = |query: &str, key: &str| -> Vec<Value> {
        let page = page(&admin, &format!("/v2/images?{query}&visibility=all&limit=1000"));
        page["images"].as_array().unwrap().iter().map(|image| image[key].clone()).collect()
    };
    for (key, missing) in [
        ("size", json!(0)),
        ("status", json!("")),
        ("disk_format", json!("")),
        ("container_format", json!("")),
        ("id", json!("")),
        ("updated_at", json!("")),
    ] {
        let mut ascending: Vec<Value> = values(&format!("sort={key}:asc"), key);
        for value in &mut ascending {
            if value.is_null() {
                *value = missing.clone();
            }
        }
        let weigh = |value: &Value| (value.as_i64().unwrap_or(0), value.as_str().unwrap_or("").to_owned());
        assert!(ascending.is_sorted_by_key(weigh), "{key}: {ascending:?}");
        let mut descending = values(&format!("sort={key}"), key);
        for value in &mut descending {
            if value.is_null() {
                *value = missing.clone();
            }
        }
        ascending.reverse();
        assert_eq!(descending, ascending, "{key}: desc is the default direction");
    }
    // A missing name sorts as the empty one: first.
    let by_name = values("sort=name:asc", "name");
    let named = by_name.iter().position(|name| name.as_str().is_some_and(|name| !name.is_empty())).unwrap();
    assert!(by_name[named..].iter().all(|name| name.as_str().is_some_and(|name| !name.is_empty())), "{by_name:?}");
    // Ties are broken by created_at and id, in the default or only direction.
    let mut newest_first = ids(&page(&admin, "/v2/images?visibility=all&limit=1000"));
    let rows = gateway.sql("SELECT id FROM images ORDER BY created_at DESC, id DESC");
    assert_eq!(newest_first, rows.lines().collect::<Vec<_>>());
    newest_first.reverse();
    assert_eq!(ids(&page(&admin, "/v2/images?visibility=all&limit=1000&sort_dir=asc")), newest_first);
    let rows = gateway.sql("SELECT id FROM images ORDER BY status ASC, created_at ASC, id ASC");
    assert_eq!(
        ids(&page(&admin, "/v2/images?visibility=all&limit=1000&sort_key=status&sort_dir=asc")),
        rows.lines().collect::<Vec<_>>()
    );
}

#[test]
fn a_limit_is_a_page_and_links_echo_the_whole_query() {
    let gateway = Gateway::start(Options::default().set("images", "api_limit_max", 30));
    crowd(&gateway);
    let admin = gateway.client(Token::Admin);
    let count = |query: &str| ids(&page(&admin, &format!("/v2/images{query}"))).len();
    assert_eq!(count("?visibility=all"), 25);
    assert_eq!(count("?visibility=all&limit=1"), 1);
    assert_eq!(count("?visibility=all&limit=30"), 30);
    assert_eq!(count("?visibility=all&limit=31"), 30, "cut silently");
    for large in ["9223372036854775807", "99999999999999999999999"] {
        assert_eq!(count(&format!("?visibility=all&limit={large}")), 30);
    }
    // Neither does Glance list what was deleted, whatever one says.
    for deleted in ["true", "false", "perhaps"] {
        assert_eq!(count(&format!("?visibility=all&deleted={deleted}&limit=30")), 30);
    }
    let empty = page(&admin, "/v2/images?limit=0");
    assert_eq!(empty, json!({"images": [], "first": "/v2/images?limit=0", "schema": "/v2/schemas/images"}));
    for bad in ["-1", "abc", "", "1.5", "0x1", "-99999999999999999999999", "1%00", "+", "%201"] {
        let answer = admin.get(&format!("/v2/images?limit={bad}"));
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
        assert!(answer.text().contains("limit"), "{bad}: {}", answer.text());
    }
    let plain = page(&admin, "/v2/images");
    assert_eq!(plain["first"], "/v2/images");
    assert_eq!(plain["schema"], "/v2/schemas/images");
    assert_eq!(plain["next"], format!("/v2/images?marker={}", ids(&plain)[24]));
    // Repeated parameters, odd characters and the limit are all in both links; the marker in one.
    gateway.sql("INSERT INTO image_tags SELECT id, t FROM images, (VALUES ('a'), ('b&c=d e+f%')) v(t)");
    let query =
        "limit=3&tag=a&tag=b%26c%3Dd%20e%2Bf%25&sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc&visibility=all";
    let first = page(&admin, &format!("/v2/images?{query}"));
    let parse = |link: &Value| -> Vec<(String, String)> {
        let (path, query) = link.as_str().unwrap().split_once('?').unwrap();
        assert_eq!(path, "/v2/images");
        form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    };
    let mut asked: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    assert_eq!(parse(&first["first"]), asked);
    let second = page(&admin, first["next"].as_str().unwrap());
    assert_eq!(parse(&second["first"]), asked, "first is without marker");
    asked.push(("marker".into(), ids(&first)[2].clone()));
    assert_eq!(parse(&first["next"]), asked);
    assert_eq!(walk(&admin, &format!("/v2/images?{query}")).len(), 60);
    // A page that is not full is the last.
    assert!(
        page(
            &admin,
            &format!(
                "/v2/images?visibility=all&limit=30&marker={}",
                ids(&page(&admin, "/v2/images?visibility=all&limit=30&sort_dir=asc"))[0]
            )
        )
        .get("next")
        .is_none()
    );
}

#[test]
fn a_marker_must_be_an_image_that_the_caller_sees() {
    let gateway = Gateway::start(Options::default());
    crowd(&gateway);
    let [_, demo, alt, ..] = Token::ALL.map(|token| gateway.client(token));
    let private = demo.post("/v2/images", &json!({"visibility": "private"})).expect(201).json()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    demo.get(&format!("/v2/images?marker={private}")).expect(200);
    demo.get(&format!("/v2/images?marker={}", private.to_uppercase())).expect(200);
    let unknown = uuid::Uuid::new_v4().to_string();
    let deleted = demo.create("deleted");
    demo.delete(&format!("/v2/images/{deleted}")).expect(204);
    for bad in [private.as_str(), &unknown, &deleted, "x", "", "%00", "%27", &format!("{private}x")] {
        let answer = alt.get(&format!("/v2/images?marker={bad}"));
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    // The invisible one is told apart from the unknown one by nothing.
    let text = |id: &str| alt.get(&format!("/v2/images?marker={id}")).text().replace(id, "ID");
    assert_eq!(text(&private), text(&unknown));
}

#[test]
fn filters_select_what_they_say() {
    let gateway = Gateway::start(Options::default());
    let (demo, admin) = (gateway.client(Token::Demo), gateway.client(Token::Admin));
    for body in [
        json!({"name": "one", "disk_format": "raw", "container_format": "bare", "min_disk": 1, "min_ram": 10, "tags": ["x", "y"], "os_distro": "debian", "text": "a:b"}),
        json!({"name": "two", "disk_format": "qcow2", "container_format": "bare", "min_disk": 2, "min_ram": 20, "tags": ["x"], "os_distro": "fedora", "protected": true}),
        json!({"name": "three, four", "disk_format": "raw", "container_format": "ovf", "min_disk": 3, "tags": ["y"], "os_distro": "debian"}),
        json!({"name": "in:five"}),
    ] {
        demo.post("/v2/images", &body).expect(201);
    }
    gateway.sql("UPDATE images SET size_bytes = 100, virtual_size_bytes = 200, checksum = 'cafe', os_hash_algo = 'sha512', os_hash_value = 'beef', status = 'active' WHERE name = 'one'");
    gateway.sql("UPDATE images SET created_at = '2024-05-05T10:00:00.7Z', updated_at = '2024-06-06T10:00:00Z' WHERE name = 'two'");
    let one: &[&str] = &["one"];
    let cases: &[(&str, &[&str])] = &[
        ("name=one", one),
        ("name=eq:one", one),
        ("name=in:one,two", &["one", "two"]),
        ("name=in:%22three,%20four%22,one", &["one", "three, four"]),
        ("name=eq:in:five", &["in:five"]),
        ("name=ONE", &[]),
        ("name=on%25", &[]),
        ("name=o_e", &[]),
        ("name=one%27%20OR%201=1--", &[]),
        ("status=active", one),
        ("status=in:active,queued", &["in:five", "one", "three, four", "two"]),
        ("status=nothing", &[]),
        ("disk_format=raw", &["one", "three, four"]),
        ("container_format=eq:ovf", &["three, four"]),
        ("disk_format=raw&container_format=bare", one),
        ("size_min=100", one),
        ("size_min=101", &[]),
        ("size_min=99999999999999999999", &[]),
        ("size_min=100&size_max=99999999999999999999", one),
        ("size_max=100", one),
        ("size_max=99", &[]),
        ("size=100", one),
        ("size_min=1&size_max=1000", one),
        ("virtual_size=200", one),
        ("virtual_size_min=200", one),
        ("min_disk=2", &["two"]),
        ("min_disk_min=2", &["three, four", "two"]),
        ("min_disk_max=1", &["in:five", "one"]),
        ("min_ram_min=10&min_ram_max=19", one),
        ("min_ram=20", &["two"]),
        ("checksum=cafe", one),
        ("os_hash_algo=sha512", one),
        ("os_hash_value=beef", one),
        ("protected=true", &["two"]),
        ("protected=false", &["in:five", "one", "three, four"]),
        ("tag=x", &["one", "two"]),
        ("tag=x&tag=y", one),
        ("tag=x&tag=nothing", &[]),
        ("tag=", &[]),
        ("os_distro=debian", &["one", "three, four"]),
        ("os_distro=debian&tag=x", one),
        ("text=a:b", one),
        ("nothing=x", &[]),
        ("os_distro=", &[]),
        ("owner=p-demo&name=one", one),
        ("owner=p-alt", &[]),
        ("visibility=shared&name=one", one),
        ("visibility=private", &[]),
        ("created_at=2024-05-05T10:00:00Z", &["two"]),
        ("created_at=lt:2025-01-01", &["two"]),
        ("created_at=lte:2024-05-05T12:00:00%2B02:00", &["two"]),
        ("created_at=neq:2024-05-05T10:00:00Z", &["in:five", "one", "three, four"]),
        ("updated_at=gte:2024-06-06T10:00:00Z&created_at=lt:2025-01-01", &["two"]),
        ("updated_at=gt:2024-06-06T10:00:00Z&created_at=lt:2025-01-01", &[]),
    ];
    for (query, expected) in cases {
        for client in [&demo, &admin] {
            assert_eq!(sorted_names(client, query), *expected, "{query}");
        }
    }
    let id = ids(&page(&demo, "/v2/images?name=one"))[0].clone();
    assert_eq!(names(&demo, &format!("id={id}")), one);
    assert_eq!(names(&demo, &format!("id=in:{id},{}", uuid::Uuid::nil())), one);
    assert_eq!(names(&demo, "id=no-id"), Vec::<String>::new());
}

#[test]
fn a_filter_or_order_that_makes_no_sense_is_refused() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    demo.create("present");
    for bad in [
        "visibility=secret",
        "visibility=",
        "visibility=Public",
        "member_status=maybe",
        "member_status=",
        "os_hidden=perhaps",
        "os_hidden=",
        "protected=True",
        "protected=1",
        "protected=",
        "sort=nothing",
        "sort=name:up",
        "sort=name:",
        "sort=",
        "sort=,",
        "sort=name,,size",
        "sort_key=nothing",
        "sort_dir=up",
        "sort_key=",
        "sort=name&sort_key=size",
        "sort=name&sort_dir=asc",
        "sort_key=name&sort_dir=asc&sort_dir=desc",
        "sort_key=name&sort_key=size&sort_key=id&sort_dir=asc&sort_dir=asc",
        "sort=owner",
        "sort=name;DROP",
        "sort_key=id%20desc",
        "size_min=x",
        "size_max=",
        "size_min=1.5",
        "size=abc",
        "min_disk_min=x",
        "foo_min=1",
        "created_at_max=1",
        "name_min=1",
        "size=99999999999999999999",
        "name=like:x",
        "name=neq:x",
        "name=in:%22a",
        "name=in:a%22b",
        "name=in:%22a%22b",
        "status=gt:active",
        "created_at=yesterday",
        "created_at=",
        "created_at=gt:",
        "created_at=foo:2024-01-01",
        "updated_at=2024-13-01",
        "updated_at=1700000000",
        "changes-since=2024-01-01",
        "properties=x",
        "locations=x",
        "tags=x",
        "name=%00",
        "name=a%1b",
        "%00=x",
        "name=%ff",
        "name=%F0%9F%90%A7",
        "os_distro=%F0%9F%90%A7",
        "tag=%F0%9F%90%A7",
        "limit=1&limit=2",
        "name=a&name=b",
        "visibility=all&visibility=public",
    ] {
        for client in [&demo, &gateway.client(Token::Admin)] {
            let answer = client.get(&format!("/v2/images?{bad}"));
            assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
            assert!(answer.header("x-openstack-request-id").starts_with("req-"), "{bad}");
        }
    }
    assert_eq!(demo.get(&format!("/v2/images?name={}", "x".repeat(20_000))).status, 400);
}

/// One short request must not keep the database busy until its statement times out.
#[test]
fn a_query_of_thousands_of_filters_is_refused_or_answered_at_once() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    demo.create("present");
    for filter in ["tag=x&", "a=x&"] {
        // A property may be named once only, so each has another name.
        let query: String =
            (0..2000).map(|n| if filter.starts_with('t') { filter.to_owned() } else { format!("a{n}=&") }).collect();
        let start = std::time::Instant::now();
        let answer = demo.get(&format!("/v2/images?{query}"));
        assert!(matches!(answer.status, 200 | 400), "{}: {}", answer.status, answer.text());
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn hidden_images_are_listed_instead_of_the_others() {
    let gateway = Gateway::start(Options::default());
    let demo = gateway.client(Token::Demo);
    demo.post("/v2/images", &json!({"name": "hidden", "os_hidden": true})).expect(201);
    demo.post("/v2/images", &json!({"name": "plain"})).expect(201);
    for client in [&demo, &gateway.client(Token::Admin)] {
        assert_eq!(names(client, ""), ["plain"]);
        for no in ["false", "False", "FALSE"] {
            assert_eq!(names(client, &format!("os_hidden={no}")), ["plain"]);
        }
        for yes in ["true", "True", "TRUE"] {
            assert_eq!(names(client, &format!("os_hidden={yes}")), ["hidden"]);
        }
    }
}

#[test]
fn visibility_filters_and_members_decide_what_a_project_lists() {
    let gateway = Gateway::start(Options::default());
    let admin = gateway.client(Token::Admin);
    for owner in ["p-demo", "p-alt"] {
        for visibility in ["public", "private", "shared", "community"] {
            admin
                .post(
                    "/v2/images",
                    &json!({"name": format!("{owner}/{visibility}"), "owner": owner, "visibility": visibility}),
                )
                .expect(201);
        }
    }
    for (n, status) in ["pending", "accepted", "rejected"].iter().enumerate() {
        let id = format!("00000000-0000-4000-8000-00000000000{n}");
        admin.post("/v2/images", &json!({"id": id, "name": format!("offered/{status}"), "owner": "p-alt"})).expect(201);
        gateway.sql(&format!("INSERT INTO image_members VALUES ('{id}', 'p-demo', '{status}', now(), now()), ('{id}', 'p-other', 'accepted', now(), now())"));
    }
    let demo = gateway.client(Token::Demo);
    let own = ["p-demo/community", "p-demo/private", "p-demo/public", "p-demo/shared"];
    let with = |more: &[&str]| {
        let mut all: Vec<String> = own.iter().chain(more).map(|name| (*name).to_owned()).collect();
        all.sort();
        all
    };
    assert_eq!(sorted_names(&demo, ""), with(&["offered/accepted", "p-alt/public"]));
    assert_eq!(sorted_names(&demo, "visibility=all"), with(&["offered/accepted", "p-alt/public", "p-alt/community"]));
    assert_eq!(sorted_names(&demo, "member_status=pending"), with(&["offered/pending", "p-alt/public"]));
    assert_eq!(sorted_names(&demo, "member_status=rejected"), with(&["offered/rejected", "p-alt/public"]));
    assert_eq!(
        sorted_names(&demo, "member_status=all"),
        with(&["offered/accepted", "offered/pending", "offered/rejected", "p-alt/public"])
    );
    assert_eq!(sorted_names(&demo, "visibility=shared"), ["offered/accepted", "p-demo/shared"]);
    assert_eq!(sorted_names(&demo, "visibility=community"), ["p-alt/community", "p-demo/community"]);
    assert_eq!(sorted_names(&demo, "visibility=public"), ["p-alt/public", "p-demo/public"]);
    assert_eq!(sorted_names(&demo, "visibility=private"), ["p-demo/private"]);
    assert_eq!(sorted_names(&gateway.client(Token::Reader), ""), sorted_names(&demo, ""));
    assert_eq!(walk(&demo, "/v2/images?limit=1&sort=name:asc&member_status=all&visibility=all").len(), 9);
    assert_eq!(names(&admin, "limit=100").len(), 9, "an administrator lists all but others' community images");
    assert_eq!(names(&admin, "limit=100&visibility=all").len(), 11);
}
