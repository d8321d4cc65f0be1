//! Calls that block in C, kept off the runtime's workers and bounded in number.

use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::Error;

/// Blocking calls that may run at one time in this process. Tokio's pool has 512 threads and is shared with
/// file access; a cluster that hangs must not eat it. 64 is far more than the monitors and OSDs need from
/// one client to be busy.
const MAX_BLOCKING_CALLS: usize = 64;

/// How long a call waits for one of those places. On a healthy cluster the wait is milliseconds; on a
/// hanging one every place is freed after a few operation timeouts.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(60);

static PLACES: Semaphore = Semaphore::const_new(MAX_BLOCKING_CALLS);

/// Runs `work` on a blocking thread. Once begun, it runs to its end even when the future is dropped.
pub(crate) async fn run<T, F>(call: &'static str, object: &str, work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    let place = match tokio::time::timeout(QUEUE_WAIT_MAX, PLACES.acquire()).await {
        Ok(Ok(place)) => place,
        // The semaphore is never closed, so this is the timeout.
        Ok(Err(_)) | Err(_) => {
            return Err(Error::new(call, object, libc::ETIMEDOUT).with_detail("too many calls wait for the cluster"));
        }
    };
    let task = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    match task.await {
        Ok(result) => result,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::new(call, object, libc::ECANCELED).with_detail("the runtime is stopping")),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::{MAX_BLOCKING_CALLS, run};

    #[tokio::test]
    async fn bounds_the_number_of_calls_and_survives_dropped_futures() {
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..MAX_BLOCKING_CALLS * 3 {
            let (running, most) = (running.clone(), most.clone());
            calls.spawn(run("test", "test", move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        calls.shutdown().await;
        run("test", "test", || Ok(())).await.unwrap();
        while running.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(most.load(Ordering::SeqCst) <= MAX_BLOCKING_CALLS);
    }
}
