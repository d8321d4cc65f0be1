//! Room for data transfers: how many run at once is bounded, and with it memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use crate::store::release_memory;
use crate::telemetry::{Direction, Running, Telemetry};

/// Bounds the uploads and downloads of this gateway.
pub struct Transfers {
    permits: Arc<Semaphore>,
    max: usize,
    telemetry: Arc<Telemetry>,
}

/// One running transfer; ends when dropped.
pub(super) struct Transfer {
    permit: Option<OwnedSemaphorePermit>,
    permits: Arc<Semaphore>,
    max: usize,
    _counted: Running,
}

impl Transfers {
    pub(super) fn new(max: usize, telemetry: &Arc<Telemetry>) -> Self {
        telemetry.set_transfers_max(max);
        Self { permits: Arc::new(Semaphore::new(max)), max, telemetry: Arc::clone(telemetry) }
    }

    /// How many run now.
    #[must_use]
    pub fn running(&self) -> usize {
        self.max.saturating_sub(self.permits.available_permits())
    }

    /// Begins a transfer.
    ///
    /// # Errors
    /// [`Error::Busy`] when as many run as may: waiting would only hide it from a load balancer.
    pub(super) fn begin(&self, direction: Direction) -> Result<Transfer, Error> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            self.telemetry.transfer_refused();
            Error::Busy(format!(
                "{} transfers are running, as many as this gateway takes at once; try again later.",
                self.max
            ))
        })?;
        let _counted = self.telemetry.transfer(direction);
        Ok(Transfer { permit: Some(permit), permits: Arc::clone(&self.permits), max: self.max, _counted })
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        drop(self.permit.take());
        // The last one out turns off the light: the allocator keeps tens of MiB otherwise.
        if self.permits.available_permits() == self.max
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(release_memory);
        }
    }
}
