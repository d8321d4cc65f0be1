//! The authenticated caller.

use std::collections::BTreeSet;

use crate::domain::query::Scope;

/// Who sends a request, as the identity provider vouches for it. Nothing in it comes from a header
/// other than the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// User.
    pub user_id: String,
    /// Project the token is for.
    pub project_id: String,
    /// Roles on that project, in lower case.
    pub roles: BTreeSet<String>,
}

impl Caller {
    /// Whether the caller has `role`.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }

    /// Whether the caller administers the cloud: `admin` on any project does, as in Glance.
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.has_role("admin")
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
