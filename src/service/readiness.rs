//! `rockpool image readiness`: whether Nova and Cinder will clone an image, and if not, exactly why.
//!
//! Both clone when the record says `raw`, a URL of it is shown to them, and the snapshot behind that URL can be opened
//! in their own cluster; in every other case they copy all bytes without a word (`image-api.md` 5.2). What they check
//! is checked here in the same order, against what is really stored.

use serde::Serialize;

use super::{Error, Services, no_image};
use crate::domain::id::ImageId;
use crate::domain::image::{Image, Location};
use crate::domain::location::SNAPSHOT;
use crate::domain::query::Scope;
use crate::domain::status::Status;
use crate::store::{self, CloneSource};

/// The disk format that is cloned.
const RAW: &str = "raw";
/// Object size that Nova and Cinder are tuned for: Glance's `rbd_store_chunk_size`.
const USUAL_OBJECT_BYTES: u64 = 8 * 1024 * 1024;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Worth knowing; cloning works.
    Note,
    /// Keeps it from being cloned.
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How much it matters.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// One copy of the image.
#[derive(Debug, Clone, Serialize)]
pub struct Copy {
    /// Store.
    pub store: String,
    /// Where in it.
    pub url: String,
    /// Whether Nova and Cinder will clone this copy.
    pub ready: bool,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// The whole answer.
#[derive(Debug, Clone, Serialize)]
pub struct Readiness {
    /// The image.
    pub id: String,
    /// What people call it.
    pub name: Option<String>,
    /// Whether Nova and Cinder will clone at least one copy.
    pub ready: bool,
    /// What concerns every copy.
    pub findings: Vec<Finding>,
    /// The copies, the one that `direct_url` names first.
    pub copies: Vec<Copy>,
}

/// What of an image's URLs its consumers are shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// `images.show_image_direct_url`.
    pub direct_url: bool,
    /// `images.show_multiple_locations`.
    pub locations: bool,
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Ok, found: found.into(), advice: None }
}

fn note(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Note, found: found.into(), advice: Some(advice.into()) }
}

fn problem(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { check, verdict: Verdict::Problem, found: found.into(), advice: Some(advice.into()) }
}

fn clean(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.verdict != Verdict::Problem)
}

impl Services {
    /// Looks at an image as Nova and Cinder will.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`] for the catalog; a store that does not answer is a finding.
    pub async fn readiness(&self, id: &str, shown: Shown) -> Result<Readiness, Error> {
        let parsed = ImageId::parse(id).ok_or_else(|| no_image(id))?;
        let image = self.catalog.image(parsed, &Scope::Everything(None)).await?.ok_or_else(|| no_image(id))?;
        // 1. The record.
        let findings = record(&image, shown);
        // 2. Each copy.
        let mut copies = Vec::new();
        for location in self.stores.in_order(&image.locations, &[]) {
            let found = self.look_at(&image, location, copies.is_empty() || shown.locations).await;
            copies.push(Copy {
                store: location.store.clone(),
                url: location.url.clone(),
                ready: clean(&findings) && clean(&found),
                findings: found,
            });
        }
        Ok(Readiness {
            id: image.id.to_string(),
            name: image.attributes.name.clone(),
            ready: copies.iter().any(|copy| copy.ready),
            findings,
            copies,
        })
    }

    async fn look_at(&self, image: &Image, location: &Location, seen: bool) -> Vec<Finding> {
        let elsewhere = || {
            let rbd = self.stores.iter().find(|store| store.can_clone()).map_or("NAME", |store| store.name());
            format!("copy it to an RBD store: openstack image import --method copy-image --store {rbd} {}", image.id)
        };
        // 1. A place that is cloned from.
        let Ok(store) = self.stores.get(Some(&location.store)) else {
            let advice = format!("add the section [stores.{}] to this gateway's configuration", location.store);
            return vec![problem("store", "it is not configured on this gateway", advice)];
        };
        let source = match store.clone_source(&location.url).await {
            Ok(Some(source)) => source,
            Ok(None) => {
                return vec![problem("store", "data in a store of this kind is not cloned, but copied", elsewhere())];
            }
            Err(store::Error::NotFound(why)) => {
                let advice = "look for it with `rbd ls` and `rbd trash ls --all`; if it is lost, delete the image and upload it again";
                return vec![problem("data", format!("it is not there: {why}"), advice)];
            }
            Err(error) => {
                let advice = "rockpool's log and /health say more; what follows could not be looked at";
                return vec![problem("store", format!("it cannot be asked: {error}"), advice)];
            }
        };
        let mut findings = stored(image, &source);
        // 2. And that is shown.
        if !seen {
            let found = "direct_url names the copy in the store of the largest weight, not this one: Nova does not see it, Cinder does by GET /locations";
            let advice = format!(
                "give stores.{}.weight the largest value, or set images.show_multiple_locations = true",
                location.store
            );
            findings.push(note("shown", found, advice));
        }
        findings
    }
}

