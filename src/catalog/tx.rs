//! A transaction that owns its connection.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;

use super::{Error, Param};

/// An open transaction. Dropped without [`Tx::commit`] it rolls back, by closing its connection:
/// whatever was under way on it cannot land any more.
#[derive(Debug)]
pub struct Tx {
    client: Option<Object>,
    name: &'static str,
    timeout: Duration,
}

impl Tx {
    pub(super) async fn begin(client: Object, name: &'static str, timeout: Duration) -> Result<Self, Error> {
        let tx = Self { client: Some(client), name, timeout };
        tx.batch("BEGIN").await?;
        Ok(tx)
    }

    /// Makes everything done in it durable.
    ///
    /// # Errors
    /// [`Error::Unavailable`] leaves the outcome unknown: the caller looks up what it wanted to change.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.batch("COMMIT").await?;
        // Only a connection whose transaction has ended goes back to the pool.
        drop(self.client.take());
        Ok(())
    }

    /// Undoes everything done in it and keeps the connection.
    ///
    /// # Errors
    /// [`Error::Unavailable`]; the transaction is undone all the same.
    pub async fn rollback(mut self) -> Result<(), Error> {
        self.batch("ROLLBACK").await?;
        drop(self.client.take());
        Ok(())
    }

    pub(super) async fn rows(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let client = self.client()?;
        self.bounded(async {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, params).await
        })
        .await
    }

    /// Runs a statement and says how many rows it changed.
    pub(super) async fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<u64, Error> {
        let client = self.client()?;
        self.bounded(async {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, params).await
        })
        .await
    }

    pub(super) async fn batch(&self, sql: &str) -> Result<(), Error> {
        let client = self.client()?;
        self.bounded(client.batch_execute(sql)).await
    }

    fn client(&self) -> Result<&Object, Error> {
        self.client.as_ref().ok_or(Error::Conflict("a transaction that has ended"))
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Error> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(result) => result.map_err(|e| Error::query(self.name, e)),
            Err(_) => Err(Error::Unavailable(format!(
                "{}: no answer from Postgres within {} s",
                self.name,
                self.timeout.as_secs()
            ))),
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}
