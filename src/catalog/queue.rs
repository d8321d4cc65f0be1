//! Jobs and their leases.
//!
//! A job is work that must end one way or the other although any gateway may die at any moment. Whoever
//! holds its lease does it; who does not renew in time has lost it, and the next gateway takes over.
//! Times are the database's. The token grows with every change of owner, and every statement that acts
//! for a job names the token: a holder that was replaced changes nothing any more.

use std::time::Duration;

use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Catalog, Error, Tx};
use crate::domain::id::ImageId;
use crate::domain::status::Transition;

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Bytes are being received; undone or finished by whoever holds the lease.
    Upload,
    /// The data of a deleted image is being removed.
    Delete,
    /// The image metadata in the store is behind the record.
    Describe,
    /// Bytes that somebody else put into the store are being hashed.
    Locate,
    /// The data of a location that an image has no more is being removed.
    Unlocate,
    /// Bytes that an import will read are being received, are there, or are being removed.
    Stage,
    /// An image is being filled for a client that does not wait.
    Import,
}

impl JobKind {
    /// Those that end soon.
    pub const SHORT: &[Self] = &[Self::Upload, Self::Delete, Self::Describe, Self::Unlocate, Self::Stage];
    /// Those that read whole images.
    pub const LONG: &[Self] = &[Self::Locate, Self::Import];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Delete => "delete",
            Self::Describe => "describe",
            Self::Locate => "locate",
            Self::Unlocate => "unlocate",
            Self::Stage => "stage",
            Self::Import => "import",
        }
    }
}

/// The right to act for a job, until it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The job.
    pub job: Uuid,
    /// Fencing token.
    pub token: i64,
}

/// A job whose lease this gateway has just taken.
#[derive(Debug, Clone)]
pub struct Job {
    /// The right to act for it.
    pub lease: Lease,
    /// What it does.
    pub kind: JobKind,
    /// The image it is about.
    pub image: ImageId,
    /// How far it has come; meaning depends on the kind.
    pub state: String,
    /// What it needs to know; meaning depends on the kind.
    pub payload: Value,
    /// How often it has been taken up before.
    pub attempts: i32,
}

/// A job to be recorded.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// Identifier; chosen by the caller because names in the store carry it.
    pub id: Uuid,
    /// What it does.
    pub kind: JobKind,
    /// The image it is about.
    pub image: ImageId,
    /// Where it starts.
    pub state: &'static str,
    /// What it needs to know.
    pub payload: &'a Value,
    /// Who holds the lease; `None` leaves it to the first gateway that looks.
    pub owner: Option<&'a str>,
    /// How long the first lease lasts.
    pub lease: Duration,
    /// What it uses of a project's room.
    pub charge: Option<Charge<'a>>,
}

/// Room that a job uses in the name of a project while it writes, commits or retires data; given back by
/// every way in which that ends.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// The project: the image's owner.
    pub project: &'a str,
    /// Bytes.
    pub bytes: u64,
}

fn job(row: &Row) -> Result<Job, Error> {
    let id: Uuid = row.get("id");
    let name: String = row.get("kind");
    let kind =
        [JobKind::SHORT, JobKind::LONG].concat().into_iter().find(|kind| kind.as_str() == name).ok_or_else(|| {
            Error::Inconsistent { table: "jobs", row: id.to_string(), what: format!("unknown kind {name}") }
        })?;
    Ok(Job {
        lease: Lease { job: id, token: row.get("lease_token") },
        kind,
        image: ImageId::from(row.get::<_, Uuid>("image_id")),
        state: row.get("state"),
        payload: row.get("payload"),
        attempts: row.get("attempts"),
    })
}

/// Uploads beside one that has no room.
#[derive(Debug, Clone, Copy)]
pub struct Rivals {
    /// What they have reserved.
    pub bytes: u64,
    /// How many of them began after it.
    pub younger: u32,
}

