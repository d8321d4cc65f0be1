//! How Postgres answers lists when there are many images: along indexes, whatever is asked.
//!
//! The plans are those of the daemon's own statements: `auto_explain` sends each to the gateway that runs it,
//! which logs it as a notice of the server.

use crate::harness::{Gateway, Options, Token};

/// Images of the test.
const IMAGES: u32 = 30_000;
/// Postgres may change from a plan for the values given to one for any values at the sixth execution.
const EXECUTIONS: usize = 7;

/// Images of several projects with properties, tags and members, as the bench makes more of them.
fn seed(gateway: &Gateway) {
    gateway.sql(&format!(
        "INSERT INTO image_ids SELECT gen_random_uuid() FROM generate_series(1, {IMAGES});
         INSERT INTO images (id, status, name, visibility, owner, protected, hidden, container_format, disk_format, min_disk_gib, min_ram_mib, size_bytes, created_at, updated_at)
           SELECT id, CASE WHEN n % 1000 = 7 THEN 'queued' ELSE 'active' END, 'image-' || (n * 7919 % {IMAGES}),
             CASE n % 50 WHEN 0 THEN 'public' WHEN 1 THEN 'community' WHEN 2 THEN 'private' ELSE 'shared' END,
             CASE WHEN n % 10 < 5 THEN 'p-demo' ELSE 'p-' || n % 97 END, false, n % 100 = 5, 'bare', CASE WHEN n % 100 = 3 THEN 'qcow2' ELSE 'raw' END,
             0, 0, n * 1000, now() - n * interval '1 second', now() - n * interval '2 seconds'
           FROM (SELECT id, row_number() OVER () AS n FROM image_ids) s;
         INSERT INTO image_properties SELECT id, p, p || '-' || abs(hashtext(id::text)) % 1000 FROM images, unnest(ARRAY['os_distro', 'hw_disk_bus']) p;
         INSERT INTO image_tags SELECT id, 'every' FROM images UNION ALL SELECT id, 'some-' || abs(hashtext(id::text)) % 1000 FROM images;
         INSERT INTO image_members SELECT id, 'p-demo', 'accepted', now(), now() FROM images WHERE visibility = 'shared' AND owner <> 'p-demo' AND hashtext(id::text) % 10 = 0;
         ANALYZE"
    ));
    explain(gateway);
}

/// Makes Postgres send the plan of every statement from now on, on new connections.
pub(crate) fn explain(gateway: &Gateway) {
    let database = gateway.sql("SELECT current_database()");
    for setting in [
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_level = 'notice'",
        "auto_explain.log_format = 'json'",
    ] {
        gateway.sql(&format!("ALTER DATABASE {database} SET {setting}"));
    }
}

/// A gateway that logs the plans of what it asks, all on one connection.
pub(crate) fn explained(first: &Gateway, options: Options) -> Gateway {
    let options = options.set("log", "level", "info,tokio_postgres=info").set("log", "format", "json");
    first.sibling_with(options.set("catalog", "pool_size", 1))
}

#[test]
fn what_a_project_uses_is_added_up_from_its_own_rows() {
    let first = Gateway::start(Options::default());
    seed(&first);
    first.sql("INSERT INTO image_locations (image_id, store, url) SELECT id, 'ceph', id::text FROM images WHERE status = 'active'; ANALYZE");
    // No index has all of an index-only scan before the table has been vacuumed; and what a commit that was not
    // waited for has written is not known to be visible to all before it is on the disk.
    first.sql("CHECKPOINT");
    first.sql("VACUUM images");
    let explained = explained(
        &first,
        Options::default().set("limits", "source", "config").set(
            "limits",
            "default",
            toml::Table::from_iter(
                ["image_size_total", "image_count_total", "image_count_uploading"]
                    .map(|name| (name.to_owned(), 1_000_000.into())),
            ),
        ),
    );
    let client = explained.client(Token::Demo);
    for _ in 0..EXECUTIONS {
        let id = client.create("counted");
        // Without a length, so that it is asked for more than once.
        client.upload_with(&id, &[], &b"0123456789"[..]).expect(204);
        client.get("/v2/info/usage").expect(200);
    }
    let plans = explained.log();
    assert!(plans.matches("-- project_usage").count() >= 4 * EXECUTIONS, "no plan was seen: {plans}");
    for plan in plans.lines().filter(|line| line.contains("-- project_usage")) {
        assert!(!whole_table(plan), "{plan}");
        for index in ["images_stored", "images_by_owner"] {
            let node = plan.split("Node Type").find(|node| node.contains(&format!("{index}\\\"")));
            assert!(node.is_none_or(|node| node.contains("Index Only Scan")), "{index}: {plan}");
        }
    }
}

