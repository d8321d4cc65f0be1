//! Connecting to the first host that takes writes.

use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, Socket};

/// Tries the hosts one after the other, each for a limited time, the greeting included: a host that takes
/// connections and never answers must not keep the others from being tried.
pub(super) struct OneByOne<T> {
    /// A configuration for each host.
    pub(super) hosts: Vec<Config>,
    pub(super) tls: T,
    /// Longest time for one host.
    pub(super) limit: Duration,
}

impl<T> Connect for OneByOne<T>
where
    T: MakeTlsConnect<Socket> + Clone + Sync + Send + 'static,
    T::Stream: Sync + Send,
    T::TlsConnect: Sync + Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, _config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        async move {
            let mut failure = None;
            for host in &self.hosts {
                match tokio::time::timeout(self.limit, host.connect(self.tls.clone())).await {
                    Ok(Ok((client, connection))) => {
                        let driver = tokio::spawn(async move {
                            if let Err(error) = connection.await {
                                tracing::debug!(%error, "a connection to Postgres ended");
                            }
                        });
                        return Ok((client, driver));
                    }
                    Ok(Err(error)) => failure = Some(error),
                    Err(_) => {}
                }
            }
            match failure {
                Some(error) => Err(error),
                // None of them answered: the pool's own timeout, which is about to ring, says so.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}
