//! The authenticated caller.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::domain::query::Scope;

/// Who sends a request, as the identity provider vouches for it. Nothing in it comes from a header
/// other than the tokens, and no token is in it: a job may remember who asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Caller {
    /// User.
    pub user_id: String,
    /// The user's domain, if the provider has domains.
    pub user_domain_id: Option<String>,
    /// Project the token is for.
    pub project_id: String,
    /// The project's domain, if the provider has domains.
    pub project_domain_id: Option<String>,
    /// Roles on that project, in lower case.
    pub roles: BTreeSet<String>,
    /// Roles of the service that passes the request on, in lower case; empty without a service token.
    pub service_roles: BTreeSet<String>,
    /// Id of the request, for the log of whoever is asked on the caller's behalf.
    pub request_id: Option<String>,
    /// Id of this request itself, which its answer carries: another one where a request before it began it all.
    pub own_request_id: Option<String>,
    /// Whether the caller administers the cloud: the rule `context_is_admin` says so.
    pub admin: bool,
}

impl Caller {
    /// Whether the caller has `role`.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// Whether the caller administers the cloud.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.admin
    }

    /// What the caller may see.
    #[must_use]
    pub fn scope(&self) -> Scope {
        if self.is_admin() {
            Scope::Everything(Some(self.project_id.clone()))
        } else {
            Scope::Project(self.project_id.clone())
        }
    }
}
