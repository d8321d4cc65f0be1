//! One writer for several stores: bytes that are read once are written side by side.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};

use super::{BlobWriter, Error};

/// Writes every byte to several blobs. The slowest sets the pace. Where all must succeed, the first failure is the
/// failure of the whole; otherwise a store that fails drops out, and the whole fails with the last one that does.
pub struct Fan {
    /// By the names of their stores.
    writers: BTreeMap<String, Box<dyn BlobWriter>>,
    all_must_succeed: bool,
    failures: Failures,
}

/// Which stores have failed so far, and why; still there when the [`Fan`] is sealed.
#[derive(Clone, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<String, String>>>);

impl Failures {
    /// Stores and reasons, by name of the store.
    #[must_use]
    pub fn list(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has(&self, store: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(store)
    }

    fn add(&self, store: &str, error: &Error) {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failures.entry(store.to_owned()).or_insert_with(|| error.to_string());
    }

    /// What an operation on the stores, with these outcomes, comes to.
    fn sum_up(&self, outcomes: Vec<(String, Result<(), Error>)>, all_must_succeed: bool) -> Result<(), Error> {
        let count = outcomes.len();
        let failed = outcomes.into_iter().filter_map(|(store, outcome)| Some((store, outcome.err()?)));
        let mut errors: Vec<Error> = failed.inspect(|(store, error)| self.add(store, error)).map(|(_, e)| e).collect();
        match errors.pop() {
            Some(error) if all_must_succeed || errors.len() + 1 == count => Err(error),
            Some(_) | None => Ok(()),
        }
    }
}

impl Fan {
    /// A writer over `writers`, by the names of their stores.
    #[must_use]
    pub fn new(writers: BTreeMap<String, Box<dyn BlobWriter>>, all_must_succeed: bool) -> Self {
        Self { writers, all_must_succeed, failures: Failures::default() }
    }

    /// Where failures will show.
    #[must_use]
    pub fn failures(&self) -> Failures {
        self.failures.clone()
    }

    /// Lets go of writers that have failed, so that what they left can be discarded.
    async fn drop_failed(&mut self) {
        let failed: Vec<String> = self.writers.keys().filter(|store| self.failures.has(store)).cloned().collect();
        for store in failed {
            if let Some(writer) = self.writers.remove(&store) {
                writer.abandon().await;
            }
        }
    }
}

#[async_trait]
impl BlobWriter for Fan {
    fn block_bytes(&self) -> usize {
        // Whoever likes shorter blocks splits longer ones.
        self.writers.values().map(|writer| writer.block_bytes()).max().unwrap_or(1)
    }

    async fn reserve(&mut self, end: u64) -> Result<(), Error> {
        self.drop_failed().await;
        let reserving = self.writers.iter_mut().map(async |(store, writer)| (store.clone(), writer.reserve(end).await));
        let outcomes = join_all(reserving).await;
        self.failures.sum_up(outcomes, self.all_must_succeed)
    }

    fn write(&self, offset: u64, pieces: Vec<Bytes>) -> BoxFuture<'static, Result<(), Error>> {
        let live = self.writers.iter().filter(|(store, _)| !self.failures.has(store));
        let writes: Vec<_> =
            live.map(|(store, writer)| (store.clone(), writer.write(offset, pieces.clone()))).collect();
        let (failures, all_must_succeed) = (self.failures.clone(), self.all_must_succeed);
        async move {
            let outcomes = join_all(writes.into_iter().map(async |(store, write)| (store, write.await))).await;
            failures.sum_up(outcomes, all_must_succeed)
        }
        .boxed()
    }

    async fn seal(mut self: Box<Self>, size_bytes: u64, description: &BTreeMap<String, String>) -> Result<(), Error> {
        self.drop_failed().await;
        if self.writers.is_empty() {
            return Err(Error::Unavailable("no store is left to write to".into()));
        }
        let sealing =
            self.writers.into_iter().map(async |(store, writer)| (store, writer.seal(size_bytes, description).await));
        let outcomes = join_all(sealing).await;
        self.failures.sum_up(outcomes, self.all_must_succeed)
    }

