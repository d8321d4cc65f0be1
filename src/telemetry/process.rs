//! What the kernel says about this process, under the names that all programs have for it.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

/// Ticks of `/proc/self/stat` in a second: what Linux shows to programs, on every machine.
const TICKS_PER_S: f64 = 100.0;
/// Where `utime`, `stime` and `num_threads` stand in it, behind the name in brackets.
const UTIME: usize = 11;
const STIME: usize = 12;
const THREADS: usize = 17;

/// Reads `/proc/self` whenever it is asked; that takes microseconds.
pub(super) struct Process {
    cpu_seconds: Counter,
    resident_bytes: Gauge,
    threads: Gauge,
    open_files: Gauge,
    open_files_max: Gauge,
}

impl Process {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu_seconds: Counter::new("process_cpu_seconds_total", "Processor time of this process")?,
            resident_bytes: Gauge::new("process_resident_memory_bytes", "Memory of this process")?,
            threads: Gauge::new("process_threads", "Threads of this process")?,
            open_files: Gauge::new("process_open_fds", "Open file descriptors")?,
            open_files_max: Gauge::new("process_max_fds", "Most open file descriptors")?,
        })
    }

    fn metrics(&self) -> [&dyn Collector; 5] {
        [&self.cpu_seconds, &self.resident_bytes, &self.threads, &self.open_files, &self.open_files_max]
    }

    /// What cannot be read stays as it was.
    fn read(&self) {
        if let Ok(stat) = fs::read_to_string("/proc/self/stat")
            && let Some((_, rest)) = stat.rsplit_once(')')
        {
            let fields: Vec<f64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
            let field = |at: usize| fields.get(at).copied().unwrap_or(0.0);
            let cpu_seconds = (field(UTIME) + field(STIME)) / TICKS_PER_S;
            self.cpu_seconds.inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.threads.set(field(THREADS));
        }
        if let Some(kib) = number_after("/proc/self/status", "VmRSS:") {
            self.resident_bytes.set(kib * 1024.0);
        }
        if let Some(most) = number_after("/proc/self/limits", "Max open files") {
            self.open_files_max.set(most);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // Looking takes one itself.
            self.open_files.set(open.count().saturating_sub(1) as f64);
        }
    }
}

/// The first number behind the name of a line.
fn number_after(file: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.metrics().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.metrics().into_iter().flat_map(Collector::collect).collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector as _;

    use super::Process;

    #[test]
    fn the_kernel_is_understood() {
        let process = Process::new().unwrap();
        let kept = vec![1_u8; 8 << 20];
        assert_eq!(process.collect().len(), 5);
        assert!(process.resident_bytes.get() > kept.len() as f64);
        assert!(process.threads.get() >= 1.0);
        assert!(process.open_files.get() >= 3.0 && process.open_files.get() < process.open_files_max.get());
        let before = process.cpu_seconds.get();
        let mut sum = 0_u64;
        while process.cpu_seconds.get() <= before {
            sum = (0..10_000_000_u64).fold(sum, |sum, n| sum.wrapping_mul(31).wrapping_add(n));
            process.collect();
        }
        assert_ne!(sum, 1);
    }
}
