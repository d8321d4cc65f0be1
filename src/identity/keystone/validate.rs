//! Validates tokens, and remembers for a while what it found.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use moka::Expiry;
use moka::future::Cache;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::Config;
use super::catalog::Catalog;
use super::client::{Answer, Failure};
use super::session::Session;
use super::token::{Body, Validated};

/// Longest token that Keystone is asked about, in bytes: Fernet tokens have some 200, signed ones some 1000.
const TOKEN_BYTES_MAX: usize = 8192;
/// Longest time that a token which Keystone does not know is not asked about again.
const INVALID_CACHE_TIME: Duration = Duration::from_secs(5);
/// Version of the access rules that we enforce. Without it Keystone does not let restricted tokens through.
const ACCESS_RULES: (HeaderName, HeaderValue) =
    (HeaderName::from_static("openstack-identity-access-rules"), HeaderValue::from_static("1.0"));

/// A token's digest, and whether it was asked about as one that may have expired. The two do not mix: what is
/// good enough for a service's request is not for a user's.
type Key = ([u8; 32], bool);
/// `None` for a token that Keystone does not know.
type Found = Option<Arc<Validated>>;

/// What Keystone has said of tokens lately.
pub(super) struct Validation {
    cache: Cache<Key, Found>,
}

/// When to forget.
struct Lifetimes {
    cache_time: Duration,
}

impl Expiry<Key, Found> for Lifetimes {
    fn expire_after_create(&self, key: &Key, found: &Found, _created_at: Instant) -> Option<Duration> {
        Some(match found {
            None => self.cache_time.min(INVALID_CACHE_TIME),
            // Asked about as expired: it may have been, or may be soon.
            Some(_) if key.1 => self.cache_time,
            Some(validated) => self.cache_time.min(validated.lifetime.rest(OffsetDateTime::now_utc())),
        })
    }
}

impl Validation {
    pub(super) fn new(config: &Config) -> Self {
        let lifetimes = Lifetimes { cache_time: Duration::from_secs(config.token_cache_time_s) };
        Self { cache: Cache::builder().max_capacity(config.token_cache_size).expire_after(lifetimes).build() }
    }

    /// What a token is, from memory or from Keystone; requests that ask at the same time ask once. A failure
    /// is not remembered.
    pub(super) async fn of(
        &self,
        session: &Session,
        token: &str,
        allow_expired: bool,
        request_id: Option<&str>,
    ) -> Result<Found, Failure> {
        if token.len() > TOKEN_BYTES_MAX {
            return Ok(None);
        }
        let key = (Sha256::digest(token.as_bytes()).into(), allow_expired);
        let found = self
            .cache
            .try_get_with(key, ask(session, token, allow_expired, request_id))
            .await
            .map_err(|failure| Failure::clone(&failure))?;
        // However it got here: an expired token is good only for whoever may use one.
        Ok(found.filter(|found| allow_expired || !found.lifetime.rest(OffsetDateTime::now_utc()).is_zero()))
    }
}

async fn ask(session: &Session, token: &str, allow_expired: bool, request_id: Option<&str>) -> Result<Found, Failure> {
    let Some(headers) = about(token) else { return Ok(None) };
    let expired = if allow_expired { "&allow_expired=1" } else { "" };
    let path = format!("/auth/tokens?nocatalog{expired}");
    let Some(found) = read(&session.get(&path, &headers, request_id).await?)? else { return Ok(None) };
    if found.access_rules.is_none() {
        return Ok(Some(Arc::new(found)));
    }
    // The catalog matters for restricted application credentials alone; for all others it would be a burden.
    let path = format!("/auth/tokens?{}", expired.trim_start_matches('&'));
    Ok(read(&session.get(&path, &headers, request_id).await?)?.map(Arc::new))
}

/// Headers of a question about a token; `None` for one that no header can carry.
fn about(token: &str) -> Option<HeaderMap> {
    let mut subject = HeaderValue::from_str(token).ok()?;
    subject.set_sensitive(true);
    Some(HeaderMap::from_iter([ACCESS_RULES, (HeaderName::from_static("x-subject-token"), subject)]))
}

/// The services that a token has in its catalog; `None` for a token that Keystone does not know.
pub(super) async fn catalog(
    session: &Session,
    token: &str,
    request_id: Option<&str>,
) -> Result<Option<Catalog>, Failure> {
    let Some(headers) = about(token) else { return Ok(None) };
    let answer = session.get("/auth/tokens", &headers, request_id).await?;
    match answer.status {
        StatusCode::OK => Ok(Some(answer.json::<Body>()?.into_catalog())),
        StatusCode::NOT_FOUND => answer.json::<ErrorBody>().map(|_| None),
        status => Err(Failure(format!("answers {status} when asked about a token"))),
    }
}

/// Body of an error of Keystone.
#[derive(Deserialize)]
struct ErrorBody {
    #[serde(rename = "error")]
    _error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(rename = "code")]
    _code: u16,
}

fn read(answer: &Answer) -> Result<Option<Validated>, Failure> {
    match answer.status {
        StatusCode::OK => Ok(Some(Validated::new(answer.json::<Body>()?))),
        // Only Keystone itself can say that it knows no such token: a proxy in front of it has a 404 of its own.
        StatusCode::NOT_FOUND => answer.json::<ErrorBody>().map(|_| None),
        status => Err(Failure(format!("answers {status} when asked about a token"))),
    }
}