/// What Nova and Cinder look at in the record.
fn record(image: &Image, shown: Shown) -> Vec<Finding> {
    let id = image.id;
    let status = match image.status {
        Status::Active => ok("status", "active"),
        Status::Deactivated => problem(
            "status",
            "deactivated: only administrators see where its data is",
            format!("openstack image set --activate {id}"),
        ),
        Status::Queued => problem(
            "status",
            format!(
                "queued: it has no data{}",
                image.upload_failure.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
            ),
            format!("upload it: openstack image save, or glance image-upload --file FILE {id}"),
        ),
        other => problem("status", format!("{other}: its data is not complete"), "wait until it is active"),
    };
    let format = match image.attributes.disk_format.as_deref() {
        Some(RAW) => ok("disk_format", RAW),
        other => problem(
            "disk_format",
            format!("{}: only raw is cloned, and a record of data cannot be changed", other.unwrap_or("not set")),
            "make an image of the same data as raw: import it with conversion, upload it with the property rockpool_convert=raw, or qemu-img convert -O raw and upload that",
        ),
    };
    let container = match image.attributes.container_format.as_deref() {
        Some("bare") => ok("container_format", "bare"),
        other => note(
            "container_format",
            format!("{}: what is around the disk would be booted, too", other.unwrap_or("not set")),
            "a disk alone is bare",
        ),
    };
    let size = match image.content.as_ref().map(|content| content.size_bytes) {
        Some(0) => problem(
            "size",
            "0 bytes: a snapshot of a machine that boots from a volume; its disks are in block_device_mapping",
            "nothing: Nova makes volumes of the snapshots that it names",
        ),
        Some(size) => ok("size", format!("{size} bytes")),
        None => problem("size", "not known", "see status"),
    };
    let url = if shown.direct_url || shown.locations {
        ok("direct_url", "shown")
    } else {
        problem(
            "direct_url",
            "not shown: Nova cannot know where the data is (Cinder can, with a service token)",
            "set images.show_image_direct_url = true on every gateway and restart them",
        )
    };
    vec![status, format, container, size, url]
}

/// What Nova and Cinder meet in the pool.
fn stored(image: &Image, source: &CloneSource) -> Vec<Finding> {
    let spec = format!("{}/{}", source.pool, source.image);
    let cluster = note(
        "cluster",
        source.fsid.clone(),
        "it is cloned within this cluster alone: `ceph fsid` with the ceph.conf of nova-compute and of cinder-volume must say the same",
    );
    let caps = note(
        "caps",
        format!("consumers need to read pool {}", source.pool),
        format!(
            "ceph auth get client.nova (and client.cinder) should say: mon 'profile rbd', osd 'profile rbd pool=THEIR-POOL, profile rbd-read-only pool={}'",
            source.pool
        ),
    );
    let snapshot = match source.snapshot {
        None => problem(
            "snapshot",
            format!("there is no snapshot {SNAPSHOT}"),
            format!(
                "if nothing has been written to it since: rbd snap create {spec}@{SNAPSHOT} && rbd snap protect {spec}@{SNAPSHOT}"
            ),
        ),
        Some(false) => problem(
            "snapshot",
            format!("{SNAPSHOT} is not protected: clones of the usual kind are refused"),
            format!("rbd snap protect {spec}@{SNAPSHOT}"),
        ),
        Some(true) => ok("snapshot", format!("{SNAPSHOT}, protected")),
    };
    let size = match image.content.as_ref().map(|content| content.size_bytes) {
        Some(recorded) if recorded != source.size_bytes => problem(
            "data",
            format!("{} bytes are stored, {recorded} are recorded: somebody has changed it", source.size_bytes),
            "do not use it; compare it with its hash, and upload it again",
        ),
        Some(_) | None => ok("data", format!("{} bytes", source.size_bytes)),
    };
    let features = if source.layering {
        ok("features", "layering")
    } else {
        problem(
            "features",
            "it was made without layering, and so cannot be cloned",
            format!(
                "make a copy that can: rbd cp --image-feature layering {spec} POOL/COPY, then rockpool adopt POOL/COPY"
            ),
        )
    };
    let object = match source.object_bytes {
        USUAL_OBJECT_BYTES => ok("objects", "8 MiB"),
        other => note(
            "objects",
            format!("{} KiB, where 8 MiB are usual: clones inherit it", other / 1024),
            "cloning works; chunk_size_mib decides for new images",
        ),
    };
    let parent = source.parent.as_ref().map(|parent| {
        note("parent", format!("it is itself a clone of {parent}"), format!("to let that go: rbd flatten {spec}"))
    });
    [cluster, size, snapshot, features, object, caps].into_iter().chain(parent).collect()
}

#[cfg(test)]
mod tests {
    use super::{Verdict, clean, note, ok, problem};

    #[test]
    fn notes_do_not_keep_from_cloning() {
        assert!(clean(&[ok("a", ""), note("b", "", "")]));
        assert!(!clean(&[ok("a", ""), problem("b", "", "")]));
        assert!(Verdict::Ok < Verdict::Note && Verdict::Note < Verdict::Problem);
    }
}
