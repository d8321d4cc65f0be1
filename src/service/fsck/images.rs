//! From the catalog to the stores: whether what is recorded is there.

use std::sync::Arc;

use futures_util::future::join_all;
use uuid::Uuid;

use super::repair::Repair;
use super::{Check, EXAMINED_AT_ONCE, Finding, Kind, PAGE};
use crate::domain::content::Content;
use crate::domain::image::{Image, Location, timestamp};
use crate::domain::member::Membership;
use crate::domain::status::Status;
use crate::service::{Error, Services};
use crate::store::description::differences;
use crate::store::inventory::{Inventory, Stored};
use crate::store::{self, DESCRIPTION_PREFIX, whole_description};

/// Keys of the description that tell of the bytes themselves: where they contradict the record, it may be the record
/// that is wrong.
const OF_THE_BYTES: [&str; 5] = ["id", "size", "checksum", "os_hash_algo", "os_hash_value"];

/// A store that did not answer.
struct Silent {
    store: String,
    why: String,
}

impl Services {
    pub(super) async fn check_images(self: &Arc<Self>, check: &mut Check<'_>) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.catalog.images_after(after, i64::from(PAGE)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            let ids: Vec<_> = page.iter().map(|image| image.id).collect();
            let worked_on = self.catalog.worked_on(&ids).await?;
            let members = self.catalog.members_of(&ids).await?;
            check.summary.images += page.len() as u64;
            let settled = |image: &&Image| image.updated_at < check.before && !worked_on.contains(&image.id);
            let settled: Vec<&Image> = page.iter().filter(settled).collect();
            for some in settled.chunks(EXAMINED_AT_ONCE) {
                for _ in some {
                    check.pace.take(1).await;
                }
                // 1. A first look at several at once.
                let seen: &Check<'_> = check;
                let looks = some.iter().map(|image| {
                    let members = members.get(&image.id).map_or(&[][..], Vec::as_slice);
                    self.look_at_image(image, members, seen)
                });
                for (image, (findings, silent)) in some.iter().zip(join_all(looks).await) {
                    silent.iter().for_each(|Silent { store, why }| check.silence(store, why));
                    // 2. Another at those that are not as they should be.
                    if !findings.is_empty() {
                        self.check_image(check, image).await?;
                    }
                }
            }
        }
    }

    /// Looks at an image under its lock, and tells what is wrong.
    async fn check_image(self: &Arc<Self>, check: &mut Check<'_>, seen: &Image) -> Result<(), Error> {
        let tx = self.catalog.begin("fsck_image").await?;
        let looked = async {
            let Some(image) = tx.lock_image(seen.id).await? else { return Ok(Default::default()) };
            if image.updated_at >= check.before || tx.is_worked_on(image.id).await? {
                return Ok(Default::default());
            }
            let members = tx.members(image.id).await?;
            Ok::<_, Error>(self.look_at_image(&image, &members, check).await)
        };
        let looked = looked.await;
        // Nothing was changed.
        let _ = tx.rollback().await;
        let (findings, silent) = looked?;
        silent.iter().for_each(|Silent { store, why }| check.silence(store, why));
        for finding in findings {
            self.report(check, finding.of(seen.id)).await;
        }
        Ok(())
    }

    /// What is wrong with an image that no job is about.
    async fn look_at_image(
        &self,
        image: &Image,
        members: &[Membership],
        check: &Check<'_>,
    ) -> (Vec<Finding>, Vec<Silent>) {
        let (mut findings, mut silent) = (record(image), Vec::new());
        let Some(content) = image.content.as_ref().filter(|_| has_data(image.status)) else {
            return (findings, silent);
        };
        for location in image.locations.iter().filter(|location| !check.is_silent(&location.store)) {
            match self.look_at_copy(image, content, members, location).await {
                Ok(found) => findings.extend(found),
                Err(why) => silent.push(Silent { store: location.store.clone(), why }),
            }
        }
        (findings, silent)
    }

    /// What is wrong with one copy. An error is what keeps it from being looked at.
    async fn look_at_copy(
        &self,
        image: &Image,
        content: &Content,
        members: &[Membership],
        location: &Location,
    ) -> Result<Vec<Finding>, String> {
        let store = self.stores.get(Some(&location.store)).map_err(|_| "it is not configured here".to_owned())?;
        // Elsewhere there is nothing to compare with.
        let Some(inventory) = store.inventory() else { return Ok(Vec::new()) };
        let ours = location.owned && !store.is_read_only();
        let said = |e: store::Error| e.to_string();
        // 1. Is it there? A pool that cannot be opened tells nothing.
        inventory.url(&location.url).await.map_err(said)?;
        let name = match inventory.name(&location.url).await {
            Ok(name) => name,
            Err(store::Error::NotFound(why)) => {
                let advice = "correct the store's pool and ceph_conf, or the location";
                return Ok(vec![Finding::new(Kind::NoData, why).at(&location.store, &location.url).advised(advice)]);
            }
            Err(error) => return Err(said(error)),
        };
        let Some(stored) = inventory.examine(&name).await.map_err(said)? else {
            let in_trash = inventory.trashed().await.map_err(said)?.iter().any(|trashed| trashed.name == name);
            let lost = Finding::new(Kind::NoData, "the catalog lists it, and its data is not there");
            let finding = match in_trash {
                true if ours => Finding::new(Kind::NoData, "its data is in the trash, and nobody deletes it")
                    .repaired_by(Repair::Restore { image: image.id, location: location.clone() }),
                true => lost.advised("its data is in the trash: rbd trash restore"),
                false => lost.advised("look for a backup; if there is none, delete the image, and tell its owner"),
            };
            return Ok(vec![finding.at(&location.store, &name)]);
        };
        // 2. Is it as it should be?
        let mut findings = data(image, content, location, &stored, inventory, ours);
        if ours {
            let should = whole_description(image, content, members, Uuid::nil());
            let keys = differences(&should, &stored.description);
            if !keys.is_empty() {
                let found = format!("the image metadata differs from the record: {}", keys.join(", "));
                let finding = Finding::new(Kind::Metadata, found);
                let denied = |key: &String| OF_THE_BYTES.contains(&key.as_str()) && says(&stored, key);
                findings.push(match keys.iter().any(denied) {
                    _ if is_behind(image, &stored) => finding.advised(
                        "the record is the older one, as of a restored database: rockpool rebuild --overwrite",
                    ),
                    true => finding.advised("one of them is wrong about the bytes: rockpool scrub tells which"),
                    false => finding.repaired_by(Repair::Describe { image: image.id }),
                });
            }
        }
        Ok(findings.into_iter().map(|finding| finding.at(&location.store, &name)).collect())
    }
}

