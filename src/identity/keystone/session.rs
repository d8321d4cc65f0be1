//! Our own token: got with the service's credentials, renewed before it expires and when Keystone refuses it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;
use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::catalog::Catalog;
use super::client::{Answer, Client, Failure, Question};
use super::config::{Config, with_version};
use super::token::Lifetime;
use crate::domain::endpoint::Interface;
use crate::secret::Secret;

/// How long before its end a token is renewed at the latest; one that lives shortly, after three quarters of its life.
const RENEW_BEFORE: Duration = Duration::from_secs(120);
/// Pause after Keystone could not be asked for a token.
const PAUSE_UNAVAILABLE: Duration = Duration::from_secs(1);
/// Pause after it refused our credentials: it may lock a user out who tries too often.
const PAUSE_REFUSED: Duration = Duration::from_secs(10);

/// A token of ours.
pub(super) struct Own {
    token: Secret,
    renew_at: Instant,
    expires_at: Instant,
    /// Where Keystone is to be asked.
    base: String,
    /// The services of the cloud.
    pub(super) catalog: Catalog,
}

/// Asks Keystone in our own name.
pub(super) struct Session {
    client: Client,
    /// `.../v3`.
    base: String,
    /// Whose credentials are read again for each token: files may have changed.
    config: Arc<Config>,
    /// Interface and region of the Keystone in the catalog that is to be asked; without it, the one at `base`.
    place: Option<(Interface, Option<String>)>,
    held: RwLock<Option<Arc<Own>>>,
    /// Held while a token is being got; remembers why there is none.
    renewal: Mutex<Option<Refused>>,
}

#[derive(Clone)]
struct Refused {
    at: Instant,
    until: Instant,
    failure: Failure,
}

#[derive(Deserialize)]
struct Issued {
    token: IssuedToken,
}

#[derive(Deserialize)]
struct IssuedToken {
    #[serde(flatten)]
    lifetime: Lifetime,
    #[serde(default)]
    catalog: Catalog,
}

impl Session {
    pub(super) fn new(client: Client, base: String, config: &Config) -> Self {
        let place = config.interface.map(|interface| (interface, config.region_name.clone()));
        let config = Arc::new(config.clone());
        Self { client, base, config, place, held: RwLock::default(), renewal: Mutex::default() }
    }

