//! How far an import has come, told in its task.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde_json::json;
use uuid::Uuid;

use crate::catalog::Catalog;
use crate::domain::content::Extent;
use crate::domain::id::ImageId;
use crate::service::ingest::Extents;

/// How often the task is written.
const INTERVAL: Duration = Duration::from_secs(2);
const MIB: f64 = (1 << 20) as f64;

/// What an import is doing.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<State>);

#[derive(Default)]
struct State {
    phase: Mutex<&'static str>,
    bytes: AtomicU64,
    total_bytes: AtomicU64,
}

impl Progress {
    /// Begins a phase, of so many bytes as far as that is known.
    pub(super) fn begin(&self, phase: &'static str, total_bytes: Option<u64>) {
        *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.0.bytes.store(0, Ordering::Relaxed);
        self.0.total_bytes.store(total_bytes.unwrap_or(0), Ordering::Relaxed);
    }

    /// So many bytes of the phase are done.
    pub(super) fn reached(&self, bytes: u64) {
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Counts what passes.
    pub(super) fn count(&self, extents: Extents) -> Extents {
        let state = Arc::clone(&self.0);
        Box::pin(extents.inspect(move |extent| {
            let length = match extent {
                Ok(Extent::Data(bytes)) => bytes.len() as u64,
                Ok(Extent::Zero(length)) => *length,
                Err(_) => 0,
            };
            state.bytes.fetch_add(length, Ordering::Relaxed);
        }))
    }

    /// Writes to the task, until it is dropped.
    pub(super) async fn tell(&self, catalog: &Catalog, task: Uuid, image: ImageId, last_error: Option<&str>) {
        let (mut before, mut at) = (0, Instant::now());
        loop {
            let phase = *self.0.phase.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = self.0.bytes.load(Ordering::Relaxed);
            let total_bytes = Some(self.0.total_bytes.load(Ordering::Relaxed)).filter(|total| *total > 0);
            let rate = bytes.saturating_sub(before) as f64 / at.elapsed().as_secs_f64().max(0.001);
            (before, at) = (bytes, Instant::now());
            let of = total_bytes.map(|total| format!(" of {:.0}", total as f64 / MIB)).unwrap_or_default();
            let message = format!("{phase}: {:.0}{of} MiB, {:.1} MiB/s", bytes as f64 / MIB, rate / MIB);
            let result = json!({
                "image_id": image.to_string(),
                "progress": {"phase": phase, "bytes": bytes, "total_bytes": total_bytes, "rate_bytes_per_s": rate as u64, "last_error": last_error},
            });
            // Whoever looks sees it a little later.
            if let Err(error) = catalog.task_progress(task, &message, &result).await {
                tracing::debug!(%task, %error, "the progress of an import could not be written");
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
