//! Keeping a lease while work goes on.

use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::catalog::{Catalog, Lease};

/// Renewals per lease duration: several may fail before the lease runs out.
const RENEWALS_PER_LEASE: u32 = 8;
/// Longest time between two renewals: a deletion elsewhere is noticed this soon.
const RENEWAL_INTERVAL_MAX: Duration = Duration::from_secs(2);

/// A lease that is being renewed. Dropped, renewal ends and the lease runs out by itself.
pub(super) struct Held {
    /// The right to act.
    pub(super) lease: Lease,
    lost: CancellationToken,
    _renewal: DropGuard,
}

impl Held {
    /// Starts renewing a lease that was taken just now and lasts `duration`.
    pub(super) fn keep(catalog: &Catalog, lease: Lease, duration: Duration) -> Self {
        let lost = CancellationToken::new();
        let stop = CancellationToken::new();
        tokio::spawn(renew(catalog.clone(), lease, duration, lost.clone(), stop.clone()));
        Self { lease, lost, _renewal: stop.drop_guard() }
    }

    /// Rings when the right to act is gone: the lease was lost, could not be renewed in time, or the work
    /// has become pointless.
    pub(super) fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

async fn renew(catalog: Catalog, lease: Lease, duration: Duration, lost: CancellationToken, stop: CancellationToken) {
    let interval = (duration / RENEWALS_PER_LEASE).min(RENEWAL_INTERVAL_MAX);
    // Measured on this machine's monotonic clock from before the last successful renewal was sent: we
    // stop before the database lets anybody else begin.
    let mut renewed_at = Instant::now();
    let margin = interval;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let asked_at = Instant::now();
        let left = (duration.saturating_sub(margin)).saturating_sub(renewed_at.elapsed());
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = tokio::time::timeout(left, catalog.renew(lease, duration)) => answer,
        };
        match answer {
            Ok(Ok(true)) => renewed_at = asked_at,
            Ok(Ok(false)) => {
                lost.cancel();
                return;
            }
            Ok(Err(error)) if renewed_at.elapsed() + margin < duration => {
                tracing::debug!(job = %lease.job, %error, "a lease could not be renewed; trying again");
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(job = %lease.job, "a lease ran out because the catalog did not answer; its work is given up");
                lost.cancel();
                return;
            }
        }
    }
}
