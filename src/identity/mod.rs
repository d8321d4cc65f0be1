//! Who is asking, and what they may do.

mod caller;
mod http;
pub mod keystone;
pub mod limits;
pub mod local;
pub mod policy;
pub mod protection;

pub use caller::Caller;
pub use policy::Policy;

use serde::Deserialize;

use crate::domain::endpoint::Interface;
use crate::secret::Secret;

/// `[identity]` of the configuration, without the section of Keystone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where identities come from.
    pub mode: Mode,
    /// Users of mode `local`.
    #[serde(default)]
    pub users: Vec<local::User>,
    /// Projects of mode `local`.
    #[serde(default)]
    pub projects: Vec<local::Project>,
    /// Tokens of mode `local`.
    #[serde(default)]
    pub tokens: Vec<local::Token>,
}

/// Where identities come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From this configuration.
    Local,
    /// From Keystone.
    Keystone,
}

/// Where identities come from; one per process.
#[derive(Debug)]
pub enum Identity {
    /// From the configuration.
    Local(local::Local),
    /// From Keystone.
    Keystone(Box<keystone::Keystone>),
}

/// The tokens of a request, as they came: trimmed, never logged.
#[derive(Clone, Copy)]
pub struct Tokens<'a> {
    /// `X-Auth-Token`.
    pub user: &'a str,
    /// `X-Service-Token`.
    pub service: Option<&'a str>,
    /// Method and path of the request, which an application credential may be limited to.
    pub method: &'a str,
    /// Path without query.
    pub path: &'a str,
    /// Id of the request, for the log of whoever is asked about the tokens.
    pub request_id: Option<&'a str>,
}

/// Why nobody is identified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// The token is unknown, expired, revoked or malformed: 401.
    #[error("the token is not valid")]
    Invalid,
    /// The token is good, but not for this service or this request: 403 with this sentence.
    #[error("{0}")]
    Forbidden(String),
    /// Nobody can say: 503.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The identity service does not answer, or does not work. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

impl Identity {
    /// Finds out whose token that is. [`Caller::admin`] is left for the policy to decide.
    ///
    /// # Errors
    /// [`Unidentified`].
    pub async fn identify(&self, tokens: Tokens<'_>) -> Result<Caller, Unidentified> {
        match self {
            Self::Local(local) => {
                if tokens.service.is_some_and(|token| local.caller(token).is_none()) {
                    return Err(Unidentified::Invalid);
                }
                let service = tokens.service.and_then(|token| local.caller(token));
                let mut caller = local.caller(tokens.user).cloned().ok_or(Unidentified::Invalid)?;
                caller.service_roles = service.map(|service| service.roles.clone()).unwrap_or_default();
                Ok(caller)
            }
            Self::Keystone(keystone) => keystone.identify(tokens).await,
        }
    }

    /// What Keystone's unified limits let a project have of this service; `None` without Keystone. `request_id`
    /// is [`Caller::request_id`] of whoever wants something.
    ///
    /// # Errors
    /// Keystone does not answer, or does not know this service.
    pub async fn limits(
        &self,
        project_id: &str,
        request_id: Option<&str>,
    ) -> Result<Option<keystone::Limits>, Unavailable> {
        match self {
            Self::Local(_) => Ok(None),
            Self::Keystone(keystone) => keystone.limits(project_id, request_id).await.map(Some),
        }
    }

    /// Where the image service of another region is, as the catalog of a request's token says; `None` if it says
    /// nothing of it, and without Keystone.
    ///
    /// # Errors
    /// Keystone does not answer.
    pub async fn image_service(
        &self,
        token: &str,
        place: (&str, Interface),
        request_id: Option<&str>,
    ) -> Result<Option<String>, Unavailable> {
        match self {
            Self::Local(_) => Ok(None),
            Self::Keystone(keystone) => keystone.image_service(token, place, request_id).await,
        }
    }

    /// A request's token in a form that may lie in the catalog: only the gateways of this site can read it, and only
    /// for what `bound_to` names.
    ///
    /// # Errors
    /// There is no Keystone, whose credentials it is sealed with.
    pub async fn seal(&self, token: &str, bound_to: impl Into<String>) -> Result<String, Unavailable> {
        match self {
            Self::Local(_) => Err(Unavailable("tokens are sealed only with identity.mode \"keystone\"".into())),
            Self::Keystone(keystone) => keystone.seal(token, bound_to.into()).await,
        }
    }

    /// What [`Identity::seal`] has sealed; `None` when the gateways' credentials have changed since.
    ///
    /// # Errors
    /// The credentials cannot be read.
    pub async fn unseal(
        &self,
        sealed: impl Into<String>,
        bound_to: impl Into<String>,
    ) -> Result<Option<Secret>, Unavailable> {
        match self {
            Self::Local(_) => Ok(None),
            Self::Keystone(keystone) => keystone.unseal(sealed.into(), bound_to.into()).await,
        }
    }

    /// The value of `WWW-Authenticate` in a 401.
    #[must_use]
    pub fn challenge(&self) -> &str {
        match self {
            Self::Local(_) => "Token realm=\"rockpool\"",
            Self::Keystone(keystone) => keystone.challenge(),
        }
    }
}