    /// Where Keystone is, without path below `/v3`.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// GET of a path below `/v3`, with our token and perhaps one to ask about. What is not 401 or 403 is for the caller to read.
    pub(super) async fn get(
        &self,
        path: &str,
        headers: &HeaderMap,
        request_id: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut own = self.own(request_id).await?;
        let mut answer = self.get_as(&own, path, headers, request_id).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            tracing::info!("Keystone does not know our token any more; another one is got");
            self.forget(&own);
            own = self.own(request_id).await?;
            answer = self.get_as(&own, path, headers, request_id).await?;
        }
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(Failure("refuses the token that it has just given us".into())),
            StatusCode::FORBIDDEN => Err(Failure(format!(
                "does not let us read {}: our user needs the role service (or admin) on its project",
                path.split('?').next().unwrap_or(path)
            ))),
            _ => Ok(answer),
        }
    }

    async fn get_as(
        &self,
        own: &Own,
        path: &str,
        headers: &HeaderMap,
        request_id: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut question = Question::get(format!("{}{path}", own.base), request_id)
            .secret_header("x-auth-token", own.token.expose())?;
        question.headers.extend(headers.clone());
        self.client.ask(&question).await
    }

    /// Asks for nothing but an answer.
    pub(super) async fn ping(&self) -> Result<(), Failure> {
        let base = self.own(None).await?.base.clone();
        let answer = self.client.ask(&Question::get(base, None)).await?;
        if answer.status.is_success() { Ok(()) } else { Err(Failure(format!("answers {} to GET /v3", answer.status))) }
    }

    /// A token of ours that is good for a while.
    pub(super) async fn own(&self, request_id: Option<&str>) -> Result<Arc<Own>, Failure> {
        if let Some(own) = self.held().filter(|own| Instant::now() < own.renew_at) {
            return Ok(own);
        }
        let arrived = Instant::now();
        let mut refused = self.renewal.lock().await;
        // 1. Somebody else has got one meanwhile, or has found out that there is none.
        let held = self.held();
        if let Some(own) = held.as_ref().filter(|own| Instant::now() < own.renew_at) {
            return Ok(Arc::clone(own));
        }
        let still_good = held.filter(|own| Instant::now() < own.expires_at);
        if let Some(past) = refused.as_ref().filter(|past| arrived < past.at || Instant::now() < past.until) {
            return still_good.ok_or_else(|| past.failure.clone());
        }
        // 2. Get one.
        match self.authenticate(request_id).await {
            Ok(own) => {
                let own = Arc::new(own);
                *refused = None;
                *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&own));
                Ok(own)
            }
            // 3. Or stay with the old one as long as it lives.
            Err((failure, pause)) => {
                let at = Instant::now();
                *refused = Some(Refused { at, until: at + pause, failure: failure.clone() });
                match still_good {
                    Some(own) => {
                        tracing::warn!(%failure, "our token could not be renewed; the old one is still good");
                        Ok(own)
                    }
                    None => Err(failure),
                }
            }
        }
    }

    async fn authenticate(&self, request_id: Option<&str>) -> Result<Own, (Failure, Duration)> {
        let credentials = self.credentials().await.map_err(|failure| (failure, PAUSE_UNAVAILABLE))?;
        let question = Question {
            method: Method::POST,
            url: format!("{}/auth/tokens", self.base),
            headers: HeaderMap::new(),
            body: Some(&credentials),
            request_id,
        };
        let started = Instant::now();
        let answer = self.client.ask(&question).await.map_err(|failure| (failure, PAUSE_UNAVAILABLE))?;
        if answer.status != StatusCode::CREATED {
            let why = match answer.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    "check the user, password, project and domains (or the application credential) of [identity.keystone]"
                }
                _ => "check auth_url of [identity.keystone]",
            };
            return Err((
                Failure(format!("refuses our own credentials: {} from {}; {why}", answer.status, question.url)),
                PAUSE_REFUSED,
            ));
        }
        let read = || -> Result<Own, Failure> {
            let Issued { token: IssuedToken { lifetime, catalog } } = answer.json()?;
            let token = answer
                .headers
                .get("x-subject-token")
                .and_then(|value| value.to_str().ok())
                .ok_or_else(|| Failure("gave us a token without the header X-Subject-Token".into()))?;
            // Counted from its issue: our clock may differ from Keystone's.
            let life = lifetime.length();
            let expires_at = started + life;
            Ok(Own {
                token: Secret::new(token),
                renew_at: expires_at - RENEW_BEFORE.min(life / 4),
                expires_at,
                base: self.base_in(&catalog)?,
                catalog,
            })
        };
        read().map_err(|failure| (failure, PAUSE_UNAVAILABLE))
    }

    pub(super) async fn credentials(&self) -> Result<Secret, Failure> {
        let config = Arc::clone(&self.config);
        match tokio::task::spawn_blocking(move || config.credentials()).await {
            Ok(Ok(credentials)) => Ok(credentials),
            Ok(Err(problems)) => Err(Failure(format!("cannot be asked: identity.keystone.{}", problems.join("; ")))),
            Err(stopped) => Err(Failure(format!("cannot be asked: {stopped}"))),
        }
    }

    fn base_in(&self, catalog: &Catalog) -> Result<String, Failure> {
        let Some((interface, region)) = &self.place else { return Ok(self.base.clone()) };
        let url = catalog.url("identity", interface.as_str(), region.as_deref()).ok_or_else(|| {
            Failure(format!(
                "has no {} endpoint of itself in our catalog: check interface and region_name of [identity.keystone]",
                interface.as_str()
            ))
        })?;
        with_version(url).map_err(|problem| Failure(format!("has an endpoint in our catalog that {problem}")))
    }

    fn held(&self) -> Option<Arc<Own>> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives a token up, unless another one has taken its place.
    fn forget(&self, own: &Arc<Own>) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, own)) {
            *held = None;
        }
    }
}
