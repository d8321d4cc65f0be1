//! Background work: jobs whose lease has run out, or that were left for later.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::service::{Error, Line, Services};

/// Jobs taken up at once by one gateway: one that hangs on a dead OSD must not hold up the others.
const WORKERS: usize = 4;
/// Jobs that read whole images, at once by one gateway: each costs a processor.
const LONG_WORKERS: usize = 2;
/// How often old events and tasks are removed.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// Runs until `stop` rings. `interval` is the longest time for which a dead gateway's job stays
/// unnoticed after its lease has run out; `gather_interval` the age of what `/metrics` cannot count, if anybody reads it.
pub async fn run(
    services: Arc<Services>,
    interval: Duration,
    gather_interval: Option<Duration>,
    stop: CancellationToken,
) {
    let mut workers = tokio::task::JoinSet::new();
    for line in [Line::Short; WORKERS].into_iter().chain([Line::Long; LONG_WORKERS]) {
        workers.spawn(work(Arc::clone(&services), line, interval, stop.clone()));
    }
    if let Some(interval) = gather_interval {
        workers.spawn(gather(Arc::clone(&services), interval, stop.clone()));
    }
    workers.spawn(prune(services, stop));
    workers.join_all().await;
}

async fn work(services: Arc<Services>, line: Line, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = services.job_left(line) => {}
            () = tokio::time::sleep(interval) => {}
        }
        // A step that has begun is finished; the next one is not begun while we stop.
        while !stop.is_cancelled() {
            // A task of its own: a job that panics ends alone, and its lease brings it to another gateway.
            let (job, rung) = (Arc::clone(&services), stop.clone());
            match tokio::spawn(async move { job.recover_one(line, &rung).await }).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => break,
                Ok(Err(error)) => {
                    log(&error, "jobs cannot be taken up");
                    break;
                }
                Err(panic) => {
                    tracing::error!(%panic, "a job panicked");
                    break;
                }
            }
        }
    }
}

async fn prune(services: Arc<Services>, stop: CancellationToken) {
    loop {
        if let Err(error) = services.prune().await {
            log(&error, "old events and tasks cannot be removed");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PRUNE_INTERVAL) => {}
        }
    }
}

async fn gather(services: Arc<Services>, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = services.gather() => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
    }
}

fn log(error: &Error, what: &str) {
    tracing::warn!(%error, "{what}");
}
