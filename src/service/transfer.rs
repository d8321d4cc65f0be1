//! Room for data transfers: how many run at once is bounded, and with it memory.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use crate::store::release_memory;

/// Bounds the uploads and downloads of this gateway.
pub struct Transfers {
    permits: Arc<Semaphore>,
    max: usize,
}

/// One running transfer; ends when dropped.
pub(super) struct Transfer {
    permit: Option<OwnedSemaphorePermit>,
    permits: Arc<Semaphore>,
    max: usize,
}

impl Transfers {
    pub(super) fn new(max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(max)), max }
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
    pub(super) fn begin(&self) -> Result<Transfer, Error> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            Error::Busy(format!(
                "{} transfers are running, as many as this gateway takes at once; try again later.",
                self.max
            ))
        })?;
        Ok(Transfer { permit: Some(permit), permits: Arc::clone(&self.permits), max: self.max })
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
