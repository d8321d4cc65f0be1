//! Metadata definitions.
//!
//! Rows come as JSON and are read by the types of `domain::metadef`: a namespace with all that it holds is one
//! statement. Every change of what a namespace holds is made under the namespace's row lock.

mod namespaces;
mod parts;

use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

pub use parts::{Existing, Part};

use super::Error;
use crate::domain::query::Scope;

/// The project whose private namespaces are in scope; none stands for all projects.
fn project(scope: &Scope) -> Option<&str> {
    match scope {
        Scope::Everything(_) => None,
        Scope::Project(project) => Some(project),
    }
}

/// A JSON column; where there is nothing to aggregate it is NULL, the default.
fn decode<T: DeserializeOwned + Default>(row: &Row, table: &'static str, column: &str) -> Result<T, Error> {
    row.try_get::<_, Option<Json<T>>>(column)
        .map(|value| value.map(|json| json.0).unwrap_or_default())
        .map_err(|error| Error::Inconsistent { table, row: column.to_owned(), what: describe(&error) })
}

fn describe(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
