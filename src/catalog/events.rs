//! The outbox: what happened to images, written in the transaction in which it happened.

use serde_json::Value;

use super::{Catalog, EVENTS_PRUNED_PER_CALL, Error, Tx};
use crate::domain::id::ImageId;

impl Tx {
    /// Records that something happened.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn event(&self, kind: &'static str, id: ImageId, payload: &Value) -> Result<(), Error> {
        let sql = "-- event_insert\n\
            INSERT INTO events (type, image_id, payload) VALUES ($1 /* type */, $2 /* image_id */, $3 /* payload */)";
        self.execute(sql, &[&kind, &id.uuid(), payload]).await.map(drop)
    }
}

impl Catalog {
    /// Removes a bounded number of events older than `days`; returns how many.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn prune_events(&self, days: u32) -> Result<u64, Error> {
        let tx = self.begin("events_prune").await?;
        let sql = "-- events_prune\n\
            DELETE FROM events WHERE id IN (\n\
              SELECT id FROM events WHERE created_at < now() - make_interval(days => $1 /* days */) ORDER BY id LIMIT $2 /* limit */)";
        let days = i32::try_from(days).unwrap_or(i32::MAX);
        let removed = tx.execute(sql, &[&days, &EVENTS_PRUNED_PER_CALL]).await?;
        tx.commit().await?;
        Ok(removed)
    }
}
