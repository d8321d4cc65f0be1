//! Who sees what: images, owners and memberships, each case once and then at random, against a model that fits on a
//! screen. What the policy allows and what the lists' SQL finds are one thing: the rule `get_image` alone would let every
//! reader pass for a shared image, whose members are known to the catalog.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::{Strategy, prop_assert_eq};
use proptest::sample::select;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::Value;

use crate::harness::{Client, Gateway, Options, Token};

/// An id that no image has.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
/// Worlds that are tried; each asks some hundred questions.
const WORLDS: u32 = 12;

#[derive(Debug, Clone)]
struct Image {
    owner: Option<&'static str>,
    visibility: &'static str,
    status: &'static str,
    members: BTreeMap<&'static str, &'static str>,
}

fn worlds() -> impl Strategy<Value = Vec<Image>> {
    let project = || select(vec!["p-demo", "p-alt", "p-admin", "p-other"]);
    let image = (
        option::weighted(0.85, project()),
        select(vec!["public", "private", "shared", "shared", "community"]),
        select(vec!["queued", "active", "deactivated"]),
        btree_map(project(), select(vec!["pending", "accepted", "rejected"]), 0..4),
    );
    vec(image.prop_map(|(owner, visibility, status, members)| Image { owner, visibility, status, members }), 1..16)
}

/// Every visibility with every answer of a member, for two projects.
fn every_case() -> Vec<Image> {
    let mut world = Vec::new();
    for (owner, member) in [("p-demo", "p-alt"), ("p-alt", "p-demo")] {
        for visibility in ["private", "shared", "community", "public"] {
            for answer in [None, Some("pending"), Some("accepted"), Some("rejected")] {
                let members = answer.map(|answer| (member, answer)).into_iter().collect();
                world.push(Image { owner: Some(owner), visibility, status: "queued", members });
            }
        }
    }
    world
}

fn id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012}")
}

fn settle(gateway: &Gateway, world: &[Image]) {
    let mut sql = String::from("DELETE FROM images; DELETE FROM image_ids;");
    for (n, image) in world.iter().enumerate() {
        let (id, owner) = (id(n), image.owner.map_or("NULL".into(), |owner| format!("'{owner}'")));
        let size = if image.status == "queued" { "NULL" } else { "0" };
        sql.push_str(&format!(
            "INSERT INTO image_ids VALUES ('{id}');
             INSERT INTO images (id, status, visibility, owner, protected, hidden, min_disk_gib, min_ram_mib, size_bytes, created_at, updated_at)
             VALUES ('{id}', '{}', '{}', {owner}, false, false, 0, 0, {size}, now(), now());",
            image.status, image.visibility
        ));
        for (project, status) in &image.members {
            sql.push_str(&format!("INSERT INTO image_members VALUES ('{id}', '{project}', '{status}', now(), now());"));
        }
    }
    gateway.sql(&sql);
}

/// The caller of the model: project, and the roles that count.
struct Caller {
    token: Token,
    project: &'static str,
    admin: bool,
    member: bool,
    reader: bool,
}

const CALLERS: [Caller; 5] = [
    Caller { token: Token::Admin, project: "p-admin", admin: true, member: true, reader: true },
    Caller { token: Token::Demo, project: "p-demo", admin: false, member: true, reader: true },
    Caller { token: Token::Alt, project: "p-alt", admin: false, member: true, reader: true },
    Caller { token: Token::Reader, project: "p-demo", admin: false, member: false, reader: true },
    Caller { token: Token::Service, project: "p-service", admin: false, member: false, reader: false },
];

impl Caller {
    fn owns(&self, image: &Image) -> bool {
        image.owner == Some(self.project)
    }

    /// Whether the image may be known to the project at all.
    fn concerned(&self, image: &Image) -> bool {
        image.owner.is_none()
            || self.owns(image)
            || matches!(image.visibility, "public" | "community")
            || image.visibility == "shared" && image.members.contains_key(self.project)
    }

    fn sees(&self, image: &Image) -> bool {
        self.admin || self.reader && self.concerned(image)
    }

    fn download(&self, image: &Image) -> u16 {
        match () {
            () if !self.sees(image) => 404,
            () if !self.member => 403,
            () if image.status == "deactivated" && !self.admin => 403,
            () => 204,
        }
    }

