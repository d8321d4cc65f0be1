//! When data was last compared with its hash.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Catalog, Error};
use crate::domain::id::ImageId;

/// What was found the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrub {
    /// The image.
    pub image: ImageId,
    /// The location.
    pub url: String,
    /// The hash that the data was compared with.
    pub hash: String,
    /// The store's word for what was read.
    pub identity: String,
    /// Whether it was what it should be.
    pub matches: bool,
}

impl Catalog {
    /// The scrubs of an image that are younger than so many days, by URL.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn scrubs(&self, image: ImageId, days_max: u32) -> Result<BTreeMap<String, Scrub>, Error> {
        let sql = "-- scrubs\n\
            SELECT url, hash, identity, matches FROM image_scrubs\n\
            WHERE image_id = $1 /* image_id */ AND scrubbed_at > now() - make_interval(days => $2 /* days */)";
        let days = i32::try_from(days_max).unwrap_or(i32::MAX);
        let rows = self.rows("scrubs", sql, &[&image.uuid(), &days]).await?;
        let scrub = |row: &tokio_postgres::Row| Scrub {
            image,
            url: row.get("url"),
            hash: row.get("hash"),
            identity: row.get("identity"),
            matches: row.get("matches"),
        };
        Ok(rows.iter().map(scrub).map(|scrub| (scrub.url.clone(), scrub)).collect())
    }

    /// Notes what was found now. An image that has gone meanwhile is forgotten with its scrubs.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn record_scrub(&self, scrub: &Scrub) -> Result<(), Error> {
        let tx = self.begin("scrub_record").await?;
        let sql = "-- scrub_record\n\
            INSERT INTO image_scrubs (image_id, url, hash, identity, matches, scrubbed_at)\n\
            SELECT i.id, $2::text /* url */, $3::text /* hash */, $4::text /* identity */, $5::boolean /* matches */, now() FROM images i WHERE i.id = $1 /* image_id */ FOR KEY SHARE\n\
            ON CONFLICT (image_id, url) DO UPDATE\n\
              SET hash = excluded.hash, identity = excluded.identity, matches = excluded.matches, scrubbed_at = excluded.scrubbed_at";
        let image: Uuid = scrub.image.uuid();
        tx.execute(sql, &[&image, &scrub.url, &scrub.hash, &scrub.identity, &scrub.matches]).await?;
        tx.commit().await
    }
}
