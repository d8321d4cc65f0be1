//! Image records.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Catalog, Error, Tx};
use crate::domain::content::Content;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Image, Import, Visibility};
use crate::domain::query::Scope;
use crate::domain::status::{Status, Transition};

/// Columns of an image `i`, with its properties, tags and locations folded in: one statement, one
/// round trip, however many images.
pub(super) const COLUMNS: &str = "i.id, i.status, i.name, i.visibility, i.owner, i.protected, i.hidden, i.container_format, i.disk_format, \
    i.min_disk_gib, i.min_ram_mib, i.size_bytes, i.virtual_size_bytes, i.checksum, i.os_hash_algo, i.os_hash_value, i.upload_failure, i.converted, i.import_task, i.importing_to_stores, i.failed_import, i.created_at, i.updated_at, i.version, \
    (SELECT jsonb_object_agg(p.name, p.value) FROM image_properties p WHERE p.image_id = i.id) AS properties, \
    ARRAY(SELECT t.value FROM image_tags t WHERE t.image_id = i.id) AS tags, \
    (SELECT jsonb_agg(jsonb_build_object('store', l.store, 'url', l.url, 'metadata', l.metadata, 'owned', l.owned) ORDER BY l.position, l.id) \
       FROM image_locations l WHERE l.image_id = i.id) AS locations";

impl TryFrom<&Row> for Image {
    type Error = Error;

    fn try_from(row: &Row) -> Result<Self, Error> {
        let id = ImageId::from(row.get::<_, Uuid>("id"));
        let inconsistent = |what: String| Error::Inconsistent { table: "images", row: id.to_string(), what };
        let status_name: String = row.get("status");
        let status =
            Status::parse(&status_name).ok_or_else(|| inconsistent(format!("unknown status {status_name}")))?;
        let visibility_name: String = row.get("visibility");
        let visibility = Visibility::parse(&visibility_name)
            .ok_or_else(|| inconsistent(format!("unknown visibility {visibility_name}")))?;
        let properties = match row.get::<_, Option<Value>>("properties") {
            None => BTreeMap::new(),
            Some(value) => serde_json::from_value(value).map_err(|e| inconsistent(e.to_string()))?,
        };
        let locations = match row.get::<_, Option<Value>>("locations") {
            None => Vec::new(),
            Some(value) => serde_json::from_value(value).map_err(|e| inconsistent(e.to_string()))?,
        };
        let bytes = |column| {
            row.get::<_, Option<i64>>(column)
                .map(|n| u64::try_from(n).map_err(|_| inconsistent(format!("{column} is negative"))))
        };
        let content = match bytes("size_bytes").transpose()? {
            None => None,
            Some(size_bytes) => Some(Content {
                size_bytes,
                virtual_size_bytes: bytes("virtual_size_bytes").transpose()?,
                checksum: row.get("checksum"),
                os_hash_algo: row.get("os_hash_algo"),
                os_hash_value: row.get("os_hash_value"),
                converted: row.get("converted"),
            }),
        };
        Ok(Self {
            id,
            status,
            attributes: Attributes {
                name: row.get("name"),
                visibility,
                owner: row.get("owner"),
                protected: row.get("protected"),
                hidden: row.get("hidden"),
                container_format: row.get("container_format"),
                disk_format: row.get("disk_format"),
                min_disk_gib: row.get("min_disk_gib"),
                min_ram_mib: row.get("min_ram_mib"),
                tags: row.get::<_, Vec<String>>("tags").into_iter().collect(),
                properties,
            },
            content,
            locations,
            upload_failure: row.get("upload_failure"),
            import: Import {
                task: row.get("import_task"),
                to: row.get("importing_to_stores"),
                failed: row.get("failed_import"),
            },
            created_at: row.get("created_at"),
            updated_at: row.get("updated_at"),
            version: row.get("version"),
        })
    }
}

