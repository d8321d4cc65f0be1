//! What is asked of the catalog when it is compared with the stores: everything, page by page, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::images::COLUMNS;
use super::{Catalog, Error, Tx};
use crate::domain::id::ImageId;
use crate::domain::image::Image;
use crate::domain::member::Membership;

/// A job that nobody has worked on for too long.
#[derive(Debug, Clone)]
pub struct OverdueJob {
    /// Identifier.
    pub id: Uuid,
    /// What it does.
    pub kind: String,
    /// How far it has come.
    pub state: String,
    /// The image it is about.
    pub image: ImageId,
    /// How often it has been taken up.
    pub attempts: i32,
    /// Why it was given back the last time.
    pub last_error: Option<String>,
}

/// How a job stands.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Somebody works on it.
    pub is_held: bool,
    /// It is not to be taken up yet.
    pub is_waiting: bool,
    /// Nobody has worked on it for too long.
    pub is_overdue: bool,
    /// How often it has been taken up.
    pub attempts: i32,
    /// Why it was given back the last time.
    pub last_error: Option<String>,
}

/// A task that is not as it should be.
#[derive(Debug, Clone)]
pub struct StrayTask {
    /// Identifier.
    pub id: Uuid,
    /// What it does.
    pub kind: String,
    /// How far it has come.
    pub status: String,
    /// The image it is about.
    pub image: Option<ImageId>,
}

/// Tasks that are not at their end and that no job works on. A job may have its task's id, be about the same image, or
/// carry the id.
const ABANDONED: &str = "t.status IN ('pending', 'processing') AND t.updated_at < $1 /* before */ \
    AND NOT EXISTS (SELECT FROM jobs j WHERE j.id = t.id OR j.image_id = t.image_id OR strpos(j.payload::text, t.id::text) > 0)";

fn task(row: &Row) -> StrayTask {
    StrayTask {
        id: row.get("id"),
        kind: row.get("type"),
        status: row.get("status"),
        image: row.get::<_, Option<Uuid>>("image_id").map(ImageId::from),
    }
}

fn uuids(ids: &[ImageId]) -> Vec<Uuid> {
    ids.iter().map(|id| id.uuid()).collect()
}

fn ids(rows: &[Row]) -> BTreeSet<ImageId> {
    rows.iter().map(|row| ImageId::from(row.get::<_, Uuid>(0))).collect()
}

