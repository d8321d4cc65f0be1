//! The schema and its versions. Migrations are embedded, run in order, each in a transaction of its
//! own, all under one advisory lock, so that any number of gateways may start at once.

use super::{Catalog, Error};

/// `(version, SQL)`, oldest first; a migration that has been released never changes.
const MIGRATIONS: &[(i32, &str)] = &[
    (1, include_str!("migrations/0001_images.sql")),
    (2, include_str!("migrations/0002_metadefs.sql")),
    (3, include_str!("migrations/0003_locations.sql")),
    (4, include_str!("migrations/0004_tasks.sql")),
    (5, include_str!("migrations/0005_quotas.sql")),
    (6, include_str!("migrations/0006_list_indexes.sql")),
    (7, include_str!("migrations/0007_import.sql")),
    (8, include_str!("migrations/0008_event_priority.sql")),
    (9, include_str!("migrations/0009_plans.sql")),
    (10, include_str!("migrations/0010_scrubs.sql")),
];

/// The version that this program needs.
pub const SCHEMA_VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Key of the advisory lock: "rockpool" as ASCII.
const LOCK_KEY: i64 = 0x726f_636b_706f_6f6c;

/// Where the schema of a database stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaState {
    /// It is the one this program needs.
    Current,
    /// It is older: `rockpool db upgrade` or the next start of `rockpool serve` brings it forward.
    Older(i32),
    /// It is newer: this program must not touch it.
    Newer(i32),
}

impl SchemaState {
    fn of(version: i32) -> Self {
        match version.cmp(&SCHEMA_VERSION) {
            std::cmp::Ordering::Equal => Self::Current,
            std::cmp::Ordering::Less => Self::Older(version),
            std::cmp::Ordering::Greater => Self::Newer(version),
        }
    }
}

impl Catalog {
    /// Where the schema stands; changes nothing.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn schema_state(&self) -> Result<SchemaState, Error> {
        let known =
            self.rows("schema_known", "-- schema_known\nSELECT to_regclass('schema_version') IS NOT NULL", &[]).await?;
        if !known.first().is_some_and(|row| row.get(0)) {
            return Ok(SchemaState::Older(0));
        }
        let rows = self
            .rows("schema_version", "-- schema_version\nSELECT coalesce(max(version), 0) FROM schema_version", &[])
            .await?;
        Ok(SchemaState::of(rows.first().map_or(0, |row| row.get(0))))
    }

    /// Brings the schema to [`SCHEMA_VERSION`] and returns the versions that were applied.
    ///
    /// # Errors
    /// [`Error::Schema`] when the schema is newer than this program.
    pub async fn migrate(&self) -> Result<Vec<i32>, Error> {
        let mut applied = Vec::new();
        loop {
            let tx = self.begin("schema_upgrade").await?;
            tx.execute("-- schema_lock\nSELECT pg_advisory_xact_lock($1 /* key */)", &[&LOCK_KEY]).await?;
            tx.batch("CREATE TABLE IF NOT EXISTS schema_version (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())").await?;
            let rows =
                tx.rows("-- schema_version_locked\nSELECT coalesce(max(version), 0) FROM schema_version", &[]).await?;
            let version: i32 = rows.first().map_or(0, |row| row.get(0));
            if let SchemaState::Newer(found) = SchemaState::of(version) {
                return Err(Error::Schema(format!(
                    "the database has schema version {found}, this program knows versions up to {SCHEMA_VERSION}: run a newer rockpool"
                )));
            }
            let Some((next, sql)) = MIGRATIONS.iter().find(|(number, _)| *number > version) else {
                tx.commit().await?;
                return Ok(applied);
            };
            tx.batch(sql).await?;
            tx.execute("-- schema_applied\nINSERT INTO schema_version (version) VALUES ($1 /* version */)", &[next])
                .await?;
            tx.commit().await?;
            applied.push(*next);
        }
    }
}
