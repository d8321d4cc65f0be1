//! What reading costs: one or two statements, however much there is, and none that reads what it does not show.

use super::{NAMESPACES, full, make};
use crate::harness::{Gateway, Options, Token};
use crate::plans::{explain, explained};

#[test]
fn reading_takes_two_statements_at_most_along_indexes() {
    let first = Gateway::start(Options::default());
    make(&first.client(Token::Admin), &full("Lab::Full"));
    // Many others, with as much in each.
    first.sql(
        "INSERT INTO metadef_namespaces (name, visibility, protected, owner, created_at)
           SELECT 'n' || n, 'public', false, 'p-' || n % 7, now() - n * interval '1 second' FROM generate_series(1, 3000) n;
         INSERT INTO metadef_associations (namespace_id, name) SELECT n.id, t.name FROM metadef_namespaces n, metadef_resource_types t WHERE n.name LIKE 'n%';
         INSERT INTO metadef_properties (namespace_id, name, definition)
           SELECT id, 'p' || k, '{\"title\": \"t\", \"type\": \"string\"}' FROM metadef_namespaces, generate_series(1, 10) k WHERE name LIKE 'n%';
         INSERT INTO metadef_objects (namespace_id, name) SELECT id, 'o' || k FROM metadef_namespaces, generate_series(1, 10) k WHERE name LIKE 'n%';
         INSERT INTO metadef_tags (namespace_id, name) SELECT id, 't' || k FROM metadef_namespaces, generate_series(1, 10) k WHERE name LIKE 'n%';
         ANALYZE",
    );
    explain(&first);
    let explained = explained(&first, Options::default());
    let demo = explained.client(Token::Demo);
    for (path, statements) in [
        ("", 1),
        ("?limit=1000", 1),
        ("?marker=n7&limit=100", 1),
        ("?sort_key=namespace&sort_dir=asc", 1),
        ("/Lab::Full", 1),
        ("/Lab::Full?resource_type=OS::Nova::Flavor", 1),
        ("/Lab::Full/resource_types", 1),
        ("/Lab::Full/properties", 2),
        ("/Lab::Full/properties/hw:p1?resource_type=OS::Nova::Flavor", 2),
        ("/Lab::Full/objects", 2),
        ("/Lab::Full/objects/o1", 2),
        ("/Lab::Full/tags", 2),
        ("/Lab::Full/tags?marker=t2&limit=1", 2),
        ("/Lab::Full/tags/t1", 2),
    ] {
        let before = explained.log().len();
        // Postgres may change its plan at the sixth execution.
        for _ in 0..7 {
            demo.get(&format!("{NAMESPACES}{path}")).expect(200);
        }
        let plans = explained.log()[before..].to_owned();
        assert_eq!(plans.matches("-- metadef").count(), 7 * statements, "{path}: {plans}");
        for node in plans.split("Node Type").filter(|node| node.starts_with("\\\": \\\"Seq Scan")) {
            // There are three types of resource.
            assert!(node.contains("metadef_resource_types"), "{path}: {node}");
        }
    }
}