impl Catalog {
    /// The database's time, so long ago.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn time_before(&self, span: Duration) -> Result<OffsetDateTime, Error> {
        let sql = "-- time_before\nSELECT date_trunc('microseconds', now()) - make_interval(secs => $1 /* span_s */)";
        let rows = self.rows("time_before", sql, &[&span.as_secs_f64()]).await?;
        rows.first().map(|row| row.get(0)).ok_or(Error::Conflict("time_before"))
    }

    /// At most `limit` images after `after`, deleted ones included, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn images_after(&self, after: Option<ImageId>, limit: i64) -> Result<Vec<Image>, Error> {
        let sql = format!(
            "-- images_after\nSELECT {COLUMNS} FROM images i WHERE i.id > coalesce($1 /* after */::uuid, '00000000-0000-0000-0000-000000000000')\n\
             ORDER BY i.id LIMIT $2 /* limit */"
        );
        let rows = self.rows("images_after", &sql, &[&after.map(ImageId::uuid), &limit]).await?;
        rows.iter().map(Image::try_from).collect()
    }

    /// Those of these URLs that some image refers to, a deleted one included.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn referred(&self, urls: &[String]) -> Result<BTreeSet<String>, Error> {
        let sql = "-- urls_referred\nSELECT DISTINCT url FROM image_locations WHERE url = ANY($1 /* url */)";
        Ok(self.rows("urls_referred", sql, &[&urls]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// The members of these images, by image.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn members_of(&self, images: &[ImageId]) -> Result<BTreeMap<ImageId, Vec<Membership>>, Error> {
        let sql = "-- members_of\n\
            SELECT image_id, member, status, created_at, updated_at FROM image_members\n\
            WHERE image_id = ANY($1 /* image_id */) ORDER BY image_id, created_at, member";
        let mut members = BTreeMap::<ImageId, Vec<Membership>>::new();
        for row in &self.rows("members_of", sql, &[&uuids(images)]).await? {
            let member = Membership::try_from(row)?;
            members.entry(member.image).or_default().push(member);
        }
        Ok(members)
    }

    /// Those of these images that a job is about.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn worked_on(&self, images: &[ImageId]) -> Result<BTreeSet<ImageId>, Error> {
        let sql = "-- images_worked_on\nSELECT DISTINCT image_id FROM jobs WHERE image_id = ANY($1 /* image_id */)";
        Ok(ids(&self.rows("images_worked_on", sql, &[&uuids(images)]).await?))
    }

    /// At most `limit` jobs after `after`, by id, whose lease ran out before `before`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn overdue_jobs(
        &self,
        before: OffsetDateTime,
        after: Uuid,
        limit: i64,
    ) -> Result<Vec<OverdueJob>, Error> {
        let sql = "-- jobs_overdue\n\
            SELECT id, kind, state, image_id, attempts, last_error FROM jobs\n\
            WHERE lease_expires_at < $1 /* before */ AND id > $2 /* after */ ORDER BY id LIMIT $3 /* limit */";
        let rows = self.rows("jobs_overdue", sql, &[&before, &after, &limit]).await?;
        let job = |row: &Row| OverdueJob {
            id: row.get("id"),
            kind: row.get("kind"),
            state: row.get("state"),
            image: ImageId::from(row.get::<_, Uuid>("image_id")),
            attempts: row.get("attempts"),
            last_error: row.get("last_error"),
        };
        Ok(rows.iter().map(job).collect())
    }

    /// How a job stands; `None`: it has ended.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn job_standing(&self, job: Uuid, before: OffsetDateTime) -> Result<Option<Standing>, Error> {
        let sql = "-- job_standing\n\
            SELECT lease_owner IS NOT NULL AND lease_expires_at >= now() AS held, lease_expires_at >= now() AS waiting, lease_expires_at < $2 /* before */ AS overdue,\n\
              attempts, last_error FROM jobs WHERE id = $1 /* id */";
        let rows = self.rows("job_standing", sql, &[&job, &before]).await?;
        Ok(rows.first().map(|row| Standing {
            is_held: row.get("held"),
            is_waiting: row.get("waiting"),
            is_overdue: row.get("overdue"),
            attempts: row.get("attempts"),
            last_error: row.get("last_error"),
        }))
    }

    /// At most `limit` tasks after `after`, by id, that did not move since `before` and that no job works on.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn abandoned_tasks(
        &self,
        before: OffsetDateTime,
        after: Uuid,
        limit: i64,
    ) -> Result<Vec<StrayTask>, Error> {
        let sql = format!(
            "-- tasks_abandoned\nSELECT t.id, t.type, t.status, t.image_id FROM tasks t WHERE {ABANDONED}\n\
             AND t.id > $2 /* after */ ORDER BY t.id LIMIT $3 /* limit */"
        );
        Ok(self.rows("tasks_abandoned", &sql, &[&before, &after, &limit]).await?.iter().map(task).collect())
    }

    /// How many tasks ended so long before `before` that they should not be there any more.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn count_expired_tasks(&self, before: OffsetDateTime, time_to_live: Duration) -> Result<i64, Error> {
        let sql = "-- tasks_expired\n\
            SELECT count(*) FROM tasks WHERE status IN ('success', 'failure') AND updated_at < $1::timestamptz /* before */ - make_interval(secs => $2 /* time_to_live_s */)";
        let rows = self.rows("tasks_expired", sql, &[&before, &time_to_live.as_secs_f64()]).await?;
        Ok(rows.first().map_or(0, |row| row.get(0)))
    }
}

impl Tx {
    /// Whether some image refers to a URL, whose lock is held.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn is_referred(&self, url: &str) -> Result<bool, Error> {
        let sql = "-- url_referred\nSELECT FROM image_locations WHERE url = $1 /* url */ LIMIT 1";
        Ok(!self.rows(sql, &[&url]).await?.is_empty())
    }

    /// Whether an id is or was that of an image of this catalog.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn is_reserved(&self, id: ImageId) -> Result<bool, Error> {
        let sql = "-- image_id_reserved\nSELECT FROM image_ids WHERE id = $1 /* id */";
        Ok(!self.rows(sql, &[&id.uuid()]).await?.is_empty())
    }

    /// Whether any job is about an image.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn is_worked_on(&self, image: ImageId) -> Result<bool, Error> {
        let sql = "-- image_worked_on\nSELECT FROM jobs WHERE image_id = $1 /* image_id */ LIMIT 1";
        Ok(!self.rows(sql, &[&image.uuid()]).await?.is_empty())
    }

    /// Says when an image that is restored last changed.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn set_updated_at(&self, id: ImageId, at: OffsetDateTime) -> Result<(), Error> {
        let sql = "-- image_updated_at\nUPDATE images SET updated_at = $2 /* updated_at */ WHERE id = $1 /* id */";
        self.execute(sql, &[&id.uuid(), &at]).await.map(drop)
    }

    /// Ends a task, as a failure, if it still does not move and no job works on it. `false`: it does.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn abandon_task(&self, id: Uuid, before: OffsetDateTime, why: &str) -> Result<bool, Error> {
        let sql = format!(
            "-- task_abandon\nUPDATE tasks t SET status = 'failure', message = $3 /* message */, updated_at = now()\n\
             WHERE t.id = $2 /* id */ AND {ABANDONED}"
        );
        Ok(self.execute(&sql, &[&before, &id, &why]).await? == 1)
    }
}
