//! The outbox: what happened, written in the transaction in which it happened.

use serde_json::Value;

use super::{Catalog, EVENTS_PRUNED_PER_CALL, Error, Tx};
use crate::domain::id::ImageId;

impl Tx {
    /// Records that something happened to an image.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn event(&self, kind: &'static str, id: ImageId, payload: &Value) -> Result<(), Error> {
        let sql = "-- event_insert\n\
            INSERT INTO events (type, image_id, payload) VALUES ($1 /* type */, $2 /* image_id */, $3 /* payload */)";
        self.execute(sql, &[&kind, &id.uuid(), payload]).await.map(drop)
    }

    /// Records, in this order, that something happened to things other than images.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn events(&self, kind: &'static str, payloads: &[Value]) -> Result<(), Error> {
        if payloads.is_empty() {
            return Ok(());
        }
        let sql = "-- events_insert\n\
            INSERT INTO events (type, payload)\n\
            SELECT $1 /* type */, e.payload FROM unnest($2::jsonb[] /* payload */) WITH ORDINALITY AS e (payload, n) ORDER BY n";
        self.execute(sql, &[&kind, &payloads]).await.map(drop)
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