    /// Whether a list with these filters has the image.
    fn lists(&self, image: &Image, visibility: Option<&str>, member_status: &str) -> bool {
        let asked_for = match visibility {
            None => image.visibility != "community" || self.owns(image),
            Some("all") => true,
            Some(only) => image.visibility == only,
        };
        let accepted = member_status == "all" || image.members.get(self.project) == Some(&member_status);
        let anothers_share = image.visibility == "shared" && image.owner.is_some() && !self.owns(image);
        asked_for && self.sees(image) && (self.admin || !anothers_share || accepted)
    }

    /// What `GET .../members` answers: the members, or a status.
    fn members<'i>(&self, image: &'i Image) -> Result<BTreeSet<&'i str>, u16> {
        let all = image.members.keys().copied();
        match () {
            () if !self.sees(image) => Err(404),
            () if image.visibility != "shared" => Err(403),
            () if self.admin || self.owns(image) => Ok(all.collect()),
            () => Ok(all.filter(|project| *project == self.project).collect()),
        }
    }
}

fn names(list: &Value, member: &str) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|item| item[member].as_str().unwrap().to_owned()).collect()
}

fn check(client: &Client, caller: &Caller, world: &[Image]) -> Result<(), TestCaseError> {
    for (n, image) in world.iter().enumerate() {
        let path = format!("/v2/images/{}", id(n));
        let seen = if caller.sees(image) { 200 } else { 404 };
        let shown = client.get(&path);
        prop_assert_eq!(shown.status, seen, "show {} as {:?}", n, caller.token);
        if seen == 404 {
            // The same words as for an id that nobody has.
            prop_assert_eq!(shown.text().replace(&id(n), NOBODY), client.get(&format!("/v2/images/{NOBODY}")).text());
        }
        let file = client.get(&format!("{path}/file")).status;
        prop_assert_eq!(file, caller.download(image), "download {} as {:?}", n, caller.token);
        let answer = client.get(&format!("{path}/members"));
        match caller.members(image) {
            Err(status) => prop_assert_eq!(answer.status, status, "members of {} as {:?}", n, caller.token),
            Ok(expected) => {
                prop_assert_eq!(answer.status, 200, "members of {} as {:?}", n, caller.token);
                let expected: BTreeSet<String> = expected.into_iter().map(str::to_owned).collect();
                let found = names(&answer.json()["members"], "member_id");
                prop_assert_eq!(found, expected, "members of {} as {:?}", n, caller.token);
            }
        }
    }
    for visibility in [None, Some("all"), Some("public"), Some("private"), Some("shared"), Some("community")] {
        for member_status in [None, Some("pending"), Some("rejected"), Some("all")] {
            let mut query = String::from("/v2/images?limit=100");
            for (name, value) in [("visibility", visibility), ("member_status", member_status)] {
                query.extend(value.map(|value| format!("&{name}={value}")));
            }
            let answer = client.get(&query);
            if !caller.reader {
                prop_assert_eq!(answer.status, 403, "{} as {:?}", query, caller.token);
                continue;
            }
            let status = member_status.unwrap_or("accepted");
            let listed = world.iter().enumerate().filter(|(_, image)| caller.lists(image, visibility, status));
            let expected: BTreeSet<String> = listed.map(|(n, _)| id(n)).collect();
            prop_assert_eq!(names(&answer.json()["images"], "id"), expected, "{} as {:?}", query, caller.token);
        }
    }
    Ok(())
}

#[test]
fn everybody_sees_what_the_model_says() {
    let gateway = Gateway::start(Options::default());
    let clients = CALLERS.map(|caller| (gateway.client(caller.token), caller));
    let every_case = every_case();
    settle(&gateway, &every_case);
    for (client, caller) in &clients {
        check(client, caller, &every_case).unwrap_or_else(|failure| panic!("{failure}"));
    }
    let config = Config { cases: WORLDS, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    TestRunner::new(config)
        .run(&worlds(), |world| {
            settle(&gateway, &world);
            clients.iter().try_for_each(|(client, caller)| check(client, caller, &world))
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}
