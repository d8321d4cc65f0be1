//! For whoever wants to know how calls do.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind};

type Listener = dyn Fn(&'static str, Duration, Option<Kind>) + Send + Sync;

/// Hears of every call that has ended on a connection, unless its future was dropped. By default nobody listens.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Listener>>);

impl Observer {
    /// `listener` is told how the C library names the call, how long it took, the wait for a thread included, and with
    /// what kind of error it ended. It must not block.
    pub fn new(listener: impl Fn(&'static str, Duration, Option<Kind>) + Send + Sync + 'static) -> Observer {
        Observer(Some(Arc::new(listener)))
    }

    /// Runs a call and tells of its end.
    pub(crate) async fn watch<T>(
        &self,
        call: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let start = Instant::now();
        let outcome = work.await;
        if let Some(listener) = &self.0 {
            listener(call, start.elapsed(), outcome.as_ref().err().map(Error::kind));
        }
        outcome
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Observer(somebody)" } else { "Observer(nobody)" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::Observer;
    use crate::error::{Error, Kind};

    #[tokio::test]
    async fn every_end_is_told_of_once() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::clone(&heard);
        let observer = Observer::new(move |call, _, kind| listener.lock().unwrap().push((call, kind)));
        observer.watch("rbd_stat", async { Ok(1) }).await.unwrap();
        let failed: Result<(), Error> =
            observer.watch("rbd_open", async { Err(Error::new("rbd_open", "x", libc::ENOENT)) }).await;
        assert_eq!(failed.unwrap_err().kind(), Kind::NotFound);
        assert_eq!(*heard.lock().unwrap(), [("rbd_stat", None), ("rbd_open", Some(Kind::NotFound))]);
        Observer::default().watch("rbd_stat", async { Ok(()) }).await.unwrap();
    }
}
