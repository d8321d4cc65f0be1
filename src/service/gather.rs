//! What `/metrics` tells and nobody can count: it is asked for in the background, so that nothing waits for it, and
//! says when that was.

use super::{Health, Services};
use crate::catalog::{self, ImageFigures, JobKind};
use crate::telemetry::{Snapshot, unix_time};

/// Most images that get series of their own: the newest.
const IMAGES_MAX: usize = 10_000;

impl Services {
    /// Takes down what is known without asking anybody.
    pub fn measure(&self) {
        let pool = self.catalog.connections();
        self.telemetry.set_pool([
            ("max", pool.max),
            ("idle", pool.idle),
            ("used", pool.size.saturating_sub(pool.idle)),
            ("waiting", pool.waiting),
        ]);
    }

    /// Asks the dependencies how they are, and the catalog what there is. What cannot be learned stays as it was, and
    /// grows old.
    pub async fn gather(&self) {
        tokio::join!(
            async { self.telemetry.gathered("dependencies", dependencies(&self.health().await)) },
            self.gather_jobs(),
            self.gather_images(),
        );
    }

    async fn gather_jobs(&self) {
        match self.catalog.job_figures(&self.settings.gateway).await {
            Ok(figures) => self.telemetry.gathered("jobs", jobs(&figures)),
            Err(error) => tracing::debug!(%error, "the jobs could not be counted for /metrics"),
        }
    }

    async fn gather_images(&self) {
        if !self.settings.openstack_exporter_names {
            return;
        }
        let found = self.catalog.image_figures(IMAGES_MAX).await;
        let snapshot = match &found {
            Ok((count, figures)) => images(*count, figures),
            Err(error) => {
                tracing::debug!(%error, "the images could not be listed for /metrics");
                up(false)
            }
        };
        self.telemetry.gathered("images", snapshot);
    }
}

/// A snapshot that says of when it is.
fn dated(source: &str) -> Snapshot {
    let mut snapshot = Snapshot::new();
    let name = format!("rockpool_gathered_{source}_timestamp_seconds");
    snapshot.add(
        &name,
        "When the gauges of this source were last brought up to date, in Unix time",
        [],
        [([], unix_time())],
    );
    snapshot
}

fn dependencies(health: &Health) -> Snapshot {
    let mut snapshot = dated("dependencies");
    let checks = || health.checks.iter().map(|check| (check.name.as_str(), check));
    snapshot.add(
        "rockpool_dependency_up",
        "Whether Postgres, each store and Keystone answered",
        ["dependency"],
        checks().map(|(name, check)| ([name], f64::from(u8::from(check.problem.is_none())))),
    );
    snapshot.add(
        "rockpool_dependency_latency_seconds",
        "How long that answer took",
        ["dependency"],
        checks().map(|(name, check)| ([name], check.latency.as_secs_f64())),
    );
    let stores = || checks().filter_map(|(name, check)| Some((name.strip_prefix("store/")?, check.usage_bytes?)));
    snapshot.add(
        "rockpool_store_used_bytes",
        "Bytes stored in the pool of a store",
        ["store"],
        stores().map(|(store, (used, _))| ([store], used as f64)),
    );
    snapshot.add(
        "rockpool_store_available_bytes",
        "Bytes that still fit into it",
        ["store"],
        stores().map(|(store, (_, available))| ([store], available as f64)),
    );
    snapshot
}

fn jobs(figures: &[catalog::JobFigures]) -> Snapshot {
    let mut snapshot = dated("jobs");
    snapshot.add(
        "rockpool_jobs",
        "Jobs in the catalog",
        ["kind", "state"],
        figures.iter().map(|job| ([job.kind.as_str(), job.state.as_str()], job.count as f64)),
    );
    // Kinds without a job are 0, not missing: rules can count on them.
    let kinds = || [JobKind::SHORT, JobKind::LONG].concat().into_iter().map(JobKind::as_str);
    let of = |kind: &'static str| figures.iter().filter(move |job| job.kind == kind);
    let mut sum = |name: &str, help: &str, figure: fn(&catalog::JobFigures) -> i64| {
        let values = kinds().map(|kind| ([kind], of(kind).map(figure).sum::<i64>() as f64));
        snapshot.add(name, help, ["kind"], values);
    };
    sum("rockpool_leases_held", "Jobs whose lease this gateway holds", |job| job.held);
    sum("rockpool_jobs_due", "Jobs that nobody works on and any gateway may take up", |job| job.due);
    sum("rockpool_jobs_failing", "Jobs that were tried, failed and will be tried again", |job| job.failing);
    snapshot.add(
        "rockpool_job_oldest_age_seconds",
        "Age of the oldest job",
        ["kind"],
        kinds().map(|kind| ([kind], of(kind).map(|job| job.oldest_s).fold(0.0, f64::max))),
    );
    snapshot
}

/// The names of openstack-exporter, for dashboards that know them.
fn up(answers: bool) -> Snapshot {
    let mut snapshot = Snapshot::new();
    snapshot.add("openstack_glance_up", "Whether the images could be listed", [], [([], f64::from(u8::from(answers)))]);
    snapshot
}

fn images(count: i64, figures: &[ImageFigures]) -> Snapshot {
    let mut snapshot = up(true);
    snapshot.add("openstack_glance_images", "Images of all projects", [], [([], count as f64)]);
    snapshot.add(
        "openstack_glance_image_bytes",
        "Length of an image's data",
        ["id", "name", "tenant_id"],
        figures
            .iter()
            .map(|image| ([image.id.as_str(), &image.name, &image.owner], image.size_bytes.unwrap_or(0) as f64)),
    );
    snapshot.add(
        "openstack_glance_image_created_at",
        "When an image was made, in Unix time",
        ["id", "name", "tenant_id", "visibility", "hidden", "status"],
        figures.iter().map(|image| {
            let hidden = if image.hidden { "true" } else { "false" };
            let labels = [image.id.as_str(), &image.name, &image.owner, &image.visibility, hidden, &image.status];
            (labels, image.created_at.unix_timestamp() as f64)
        }),
    );
    snapshot
}