/// More than Postgres can count is more than any limit allows.
fn bigint(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl Tx {
    /// Records a job.
    ///
    /// # Errors
    /// [`Error::Exists`] when another upload of the image is under way.
    pub async fn enqueue(&self, job: &NewJob<'_>) -> Result<Lease, Error> {
        let sql = "-- job_insert\n\
            INSERT INTO jobs (id, kind, image_id, state, payload, lease_owner, lease_expires_at, charged_to, charged_bytes)\n\
            VALUES ($1 /* id */, $2 /* kind */, $3 /* image_id */, $4 /* state */, $5 /* payload */, $6 /* lease_owner */, now() + make_interval(secs => $7 /* lease_s */),\n\
              $8 /* charged_to */, $9 /* charged_bytes */)";
        self.execute(
            sql,
            &[
                &job.id,
                &job.kind.as_str(),
                &job.image.uuid(),
                &job.state,
                job.payload,
                &job.owner,
                &job.lease.as_secs_f64(),
                &job.charge.map(|charge| charge.project),
                &job.charge.map_or(0, |charge| bigint(charge.bytes)),
            ],
        )
        .await?;
        Ok(Lease { job: job.id, token: 1 })
    }

    /// Leaves word that the description beside an image's data is behind its record, for the first gateway
    /// that looks.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn leave_describe_job(&self, image: ImageId) -> Result<(), Error> {
        let payload = Value::Object(serde_json::Map::new());
        let job = NewJob {
            id: Uuid::new_v4(),
            kind: JobKind::Describe,
            image,
            state: "waiting",
            payload: &payload,
            owner: None,
            lease: Duration::ZERO,
            charge: None,
        };
        self.enqueue(&job).await.map(drop)
    }

    /// Notes how far a job has come. `false`: the lease is lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn job_progress(&self, lease: Lease, state: &'static str, payload: &Value) -> Result<bool, Error> {
        let sql = "-- job_progress\n\
            UPDATE jobs SET state = $3 /* state */, payload = $4 /* payload */\n\
            WHERE id = $1 /* id */ AND lease_token = $2 /* lease_token */";
        Ok(self.execute(sql, &[&lease.job, &lease.token, &state, payload]).await? == 1)
    }

    /// Sets what an upload has reserved. `false`: the lease is lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn charge_job(&self, lease: Lease, bytes: u64) -> Result<bool, Error> {
        let sql = "-- job_charge\nUPDATE jobs SET charged_bytes = $3 /* charged_bytes */ WHERE id = $1 /* id */ AND lease_token = $2 /* lease_token */";
        Ok(self.execute(sql, &[&lease.job, &lease.token, &bigint(bytes)]).await? == 1)
    }

    /// The other uploads that are using a project's room while this one does.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn rivals(&self, project: &str, lease: Lease) -> Result<Rivals, Error> {
        let sql = "-- job_rivals\n\
            SELECT coalesce(sum(o.charged_bytes), 0)::bigint, count(*) FILTER (WHERE (o.created_at, o.id) > (j.created_at, j.id)) FROM jobs j, jobs o\n\
            WHERE j.id = $2 /* id */ AND o.id <> j.id AND o.charged_to = $1 /* charged_to */ AND o.state = j.state";
        let rows = self.rows(sql, &[&project, &lease.job]).await?;
        let number = |n| rows.first().map_or(0, |row| row.get::<_, i64>(n));
        Ok(Rivals {
            bytes: u64::try_from(number(0)).unwrap_or(0),
            younger: u32::try_from(number(1)).unwrap_or(u32::MAX),
        })
    }

    /// Moves an image whose upload holds `lease` back to where the upload began and notes why, unless that has
    /// been done: a later upload of the same image is none of this one's business.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn abort_upload(
        &self,
        id: ImageId,
        lease: Lease,
        transition: &Transition,
        live: &[&str],
        why: &str,
    ) -> Result<(), Error> {
        let sql = "-- upload_abort\n\
            UPDATE images SET status = $2 /* status */, upload_failure = $7 /* upload_failure */, updated_at = now(), version = version + 1\n\
            WHERE id = $1 /* id */ AND status = ANY($3 /* from */)\n\
              AND EXISTS (SELECT FROM jobs WHERE id = $4 /* id */ AND lease_token = $5 /* lease_token */ AND state = ANY($6 /* state */))";
        self.execute(
            sql,
            &[&id.uuid(), &transition.to.as_str(), &transition.from_names(), &lease.job, &lease.token, &live, &why],
        )
        .await
        .map(drop)
    }

    /// Moves a job to another state. `false`: the lease is lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn set_job_state(&self, lease: Lease, state: &'static str) -> Result<bool, Error> {
        let sql = "-- job_state\nUPDATE jobs SET state = $3 /* state */ WHERE id = $1 /* id */ AND lease_token = $2 /* lease_token */";
        Ok(self.execute(sql, &[&lease.job, &lease.token, &state]).await? == 1)
    }

    /// Moves a job from one state to the next. `false`: the lease is lost, or it has been done.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn advance_job(&self, lease: Lease, from: &'static str, to: &'static str) -> Result<bool, Error> {
        let sql = "-- job_advance\n\
            UPDATE jobs SET state = $4 /* to */ WHERE id = $1 /* id */ AND lease_token = $2 /* lease_token */ AND state = $3 /* from */";
        Ok(self.execute(sql, &[&lease.job, &lease.token, &from, &to]).await? == 1)
    }

    /// Lets a job wait in a state that needs nobody, for `pause` at most; it reserves nothing any more. `false`: the
    /// lease is lost.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn park_job(
        &self,
        lease: Lease,
        state: &'static str,
        payload: &Value,
        pause: Duration,
    ) -> Result<bool, Error> {
        let sql = "-- job_park\n\
            UPDATE jobs SET state = $3 /* state */, payload = $4 /* payload */, lease_owner = NULL, charged_bytes = 0, attempts = 0,\n\
              lease_token = lease_token + 1, lease_expires_at = now() + make_interval(secs => $5 /* pause_s */)\n\
            WHERE id = $1 /* id */ AND lease_token = $2 /* lease_token */";
        Ok(self.execute(sql, &[&lease.job, &lease.token, &state, payload, &pause.as_secs_f64()]).await? == 1)
    }

    /// The job of this kind and state that waits for an image, and what it carries. The image is locked by the caller.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn parked_job(&self, image: ImageId, kind: JobKind, state: &str) -> Result<Option<(Uuid, Value)>, Error> {
        let sql = "-- job_parked\nSELECT id, payload FROM jobs WHERE image_id = $1 /* image_id */ AND kind = $2 /* kind */ AND state = $3 /* state */ FOR UPDATE";
        let rows = self.rows(sql, &[&image.uuid(), &kind.as_str(), &state]).await?;
        Ok(rows.first().map(|row| (row.get(0), row.get(1))))
    }

    /// Moves a job that waits to another state, and ends its waiting: the next gateway that looks takes it up.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn wake_job(&self, id: Uuid, from: &str, to: &str) -> Result<(), Error> {
        let sql = "-- job_wake\n\
            UPDATE jobs SET state = $3 /* to */, lease_owner = NULL, lease_token = lease_token + 1, lease_expires_at = now()\n\
            WHERE id = $1 /* id */ AND state = $2 /* from */";
        self.execute(sql, &[&id, &from, &to]).await.map(drop)
    }

    /// Ends the waiting of an image's imports and of what was staged for it: it is deleted.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn wake_imports(&self, image: ImageId) -> Result<(), Error> {
        let sql = "-- job_wake_imports\n\
            UPDATE jobs SET lease_expires_at = now() WHERE image_id = $1 /* image_id */ AND kind IN ('stage', 'import') AND lease_owner IS NULL";
        self.execute(sql, &[&image.uuid()]).await.map(drop)
    }

    /// Ends a job. `false`: the lease is lost, and the job is somebody else's.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn finish_job(&self, lease: Lease) -> Result<bool, Error> {
        let sql = "-- job_finish\nDELETE FROM jobs WHERE id = $1 /* id */ AND lease_token = $2 /* lease_token */";
        Ok(self.execute(sql, &[&lease.job, &lease.token]).await? == 1)
    }
}

