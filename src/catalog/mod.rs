//! What is known about images: the only place with SQL.
//!
//! Every statement starts with `-- its_name`, so that `pg_stat_statements`, logs and diffs can be
//! read. Reads are single statements and are repeated once when their connection turns out to be
//! lost; writes run in a [`Tx`] and are repeated only up to its `BEGIN`. No connection is held while
//! bytes of an image stream.

mod audit;
mod config;
mod connect;
mod error;
mod events;
mod figures;
mod images;
mod images_list;
mod locations;
mod members;
mod metadefs;
mod migrate;
mod queue;
mod scrubs;
mod tasks;
mod tx;
mod usage;

use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{NoTls, Row};

pub use audit::{OverdueJob, StrayTask};
pub use config::{Config, Tls};
pub use error::Error;
pub use figures::{Connections, ImageFigures, JobFigures};
pub use metadefs::{Existing, Part};
pub use migrate::{SCHEMA_VERSION, SchemaState};
pub use queue::{Charge, Job, JobKind, Lease, NewJob, Rivals};
pub use scrubs::Scrub;
pub use tasks::NewTask;
pub use tx::Tx;

use connect::OneByOne;

/// How often the cheap bookkeeping of the catalog runs at most; see [`Catalog::prune_events`].
const EVENTS_PRUNED_PER_CALL: i64 = 10_000;

/// Handle to the catalog; cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    pool: Pool,
    query_timeout: Duration,
}

type Param<'a> = &'a (dyn ToSql + Sync);

/// The parameters of a reading statement, and with them how it is run.
#[derive(Clone, Copy)]
enum Params<'a> {
    /// The statement stays prepared on its connection: for the few that are always the same.
    Prepared(&'a [Param<'a>]),
    /// It is parsed, planned for these values and run in one round trip, for which the types must be known.
    Typed(&'a [(Param<'a>, Type)]),
}

impl Catalog {
    /// Prepares the pool; connects nowhere yet.
    ///
    /// # Errors
    /// [`Error::Config`] when the URL, the password file or the CA file cannot be used.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let postgres = config.postgres()?;
        let recycle = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let hosts = config.hosts()?;
        let limit = Duration::from_secs(config.connect_timeout_s);
        // A little more than the hosts need, so that the last one's own failure is what is reported.
        let all_hosts = limit * u32::try_from(hosts.len()).unwrap_or(1) + Duration::from_secs(1);
        let manager = match config.rustls()? {
            None => Manager::from_connect(postgres, OneByOne { hosts, tls: NoTls, limit }, recycle),
            Some(tls) => {
                let tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls);
                Manager::from_connect(postgres, OneByOne { hosts, tls, limit }, recycle)
            }
        };
        let wait = Duration::from_secs(config.acquire_timeout_s);
        let pool = Pool::builder(manager)
            .max_size(config.pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(wait))
            .create_timeout(Some(all_hosts))
            .recycle_timeout(Some(wait))
            .build()
            .map_err(|e| Error::Config(e.to_string()))?;
        Ok(Self { pool, query_timeout: Duration::from_secs(config.statement_timeout_s) })
    }

    /// One round trip to the database.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        self.rows("ping", "-- ping\nSELECT 1", &[]).await?;
        Ok(start.elapsed())
    }

    /// Starts a transaction; `name` shows in errors.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no working connection can be had.
    pub async fn begin(&self, name: &'static str) -> Result<Tx, Error> {
        // Pooled connections may have died unseen, all of them: nothing has happened yet, so try others.
        let mut tries = self.pool.status().size + 1;
        loop {
            match Tx::begin(self.client().await?, name, self.query_timeout).await {
                Err(error) if error.is_connection_loss() && tries > 0 => tries -= 1,
                done => return done,
            }
        }
    }

    async fn client(&self) -> Result<Object, Error> {
        self.pool.get().await.map_err(Error::from)
    }

    /// Runs one reading statement; once more on a fresh connection when the first one is lost.
    async fn rows(&self, name: &'static str, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        self.read(name, sql, Params::Prepared(params)).await
    }

    async fn read(&self, name: &'static str, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let mut tries = self.pool.status().size + 1;
        loop {
            match self.read_once(name, sql, params).await {
                Err(error) if error.is_connection_loss() && tries > 0 => tries -= 1,
                done => return done,
            }
        }
    }

    async fn read_once(&self, name: &'static str, sql: &str, params: Params<'_>) -> Result<Vec<Row>, Error> {
        let client = self.client().await?;
        let work = async {
            match params {
                Params::Prepared(params) => {
                    let statement = client.prepare_cached(sql).await?;
                    client.query(&statement, params).await
                }
                Params::Typed(params) => client.query_typed(sql, params).await,
            }
        };
        match tokio::time::timeout(self.query_timeout, work).await {
            Ok(result) => result.map_err(|e| Error::query(name, e)),
            Err(_) => {
                // The answer may still come: nobody else must get this connection.
                drop(Object::take(client));
                Err(Error::Unavailable(format!(
                    "{name}: no answer from Postgres within {} s",
                    self.query_timeout.as_secs()
                )))
            }
        }
    }
}
