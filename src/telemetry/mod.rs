//! What a gateway counts about itself, for Prometheus: `docs/metrics.md` explains every name.
//!
//! Every layer may count here, and nothing here asks anybody: what must be asked for is handed over as a [`Snapshot`]
//! by whoever has asked. Labels are of fixed sets or names from the configuration, so that their number does not grow
//! with users or images, and none holds what a client has written.

mod process;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

/// Bounds of latencies, in seconds: from a row of the catalog to a whole image.
const REQUEST_BUCKETS_S: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0, 600.0];
/// The same for one operation of a store.
const OPERATION_BUCKETS_S: [f64; 10] = [0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0];
/// The same for one run of a job.
const JOB_BUCKETS_S: [f64; 8] = [0.1, 0.5, 2.5, 10.0, 60.0, 300.0, 1800.0, 7200.0];

/// Which way the bytes of a transfer go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From a client into a store.
    In,
    /// From a store to a client.
    Out,
}

impl Direction {
    const ALL: [Self; 2] = [Self::In, Self::Out];

    fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

/// The counters of one process.
pub struct Telemetry {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    requests_running: IntGauge,
    body_bytes: IntCounterVec,
    connections: IntGauge,
    transfers: IntGaugeVec,
    transfers_max: IntGauge,
    transfers_refused: IntCounter,
    operation_seconds: HistogramVec,
    operation_errors: IntCounterVec,
    job_runs: IntCounterVec,
    job_seconds: HistogramVec,
    pool: IntGaugeVec,
    /// What was asked for last, by who gave it, as it is sent.
    gathered: Mutex<BTreeMap<&'static str, Arc<str>>>,
}

impl Telemetry {
    /// Counters that stand at zero.
    ///
    /// # Errors
    /// A name or a label that Prometheus does not take, in a sentence.
    pub fn new() -> Result<Arc<Self>, String> {
        Self::build().map(Arc::new).map_err(|e| format!("metrics cannot be made: {e}"))
    }

