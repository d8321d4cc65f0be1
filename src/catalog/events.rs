//! The outbox: what happened, written in the transaction in which it happened.

use serde_json::Value;

use super::{Catalog, EVENTS_PRUNED_PER_CALL, Error, Tx};
use crate::domain::id::ImageId;

/// What an event tells of an image `i`: the fields of the reference's notifications.
const IMAGE: &str = "jsonb_build_object('id', i.id, 'name', i.name, 'status', i.status, 'owner', i.owner, \
    'visibility', i.visibility, 'is_public', i.visibility = 'public', 'protected', i.protected, \
    'disk_format', i.disk_format, 'container_format', i.container_format, 'min_disk', i.min_disk_gib, 'min_ram', i.min_ram_mib, \
    'size', i.size_bytes, 'virtual_size', i.virtual_size_bytes, 'checksum', i.checksum, \
    'properties', coalesce((SELECT jsonb_object_agg(p.name, p.value) FROM image_properties p WHERE p.image_id = i.id), '{}'), \
    'tags', coalesce((SELECT jsonb_agg(t.value ORDER BY t.value) FROM image_tags t WHERE t.image_id = i.id), '[]'), \
    'created_at', to_char(i.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
    'updated_at', to_char(i.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
    'deleted', i.status = 'deleted', \
    'deleted_at', CASE WHEN i.status = 'deleted' THEN to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') END)";

impl Tx {
    /// Records that something happened to an image: what the row says by now, and the members of `more`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn image_event(&self, kind: &'static str, id: ImageId, more: &Value) -> Result<(), Error> {
        let sql = format!(
            "-- image_event_insert\n\
            INSERT INTO events (type, image_id, payload)\n\
            SELECT $1 /* type */, i.id, {IMAGE} || $3 /* more */ FROM images i WHERE i.id = $2 /* image_id */"
        );
        self.execute(&sql, &[&kind, &id.uuid(), more]).await.map(drop)
    }

    /// Records that something failed for an image, and why.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn failure_event(&self, kind: &'static str, id: ImageId, why: &str) -> Result<(), Error> {
        let sql = "-- failure_event_insert\n\
            INSERT INTO events (type, priority, image_id, payload) VALUES ($1 /* type */, 'ERROR', $2 /* image_id */, to_jsonb($3 /* why */::text))";
        self.execute(sql, &[&kind, &id.uuid(), &why]).await.map(drop)
    }

    /// Records that something happened around an image, such as to a member.
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
