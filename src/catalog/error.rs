//! What can go wrong in the catalog.

use deadpool_postgres::PoolError;
use tokio_postgres::error::SqlState;

/// How the codes of values begin that do not fit.
const DATA_EXCEPTIONS: &str = "22";

/// Failure of a catalog call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres cannot be reached, or does not answer in time.
    #[error("the catalog is unavailable: {0}")]
    Unavailable(String),
    /// The connection to Postgres broke; another one may do better at once.
    #[error("the connection to the catalog was lost: {0}")]
    ConnectionLost(String),
    /// A row with that key exists already; the text is the constraint's name.
    #[error("{0} exists already")]
    Exists(String),
    /// The state asked for was not there any more: somebody else was faster.
    #[error("{0}: the row changed in the meantime")]
    Conflict(&'static str),
    /// The catalog contradicts itself.
    #[error("the catalog is inconsistent: {table} {row}: {what}")]
    Inconsistent {
        /// Table.
        table: &'static str,
        /// Key of the row.
        row: String,
        /// What is wrong with it.
        what: String,
    },
    /// A value that Postgres cannot hold, which nobody noticed before: U+0000, too large a number, too long a text.
    #[error("catalog statement {name} has a value that cannot be stored: {what}")]
    Unstorable {
        /// Name of the statement.
        name: &'static str,
        /// What Postgres said.
        what: String,
    },
    /// Postgres refused a statement.
    #[error("catalog statement {name} failed: {source}")]
    Query {
        /// Name of the statement.
        name: &'static str,
        /// What Postgres said.
        source: tokio_postgres::Error,
    },
    /// The schema is not the one this program knows.
    #[error("{0}")]
    Schema(String),
    /// The configuration of the catalog cannot be used.
    #[error("{0}")]
    Config(String),
}

impl Error {
    pub(super) fn query(name: &'static str, source: tokio_postgres::Error) -> Self {
        match source.code() {
            Some(code) if *code == SqlState::UNIQUE_VIOLATION => {
                let constraint = source.as_db_error().and_then(|e| e.constraint()).unwrap_or("row");
                Self::Exists(constraint.to_owned())
            }
            // Two that change each other's rows: one of them has to give way.
            Some(code) if *code == SqlState::T_R_DEADLOCK_DETECTED => Self::Conflict(name),
            Some(code)
                if [
                    SqlState::ADMIN_SHUTDOWN,
                    SqlState::CRASH_SHUTDOWN,
                    SqlState::CANNOT_CONNECT_NOW,
                    SqlState::READ_ONLY_SQL_TRANSACTION,
                    SqlState::TOO_MANY_CONNECTIONS,
                ]
                .contains(code) =>
            {
                Self::ConnectionLost(format!("{name}: {source}"))
            }
            Some(code) if *code == SqlState::QUERY_CANCELED => Self::Unavailable(format!("{name}: {source}")),
            Some(code) if code.code().starts_with(DATA_EXCEPTIONS) => {
                let what = source.as_db_error().map_or_else(|| source.to_string(), |e| e.message().to_owned());
                Self::Unstorable { name, what }
            }
            Some(_) => Self::Query { name, source },
            None if source.is_closed() || is_io(&source) => Self::ConnectionLost(format!("{name}: {source}")),
            None => Self::Query { name, source },
        }
    }

    /// Whether the connection is to blame, so that another one may do better at once. A database that does
    /// not answer in time is no such case: asking again would only double the wait.
    pub(super) fn is_connection_loss(&self) -> bool {
        matches!(self, Self::ConnectionLost(_))
    }

    /// Whether the outcome is unknown, and the same may be tried again later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::ConnectionLost(_))
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<std::io::Error>())
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(_) => Self::Unavailable(
                "no connection became free in time (catalog.acquire_timeout_s, catalog.pool_size)".into(),
            ),
            // Refused or broken off: seldom twice in a row, unless there is no database.
            PoolError::Backend(source) => Self::ConnectionLost(describe(&source)),
            PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
                Self::Unavailable(error.to_string())
            }
        }
    }
}

/// The message of a connection failure with its cause, which tokio-postgres leaves out.
fn describe(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) if !error.to_string().contains(&source.to_string()) => format!("{error}: {source}"),
        Some(_) | None => error.to_string(),
    }
}