/// The condition that image `i` is within the scope whose project is the given parameter: what a
/// caller may see by its id.
const VISIBLE: &str = "(i.owner = $2 OR i.owner IS NULL OR i.visibility IN ('public', 'community') \
    OR (i.visibility = 'shared' AND EXISTS (SELECT FROM image_members m WHERE m.image_id = i.id AND m.member = $2 /* member */)))";

impl Catalog {
    /// The image, if it exists, is not deleted, and lies within `scope`.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn image(&self, id: ImageId, scope: &Scope) -> Result<Option<Image>, Error> {
        let rows = match scope {
            Scope::Everything(_) => {
                let sql = format!(
                    "-- image_by_id\nSELECT {COLUMNS} FROM images i WHERE i.id = $1 /* id */ AND i.status <> 'deleted'"
                );
                self.rows("image_by_id", &sql, &[&id.uuid()]).await?
            }
            Scope::Project(project) => {
                let sql = format!(
                    "-- image_visible\nSELECT {COLUMNS} FROM images i WHERE i.id = $1 /* id */ AND i.status <> 'deleted' AND {VISIBLE}"
                );
                self.rows("image_visible", &sql, &[&id.uuid(), project]).await?
            }
        };
        rows.first().map(Image::try_from).transpose()
    }

    /// The state of an image, deleted or not; `None` when there is no row any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn status(&self, id: ImageId) -> Result<Option<Status>, Error> {
        let rows = self
            .rows("image_status", "-- image_status\nSELECT status FROM images WHERE id = $1 /* id */", &[&id.uuid()])
            .await?;
        Ok(rows.first().and_then(|row| Status::parse(row.get(0))))
    }
}