#[test]
fn no_list_reads_the_whole_table() {
    let first = Gateway::start(Options::default());
    seed(&first);
    let explained = explained(&first, Options::default());
    for token in [Token::Demo, Token::Admin] {
        let client = explained.client(token);
        let middle = first
            .sql("SELECT id FROM images WHERE owner = 'p-demo' AND NOT hidden ORDER BY created_at LIMIT 1 OFFSET 7000");
        let mut queries = vec![
            String::new(),
            format!("marker={middle}"),
            format!("marker={middle}&sort=name:asc"),
            format!("marker={middle}&sort=name:desc,size:asc"),
            "limit=1000".into(),
            "name=image-77".into(),
            "name=in:image-77,image-78".into(),
            "tag=some-7".into(),
            "tag=some-7&tag=every".into(),
            "tag=every".into(),
            "tag=none".into(),
            "os_distro=os_distro-7".into(),
            "os_distro=none".into(),
            "os_distro=os_distro-7&hw_disk_bus=hw_disk_bus-7".into(),
            "status=queued".into(),
            "status=saving".into(),
            "disk_format=qcow2".into(),
            "disk_format=iso".into(),
            "size_min=29000000".into(),
            "size_max=1".into(),
            "size=12000".into(),
            "min_ram=5".into(),
            "visibility=public".into(),
            "visibility=private".into(),
            "visibility=shared".into(),
            "visibility=community".into(),
            "visibility=all".into(),
            "visibility=shared&member_status=pending".into(),
            "owner=p-7".into(),
            "owner=nobody".into(),
            "os_hidden=true".into(),
            "protected=true".into(),
            "checksum=d41d8cd98f00b204e9800998ecf8427e".into(),
            "os_hash_value=none".into(),
            format!("id=in:{middle}"),
            "created_at=gt:2020-01-01T00:00:00Z".into(),
            "created_at=lt:2020-01-01T00:00:00Z".into(),
            "updated_at=gte:2100-01-01T00:00:00Z".into(),
        ];
        for key in ["name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at"] {
            queries.extend(["asc", "desc"].map(|direction| format!("sort={key}:{direction}")));
        }
        let mut scanned = Vec::new();
        for query in &queries {
            let before = explained.log().len();
            for _ in 0..EXECUTIONS {
                client.get(&format!("/v2/images?{query}")).expect(200);
            }
            let plans = explained.log()[before..].to_owned();
            let lists = plans.matches("-- images_list").count();
            assert_eq!(lists, EXECUTIONS, "{query}: no plan was seen: {plans}");
            if whole_table(&plans) {
                scanned.push(query.clone());
            }
        }
        assert!(scanned.is_empty(), "{token:?}: the whole table is read for {scanned:#?}");
    }
}

/// Whether any of the plans in the log has a node that reads `images` from end to end.
fn whole_table(log: &str) -> bool {
    let log = log.replace("\\n", "\n").replace("\\\"", "\"");
    log.split("\"Node Type\":").any(|node| {
        node.trim_start().starts_with("\"Seq Scan\"")
            && node.lines().take(8).any(|line| line.trim().trim_end_matches(',') == "\"Relation Name\": \"images\"")
    })
}
