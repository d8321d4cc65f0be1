//! `[stores.NAME]`: how to reach a pool of RBD images.

use std::path::PathBuf;
use std::time::Duration;

use ceph::{ClusterConfig, Kind, Observer};
use serde::Deserialize;

use crate::telemetry::StoreMeter;

/// One RBD store; the counterparts of Glance's `rbd_store_*` options.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Configuration file of the cluster (`rbd_store_ceph_conf`).
    #[serde(default = "default_ceph_conf")]
    pub ceph_conf: PathBuf,
    /// cephx user without `client.` (`rbd_store_user`).
    pub user: String,
    /// Its keyring; without it, the one that `ceph_conf` names.
    #[serde(default)]
    pub keyring: Option<PathBuf>,
    /// Pool of the images (`rbd_store_pool`).
    #[serde(default = "default_pool")]
    pub pool: String,
    /// Pool for the data of new images, for instance an erasure-coded one; metadata stays in `pool`.
    #[serde(default)]
    pub data_pool: Option<String>,
    /// Size of the RADOS objects of new images in MiB, a power of two (`rbd_store_chunk_size`).
    #[serde(default = "default_chunk_size_mib")]
    pub chunk_size_mib: u64,
    /// Longest wait for a connection, in seconds. librados itself would wait for ever.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: u64,
    /// Longest wait for one operation, in seconds. A write may take twice, closing three times that
    /// (`rados_osd_op_timeout`).
    #[serde(default = "default_op_timeout_s")]
    pub op_timeout_s: u64,
}

fn default_ceph_conf() -> PathBuf {
    PathBuf::from("/etc/ceph/ceph.conf")
}
fn default_pool() -> String {
    "images".into()
}
fn default_chunk_size_mib() -> u64 {
    8
}
fn default_connect_timeout_s() -> u64 {
    10
}
fn default_op_timeout_s() -> u64 {
    30
}

/// Largest object that RBD makes (order 25).
const CHUNK_SIZE_MIB_MAX: u64 = 32;

impl Config {
    /// Everything that is wrong with the section of store `name`, in sentences; looks at the files.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.chunk_size_mib.is_power_of_two() || self.chunk_size_mib > CHUNK_SIZE_MIB_MAX {
            problems.push(format!(
                "stores.{name}.chunk_size_mib must be a power of two up to {CHUNK_SIZE_MIB_MAX}, not {}",
                self.chunk_size_mib
            ));
        }
        for (key, text) in [("user", &self.user), ("pool", &self.pool)] {
            if text.is_empty() {
                problems.push(format!("stores.{name}.{key} must not be empty"));
            }
        }
        if self.user.starts_with("client.") {
            problems.push(format!(
                "stores.{name}.user is the name without 'client.': \"{}\"",
                self.user.trim_start_matches("client.")
            ));
        }
        for (key, seconds) in [("connect_timeout_s", self.connect_timeout_s), ("op_timeout_s", self.op_timeout_s)] {
            if seconds == 0 {
                problems.push(format!("stores.{name}.{key} must be at least 1: 0 would mean to wait for ever"));
            }
        }
        for (key, path) in [("ceph_conf", Some(&self.ceph_conf)), ("keyring", self.keyring.as_ref())] {
            if let Some(path) = path
                && let Err(error) = std::fs::File::open(path)
            {
                problems.push(format!("stores.{name}.{key} {} cannot be read: {error}", path.display()));
            }
        }
        problems
    }

    pub(super) fn cluster(&self, meter: StoreMeter) -> ClusterConfig {
        ClusterConfig {
            conf: self.ceph_conf.clone(),
            user: self.user.clone(),
            keyring: self.keyring.clone(),
            connect_timeout: Duration::from_secs(self.connect_timeout_s),
            op_timeout: Duration::from_secs(self.op_timeout_s),
            observer: Observer::new(move |call, time, error| meter.operation(call, time, error.map(Kind::as_str))),
        }
    }

    /// log2 of the object size in bytes: 23 for 8 MiB.
    pub(super) fn order(&self) -> u8 {
        u8::try_from((self.chunk_size_mib * 1024 * 1024).trailing_zeros()).unwrap_or(23)
    }
}