fn says(stored: &Stored, key: &str) -> bool {
    stored.description.contains_key(&format!("{DESCRIPTION_PREFIX}{key}"))
}

/// Whether what stands beside the data was written after the record was.
fn is_behind(image: &Image, stored: &Stored) -> bool {
    let written_at = stored.description.get(&format!("{DESCRIPTION_PREFIX}updated_at"));
    written_at.is_some_and(|at| *at > timestamp(image.updated_at))
}

fn has_data(status: Status) -> bool {
    matches!(status, Status::Active | Status::Deactivated)
}

/// What is wrong with the record of an image that no job is about.
fn record(image: &Image) -> Vec<Finding> {
    let mut findings = Vec::new();
    match image.status {
        Status::Saving | Status::Uploading | Status::Importing => {
            let found = format!("it is {}, and nobody sends its data", image.status);
            let finding = Finding::new(Kind::StuckImage, found);
            findings.push(match image.locations.is_empty() {
                true => finding.repaired_by(Repair::Requeue { image: image.id }),
                false => finding.advised("it has locations: look at the data, then delete the image or its locations"),
            });
        }
        Status::Deleted => findings.push(
            Finding::new(Kind::StuckDelete, "it is deleted, and nobody removes what is left of it")
                .repaired_by(Repair::FinishDelete { image: image.id }),
        ),
        Status::Active | Status::Deactivated => {
            let size_bytes = image.content.as_ref().map_or(0, |content| content.size_bytes);
            if image.locations.is_empty() && size_bytes > 0 {
                let advice = "look for its data in the pools: rockpool rebuild finds what is described there";
                findings.push(Finding::new(Kind::NoData, "it has no location").advised(advice));
            }
        }
        Status::Queued => {}
    }
    if image.import.task.is_some() && matches!(image.status, Status::Active | Status::Deactivated | Status::Queued) {
        let found = "it is locked by an import that does not exist";
        findings.push(Finding::new(Kind::StuckImport, found).repaired_by(Repair::Unlock { image: image.id }));
    }
    findings
}

/// What is wrong with data that is there.
fn data(
    image: &Image,
    content: &Content,
    location: &Location,
    stored: &Stored,
    inventory: &dyn Inventory,
    ours: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let whole = stored.size_bytes == content.size_bytes;
    let secure = |verify| Repair::Secure { image: image.id, location: location.clone(), verify };
    match stored.snapshot {
        Some(true) => {}
        Some(false) => {
            let finding = Finding::new(Kind::UnprotectedSnapshot, "its snapshot is not protected");
            findings.push(match ours {
                true => finding.repaired_by(secure(None)),
                false => finding.advised("the data is somebody else's: rbd snap protect"),
            });
        }
        None => {
            let finding = Finding::new(Kind::NoSnapshot, "it has no snapshot, and cannot be downloaded or cloned");
            findings.push(match content.os_hash_value.as_deref().zip(content.os_hash_algo.as_deref()) {
                Some((value, algorithm)) if ours && whole => {
                    finding.repaired_by(secure(Some((algorithm.to_owned(), value.to_owned()))))
                }
                _ => finding
                    .advised("compare the data with what it should be, then rbd snap create and rbd snap protect"),
            });
        }
    }
    match stored.published_bytes.unwrap_or(stored.size_bytes) {
        size_bytes if size_bytes != content.size_bytes => {
            let found = format!("it has {size_bytes} bytes, and {} are recorded", content.size_bytes);
            let advice = "somebody has changed it: do not use it, and upload it again";
            findings.push(Finding::new(Kind::Size, found).advised(advice));
        }
        _ if !whole => {
            let found = format!("it was resized to {} bytes after its snapshot was taken", stored.size_bytes);
            let advice = "clones are not affected; find out who writes to it";
            findings.push(Finding::new(Kind::Size, found).note().advised(advice));
        }
        _ => {}
    }
    if stored.object_bytes != inventory.object_bytes() {
        let kib = |bytes: u64| bytes / 1024;
        let found = format!(
            "its objects have {} KiB, where chunk_size_mib says {} KiB",
            kib(stored.object_bytes),
            kib(inventory.object_bytes())
        );
        findings.push(Finding::new(Kind::ObjectSize, found).note().advised("cloning works; clones inherit it"));
    }
    findings
}
