//! The cluster under test, and what all tests need of it.

use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ceph::{Cluster, ClusterConfig, CreateOptions, Error, Image, Kind, Observer, Pool};
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests share the cluster; one that stops a daemon has it alone.
static CLUSTER: RwLock<()> = RwLock::const_new(());

/// Held by a test that leaves the daemons alone.
pub(crate) async fn shared() -> RwLockReadGuard<'static, ()> {
    CLUSTER.read().await
}

/// Held by a test that stops daemons or counts threads.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    CLUSTER.write().await
}

/// The state folder of the throwaway cluster.
pub(crate) fn folder() -> PathBuf {
    let folder = std::env::var_os("ROCKPOOL_TEST_CEPH_DIR")
        .expect("ROCKPOOL_TEST_CEPH_DIR names no cluster: run these tests with tests/run.sh, which starts one");
    PathBuf::from(folder).canonicalize().expect("ROCKPOOL_TEST_CEPH_DIR names a folder")
}

pub(crate) fn config(user: &str) -> ClusterConfig {
    ClusterConfig {
        conf: folder().join("ceph.conf"),
        user: user.to_owned(),
        keyring: Some(folder().join(format!("client.{user}.keyring"))),
        connect_timeout: Duration::from_secs(10),
        op_timeout: Duration::from_secs(20),
        observer: Observer::default(),
    }
}

pub(crate) async fn cluster(user: &str) -> Cluster {
    Cluster::connect(&config(user)).await.unwrap()
}

pub(crate) async fn pool(user: &str, pool: &str) -> Pool {
    cluster(user).await.pool(pool).await.unwrap()
}

/// A name that no other test and no other run uses.
pub(crate) fn unique(label: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("test-{label}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) const MIB: u64 = 1 << 20;

/// An image with 4 MiB objects and the cluster's default features.
pub(crate) fn sized(size_bytes: u64) -> CreateOptions {
    CreateOptions { size_bytes, order: 22, features: None, data_pool: None }
}

/// A new open image.
pub(crate) async fn new_image(pool: &Pool, name: &str, size_bytes: u64) -> Image {
    pool.create_image(name, &sized(size_bytes)).await.unwrap();
    pool.open(name).await.unwrap()
}

/// Bytes that differ from place to place.
pub(crate) fn pattern(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes = (0..length).map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    bytes.collect::<Vec<u8>>().into()
}

pub(crate) async fn read(image: &Image, offset: u64, length: usize) -> Vec<u8> {
    image.read(offset, vec![0xaa; length]).await.unwrap()
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> Kind {
    result.unwrap_err().kind()
}

/// Asks again until it is true.
pub(crate) async fn eventually<F, Fut>(what: &str, within: Duration, mut check: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let start = std::time::Instant::now();
    while !check().await {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A daemon that does not answer until this is dropped.
pub(crate) struct Stopped {
    pid: String,
}

impl Stopped {
    pub(crate) fn daemon(name: &str) -> Stopped {
        let folder = folder();
        let pid = std::fs::read_to_string(folder.join(format!("run/{name}.pid"))).unwrap().trim().to_owned();
        assert!(pid.parse::<u32>().is_ok_and(|pid| pid > 1), "run/{name}.pid holds a process id");
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        assert!(
            command.contains(&format!("ceph-{name}")) && command.contains(&*folder.to_string_lossy()),
            "process {pid} is not this cluster's {name}: {command}"
        );
        signal("-STOP", &pid);
        Stopped { pid }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.pid);
    }
}

fn signal(signal: &str, pid: &str) {
    let sent = Command::new("kill").args([signal, pid]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {pid}");
}
