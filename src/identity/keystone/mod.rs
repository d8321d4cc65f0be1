//! `[identity] mode = "keystone"`: tokens are validated by Keystone, which this service asks in its own name.

mod access;
mod catalog;
mod client;
mod config;
mod limits;
mod seal;
mod session;
mod token;
mod validate;

pub use config::Config;
pub use limits::Limits;

use super::{Caller, Tokens, Unavailable, Unidentified};
use crate::domain::endpoint::Interface;
use crate::secret::Secret;
use client::{Client, Failure};
use limits::LimitsLookup;
use session::Session;
use token::Validated;
use validate::Validation;

/// Keystone, as this service sees it; one per process.
pub struct Keystone {
    session: Session,
    validation: Validation,
    limits: LimitsLookup,
    service_token_roles: std::collections::BTreeSet<String>,
    service_token_roles_required: bool,
    challenge: String,
}

impl Keystone {
    /// Prepares everything; asks nobody yet.
    ///
    /// # Errors
    /// Everything that is wrong with the section, in sentences; reads the files it names.
    pub fn new(config: &Config) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let base = config.base().map_err(|problem| problems.push(problem)).ok();
        let challenge = config.challenge().map_err(|problem| problems.push(problem)).ok();
        if let Err(found) = config.credentials() {
            problems.extend(found);
        }
        let client = Client::new(config).map_err(|problem| problems.push(problem)).ok();
        for (name, value) in [
            ("token_cache_size", config.token_cache_size),
            ("http_connect_timeout_s", config.http_connect_timeout_s),
            ("http_request_timeout_s", config.http_request_timeout_s),
        ] {
            if value == 0 {
                problems.push(format!("{name} must be at least 1"));
            }
        }
        if config.service_token_roles.is_empty() {
            problems.push("service_token_roles must name at least one role".into());
        }
        match (base, challenge, client) {
            (Some(base), Some(challenge), Some(client)) if problems.is_empty() => Ok(Self {
                session: Session::new(client, base, config),
                validation: Validation::new(config),
                limits: LimitsLookup::new(config),
                service_token_roles: config.service_token_roles.iter().map(|role| role.to_lowercase()).collect(),
                service_token_roles_required: config.service_token_roles_required,
                challenge,
            }),
            _ => Err(problems.into_iter().map(|problem| format!("identity.keystone.{problem}")).collect()),
        }
    }

    /// Whose token that is. Nothing but the tokens says so.
    pub(super) async fn identify(&self, tokens: Tokens<'_>) -> Result<Caller, Unidentified> {
        // 1. Who passes the request on. If that is not what it says, nothing else matters.
        let service = match tokens.service {
            None => None,
            Some(token) => Some(self.validated(token, false, tokens.request_id).await?),
        };
        let vouched = service.as_ref().is_some_and(|service| !service.roles.is_disjoint(&self.service_token_roles));
        if service.is_some() && !vouched && self.service_token_roles_required {
            tracing::info!(roles = ?self.service_token_roles, "a service token has none of the roles that one needs");
            return Err(Unidentified::Invalid);
        }
        // 2. Who asks. A service that has begun something may finish it after the user's token has expired.
        let user = self.validated(tokens.user, vouched, tokens.request_id).await?;
        // 3. What the token may be used for; a service that passes a request on answers for it.
        if let Some(rules) = &user.access_rules
            && !(vouched || rules.iter().any(|rule| rule.allows(tokens.method, tokens.path)))
        {
            return Err(Unidentified::Forbidden(format!(
                "The access rules of the application credential do not allow {} {}.",
                tokens.method, tokens.path
            )));
        }
        if user.access_rules.is_some() && !user.has_image_service {
            return Err(Unidentified::Forbidden(
                "The application credential is restricted, and the catalog of its project has no image service.".into(),
            ));
        }
        let mut caller = user.caller()?;
        // A token of no service grants nothing.
        caller.service_roles = service.filter(|_| vouched).map(|service| service.roles.clone()).unwrap_or_default();
        Ok(caller)
    }

    async fn validated(
        &self,
        token: &str,
        allow_expired: bool,
        request_id: Option<&str>,
    ) -> Result<std::sync::Arc<Validated>, Unidentified> {
        match self.validation.of(&self.session, token, allow_expired, request_id).await {
            Ok(Some(validated)) => Ok(validated),
            Ok(None) => Err(Unidentified::Invalid),
            Err(failure) => Err(Unavailable::from(failure).into()),
        }
    }

    /// The value of `WWW-Authenticate` in a 401.
    pub(super) fn challenge(&self) -> &str {
        &self.challenge
    }

    /// What a project may have of this service.
    pub(super) async fn limits(&self, project_id: &str, request_id: Option<&str>) -> Result<Limits, Unavailable> {
        Ok(self.limits.of(&self.session, project_id, request_id).await?)
    }

    /// Where the image service of a region is, as the catalog of a token says.
    pub(super) async fn image_service(
        &self,
        token: &str,
        (region, interface): (&str, Interface),
        request_id: Option<&str>,
    ) -> Result<Option<String>, Unavailable> {
        let catalog = validate::catalog(&self.session, token, request_id).await?;
        Ok(catalog.and_then(|catalog| {
            catalog.url(catalog::SERVICE_TYPE, interface.as_str(), Some(region)).map(str::to_owned)
        }))
    }

    /// Seals a token, see [`seal`].
    pub(super) async fn seal(&self, token: &str, bound_to: String) -> Result<String, Unavailable> {
        let (credentials, token) = (self.session.credentials().await?, Secret::new(token));
        let sealing = tokio::task::spawn_blocking(move || seal::seal(&credentials, &bound_to, token.expose()));
        let sealed = sealing.await.map_err(|e| Unavailable(e.to_string()))?;
        sealed.map_err(|e| Unavailable(format!("a token cannot be sealed: {e}")))
    }

    /// Opens a sealed token; `None` if other credentials sealed it.
    pub(super) async fn unseal(&self, sealed: String, bound_to: String) -> Result<Option<Secret>, Unavailable> {
        let credentials = self.session.credentials().await?;
        let opening = tokio::task::spawn_blocking(move || seal::open(&credentials, &bound_to, &sealed));
        opening.await.map_err(|e| Unavailable(e.to_string()))
    }

    /// Whether Keystone answers, and takes us for whom we are.
    ///
    /// # Errors
    /// What is wrong, for operators.
    pub async fn probe(&self) -> Result<(), Unavailable> {
        Ok(self.session.ping().await?)
    }
}

impl From<Failure> for Unavailable {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

impl std::fmt::Debug for Keystone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keystone").field("base", &self.session.base()).finish_non_exhaustive()
    }
}
