//! `[stores.NAME]`: what every store has, and what its kind needs.

use std::sync::Arc;

use serde::Deserialize;

use super::http::{HttpConfig, HttpStore};
use super::object::{self, ObjectStore};
use super::{Store, rbd};
use crate::fetch::Fetcher;
use crate::telemetry::Telemetry;

/// Kind of a store, by Glance's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A pool of RBD images.
    #[default]
    Rbd,
    /// A folder.
    File,
    /// A bucket of an S3 server.
    S3,
    /// A container of Swift.
    Swift,
    /// Whatever servers of http and https have; only read.
    Http,
}

impl Kind {
    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rbd => "rbd",
            Self::File => "file",
            Self::S3 => "s3",
            Self::Swift => "swift",
            Self::Http => "http",
        }
    }
}

/// What every store has, whatever its kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Common {
    /// The NAME of its section, in an image's `stores`.
    #[serde(skip)]
    pub name: String,
    /// Kind.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What people read in the list of stores (`store_description`).
    pub description: Option<String>,
    /// Copies in the store with the larger weight are read first (`weight`).
    pub weight: i64,
    /// Whether nothing is written to it and nothing removed from it.
    pub read_only: bool,
}

impl Common {
    /// Names of the options; all others are the kind's.
    pub const OPTIONS: [&str; 4] = ["type", "description", "weight", "read_only"];
}

/// One store.
#[derive(Debug, Clone)]
pub struct Config {
    /// What every store has.
    pub common: Common,
    /// What its kind needs.
    pub specific: Specific,
}

/// Options of the kinds.
#[derive(Debug, Clone)]
pub enum Specific {
    /// [`Kind::Rbd`].
    Rbd(rbd::Config),
    /// [`Kind::File`].
    File(object::FileConfig),
    /// [`Kind::S3`].
    S3(object::S3Config),
    /// [`Kind::Swift`].
    Swift(object::SwiftConfig),
    /// [`Kind::Http`].
    Http(HttpConfig),
}

impl Config {
    /// Everything that is wrong with the section, in sentences; looks at files.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        match &self.specific {
            Specific::Rbd(config) => config.problems(&self.common.name),
            Specific::File(config) => config.problems(&self.common.name),
            Specific::S3(config) => config.problems(&self.common.name),
            Specific::Swift(config) => config.problems(&self.common.name),
            Specific::Http(HttpConfig {}) => Vec::new(),
        }
    }

    /// Prepares the store; connects nowhere yet. What comes from other people's servers comes by `fetcher`.
    #[must_use]
    pub fn build(&self, fetcher: &Arc<Fetcher>, telemetry: &Arc<Telemetry>) -> Arc<dyn Store> {
        let meter = telemetry.store(&self.common.name);
        match &self.specific {
            Specific::Rbd(config) => Arc::new(rbd::RbdStore::new(&self.common, config, meter)),
            Specific::File(config) => Arc::new(ObjectStore::file(&self.common, config)),
            Specific::S3(config) => Arc::new(ObjectStore::s3(&self.common, config, meter)),
            Specific::Swift(config) => Arc::new(ObjectStore::swift(&self.common, config, meter)),
            Specific::Http(HttpConfig {}) => Arc::new(HttpStore::new(&self.common, fetcher)),
        }
    }
}
