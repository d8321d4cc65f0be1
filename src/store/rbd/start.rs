//! What a start-up finds out, and what it advises.

use ceph::{CreateOptions, Kind};
use uuid::Uuid;

use super::{RbdStore, STARTUP_CHECK_PREFIX};

impl RbdStore {
    /// Makes sure that the cluster can be reached, that the pool is there, and that its user may do what
    /// an upload does: by making an empty RBD image and removing it.
    pub(super) async fn try_out(&self) -> Result<(), String> {
        let (store, pool_name) = (&self.common.name, &self.pool_name);
        let user = &self.connection.config().user;
        let cluster = self.connection.current().await.map_err(|e| {
            let advice = match e.kind() {
                Kind::Denied => format!("the cluster does not accept the key of client.{user}: compare the keyring with `ceph auth get client.{user}`"),
                Kind::NotFound => format!("a file is missing or names nothing: check stores.{store}.ceph_conf, and that stores.{store}.keyring holds a key for client.{user}"),
                Kind::TimedOut => "no monitor answers: check mon_host in the ceph.conf, and that the monitors run".to_owned(),
                _ => "check the ceph.conf and the keyring".to_owned(),
            };
            format!("store {store}: the Ceph cluster cannot be reached: {e}; {advice}")
        })?;
        let pool = cluster.pool(pool_name).await.map_err(|e| match e.kind() {
            Kind::NotFound => format!("store {store}: there is no pool {pool_name}: make it with `ceph osd pool create {pool_name} && rbd pool init {pool_name}`"),
            _ => format!("store {store}: the pool {pool_name} cannot be used: {e}"),
        })?;
        self.fsid.get_or_init(|| cluster.fsid().to_owned());
        if let Some(data_pool) = &self.data_pool {
            cluster.pool(data_pool).await.map_err(|e| match e.kind() {
                Kind::NotFound => format!("store {store}: there is no pool {data_pool}, which stores.{store}.data_pool names: make it with `ceph osd pool create {data_pool}`"),
                _ => format!("store {store}: the pool {data_pool} cannot be used: {e}"),
            })?;
        }
        if self.common.read_only {
            return Ok(());
        }
        let name = format!("{STARTUP_CHECK_PREFIX}{}", Uuid::new_v4());
        let options =
            CreateOptions { size_bytes: 0, order: self.order, features: None, data_pool: self.data_pool.clone() };
        let tried = match pool.create_image(&name, &options).await {
            Ok(()) => pool.remove_image(&name).await,
            Err(e) => Err(e),
        };
        tried.map_err(|e| match e.kind() {
            Kind::Denied => format!(
                "store {store}: client.{user} may not write to the pool {pool_name}: `ceph auth caps client.{user} mon 'profile rbd' osd 'profile rbd pool={pool_name}' mgr 'profile rbd pool={pool_name}'` ({e})"
            ),
            _ => format!("store {store}: an RBD image could not be made in the pool {pool_name}: {e}"),
        })
    }
}
