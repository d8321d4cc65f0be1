//! What `/readyz` tells: whether the things that every request needs do work.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Services;
use crate::identity::Identity;
use crate::store::Kind;

/// Longest wait for one dependency; a load balancer asks every few seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// State of one dependency.
#[derive(Debug, Clone)]
pub struct Check {
    /// `postgres`, `store/<name>`, or `keystone`.
    pub name: String,
    /// Whether a gateway is of no use without it.
    pub required: bool,
    /// How long it took to answer.
    pub latency: Duration,
    /// What is wrong, if anything. For operators: no secrets, but names of hosts and pools.
    pub problem: Option<String>,
    /// Bytes stored and bytes that still fit, where that is known.
    pub usage_bytes: Option<(u64, u64)>,
}

/// State of everything this gateway needs.
#[derive(Debug, Clone)]
pub struct Health {
    /// One entry per dependency.
    pub checks: Vec<Check>,
}

impl Health {
    /// Whether everything works that every request needs.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none() || !check.required)
    }
}

impl Services {
    /// Asks Postgres, every store and Keystone for one small answer, all at the same time. As long as one store
    /// answers, the others are not required: what a store has lost, all gateways have lost, and if they all went away
    /// with it the images in the other stores could not be served.
    pub async fn health(&self) -> Health {
        let postgres = check("postgres".into(), true, async {
            let latency = self.catalog.ping().await.map_err(|e| e.to_string())?;
            Ok((latency, None))
        });
        // Other people's servers are no part of this service.
        let own = self.stores.iter().filter(|store| store.common().kind != Kind::Http);
        let stores = join_all(own.map(|store| {
            check(format!("store/{}", store.name()), false, async {
                let probe = store.probe().await.map_err(|e| e.to_string())?;
                Ok((probe.latency, probe.used_bytes.zip(probe.available_bytes)))
            })
        }));
        // All gateways ask the same Keystone: if they all went away with it, those whose tokens are still
        // known could not be served, nor uploads and downloads that have begun.
        let keystone = async {
            let start = Instant::now();
            match &*self.identity {
                Identity::Local(_) => None,
                Identity::Keystone(keystone) => Some(
                    check("keystone".into(), false, async {
                        keystone.probe().await.map(|()| (start.elapsed(), None)).map_err(|e| e.to_string())
                    })
                    .await,
                ),
            }
        };
        let (postgres, mut stores, keystone) = tokio::join!(postgres, stores, keystone);
        let none = stores.iter().all(|check| check.problem.is_some());
        stores.iter_mut().for_each(|check| check.required = none);
        Health { checks: std::iter::once(postgres).chain(stores).chain(keystone).collect() }
    }
}

async fn check(
    name: String,
    required: bool,
    probe: impl Future<Output = Result<(Duration, Option<(u64, u64)>), String>>,
) -> Check {
    let start = Instant::now();
    let (latency, problem, usage_bytes) = match tokio::time::timeout(CHECK_TIMEOUT, probe).await {
        Ok(Ok((latency, usage_bytes))) => (latency, None, usage_bytes),
        Ok(Err(problem)) => (start.elapsed(), Some(problem), None),
        Err(_) => (start.elapsed(), Some(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())), None),
    };
    Check { name, required, latency, problem, usage_bytes }
}
