//! `GET /v2/info/usage`.

use super::{Error, Services};
use crate::domain::limits::Resource;
use crate::identity::Caller;

/// How much of a resource a project uses and may use, in the units of the limit; a limit of -1 is none.
pub struct Usage {
    /// What it is about.
    pub resource: Resource,
    /// In use or reserved; begun units that are not full do not count.
    pub used: u64,
    /// Most.
    pub limit: i64,
}

impl Services {
    /// What the caller's project uses; nothing where there are no unified limits.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn usage(&self, caller: &Caller) -> Result<Vec<Usage>, Error> {
        let project = &caller.project_id;
        if !self.limits.unified() {
            return Ok(Vec::new());
        }
        let limits = self.limits.of(project, &self.identity, caller.request_id.as_deref()).await?;
        let Some(limits) = limits else { return Ok(Vec::new()) };
        let used = self.catalog.usage(project, &Resource::ALL).await?;
        let usage = |(resource, used): (Resource, u64)| Usage {
            resource,
            used: used / resource.unit(),
            limit: limits
                .maximum(resource)
                .map_or(-1, |most| i64::try_from(most / resource.unit()).unwrap_or(i64::MAX)),
        };
        Ok(Resource::ALL.into_iter().zip(used).map(usage).collect())
    }
}
