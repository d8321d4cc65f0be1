//! `[flood]`: how much of a gateway one address and one project may take, beside what bounds all of them together.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use ipnet::IpNet;
use serde::Deserialize;

use super::AppState;
use super::error::Problem;
use super::observe::RequestLog;
use super::proxy::ClientAddress;
use crate::identity::Caller;

/// For how long an address or project that was quiet may ask as fast as it can: so many seconds' worth at once.
const BURST_S: u32 = 5;
/// When a client whose transfers or connections are all in use should ask again.
const BUSY_PAUSE: Duration = Duration::from_secs(5);
/// Addresses or projects that are remembered before those are forgotten that have been quiet.
const REMEMBERED_MIN: usize = 1024;
/// Where data is transferred.
const TRANSFERS: [&str; 2] = ["/v2/images/{id}/file", "/v2/images/{id}/stage"];

/// `[flood]`; 0 is no limit.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most open connections of one address.
    pub connections_per_address_max: usize,
    /// Requests per second from one address, in the long run.
    pub requests_per_address_per_s: u32,
    /// Requests per second of one project, in the long run.
    pub requests_per_project_per_s: u32,
    /// Most uploads and downloads of one project at once.
    pub transfers_per_project_max: usize,
    /// Addresses and networks to which no limit of addresses applies.
    pub exempt_addresses: Vec<String>,
}

/// What has been taken so far.
pub struct Flood {
    connections: Places<IpAddr>,
    addresses: Rate<IpAddr>,
    projects: Rate<String>,
    transfers: Places<String>,
    exempt: Vec<IpNet>,
}

impl Flood {
    /// Nobody has taken anything yet; `exempt` are networks to which no limit of addresses applies.
    #[must_use]
    pub fn new(config: &Config, exempt: Vec<IpNet>) -> Self {
        Self {
            connections: Places::new(config.connections_per_address_max),
            addresses: Rate::new(config.requests_per_address_per_s),
            projects: Rate::new(config.requests_per_project_per_s),
            transfers: Places::new(config.transfers_per_project_max),
            exempt,
        }
    }

    /// A connection from `peer`, until it is dropped; `None`: it has as many as it may. The proxies in front speak for
    /// others: they have no limit of their own.
    pub(super) fn connection(&self, peer: IpAddr, proxies: &[IpNet]) -> Option<Place<IpAddr>> {
        match self.counts(peer).filter(|_| !proxies.iter().any(|network| network.contains(&peer.to_canonical()))) {
            None => Some(Place(None)),
            Some(address) => self.connections.take(address),
        }
    }

    /// What an address counts as; `None`: it does not count.
    fn counts(&self, address: IpAddr) -> Option<IpAddr> {
        let address = address.to_canonical();
        let exempt = self.exempt.iter().any(|network| network.contains(&address));
        (!exempt).then(|| match address {
            IpAddr::V4(_) => address,
            // Whoever has one address of IPv6 has all of its network.
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Ipv6Addr::from_bits(network).into()
            }
        })
    }
}

/// Middleware, before anybody is asked who is asking: refuses what an address asks too often.
pub(super) async fn limit_address(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if let Some(ClientAddress(address)) = request.extensions().get()
        && let Some(address) = state.flood.counts(*address)
    {
        state.flood.addresses.take(address, Instant::now()).map_err(|pause| {
            too_many("Too many requests come from your address; wait as long as Retry-After says.", pause)
        })?;
    }
    Ok(next.run(request).await)
}

/// Middleware: refuses what a project asks too often, and more transfers of it than it may have at once.
pub(super) async fn limit_project(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if let Some(Caller { project_id, .. }) = request.extensions().get() {
        state.flood.projects.take(project_id.clone(), Instant::now()).map_err(|pause| {
            too_many("Your project sends too many requests; wait as long as Retry-After says.", pause)
        })?;
        let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        if path.is_some_and(|path| TRANSFERS.contains(&path)) {
            let place = state.flood.transfers.take(project_id.clone()).ok_or_else(|| {
                let text =
                    "Your project has as many uploads and downloads under way as it may; wait until one has ended.";
                too_many(text, BUSY_PAUSE)
            })?;
            if let Some(log) = request.extensions().get::<RequestLog>() {
                log.hold(place);
            }
        }
    }
    Ok(next.run(request).await)
}

fn too_many(text: &str, pause: Duration) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, text).retry_after(pause)
}

/// How many each has; whoever has none is not there.
type Taken<K> = Arc<Mutex<HashMap<K, usize>>>;

/// So many at once for each.
struct Places<K> {
    max: usize,
    taken: Taken<K>,
}

