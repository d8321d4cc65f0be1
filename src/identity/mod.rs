//! Who is asking, and what they may do.

mod caller;
pub mod local;
pub mod policy;

pub use caller::Caller;
pub use policy::Policy;

/// Where identities come from; one per process.
#[derive(Debug)]
pub enum Identity {
    /// From the configuration.
    Local(local::Local),
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
    /// The identity service does not answer: 503; the text is for the log.
    #[error("{0}")]
    Unavailable(String),
}

impl Identity {
    /// Finds out whose token that is. [`Caller::admin`] is left for the policy to decide.
    ///
    /// # Errors
    /// [`Unidentified`].
    // Providers other than the configuration have to ask somebody.
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
        }
    }

    /// The value of `WWW-Authenticate` in a 401.
    #[must_use]
    pub fn challenge(&self) -> &str {
        match self {
            Self::Local(_) => "Token realm=\"rockpool\"",
        }
    }
}
