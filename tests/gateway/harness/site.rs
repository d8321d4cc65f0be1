//! The real Keystone that `tests/keystone/keystone.sh` makes, and the people in it.

use serde_json::{Value, json};
use ureq::SendBody;

use super::gateway::Options;
use super::http::Client;
use super::skip;

/// A Keystone with users, projects and application credentials.
pub(crate) struct Site {
    /// `.../v3`.
    pub(crate) url: String,
    /// As `tests/keystone/people.py` describes it.
    pub(crate) people: Value,
}

impl Site {
    /// The one that the environment names. Where there is none, the test counts as skipped.
    pub(crate) fn find() -> Option<Self> {
        let Ok(file) = std::env::var("ROCKPOOL_TEST_KEYSTONE_SITE") else {
            skip("no real Keystone: ROCKPOOL_TEST_KEYSTONE_SITE is not set");
            return None;
        };
        let people: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        Some(Self { url: people["url"].as_str().unwrap().to_owned(), people })
    }

    /// A gateway that asks this Keystone, as the user `glance`.
    pub(crate) fn options(&self) -> Options {
        let glance = &self.people["users"]["glance"];
        Options::default()
            .keystone(&self.url)
            .set("identity.keystone", "username", "glance")
            .set("identity.keystone", "password", glance["password"].as_str().unwrap())
            .set("identity.keystone", "project_name", glance["project"].as_str().unwrap())
            // It shares two cores with all other tests.
            .set("identity.keystone", "http_request_timeout_s", 60)
    }

    /// Id of a project.
    pub(crate) fn project(&self, name: &str) -> String {
        self.people["projects"][name].as_str().unwrap().to_owned()
    }

    /// A token of a user on the user's project.
    pub(crate) fn token(&self, user: &str) -> String {
        let project = self.people["users"][user]["project_id"].clone();
        self.token_for(user, json!({"project": {"id": project}}))
    }

    /// A token of a user with a scope; `null` for none.
    pub(crate) fn token_for(&self, user: &str, scope: Value) -> String {
        let user = &self.people["users"][user];
        let user = json!({"id": user["id"], "password": user["password"]});
        let scope = if scope.is_null() { json!("unscoped") } else { scope };
        self.login(json!({"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}))
    }

    /// A token of one of the application credentials.
    pub(crate) fn token_of_credential(&self, name: &str) -> String {
        let credential = &self.people["application_credentials"][name];
        self.login_with(credential["id"].clone(), credential["secret"].clone())
    }

    /// A token of an application credential.
    pub(crate) fn login_with(&self, id: Value, secret: Value) -> String {
        self.login(json!({"identity": {
            "methods": ["application_credential"],
            "application_credential": {"id": id, "secret": secret},
        }}))
    }

    fn login(&self, auth: Value) -> String {
        let answer = Client::new(&self.url, None).post("/auth/tokens", &json!({ "auth": auth })).expect(201);
        answer.header("x-subject-token").to_owned()
    }

    /// Revokes a token, as the administrator.
    pub(crate) fn revoke(&self, token: &str) {
        let headers = [("x-subject-token", token)];
        self.as_user("admin").send("DELETE", "/auth/tokens", &headers, SendBody::none()).expect(204);
    }

    /// The Identity API, as a user.
    pub(crate) fn as_user(&self, user: &str) -> Client {
        Client::new(&self.url, Some(&self.token(user)))
    }
}