    async fn abandon(self: Box<Self>) {
        join_all(self.writers.into_values().map(|writer| writer.abandon())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    use super::Fan;
    use crate::store::{BlobWriter, Error};

    /// What became of a writer.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Fate {
        bytes: Vec<u8>,
        sealed: Option<u64>,
        abandoned: bool,
    }

    /// Keeps its bytes in memory, and fails in one of its operations.
    struct Fake {
        fate: Arc<Mutex<Fate>>,
        fails_in: Option<&'static str>,
        block_bytes: usize,
    }

    impl Fake {
        fn outcome(&self, operation: &str) -> Result<(), Error> {
            match self.fails_in {
                Some(bad) if bad == operation => Err(Error::NoSpace(format!("in {operation}"))),
                _ => Ok(()),
            }
        }
    }

    #[async_trait]
    impl BlobWriter for Fake {
        fn block_bytes(&self) -> usize {
            self.block_bytes
        }

        async fn reserve(&mut self, _end: u64) -> Result<(), Error> {
            self.outcome("reserve")
        }

        fn write(&self, offset: u64, pieces: Vec<Bytes>) -> BoxFuture<'static, Result<(), Error>> {
            let (outcome, fate) = (self.outcome("write"), Arc::clone(&self.fate));
            async move {
                outcome?;
                let mut fate = fate.lock().unwrap();
                fate.bytes.resize(usize::try_from(offset).unwrap(), 0);
                pieces.iter().for_each(|piece| fate.bytes.extend_from_slice(piece));
                Ok(())
            }
            .boxed()
        }

        async fn seal(self: Box<Self>, size_bytes: u64, _: &BTreeMap<String, String>) -> Result<(), Error> {
            self.outcome("seal")?;
            self.fate.lock().unwrap().sealed = Some(size_bytes);
            Ok(())
        }

        async fn abandon(self: Box<Self>) {
            self.fate.lock().unwrap().abandoned = true;
        }
    }

    type Fates = Vec<Arc<Mutex<Fate>>>;

    fn fan(stores: &[(&str, Option<&'static str>)], all_must_succeed: bool) -> (Box<Fan>, Fates) {
        let mut fates = Vec::new();
        let mut writers: BTreeMap<String, Box<dyn BlobWriter>> = BTreeMap::new();
        for (number, (name, fails_in)) in stores.iter().enumerate() {
            let fate = Arc::default();
            fates.push(Arc::clone(&fate));
            let writer = Fake { fate, fails_in: *fails_in, block_bytes: 4 << number };
            writers.insert((*name).to_owned(), Box::new(writer));
        }
        (Box::new(Fan::new(writers, all_must_succeed)), fates)
    }

    async fn write_all(fan: &mut Fan) -> Result<(), Error> {
        for (offset, text) in [(0, "one"), (5, "two")] {
            fan.reserve(8).await?;
            fan.write(offset, vec![Bytes::from(&text[..1]), Bytes::from(&text[1..])]).await?;
        }
        Ok(())
    }

    #[tokio::test]
    async fn every_store_gets_every_byte() {
        let (mut fan, fates) = fan(&[("a", None), ("b", None)], true);
        assert_eq!(fan.block_bytes(), 8);
        write_all(&mut fan).await.unwrap();
        let failures = fan.failures();
        fan.seal(9, &BTreeMap::new()).await.unwrap();
        for fate in fates {
            let expected = Fate { bytes: b"one\0\0two".to_vec(), sealed: Some(9), abandoned: false };
            assert_eq!(*fate.lock().unwrap(), expected);
        }
        assert!(failures.list().is_empty());
    }

    #[tokio::test]
    async fn a_store_that_fails_drops_out_and_is_named() {
        for bad in ["reserve", "write", "seal"] {
            let (mut fan, fates) = fan(&[("a", Some(bad)), ("b", None)], false);
            write_all(&mut fan).await.unwrap();
            let failures = fan.failures();
            fan.seal(8, &BTreeMap::new()).await.unwrap();
            let failed = failures.list();
            assert!(failed.len() == 1 && failed["a"].contains(bad), "{failed:?}");
            assert_eq!(fates[0].lock().unwrap().abandoned, bad != "seal");
            assert_eq!(fates[1].lock().unwrap().bytes, b"one\0\0two");
            assert_eq!(fates[1].lock().unwrap().sealed, Some(8));
        }
    }

    #[tokio::test]
    async fn where_all_must_succeed_one_failure_is_enough() {
        for bad in ["reserve", "write", "seal"] {
            let (mut fan, _) = fan(&[("a", None), ("b", Some(bad))], true);
            let failures = fan.failures();
            let outcome = match write_all(&mut fan).await {
                Ok(()) => fan.seal(8, &BTreeMap::new()).await,
                failed => failed,
            };
            assert!(matches!(outcome, Err(Error::NoSpace(_))), "{outcome:?}");
            assert_eq!(failures.list().into_keys().collect::<Vec<_>>(), ["b"]);
        }
    }

    #[tokio::test]
    async fn when_no_store_is_left_the_whole_fails() {
        for bad in ["reserve", "write", "seal"] {
            let (mut fan, _) = fan(&[("a", Some(bad)), ("b", Some(bad))], false);
            let outcome = match write_all(&mut fan).await {
                Ok(()) => fan.seal(8, &BTreeMap::new()).await,
                failed => failed,
            };
            assert!(matches!(outcome, Err(Error::NoSpace(_))), "{bad}: {outcome:?}");
        }
        // One after the other.
        let (mut fan, _) = fan(&[("a", Some("write")), ("b", Some("seal"))], false);
        write_all(&mut fan).await.unwrap();
        assert!(fan.seal(8, &BTreeMap::new()).await.is_err());
    }
}
