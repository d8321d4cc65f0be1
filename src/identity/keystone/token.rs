//! What Keystone says of a token, as far as it matters here.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;
use time::OffsetDateTime;
use time::serde::rfc3339;

use super::access::AccessRule;
use super::catalog::{Catalog, SERVICE_TYPE};
use crate::identity::{Caller, Unidentified};

/// When a token was issued, and when it ends.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Lifetime {
    #[serde(with = "rfc3339")]
    issued_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub(super) expires_at: OffsetDateTime,
}

impl Lifetime {
    /// From issue to end; nothing if that is absurd.
    pub(super) fn length(&self) -> Duration {
        Duration::try_from(self.expires_at - self.issued_at).unwrap_or_default()
    }

    /// From `now` to the end; nothing for what has ended.
    pub(super) fn rest(&self, now: OffsetDateTime) -> Duration {
        Duration::try_from(self.expires_at - now).unwrap_or_default()
    }
}

#[derive(Debug, Deserialize)]
struct Domain {
    id: String,
}

#[derive(Debug, Deserialize)]
struct User {
    id: String,
    domain: Option<Domain>,
}

#[derive(Debug, Deserialize)]
struct Project {
    id: String,
    domain: Option<Domain>,
}

#[derive(Debug, Deserialize)]
struct Role {
    name: String,
}

#[derive(Debug, Deserialize)]
struct ApplicationCredential {
    access_rules: Option<Vec<AccessRule>>,
}

/// Body of `GET /v3/auth/tokens`.
#[derive(Debug, Deserialize)]
pub(super) struct Body {
    token: Token,
}

#[derive(Debug, Deserialize)]
struct Token {
    #[serde(flatten)]
    lifetime: Lifetime,
    user: User,
    project: Option<Project>,
    domain: Option<Domain>,
    system: Option<serde_json::Value>,
    #[serde(default)]
    roles: Vec<Role>,
    application_credential: Option<ApplicationCredential>,
    #[serde(default)]
    catalog: Catalog,
}

/// What a token is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// The only one that images have to do with.
    Project {
        id: String,
        domain_id: Option<String>,
    },
    Domain,
    System,
    Unscoped,
}

/// A token that Keystone knows.
#[derive(Debug, Clone)]
pub(super) struct Validated {
    pub(super) lifetime: Lifetime,
    user_id: String,
    user_domain_id: Option<String>,
    scope: Scope,
    /// In lower case.
    pub(super) roles: BTreeSet<String>,
    /// What an application credential is limited to; `None` if it is not, or is none.
    pub(super) access_rules: Option<Vec<AccessRule>>,
    /// Whether there is an image service in the catalog that came with the token.
    pub(super) has_image_service: bool,
}

impl Body {
    /// The services of the cloud, if Keystone was asked for them.
    pub(super) fn into_catalog(self) -> Catalog {
        self.token.catalog
    }
}

impl Validated {
    pub(super) fn new(Body { token }: Body) -> Self {
        let scope = match token {
            Token { project: Some(Project { id, domain }), .. } => {
                Scope::Project { id, domain_id: domain.map(|domain| domain.id) }
            }
            Token { domain: Some(_), .. } => Scope::Domain,
            Token { system: Some(_), .. } => Scope::System,
            _ => Scope::Unscoped,
        };
        Self {
            lifetime: token.lifetime,
            user_id: token.user.id,
            user_domain_id: token.user.domain.map(|domain| domain.id),
            scope,
            roles: token.roles.into_iter().map(|role| role.name.to_lowercase()).collect(),
            access_rules: token.application_credential.and_then(|credential| credential.access_rules),
            has_image_service: token.catalog.has(SERVICE_TYPE),
        }
    }

    /// Who that is.
    ///
    /// # Errors
    /// The token is not for a project.
    pub(super) fn caller(&self) -> Result<Caller, Unidentified> {
        let refused = |what: &str| {
            Err(Unidentified::Forbidden(format!(
                "The token is {what}, but images belong to projects: ask Keystone for a token that is scoped to a project."
            )))
        };
        match &self.scope {
            Scope::Project { id, domain_id } => Ok(Caller {
                user_id: self.user_id.clone(),
                user_domain_id: self.user_domain_id.clone(),
                project_id: id.clone(),
                project_domain_id: domain_id.clone(),
                roles: self.roles.clone(),
                ..Caller::default()
            }),
            Scope::Domain => refused("scoped to a domain"),
            Scope::System => refused("scoped to the system"),
            Scope::Unscoped => refused("not scoped to anything"),
        }
    }
}
