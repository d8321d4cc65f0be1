//! Who sees which image: what the policy allows and what the lists' SQL finds are one thing. The rule `get_image`
//! alone would let every reader pass for a shared image: its members are known to the catalog.

use std::collections::BTreeMap;

use serde_json::json;
use ureq::SendBody;

use crate::harness::{Client, Gateway, Options, Token};

/// An image as the test knows it.
#[derive(Debug)]
struct Known {
    owner: &'static str,
    visibility: &'static str,
    /// State of the membership of each project that is a member.
    members: BTreeMap<&'static str, &'static str>,
}

impl Known {
    fn is_open(&self, project: &str) -> bool {
        self.owner == project || matches!(self.visibility, "public" | "community")
    }

    /// Whether `GET /v2/images/{id}` finds it.
    fn shows(&self, project: &str) -> bool {
        self.is_open(project) || self.visibility == "shared" && self.members.contains_key(project)
    }

    /// Whether a list is to have it: with this `visibility` and `member_status`, both perhaps without.
    fn lists(&self, project: &str, visibility: Option<&str>, status: &str) -> bool {
        let accepted = self.members.get(project).is_some_and(|has| status == "all" || *has == status);
        let shared = self.visibility == "shared" && accepted;
        match visibility {
            None => self.owner == project || self.visibility == "public" || shared,
            Some("all") => self.is_open(project) || shared,
            Some(visibility) => self.visibility == visibility && (self.is_open(project) || shared),
        }
    }
}

fn seed(gateway: &Gateway) -> BTreeMap<String, Known> {
    let admin = gateway.client(Token::Admin);
    let mut images = BTreeMap::new();
    let states = [None, Some("pending"), Some("accepted"), Some("rejected")];
    for (owner, member, as_member) in [("p-demo", "p-alt", Token::Alt), ("p-alt", "p-demo", Token::Demo)] {
        for (visibility, state) in
            ["private", "shared", "community", "public"].iter().flat_map(|v| states.iter().map(move |s| (*v, *s)))
        {
            let image = admin.post("/v2/images", &json!({"owner": owner, "visibility": "shared"})).expect(201).json();
            let id = image["id"].as_str().unwrap().to_owned();
            if let Some(state) = state {
                let members = format!("/v2/images/{id}/members");
                admin.post(&members, &json!({"member": member})).expect(200);
                if state != "pending" {
                    let body = json!({"status": state}).to_string();
                    let headers = [("content-type", "application/json")];
                    let body = SendBody::from_owned_reader(std::io::Cursor::new(body));
                    gateway.client(as_member).send("PUT", &format!("{members}/{member}"), &headers, body).expect(200);
                }
            }
            // Members stay when the visibility changes; they count again when it is shared.
            if visibility != "shared" {
                let change = json!([{"op": "replace", "path": "/visibility", "value": visibility}]);
                admin.patch(&format!("/v2/images/{id}"), &change).expect(200);
            }
            let members = state.map(|state| (member, state)).into_iter().collect();
            images.insert(id, Known { owner, visibility, members });
        }
    }
    images
}

#[track_caller]
fn check_lists(client: &Client, project: &str, images: &BTreeMap<String, Known>) {
    for visibility in [None, Some("all"), Some("private"), Some("shared"), Some("community"), Some("public")] {
        for status in ["accepted", "pending", "rejected", "all"] {
            let filter = visibility.map(|visibility| format!("&visibility={visibility}")).unwrap_or_default();
            let answer =
                client.get(&format!("/v2/images?limit=1000&member_status={status}{filter}")).expect(200).json();
            let mut listed: Vec<&str> =
                answer["images"].as_array().unwrap().iter().map(|image| image["id"].as_str().unwrap()).collect();
            listed.sort_unstable();
            let expected: Vec<&str> = images
                .iter()
                .filter(|(_, image)| image.lists(project, visibility, status))
                .map(|(id, _)| id.as_str())
                .collect();
            let of = |ids: &[&str]| ids.iter().map(|id| format!("{:?}", images[*id])).collect::<Vec<_>>();
            assert_eq!(of(&listed), of(&expected), "{project} {visibility:?} {status}");
            // What is listed can be shown.
            assert!(listed.iter().all(|id| images[*id].shows(project)));
        }
    }
}

#[test]
fn the_policy_and_the_catalog_show_the_same_images() {
    let gateway = Gateway::start(Options::default());
    let images = seed(&gateway);
    assert_eq!(images.len(), 32);
    for (token, project) in [(Token::Demo, "p-demo"), (Token::Reader, "p-demo"), (Token::Alt, "p-alt")] {
        let client = gateway.client(token);
        for (id, image) in &images {
            let answer = client.get(&format!("/v2/images/{id}"));
            assert_eq!(answer.status, if image.shows(project) { 200 } else { 404 }, "{token:?} {image:?}");
            if answer.status == 404 {
                // The same words as for an id that nobody has.
                let nobody = "00000000-0000-0000-0000-000000000000";
                let unknown = client.get(&format!("/v2/images/{nobody}")).expect(404).text();
                assert_eq!(answer.text().replace(id.as_str(), nobody), unknown);
            }
        }
        check_lists(&client, project, &images);
    }
    let admin = gateway.client(Token::Admin);
    for id in images.keys() {
        admin.get(&format!("/v2/images/{id}")).expect(200);
    }
}
