//! One long-lived connection that repairs itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex as AsyncMutex;

use crate::cluster::{Cluster, ClusterConfig};
use crate::error::Error;

/// At most one attempt to connect begins in this time, however many callers want one: connecting costs the
/// monitors an authentication and this process a dozen threads.
const ATTEMPT_INTERVAL: Duration = Duration::from_secs(1);

/// How often the keyring file is looked at.
const KEYRING_INTERVAL: Duration = Duration::from_secs(1);

/// A connection to one cluster, made when it is first needed and replaced when it went bad: when a caller
/// says so ([`Connection::invalidate`]) or when the keyring file changed. The old one lives until its last
/// user drops it.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: ClusterConfig,
    state: Mutex<State>,
    /// Held while connecting, so that one attempt serves all who wait.
    connecting: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct State {
    cluster: Option<Cluster>,
    /// The keyring file that `cluster` was made with.
    keyring: Option<FileStamp>,
    keyring_checked: Option<Instant>,
    /// The file changed since, so `cluster` is to be replaced when possible.
    keyring_changed: bool,
    attempted: Option<Instant>,
    failure: Option<Error>,
}

/// What tells one version of a file from the next.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Connection {
    /// Does not connect yet.
    pub fn new(config: ClusterConfig) -> Connection {
        let shared = Shared { config, state: Mutex::new(State::default()), connecting: AsyncMutex::new(()) };
        Connection { shared: Arc::new(shared) }
    }

    /// The connection, made now if there is none or if the last one went bad.
    ///
    /// Callers at one time share one attempt, and its error. After a failed attempt the same error is
    /// returned for a second before the next is made. A keyring file that does not work (yet) does not cost
    /// a connection that does.
    pub async fn current(&self) -> Result<Cluster, Error> {
        self.check_keyring().await;
        if let Some(cluster) = self.shared.usable() {
            return Ok(cluster);
        }
        // In a task of its own, so that a caller who gives up does not waste the attempt.
        let shared = self.shared.clone();
        match tokio::spawn(async move { shared.replace().await }).await {
            Ok(result) => result,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::new("rados_connect", &self.shared.config.user, libc::ECANCELED)),
            },
        }
    }

    /// Says that `seen` went bad ([`Error::is_connection_fault`]): the next [`Connection::current`] makes a
    /// new one. Does nothing if it has been replaced already.
    pub fn invalidate(&self, seen: &Cluster) {
        let mut state = self.shared.state();
        if state.cluster.as_ref().is_some_and(|cluster| cluster.is_same(seen)) {
            tracing::warn!(user = seen.user(), "the connection to Ceph went bad; the next use makes a new one");
            state.cluster = None;
        }
    }

    /// How it connects.
    pub fn config(&self) -> &ClusterConfig {
        &self.shared.config
    }

    async fn check_keyring(&self) {
        let Some(path) = &self.shared.config.keyring else {
            return;
        };
        {
            let mut state = self.shared.state();
            let fresh = state.keyring_checked.is_some_and(|checked| checked.elapsed() < KEYRING_INTERVAL);
            if state.cluster.is_none() || fresh {
                return;
            }
            state.keyring_checked = Some(Instant::now());
        }
        let stamp = stamp(path.clone()).await;
        let mut state = self.shared.state();
        // A file that is missing for a moment is one being replaced.
        if stamp.is_some() && stamp != state.keyring && !state.keyring_changed {
            tracing::info!(keyring = %path.display(), "the keyring changed; connecting anew");
            state.keyring_changed = true;
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, unless there is reason to make another one now.
    fn usable(&self) -> Option<Cluster> {
        let state = self.state();
        let wait = state.keyring_changed && attempt_wait(state.attempted).is_zero();
        if wait { None } else { state.cluster.clone() }
    }

    /// Connects, unless another caller just did or just failed.
    async fn replace(&self) -> Result<Cluster, Error> {
        let _turn = self.connecting.lock().await;
        if let Some(cluster) = self.usable() {
            return Ok(cluster);
        }
        let (wait, failure) = {
            let state = self.state();
            (attempt_wait(state.attempted), state.failure.clone())
        };
        if !wait.is_zero() {
            if let Some(error) = failure {
                return Err(error);
            }
            // The last attempt succeeded, and its connection went bad within a second.
            tokio::time::sleep(wait).await;
        }
        let stamp = match &self.config.keyring {
            Some(path) => stamp(path.clone()).await,
            None => None,
        };
        let result = Cluster::connect(&self.config).await;
        self.settle(result, stamp)
    }

    /// Notes how an attempt ended; the interval counts from here.
    fn settle(&self, result: Result<Cluster, Error>, stamp: Option<FileStamp>) -> Result<Cluster, Error> {
        let mut state = self.state();
        state.attempted = Some(Instant::now());
        match result {
            Ok(cluster) => {
                state.cluster = Some(cluster.clone());
                state.keyring = stamp;
                state.keyring_changed = false;
                state.failure = None;
                Ok(cluster)
            }
            Err(error) => {
                state.failure = Some(error.clone());
                match &state.cluster {
                    Some(cluster) => {
                        tracing::warn!(%error, "the changed keyring does not work; keeping the connection there is");
                        Ok(cluster.clone())
                    }
                    None => Err(error),
                }
            }
        }
    }
}

/// How long until the next attempt may begin.
fn attempt_wait(attempted: Option<Instant>) -> Duration {
    attempted.map_or(Duration::ZERO, |attempted| ATTEMPT_INTERVAL.saturating_sub(attempted.elapsed()))
}

/// Off the runtime's workers, since a keyring may lie on a slow file system.
async fn stamp(path: PathBuf) -> Option<FileStamp> {
    tokio::task::spawn_blocking(move || read_stamp(&path)).await.ok().flatten()
}

fn read_stamp(path: &Path) -> Option<FileStamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some(FileStamp { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{ATTEMPT_INTERVAL, Connection, attempt_wait, read_stamp};
    use crate::cluster::ClusterConfig;
    use crate::error::Kind;
    use crate::observer::Observer;

    fn nowhere() -> Connection {
        Connection::new(ClusterConfig {
            conf: "/nonexistent/ceph.conf".into(),
            user: "nobody".into(),
            keyring: None,
            connect_timeout: Duration::from_secs(1),
            op_timeout: Duration::from_secs(1),
            observer: Observer::default(),
        })
    }

    #[tokio::test]
    async fn a_failed_attempt_is_not_repeated_at_once() {
        let connection = nowhere();
        let first = connection.current().await.unwrap_err();
        assert_eq!(first.kind(), Kind::NotFound);
        let attempted = connection.shared.state().attempted;
        assert_eq!(connection.current().await.unwrap_err().to_string(), first.to_string());
        assert_eq!(connection.shared.state().attempted, attempted);
    }

    #[test]
    fn waits_out_the_interval() {
        assert!(attempt_wait(None).is_zero());
        assert!(attempt_wait(Some(Instant::now())) > ATTEMPT_INTERVAL / 2);
        assert!(attempt_wait(Instant::now().checked_sub(ATTEMPT_INTERVAL)).is_zero());
    }

    #[test]
    fn a_replaced_file_has_another_stamp() {
        let path = std::env::temp_dir().join(format!("rockpool-stamp-{}", std::process::id()));
        std::fs::write(&path, "one").unwrap();
        let first = read_stamp(&path).unwrap();
        assert_eq!(read_stamp(&path).unwrap(), first);
        std::fs::write(&path, "three").unwrap();
        assert_ne!(read_stamp(&path).unwrap(), first);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read_stamp(&path), None);
    }
}
