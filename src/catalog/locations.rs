//! Locations: which images refer to which data.
//!
//! The same data can be a location of several images. Whoever adds or removes a location holds the lock of its URL
//! until the end of the transaction, so that data is never given up and taken up at the same moment. Locks are taken
//! after the image's row, in the order of the URLs, and before any location is changed.

use serde_json::Value;

use super::{Catalog, Error, Tx};
use crate::domain::id::ImageId;
use crate::domain::image::Location;

impl Catalog {
    /// Images, other than `id`, that have a location of this URL.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn other_holders(&self, id: ImageId, url: &str) -> Result<Vec<ImageId>, Error> {
        let sql = "-- location_holders\n\
            SELECT l.image_id FROM image_locations l JOIN images i ON i.id = l.image_id\n\
            WHERE l.url = $1 /* url */ AND l.image_id <> $2 /* image_id */ AND i.status <> 'deleted' ORDER BY l.id";
        let rows = self.rows("location_holders", sql, &[&url, &id.uuid()]).await?;
        Ok(rows.iter().map(|row| ImageId::from(row.get::<_, uuid::Uuid>(0))).collect())
    }
}

impl Tx {
    /// Takes the locks of these URLs, until the transaction ends.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn lock_urls<'u>(&self, urls: impl Iterator<Item = &'u str>) -> Result<(), Error> {
        let mut sorted: Vec<&str> = urls.collect();
        sorted.sort_unstable();
        for url in sorted {
            self.rows("-- location_lock\nSELECT pg_advisory_xact_lock(hashtextextended($1 /* url */, 0))", &[&url])
                .await?;
        }
        Ok(())
    }

    /// Whether the data at a URL, whose lock is held, is about to be removed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn is_doomed(&self, url: &str) -> Result<bool, Error> {
        let sql = "-- location_doomed\n\
            SELECT EXISTS (SELECT FROM image_locations l JOIN images i ON i.id = l.image_id WHERE l.url = $1 /* url */ AND l.owned AND i.status = 'deleted')\n\
              OR EXISTS (SELECT FROM jobs WHERE kind = 'unlocate' AND payload ->> 'url' = $1 /* url */)";
        let rows = self.rows(sql, &[&url]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    /// Makes the locations of an image, whose row is locked, equal to `next`; `old` are those it has.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn set_locations(&self, id: ImageId, old: &[Location], next: &[Location]) -> Result<(), Error> {
        let gone: Vec<&str> =
            old.iter().map(|l| l.url.as_str()).filter(|url| next.iter().all(|kept| kept.url != *url)).collect();
        if !gone.is_empty() {
            let sql = "-- locations_delete\nDELETE FROM image_locations WHERE image_id = $1 /* image_id */ AND url = ANY($2 /* url */)";
            self.execute(sql, &[&id.uuid(), &gone]).await?;
        }
        for (position, location) in next.iter().enumerate() {
            let sql = "-- location_set\n\
                INSERT INTO image_locations (image_id, store, url, position, metadata, owned)\n\
                VALUES ($1 /* image_id */, $2 /* store */, $3 /* url */, $4 /* position */, $5 /* metadata */, $6 /* owned */)\n\
                ON CONFLICT (image_id, url) DO UPDATE SET position = excluded.position, metadata = excluded.metadata";
            let position = i32::try_from(position).unwrap_or(i32::MAX);
            let metadata = Value::Object(location.metadata.clone());
            self.execute(sql, &[&id.uuid(), &location.store, &location.url, &position, &metadata, &location.owned])
                .await?;
        }
        Ok(())
    }

    /// Lets go of locations of an image; the locks of their URLs are held. What it owns and other images refer to is
    /// inherited by the first of them. Returns the URLs whose data it owns and nobody else refers to.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn give_up_locations(&self, id: ImageId, urls: &[&str]) -> Result<Vec<String>, Error> {
        if urls.is_empty() {
            return Ok(Vec::new());
        }
        let sql = "-- locations_give_up\n\
            WITH mine AS (SELECT url FROM image_locations WHERE image_id = $1 /* image_id */ AND url = ANY($2 /* url */) AND owned),\n\
            heirs AS (\n\
              SELECT DISTINCT ON (l.url) l.id, l.url FROM image_locations l JOIN images i ON i.id = l.image_id\n\
              WHERE l.url IN (SELECT url FROM mine) AND l.image_id <> $1 /* image_id */ AND i.status <> 'deleted' ORDER BY l.url, l.id),\n\
            given AS (UPDATE image_locations l SET owned = true FROM heirs h WHERE l.id = h.id RETURNING l.url),\n\
            lost AS (UPDATE image_locations l SET owned = false FROM given g WHERE l.image_id = $1 /* image_id */ AND l.url = g.url)\n\
            SELECT url FROM mine EXCEPT SELECT url FROM given";
        let rows = self.rows(sql, &[&id.uuid(), &urls]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