    fn build() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let made = &Made(&registry);
        let build = made.add(GaugeVec::new(
            Opts::new("rockpool_build_info", "1, with the version of this program"),
            &["version"],
        )?)?;
        build.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1.0);
        let started = made.add(Gauge::new("process_start_time_seconds", "When this process began, in Unix time")?)?;
        started.set(unix_time());
        registry.register(Box::new(process::Process::new()?))?;
        let telemetry = Self {
            requests: made.counters(
                "rockpool_http_requests_total",
                "Requests that have ended; status 499: the client did not wait",
                &["route", "method", "status"],
            )?,
            request_seconds: made.histograms(
                "rockpool_http_request_duration_seconds",
                "Time from the head of a request to the last byte of its answer",
                &["route", "method"],
                &REQUEST_BUCKETS_S,
            )?,
            requests_running: made.gauge("rockpool_http_requests_running", "Requests that are being answered")?,
            body_bytes: made.counters(
                "rockpool_http_body_bytes_total",
                "Bytes of bodies, as they pass",
                &["direction"],
            )?,
            connections: made.gauge("rockpool_http_connections", "Open connections of clients")?,
            transfers: made.gauges(
                "rockpool_transfers_running",
                "Uploads and downloads of data under way",
                &["direction"],
            )?,
            transfers_max: made
                .gauge("rockpool_transfers_max", "Most uploads and downloads at once (server.transfers_max)")?,
            transfers_refused: made.add(IntCounter::new(
                "rockpool_transfers_refused_total",
                "Uploads and downloads refused because as many were under way as may be",
            )?)?,
            operation_seconds: made.histograms(
                "rockpool_store_operation_duration_seconds",
                "Time of operations of stores: calls of librbd and librados, requests to S3 and Swift",
                &["store", "operation"],
                &OPERATION_BUCKETS_S,
            )?,
            operation_errors: made.counters(
                "rockpool_store_operation_errors_total",
                "Operations of stores that failed",
                &["store", "operation", "error"],
            )?,
            job_runs: made.counters(
                "rockpool_job_runs_total",
                "Jobs that were taken up because nobody worked on them, by how that ended",
                &["kind", "outcome"],
            )?,
            job_seconds: made.histograms(
                "rockpool_job_run_duration_seconds",
                "Time for which such a job was worked on",
                &["kind"],
                &JOB_BUCKETS_S,
            )?,
            pool: made.gauges(
                "rockpool_catalog_connections",
                "Connections to Postgres: idle, used, the most there may be, and requests that wait for one",
                &["state"],
            )?,
            gathered: Mutex::new(BTreeMap::new()),
            registry,
        };
        for direction in Direction::ALL {
            telemetry.body_bytes.get_metric_with_label_values(&[direction.as_str()])?;
            telemetry.transfers.get_metric_with_label_values(&[direction.as_str()])?;
        }
        Ok(telemetry)
    }

    /// Counts a request that has ended. `route` is the template of its path.
    pub fn request(&self, route: &str, method: &str, status: u16, time: Duration) {
        count(&self.requests, &[route, method, &status.to_string()]);
        observe(&self.request_seconds, &[route, method], time);
    }

    /// A request, until it is dropped.
    #[must_use]
    pub fn request_running(&self) -> Running {
        Running::of(&self.requests_running)
    }

    /// A connection, until it is dropped.
    #[must_use]
    pub fn connection(&self) -> Running {
        Running::of(&self.connections)
    }

    /// What counts the bytes of bodies that go this way.
    #[must_use]
    pub fn body_bytes(&self, direction: Direction) -> Bytes {
        Bytes(series(&self.body_bytes, &[direction.as_str()]))
    }

    /// Says how many transfers there may be.
    pub fn set_transfers_max(&self, max: usize) {
        self.transfers_max.set(number(max));
    }

    /// A transfer, until it is dropped.
    #[must_use]
    pub fn transfer(&self, direction: Direction) -> Running {
        series(&self.transfers, &[direction.as_str()]).map_or(Running(None), |gauge| Running::of(&gauge))
    }

    /// Counts a transfer for which there was no room.
    pub fn transfer_refused(&self) {
        self.transfers_refused.inc();
    }

    /// What counts the operations of a store.
    #[must_use]
    pub fn store(self: &Arc<Self>, name: &str) -> StoreMeter {
        StoreMeter { telemetry: Arc::clone(self), store: name.into() }
    }

    /// Counts a run of a job.
    pub fn job(&self, kind: &'static str, outcome: &'static str, time: Duration) {
        count(&self.job_runs, &[kind, outcome]);
        observe(&self.job_seconds, &[kind], time);
    }

    /// Takes down how many connections to the catalog are in each state.
    pub fn set_pool<const N: usize>(&self, states: [(&str, usize); N]) {
        for (state, count) in states {
            if let Some(gauge) = series(&self.pool, &[state]) {
                gauge.set(number(count));
            }
        }
    }

    /// Puts what `source` tells now in the place of what it told last.
    pub fn gathered(&self, source: &'static str, snapshot: Snapshot) {
        match TextEncoder::new().encode_to_string(&snapshot.0.gather()) {
            Ok(text) => {
                self.gathered.lock().unwrap_or_else(PoisonError::into_inner).insert(source, text.into());
            }
            Err(error) => tracing::error!(source, %error, "what was gathered cannot be written"),
        }
    }

    /// Everything, in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn render(&self) -> Result<String, String> {
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(|e| e.to_string())?;
        for part in self.gathered.lock().unwrap_or_else(PoisonError::into_inner).values() {
            text.push_str(part);
        }
        Ok(text)
    }
}

/// One moment's values of what must be asked for; the names are for one source alone.
pub struct Snapshot(Registry);

impl Snapshot {
    /// No values.
    #[must_use]
    pub fn new() -> Self {
        Self(Registry::new())
    }

