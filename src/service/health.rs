//! What `/readyz` tells: whether the things that every request needs do work.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Services;

/// Longest wait for one dependency; a load balancer asks every few seconds.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// State of one dependency.
#[derive(Debug, Clone)]
pub struct Check {
    /// `postgres`, or `store/<name>`.
    pub name: String,
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
    /// Whether all is well.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none())
    }
}

impl Services {
    /// Asks Postgres and every store for one small answer, all at the same time.
    pub async fn health(&self) -> Health {
        let postgres = check("postgres".into(), async {
            let latency = self.catalog.ping().await.map_err(|e| e.to_string())?;
            Ok((latency, None))
        });
        let stores = join_all(self.stores.iter().map(|store| {
            check(format!("store/{}", store.name()), async {
                let probe = store.probe().await.map_err(|e| e.to_string())?;
                Ok((probe.latency, probe.used_bytes.zip(probe.available_bytes)))
            })
        }));
        let (postgres, stores) = tokio::join!(postgres, stores);
        Health { checks: std::iter::once(postgres).chain(stores).collect() }
    }
}

async fn check(name: String, probe: impl Future<Output = Result<(Duration, Option<(u64, u64)>), String>>) -> Check {
    let start = Instant::now();
    match tokio::time::timeout(CHECK_TIMEOUT, probe).await {
        Ok(Ok((latency, usage_bytes))) => Check { name, latency, problem: None, usage_bytes },
        Ok(Err(problem)) => Check { name, latency: start.elapsed(), problem: Some(problem), usage_bytes: None },
        Err(_) => Check {
            name,
            latency: start.elapsed(),
            problem: Some(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
            usage_bytes: None,
        },
    }
}