impl Tx {
    /// The database's time: the one clock that all gateways share.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn now(&self) -> Result<OffsetDateTime, Error> {
        let rows = self.rows("-- now\nSELECT date_trunc('microseconds', now())", &[]).await?;
        rows.first().map(|row| row.get(0)).ok_or(Error::Conflict("now"))
    }

    /// Takes `id` out of the set of free ids, for ever. `false`: it is or was in use.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn reserve_id(&self, id: ImageId) -> Result<bool, Error> {
        let sql = "-- image_id_reserve\nINSERT INTO image_ids (id) VALUES ($1 /* id */) ON CONFLICT DO NOTHING";
        Ok(self.execute(sql, &[&id.uuid()]).await? == 1)
    }

    /// Adds a record whose id has been reserved.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_image(&self, image: &Image) -> Result<(), Error> {
        let a = &image.attributes;
        let sql = "-- image_insert\n\
            INSERT INTO images (id, status, name, visibility, owner, protected, hidden, container_format, disk_format, min_disk_gib, min_ram_mib, created_at, updated_at)\n\
            VALUES ($1 /* id */, $2 /* status */, $3 /* name */, $4 /* visibility */, $5 /* owner */, $6 /* protected */, $7 /* hidden */,\n\
              $8 /* container_format */, $9 /* disk_format */, $10 /* min_disk_gib */, $11 /* min_ram_mib */, $12 /* created_at */, $12 /* updated_at */)";
        self.execute(
            sql,
            &[
                &image.id.uuid(),
                &image.status.as_str(),
                &a.name,
                &a.visibility.as_str(),
                &a.owner,
                &a.protected,
                &a.hidden,
                &a.container_format,
                &a.disk_format,
                &a.min_disk_gib,
                &a.min_ram_mib,
                &image.created_at,
            ],
        )
        .await?;
        self.insert_properties(image.id, &a.properties).await?;
        self.insert_tags(image.id, a.tags.iter()).await
    }

    /// The image under a row lock, deleted or not, whoever asks.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn lock_image(&self, id: ImageId) -> Result<Option<Image>, Error> {
        // Two statements: what one reads beside the row it waits for (tags, locations) is from before the wait.
        self.rows("-- image_lock\nSELECT FROM images WHERE id = $1 /* id */ FOR NO KEY UPDATE", &[&id.uuid()]).await?;
        let sql = format!("-- image_locked\nSELECT {COLUMNS} FROM images i WHERE i.id = $1 /* id */");
        let rows = self.rows(&sql, &[&id.uuid()]).await?;
        rows.first().map(Image::try_from).transpose()
    }

    /// Writes the attributes that differ between `old` and `next`. The image is locked by the caller.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn update_attributes(
        &self,
        id: ImageId,
        old: &Attributes,
        next: &Attributes,
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let sql = "-- image_update\n\
            UPDATE images SET name = $2 /* name */, visibility = $3 /* visibility */, owner = $4 /* owner */, protected = $5 /* protected */, hidden = $6 /* hidden */,\n\
              container_format = $7 /* container_format */, disk_format = $8 /* disk_format */, min_disk_gib = $9 /* min_disk_gib */, min_ram_mib = $10 /* min_ram_mib */,\n\
              updated_at = $11 /* updated_at */, version = version + 1\n\
            WHERE id = $1 /* id */";
        self.execute(
            sql,
            &[
                &id.uuid(),
                &next.name,
                &next.visibility.as_str(),
                &next.owner,
                &next.protected,
                &next.hidden,
                &next.container_format,
                &next.disk_format,
                &next.min_disk_gib,
                &next.min_ram_mib,
                &now,
            ],
        )
        .await?;
        let gone: Vec<&String> = old.properties.keys().filter(|name| !next.properties.contains_key(*name)).collect();
        if !gone.is_empty() {
            let sql = "-- image_properties_delete\nDELETE FROM image_properties WHERE image_id = $1 /* image_id */ AND name = ANY($2 /* name */)";
            self.execute(sql, &[&id.uuid(), &gone]).await?;
        }
        let changed = next
            .properties
            .iter()
            .filter(|(name, value)| old.properties.get(*name) != Some(value))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        self.insert_properties(id, &changed).await?;
        let untagged: Vec<&String> = old.tags.difference(&next.tags).collect();
        if !untagged.is_empty() {
            let sql = "-- image_tags_delete\nDELETE FROM image_tags WHERE image_id = $1 /* image_id */ AND value = ANY($2 /* value */)";
            self.execute(sql, &[&id.uuid(), &untagged]).await?;
        }
        self.insert_tags(id, next.tags.difference(&old.tags)).await
    }

    /// Moves an image along the state machine. `false`: it was in none of the states it may come from. An active
    /// image does not tell any more how an upload failed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn transition(&self, id: ImageId, transition: &Transition) -> Result<bool, Error> {
        let sql = "-- image_transition\n\
            UPDATE images SET status = $2 /* status */, updated_at = now(), version = version + 1,\n\
              upload_failure = CASE WHEN $2 = 'active' THEN NULL ELSE upload_failure END\n\
            WHERE id = $1 /* id */ AND status = ANY($3 /* from */)";
        Ok(self.execute(sql, &[&id.uuid(), &transition.to.as_str(), &transition.from_names()]).await? == 1)
    }

    /// Records what is known of the bytes.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`] for a size beyond what Postgres can hold.
    pub async fn set_content(&self, id: ImageId, content: &Content) -> Result<(), Error> {
        let size = i64::try_from(content.size_bytes).map_err(|_| Error::Inconsistent {
            table: "images",
            row: id.to_string(),
            what: "size exceeds 2^63".into(),
        })?;
        let virtual_size = content.virtual_size_bytes.and_then(|n| i64::try_from(n).ok());
        let sql = "-- image_content\n\
            UPDATE images SET size_bytes = $2 /* size_bytes */, virtual_size_bytes = $3 /* virtual_size_bytes */, checksum = $4 /* checksum */,\n\
              os_hash_algo = $5 /* os_hash_algo */, os_hash_value = $6 /* os_hash_value */, converted = $7 /* converted */, updated_at = now(), version = version + 1\n\
            WHERE id = $1 /* id */";
        self.execute(
            sql,
            &[
                &id.uuid(),
                &size,
                &virtual_size,
                &content.checksum,
                &content.os_hash_algo,
                &content.os_hash_value,
                &content.converted,
            ],
        )
        .await
        .map(drop)
    }

    /// Records what an import tells about an image.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn set_import(&self, id: ImageId, import: &Import) -> Result<(), Error> {
        let sql = "-- image_import\n\
            UPDATE images SET import_task = $2 /* import_task */, importing_to_stores = $3 /* importing_to_stores */, failed_import = $4 /* failed_import */,\n\
              updated_at = now(), version = version + 1\n\
            WHERE id = $1 /* id */";
        self.execute(sql, &[&id.uuid(), &import.task, &import.to, &import.failed]).await.map(drop)
    }

    /// Notes that something about an image has changed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn touch(&self, id: ImageId) -> Result<(), Error> {
        let sql = "-- image_touch\nUPDATE images SET updated_at = now(), version = version + 1 WHERE id = $1 /* id */";
        self.execute(sql, &[&id.uuid()]).await.map(drop)
    }

    /// Tells why data did not become the image's, although what was sent is still there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn note_failure(&self, id: ImageId, why: &str) -> Result<(), Error> {
        let sql = "-- image_failure\nUPDATE images SET upload_failure = $2 /* upload_failure */ WHERE id = $1 /* id */";
        self.execute(sql, &[&id.uuid(), &why]).await.map(drop)
    }

    /// Forgets what is known of the bytes: there are none any more, and `why` is told.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn clear_content(&self, id: ImageId, why: &str) -> Result<(), Error> {
        let sql = "-- image_content_clear\n\
            UPDATE images SET size_bytes = NULL, virtual_size_bytes = NULL, checksum = NULL, os_hash_algo = NULL, os_hash_value = NULL, converted = false,\n\
              upload_failure = $2 /* upload_failure */\n\
            WHERE id = $1 /* id */";
        self.execute(sql, &[&id.uuid(), &why]).await.map(drop)
    }

    /// Removes the record of a deleted image that no job needs any more; its id stays reserved.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn forget_image(&self, id: ImageId) -> Result<(), Error> {
        let sql = "-- image_forget\n\
            DELETE FROM images i WHERE i.id = $1 /* id */ AND i.status = 'deleted'\n\
              AND NOT EXISTS (SELECT FROM jobs j WHERE j.image_id = i.id AND j.kind IN ('upload', 'delete', 'stage', 'import'))";
        self.execute(sql, &[&id.uuid()]).await.map(drop)
    }

    async fn insert_properties(&self, id: ImageId, properties: &BTreeMap<String, String>) -> Result<(), Error> {
        if properties.is_empty() {
            return Ok(());
        }
        let (names, values): (Vec<&String>, Vec<&String>) = properties.iter().unzip();
        let sql = "-- image_properties_set\n\
            INSERT INTO image_properties (image_id, name, value) SELECT $1 /* image_id */, * FROM unnest($2::text[] /* name */, $3::text[] /* value */)\n\
            ON CONFLICT (image_id, name) DO UPDATE SET value = excluded.value";
        self.execute(sql, &[&id.uuid(), &names, &values]).await.map(drop)
    }

    async fn insert_tags(&self, id: ImageId, tags: impl Iterator<Item = &String>) -> Result<(), Error> {
        let tags: Vec<&String> = tags.collect();
        if tags.is_empty() {
            return Ok(());
        }
        let sql = "-- image_tags_insert\n\
            INSERT INTO image_tags (image_id, value) SELECT $1 /* image_id */, * FROM unnest($2::text[] /* value */) ON CONFLICT DO NOTHING";
        self.execute(sql, &[&id.uuid(), &tags]).await.map(drop)
    }
}