impl Catalog {
    /// Extends a lease. `false`: it is lost, or the image of an upload or a hashing has been deleted: stop.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn renew(&self, lease: Lease, duration: Duration) -> Result<bool, Error> {
        let sql = "-- job_renew\n\
            UPDATE jobs j SET lease_expires_at = now() + make_interval(secs => $3 /* lease_s */)\n\
            WHERE j.id = $1 /* id */ AND j.lease_token = $2 /* lease_token */\n\
              AND NOT ((j.kind IN ('upload', 'import') AND j.state = 'writing' OR j.kind = 'stage' AND j.state = 'staging') AND EXISTS (SELECT FROM images i WHERE i.id = j.image_id AND i.status = 'deleted'))\n\
              AND NOT (j.kind = 'locate' AND NOT EXISTS (SELECT FROM images i WHERE i.id = j.image_id AND i.status <> 'deleted'))\n\
            RETURNING 1";
        // Renewing twice does no harm, so a lost connection may be retried like a read.
        let rows = self.rows("job_renew", sql, &[&lease.job, &lease.token, &duration.as_secs_f64()]).await?;
        Ok(!rows.is_empty())
    }

    /// Takes over one job of these kinds whose lease has run out, the one that has waited longest.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn take_expired_job(
        &self,
        kinds: &[JobKind],
        owner: &str,
        duration: Duration,
    ) -> Result<Option<Job>, Error> {
        let kinds: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let sql = "-- job_take\n\
            UPDATE jobs SET lease_owner = $1 /* lease_owner */, lease_token = lease_token + 1, attempts = attempts + 1,\n\
              lease_expires_at = now() + make_interval(secs => $2 /* lease_s */)\n\
            WHERE id = (SELECT id FROM jobs WHERE lease_expires_at < now() AND kind = ANY($3 /* kind */) ORDER BY lease_expires_at LIMIT 1 FOR UPDATE SKIP LOCKED)\n\
            RETURNING id, kind, image_id, state, payload, attempts, lease_token";
        // Taken twice because of a lost answer, the first taking merely runs out.
        let rows = self.rows("job_take", sql, &[&owner, &duration.as_secs_f64(), &kinds]).await?;
        rows.first().map(job).transpose()
    }

    /// A job that `owner` has the lease of, to be gone on with.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn own_job(&self, id: Uuid, owner: &str) -> Result<Option<Job>, Error> {
        let sql = "-- job_own
            SELECT id, kind, image_id, state, payload, attempts, lease_token FROM jobs
            WHERE id = $1 /* id */ AND lease_owner = $2 /* lease_owner */ AND lease_expires_at > now()";
        let rows = self.rows("job_own", sql, &[&id, &owner]).await?;
        rows.first().map(job).transpose()
    }

    /// Gives a job back, to be taken again after `pause`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn postpone_job(&self, lease: Lease, pause: Duration, reason: &str) -> Result<(), Error> {
        let sql = "-- job_postpone\n\
            UPDATE jobs SET lease_owner = NULL, lease_expires_at = now() + make_interval(secs => $3 /* pause_s */), last_error = $4 /* last_error */\n\
            WHERE id = $1 /* id */ AND lease_token = $2 /* lease_token */ RETURNING 1";
        self.rows("job_postpone", sql, &[&lease.job, &lease.token, &pause.as_secs_f64(), &reason]).await.map(drop)
    }
}