    /// Adds a gauge with these values, by the values of its labels.
    pub fn add<'v, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        values: impl IntoIterator<Item = ([&'v str; N], f64)>,
    ) {
        let made = GaugeVec::new(Opts::new(name, help), &labels).and_then(|gauges| {
            self.0.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        });
        let gauges = match made {
            Ok(gauges) => gauges,
            Err(error) => return tracing::error!(name, %error, "a metric cannot be made"),
        };
        for (labels, value) in values {
            if let Ok(gauge) = gauges.get_metric_with_label_values(&labels) {
                gauge.set(value);
            }
        }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that is counted for as long as it lasts.
pub struct Running(Option<IntGauge>);

impl Running {
    fn of(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(Some(gauge.clone()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(gauge) = &self.0 {
            gauge.dec();
        }
    }
}

/// Counts bytes.
#[derive(Clone)]
pub struct Bytes(Option<IntCounter>);

impl Bytes {
    /// So many more.
    pub fn add(&self, bytes: usize) {
        if let Some(counter) = &self.0 {
            counter.inc_by(bytes as u64);
        }
    }
}

/// Counts the operations of one store.
#[derive(Clone)]
pub struct StoreMeter {
    telemetry: Arc<Telemetry>,
    store: Arc<str>,
}

impl StoreMeter {
    /// Counts an operation that has ended, and the name of its error.
    pub fn operation(&self, operation: &str, time: Duration, error: Option<&str>) {
        observe(&self.telemetry.operation_seconds, &[&self.store, operation], time);
        if let Some(error) = error {
            count(&self.telemetry.operation_errors, &[&self.store, operation, error]);
        }
    }
}

/// Makes metrics and registers them.
struct Made<'r>(&'r Registry);

impl Made<'_> {
    fn add<M: Collector + Clone + 'static>(&self, metric: M) -> prometheus::Result<M> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.add(IntGauge::new(name, help)?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.add(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> prometheus::Result<HistogramVec> {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels)?)
    }
}

fn series<T: MetricVecBuilder>(metrics: &MetricVec<T>, labels: &[&str]) -> Option<T::M> {
    metrics.get_metric_with_label_values(labels).ok()
}

fn count(counters: &IntCounterVec, labels: &[&str]) {
    if let Some(counter) = series(counters, labels) {
        counter.inc();
    }
}

fn observe(histograms: &HistogramVec, labels: &[&str], time: Duration) {
    if let Some(histogram) = series(histograms, labels) {
        histogram.observe(time.as_secs_f64());
    }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Now, in seconds since 1970.
#[must_use]
pub fn unix_time() -> f64 {
    SystemTime::UNIX_EPOCH.elapsed().map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Direction, Snapshot, Telemetry};

    #[test]
    fn what_is_counted_is_told() {
        let telemetry = Telemetry::new().unwrap();
        telemetry.request("/v2/images/{id}", "GET", 404, Duration::from_millis(7));
        telemetry.body_bytes(Direction::In).add(5);
        let transfer = telemetry.transfer(Direction::Out);
        telemetry.store("fast").operation("rbd_open", Duration::from_secs(2), Some("timed_out"));
        telemetry.job("upload", "done", Duration::from_secs(1));
        telemetry.set_pool([("used", 2), ("waiting", 4)]);
        let text = telemetry.render().unwrap();
        for line in [
            "rockpool_http_requests_total{method=\"GET\",route=\"/v2/images/{id}\",status=\"404\"} 1\n",
            "rockpool_http_request_duration_seconds_bucket{method=\"GET\",route=\"/v2/images/{id}\",le=\"0.005\"} 0\n",
            "rockpool_http_request_duration_seconds_bucket{method=\"GET\",route=\"/v2/images/{id}\",le=\"0.01\"} 1\n",
            "rockpool_http_body_bytes_total{direction=\"in\"} 5\n",
            "rockpool_transfers_running{direction=\"in\"} 0\n",
            "rockpool_transfers_running{direction=\"out\"} 1\n",
            "rockpool_store_operation_duration_seconds_count{operation=\"rbd_open\",store=\"fast\"} 1\n",
            "rockpool_store_operation_errors_total{error=\"timed_out\",operation=\"rbd_open\",store=\"fast\"} 1\n",
            "rockpool_job_runs_total{kind=\"upload\",outcome=\"done\"} 1\n",
            "rockpool_catalog_connections{state=\"used\"} 2\n",
            "rockpool_catalog_connections{state=\"waiting\"} 4\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
        drop(transfer);
        assert!(telemetry.render().unwrap().contains("rockpool_transfers_running{direction=\"out\"} 0\n"));
    }

    #[test]
    fn what_is_gathered_replaces_what_was() {
        let telemetry = Telemetry::new().unwrap();
        let gather = |kinds: &[&str]| {
            let mut snapshot = Snapshot::new();
            snapshot.add("jobs", "Jobs", ["kind"], kinds.iter().map(|kind| ([*kind], 1.0)));
            telemetry.gathered("jobs", snapshot);
            telemetry.render().unwrap()
        };
        assert!(gather(&["a\"\n", "b"]).contains("jobs{kind=\"a\\\"\\n\"} 1\njobs{kind=\"b\"} 1\n"));
        let text = gather(&["b"]);
        assert!(text.contains("jobs{kind=\"b\"} 1\n") && !text.contains("kind=\"a"), "{text}");
    }
}