/// One of them, until it is dropped; nothing where there is no limit.
pub(super) struct Place<K: Hash + Eq>(Option<(K, Taken<K>)>);

impl<K: Hash + Eq + Clone> Places<K> {
    fn new(max: usize) -> Self {
        Self { max, taken: Arc::default() }
    }

    fn take(&self, key: K) -> Option<Place<K>> {
        if self.max == 0 {
            return Some(Place(None));
        }
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key.clone()).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place(Some((key, Arc::clone(&self.taken)))))
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let Some((key, taken)) = self.0.take() else { return };
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&key);
            }
        }
    }
}

/// So many a second for each, and [`BURST_S`] seconds' worth at once after a pause.
struct Rate<K> {
    /// Time for one; `None`: no limit.
    interval: Option<Duration>,
    dues: Mutex<Dues<K>>,
}

/// When the next request of each would come if all came at the rate: a moment in the past is as good as none.
struct Dues<K> {
    by_key: HashMap<K, Instant>,
    /// How many there may be before those in the past are dropped.
    prune_at: usize,
}

impl<K: Hash + Eq> Rate<K> {
    fn new(per_s: u32) -> Self {
        let dues = Dues { by_key: HashMap::new(), prune_at: REMEMBERED_MIN };
        Self { interval: Duration::from_secs(1).checked_div(per_s), dues: Mutex::new(dues) }
    }

    /// # Errors
    /// How long to wait before asking again.
    fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let Some(interval) = self.interval else { return Ok(()) };
        let mut dues = self.dues.lock().unwrap_or_else(PoisonError::into_inner);
        let due = dues.by_key.get(&key).map_or(now, |due| (*due).max(now));
        let ahead = due - now;
        let most = Duration::from_secs(BURST_S.into()).saturating_sub(interval);
        if ahead > most {
            return Err(ahead - most);
        }
        dues.by_key.insert(key, due + interval);
        if dues.by_key.len() > dues.prune_at {
            dues.by_key.retain(|_, due| *due > now);
            dues.prune_at = REMEMBERED_MIN.max(2 * dues.by_key.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, Instant};

    use super::{BURST_S, Config, Flood, Places, REMEMBERED_MIN, Rate};

    #[test]
    fn a_rate_holds_in_the_long_run_and_lets_bursts_pass() {
        let rate = Rate::new(10);
        let start = Instant::now();
        let burst = usize::try_from(10 * BURST_S).unwrap();
        assert_eq!((0..burst * 2).filter(|_| rate.take("a", start).is_ok()).count(), burst);
        let wait = rate.take("a", start).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(100), "{wait:?}");
        assert!(rate.take("b", start).is_ok(), "others are not held up");
        // Whoever does as told is served.
        assert!(rate.take("a", start + wait).is_ok());
        assert!(rate.take("a", start + wait).is_err());
        // Ten times as many as may be, for a minute.
        let passed = (0..6000).filter(|n| rate.take("c", start + Duration::from_millis(10 * n)).is_ok()).count();
        assert!((600..=600 + burst).contains(&passed), "{passed}");
        assert!((0..1000).all(|_| Rate::new(0).take("a", start).is_ok()), "0 is no limit");
    }

    #[test]
    fn the_quiet_are_forgotten() {
        let rate = Rate::new(1000);
        let start = Instant::now();
        for n in 0..50_000_u32 {
            rate.take(n, start + Duration::from_millis(u64::from(n))).unwrap();
        }
        assert!(rate.dues.lock().unwrap().by_key.len() <= 2 * REMEMBERED_MIN);
    }

    #[test]
    fn places_come_back() {
        let places = Places::new(2);
        let (one, two) = (places.take("a"), places.take("a"));
        assert!(one.is_some() && two.is_some() && places.take("a").is_none() && places.take("b").is_some());
        drop(one);
        assert!(places.take("a").is_some());
        drop(two);
        assert!(places.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn networks_of_ipv6_count_as_one_address() {
        let flood = Flood::new(&Config::default(), vec!["10.0.0.0/8".parse().unwrap()]);
        let counts = |text: &str| flood.counts(text.parse::<IpAddr>().unwrap());
        assert_eq!(counts("2001:db8::1"), counts("2001:db8::ffff:1"));
        assert_ne!(counts("2001:db8::1"), counts("2001:db8:0:1::1"));
        assert_eq!(counts("::ffff:192.0.2.1"), counts("192.0.2.1"));
        assert_ne!(counts("192.0.2.1"), counts("192.0.2.2"));
        assert_eq!(counts("10.1.2.3"), None);
    }
}
