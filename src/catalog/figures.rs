//! Figures for `/metrics`: what is there, counted. Nobody waits for them.

use time::OffsetDateTime;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Catalog, Error};

/// The jobs of one kind and state.
#[derive(Debug, Clone)]
pub struct JobFigures {
    /// Kind.
    pub kind: String,
    /// State.
    pub state: String,
    /// How many there are.
    pub count: i64,
    /// Those whose lease the gateway that asks holds.
    pub held: i64,
    /// Those whose lease has run out, or that wait: any gateway may take them up.
    pub due: i64,
    /// Those that were tried and put off.
    pub failing: i64,
    /// Age of the oldest, in seconds.
    pub oldest_s: f64,
}

/// Connections to Postgres at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Most that there may be.
    pub max: usize,
    /// Those that are open.
    pub size: usize,
    /// Those that nobody uses.
    pub idle: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// One image.
#[derive(Debug, Clone)]
pub struct ImageFigures {
    /// Id.
    pub id: String,
    /// Name, empty without one.
    pub name: String,
    /// Owner, empty without one.
    pub owner: String,
    /// Length of the data, if there is any.
    pub size_bytes: Option<i64>,
    /// Visibility.
    pub visibility: String,
    /// Whether it is hidden.
    pub hidden: bool,
    /// Status.
    pub status: String,
    /// When its record was made.
    pub created_at: OffsetDateTime,
}

impl From<&Row> for ImageFigures {
    fn from(row: &Row) -> Self {
        let text = |name: &str| row.get::<_, Option<String>>(name).unwrap_or_default();
        Self {
            id: row.get::<_, Uuid>("id").to_string(),
            name: text("name"),
            owner: text("owner"),
            size_bytes: row.get("size_bytes"),
            visibility: text("visibility"),
            hidden: row.get("hidden"),
            status: text("status"),
            created_at: row.get("created_at"),
        }
    }
}

impl Catalog {
    /// The jobs there are, as the gateway called `owner` sees them.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn job_figures(&self, owner: &str) -> Result<Vec<JobFigures>, Error> {
        let sql = "-- job_figures\n\
            SELECT kind, state, count(*), count(*) FILTER (WHERE lease_owner = $1 /* lease_owner */ AND lease_expires_at > now()),\n\
              count(*) FILTER (WHERE lease_expires_at <= now()), count(*) FILTER (WHERE last_error IS NOT NULL),\n\
              extract(epoch FROM now() - min(created_at))::float8\n\
            FROM jobs GROUP BY kind, state";
        let rows = self.rows("job_figures", sql, &[&owner]).await?;
        let figures = |row: &Row| JobFigures {
            kind: row.get(0),
            state: row.get(1),
            count: row.get(2),
            held: row.get(3),
            due: row.get(4),
            failing: row.get(5),
            oldest_s: row.get(6),
        };
        Ok(rows.iter().map(figures).collect())
    }

    /// How many images there are, and the newest `limit` of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn image_figures(&self, limit: usize) -> Result<(i64, Vec<ImageFigures>), Error> {
        let sql = "-- image_count\nSELECT count(*) FROM images WHERE status <> 'deleted'";
        let counted = self.rows("image_count", sql, &[]).await?;
        let sql = "-- image_figures\n\
            SELECT id, name, owner, size_bytes, visibility, hidden, status, created_at FROM images\n\
            WHERE status <> 'deleted' ORDER BY created_at DESC, id LIMIT $1 /* limit */";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.rows("image_figures", sql, &[&limit]).await?;
        Ok((counted.first().map_or(0, |row| row.get(0)), rows.iter().map(ImageFigures::from).collect()))
    }

    /// How the connections stand. Asks nobody.
    #[must_use]
    pub fn connections(&self) -> Connections {
        let status = self.pool.status();
        Connections { max: status.max_size, size: status.size, idle: status.available, waiting: status.waiting }
    }
}
