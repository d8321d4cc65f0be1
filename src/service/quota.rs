//! What the owner of an image may use, and holding to it although many ask at once, at several gateways.
//!
//! A transaction writes what it wants first, a record or the reservation of an upload, and looks last: under a lock on
//! the project, so that of two that ask for the last room one sees the other. What an upload has reserved belongs to
//! its job, and ends with the job's state: there is nothing to give back.

use std::time::{Duration, Instant};

use super::{Error, Services};
use crate::catalog::{Catalog, Lease, Tx};
use crate::domain::limits::{ProjectLimits, Resource};
use crate::identity::Caller;

/// How much is reserved ahead of a stream of unknown length at least, in bytes.
const STEP_BYTES_MIN: u64 = 1 << 20;
/// The same, as a part of what has arrived: the steps grow with the stream, and others lose little room to it.
const STEP_SHARE: u64 = 16;
/// Pause between two tries to reserve more.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Longest wait for room that other uploads have reserved and may leave.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an upload waits for each that began after it.
const PATIENCE_STEP: Duration = Duration::from_secs(2);

/// A project with what it may use.
#[derive(Debug, Clone)]
pub(super) struct Account {
    project: String,
    limits: ProjectLimits,
}

impl Services {
    /// The account that an image of `owner` is charged to; `None`: nobody counts. To be looked up before a
    /// transaction begins: somebody else may have to be asked.
    pub(super) async fn account(&self, caller: &Caller, owner: Option<&str>) -> Result<Option<Account>, Error> {
        let Some(project) = owner else { return Ok(None) };
        let limits = self.limits.of(project, &self.identity, caller.request_id.as_deref()).await?;
        Ok(limits.map(|limits| Account { project: project.to_owned(), limits }))
    }

    /// The same for what nobody has asked for by a request.
    pub(super) async fn account_of(&self, owner: Option<&str>) -> Result<Option<Account>, Error> {
        let Some(project) = owner else { return Ok(None) };
        let limits = self.limits.of(project, &self.identity, None).await?;
        Ok(limits.map(|limits| Account { project: project.to_owned(), limits }))
    }
}

impl Account {
    /// Refuses what would exceed a limit by what is used now: a look before anything is done that cannot be rolled back.
    pub(super) async fn check(&self, catalog: &Catalog, asked: &[(Resource, u64)]) -> Result<(), Error> {
        let (resources, amounts): (Vec<Resource>, Vec<u64>) = asked.iter().copied().unzip();
        let used = catalog.usage(&self.project, &resources).await?;
        for ((resource, asked), used) in resources.into_iter().zip(amounts).zip(used) {
            self.limits.check(&self.project, resource, used.saturating_add(asked), asked)?;
        }
        Ok(())
    }

    /// Refuses what `tx` has written if that exceeds a limit: so much of each resource. Nothing may be written
    /// after it; the caller rolls back what was refused.
    pub(super) async fn admit(&self, tx: &Tx, asked: &[(Resource, u64)]) -> Result<(), Error> {
        let limited = asked.iter().filter(|(resource, _)| self.limits.maximum(*resource).is_some());
        let (resources, amounts): (Vec<Resource>, Vec<u64>) = limited.copied().unzip();
        if resources.is_empty() {
            return Ok(());
        }
        tx.lock_project(&self.project).await?;
        let used = tx.usage(&self.project, &resources).await?;
        for ((resource, asked), used) in resources.into_iter().zip(amounts).zip(used) {
            self.limits.check(&self.project, resource, used, asked)?;
        }
        Ok(())
    }
}

/// Room for an upload of unknown length, reserved a step ahead of the bytes.
pub(super) struct Allowance {
    catalog: Catalog,
    account: Account,
    /// What the bytes count as.
    resource: Resource,
    maximum_bytes: u64,
    lease: Lease,
    reserved_bytes: u64,
    /// How often each byte counts.
    copies: u64,
}

impl Allowance {
    /// For the upload whose job holds `lease` and has reserved nothing; `None`: its length is nobody's business.
    pub(super) fn new(catalog: &Catalog, account: Account, resource: Resource, lease: Lease) -> Option<Self> {
        let maximum_bytes = account.limits.maximum(resource)?;
        Some(Self { catalog: catalog.clone(), account, resource, maximum_bytes, lease, reserved_bytes: 0, copies: 1 })
    }

    /// The same for bytes that go to so many stores.
    pub(super) fn for_copies(self, copies: u64) -> Self {
        Self { copies, ..self }
    }

    /// Makes sure that `size_bytes` are reserved. While the catalog does not answer it waits: whoever keeps the
    /// lease ends that.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when the project has no room for them.
    pub(super) async fn cover(&mut self, size_bytes: u64) -> Result<(), Error> {
        let size_bytes = size_bytes.saturating_mul(self.copies);
        if size_bytes <= self.reserved_bytes {
            return Ok(());
        }
        let begun = Instant::now();
        loop {
            match self.reserve(size_bytes).await {
                Ok(Reservation::Made(reserved_bytes)) => {
                    self.reserved_bytes = reserved_bytes;
                    return Ok(());
                }
                Ok(Reservation::Refused(refused, patience)) if begun.elapsed() >= patience => return Err(refused),
                Ok(Reservation::Refused(..)) | Err(Error::Unavailable(_)) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Reserves `size_bytes` and, as far as there is room, a step more. May be repeated: it sets a sum.
    async fn reserve(&self, size_bytes: u64) -> Result<Reservation, Error> {
        let (project, limits) = (&self.account.project, &self.account.limits);
        let tx = self.catalog.begin("upload_reserve").await?;
        tx.lock_project(project).await?;
        if !tx.charge_job(self.lease, size_bytes).await? {
            tx.rollback().await?;
            return Err(Error::Gone("The upload was taken over by another gateway.".into()));
        }
        let used = tx.usage(project, &[self.resource]).await?.first().copied().unwrap_or(0);
        let asked = size_bytes - self.reserved_bytes;
        if let Err(refused) = limits.check(project, self.resource, used, asked) {
            let rivals = tx.rivals(project, self.lease).await?;
            tx.rollback().await?;
            // Uploads that grow together reach the limit together, and all would be refused. So the youngest is, and
            // the others get what it leaves.
            let enough = used.saturating_sub(rivals.bytes) <= self.maximum_bytes;
            let patience = if enough { PATIENCE.min(PATIENCE_STEP * rivals.younger) } else { Duration::ZERO };
            return Ok(Reservation::Refused(refused.into(), patience));
        }
        // Half of what is left stays for others, who may need less than this upload reserves.
        let step = STEP_BYTES_MIN.max(size_bytes / STEP_SHARE).min(self.maximum_bytes.saturating_sub(used) / 2);
        let reserved_bytes = size_bytes + step;
        tx.charge_job(self.lease, reserved_bytes).await?;
        tx.commit().await?;
        Ok(Reservation::Made(reserved_bytes))
    }
}

/// What came of asking for more room.
enum Reservation {
    /// So many bytes are reserved now.
    Made(u64),
    /// There is no room; worth asking again for so long.
    Refused(Error, Duration),
}
