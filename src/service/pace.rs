//! Not faster than one is told.

use std::time::Duration;

use tokio::time::Instant;

/// Keeps to a number of units per second.
pub(super) struct Pace {
    /// 0: as fast as it goes.
    per_s: u64,
    next: Instant,
}

impl Pace {
    pub(super) fn new(per_s: u64) -> Self {
        Self { per_s, next: Instant::now() }
    }

    /// Waits until so many units may be used.
    pub(super) async fn take(&mut self, units: u64) {
        if self.per_s == 0 {
            return;
        }
        tokio::time::sleep_until(self.next).await;
        // Time that was not used is not saved up.
        #[expect(clippy::cast_precision_loss, reason = "a pause need not be exact")]
        let pause = Duration::from_secs_f64(units as f64 / self.per_s as f64);
        self.next = self.next.max(Instant::now()) + pause;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Pace;

    #[tokio::test]
    async fn keeps_to_its_rate_or_does_not_wait() {
        let begun = Instant::now();
        let mut pace = Pace::new(100);
        for _ in 0..11 {
            pace.take(1).await;
        }
        assert!(begun.elapsed() >= Duration::from_millis(100));
        let (begun, mut pace) = (Instant::now(), Pace::new(0));
        for _ in 0..1000 {
            pace.take(1_000_000).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}
