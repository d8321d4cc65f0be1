//! From the stores to the catalog: whether what is there is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use super::repair::Repair;
use super::{Check, Finding, Kind, PAGE};
use crate::domain::id::ImageId;
use crate::domain::image::Image;
use crate::service::{Error, Services};
use crate::store::inventory::{Inventory, Listed, Meaning, Stored, Trashed};
use crate::store::{Attempt, DESCRIPTION_PREFIX, Purpose, Store};

/// A gateway that starts removes its test within this time. No job tells of it.
const STARTUP_CHECK_TIME: Duration = Duration::from_secs(60);

impl Services {
    pub(super) async fn check_pools(self: &Arc<Self>, check: &mut Check<'_>) -> Result<(), Error> {
        for store in self.stores.iter() {
            let Some(inventory) = store.inventory() else { continue };
            if check.is_silent(store.name()) {
                continue;
            }
            let checked = async {
                self.check_names(check, store, inventory).await?;
                self.check_trash(check, store, inventory).await
            };
            let checked = checked.await;
            if let Err(error) = checked {
                check.silence(store.name(), &error.to_string());
            }
        }
        Ok(())
    }

    async fn check_names(
        self: &Arc<Self>,
        check: &mut Check<'_>,
        store: &Arc<dyn Store>,
        inventory: &dyn Inventory,
    ) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let page = inventory.names(&after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.name);
            check.summary.stored += page.len() as u64;
            // 1. What the catalog does not know, at first sight.
            for listed in self.unknown(inventory, page, check).await? {
                check.pace.take(1).await;
                // 2. And at second.
                let finding = match listed.meaning {
                    Meaning::Image(id) => self.look_at_orphan(check, store, inventory, id).await?,
                    Meaning::Attempt(attempt) => {
                        self.look_at_attempt(check, store.name(), inventory, attempt, &listed.name).await?
                    }
                    Meaning::StartupCheck => {
                        look_at_startup_check(check, store.name(), inventory, &listed.name).await?
                    }
                    Meaning::Foreign => None,
                };
                if let Some(finding) = finding {
                    let finding = if store.is_read_only() { unrepairable(finding) } else { finding };
                    self.report(check, finding.at(store.name(), &listed.name)).await;
                }
            }
        }
    }

    /// The names of a page that no location and no job explains.
    async fn unknown(
        &self,
        inventory: &dyn Inventory,
        page: Vec<Listed>,
        check: &mut Check<'_>,
    ) -> Result<Vec<Listed>, Error> {
        let mut urls = BTreeMap::new();
        let mut tried = Vec::new();
        for listed in &page {
            match listed.meaning {
                Meaning::Image(id) => drop(urls.insert(id, inventory.url(&listed.name).await?)),
                Meaning::Attempt(attempt) => tried.push(attempt.image),
                Meaning::StartupCheck => {}
                Meaning::Foreign => check.summary.foreign += 1,
            }
        }
        let referred = self.catalog.referred(&urls.values().cloned().collect::<Vec<_>>()).await?;
        let worked_on = self.catalog.worked_on(&tried).await?;
        let unknown = |listed: &Listed| match listed.meaning {
            Meaning::Image(id) => urls.get(&id).is_some_and(|url| !referred.contains(url)),
            Meaning::Attempt(attempt) => !worked_on.contains(&attempt.image),
            Meaning::StartupCheck => true,
            Meaning::Foreign => false,
        };
        Ok(page.into_iter().filter(unknown).collect())
    }

    /// Data by the name of an image that does not refer to it.
    async fn look_at_orphan(
        &self,
        check: &Check<'_>,
        store: &Arc<dyn Store>,
        inventory: &dyn Inventory,
        id: ImageId,
    ) -> Result<Option<Finding>, Error> {
        let name = id.to_string();
        let url = inventory.url(&name).await?;
        let tx = self.catalog.begin("fsck_orphan").await?;
        let looked = async {
            let image = tx.lock_image(id).await?;
            if tx.is_referred(&url).await? || tx.is_worked_on(id).await? {
                return Ok(None);
            }
            let (reserved, stored) = (tx.is_reserved(id).await?, inventory.examine(&name).await?);
            Ok::<_, Error>(stored.map(|stored| (image, reserved, stored)))
        };
        let looked = looked.await;
        // Nothing was changed.
        let _ = tx.rollback().await;
        let Some((image, reserved, stored)) = looked? else { return Ok(None) };
        let young = |image: &Image| image.updated_at >= check.before;
        if stored.created_at >= check.before || image.as_ref().is_some_and(young) {
            return Ok(None);
        }
        let finding = match image {
            Some(image) => {
                let found = format!("the image is {}, and does not refer to this data", image.status);
                let advice = "rockpool rebuild --overwrite takes it up; if it is worthless, rbd rm removes it";
                Finding::new(Kind::Orphan, found).advised(advice)
            }
            None if !describes(&stored, id) => {
                Finding::new(Kind::Orphan, "the catalog does not know it, and it is not described as this service does")
                    .advised("rockpool adopt --in-place makes it an image")
            }
            None if !reserved => Finding::new(
                Kind::Orphan,
                "the catalog has never known it: it has been lost or replaced, or shares the pool with another one",
            )
            .advised("rockpool rebuild makes it an image again"),
            None => match store.users(&url).await? {
                Some(by) => Finding::new(Kind::Orphan, format!("its image was deleted, and it is in use: {by}"))
                    .advised("it can go when its users have gone"),
                None => Finding::new(Kind::Orphan, "its image was deleted, and its data is still there")
                    .repaired_by(Repair::Remove { image: id, store: store.name().to_owned(), url }),
            },
        };
        Ok(Some(finding.of(id)))
    }

    /// What an attempt has left whose job has ended.
    async fn look_at_attempt(
        &self,
        check: &Check<'_>,
        store: &str,
        inventory: &dyn Inventory,
        attempt: Attempt,
        name: &str,
    ) -> Result<Option<Finding>, Error> {
        // The job first: it ends after its attempt.
        let Some(reserved) = self.is_left(attempt.image).await? else { return Ok(None) };
        let Some(stored) = inventory.examine(name).await? else { return Ok(None) };
        Ok(left_by(check, store, attempt, name, stored.created_at, reserved))
    }

    /// Whether an image's attempts are nobody's, and if so whether the image is or was one of this catalog.
    async fn is_left(&self, image: ImageId) -> Result<Option<bool>, Error> {
        let tx = self.catalog.begin("fsck_attempt").await?;
        let left = async {
            tx.lock_image(image).await?;
            match tx.is_worked_on(image).await? {
                true => Ok::<_, Error>(None),
                false => Ok(Some(tx.is_reserved(image).await?)),
            }
        };
        let left = left.await;
        let _ = tx.rollback().await;
        left
    }

    async fn check_trash(
        self: &Arc<Self>,
        check: &mut Check<'_>,
        store: &Arc<dyn Store>,
        inventory: &dyn Inventory,
    ) -> Result<(), Error> {
        let all = inventory.trashed().await?;
        check.summary.stored += all.len() as u64;
        let old: Vec<&Trashed> = all.iter().filter(|trashed| trashed.deleted_at < check.before).collect();
        for page in old.chunks(PAGE as usize) {
            let mut findings = Vec::new();
            for trashed in page {
                check.pace.take(1).await;
                let finding = match trashed.meaning {
                    Meaning::Image(id) => self.look_at_trashed(store, inventory, id, trashed).await?,
                    Meaning::Attempt(attempt) => {
                        let left = self.is_left(attempt.image).await?;
                        let left_by =
                            |known| left_by(check, store.name(), attempt, &trashed.name, trashed.deleted_at, known);
                        left.and_then(left_by)
                    }
                    Meaning::StartupCheck => Some(startup_check(store.name(), &trashed.name)),
                    Meaning::Foreign => None,
                };
                findings.extend(finding.map(|finding| (trashed, finding)));
            }
            if findings.is_empty() {
                continue;
            }
            // Some may have gone since they were listed.
            let still: BTreeSet<String> = inventory.trashed().await?.into_iter().map(|trashed| trashed.id).collect();
            for (trashed, finding) in findings.into_iter().filter(|(trashed, _)| still.contains(&trashed.id)) {
                let finding = if store.is_read_only() { unrepairable(finding) } else { finding };
                self.report(check, finding.at(store.name(), &format!("trash/{}", trashed.name))).await;
            }
        }
        Ok(())
    }

    /// The data of an image in the trash.
    async fn look_at_trashed(
        &self,
        store: &Arc<dyn Store>,
        inventory: &dyn Inventory,
        id: ImageId,
        trashed: &Trashed,
    ) -> Result<Option<Finding>, Error> {
        let url = inventory.url(&trashed.name).await?;
        let tx = self.catalog.begin("fsck_trash").await?;
        let looked = async {
            let image = tx.lock_image(id).await?;
            // What an image refers to is told with the image.
            if tx.is_worked_on(id).await? || tx.is_referred(&url).await? {
                return Ok(None);
            }
            Ok::<_, Error>(Some((image.is_some(), tx.is_reserved(id).await?)))
        };
        let looked = looked.await;
        let _ = tx.rollback().await;
        let Some((known, reserved)) = looked? else { return Ok(None) };
        let finding = match (known, reserved) {
            (true, _) => Finding::new(Kind::Trash, "its image exists, and does not refer to this data")
                .advised("if it is worthless, rbd trash rm removes it"),
            (false, false) => Finding::new(Kind::Trash, "the catalog has never known it")
                .note()
                .advised("if it is nobody's, rbd trash rm removes it"),
            (false, true) if trashed.is_kept => {
                Finding::new(Kind::Trash, "its image was deleted; somebody wants the data kept for a while").note()
            }
            (false, true) => match inventory.users_of_trashed(&trashed.id).await? {
                Some(by) => Finding::new(Kind::Trash, format!("its image was deleted, and it is in use: {by}")).note(),
                None => Finding::new(Kind::Trash, "its image was deleted, and nobody removes the data")
                    .repaired_by(Repair::Remove { image: id, store: store.name().to_owned(), url }),
            },
        };
        Ok(Some(finding.of(id)))
    }
}

/// Whether what stands beside a blob says that it is this image's data, and whole.
fn describes(stored: &Stored, id: ImageId) -> bool {
    let says = |key: &str| stored.description.get(&format!("{DESCRIPTION_PREFIX}{key}")).map(String::as_str);
    says("id") == Some(&id.to_string()) && says("state") == Some("ready")
}

fn left_by(
    check: &Check<'_>,
    store: &str,
    attempt: Attempt,
    name: &str,
    at: OffsetDateTime,
    reserved: bool,
) -> Option<Finding> {
    if at >= check.before {
        return None;
    }
    let (kind, what) = match attempt.purpose {
        Purpose::Image => (Kind::HalfWritten, "an upload or a copy has left it, and no job owns it"),
        Purpose::Staging => (Kind::StagingLeftover, "it was staged, and no job owns it"),
    };
    let finding = match reserved {
        true => Finding::new(kind, what).repaired_by(Repair::Sweep {
            image: Some(attempt.image),
            store: store.to_owned(),
            name: name.to_owned(),
        }),
        false => Finding::new(kind, format!("{what}; the catalog has never known its image"))
            .advised("if no other catalog shares the pool, rbd rm removes it"),
    };
    Some(finding.of(attempt.image))
}

async fn look_at_startup_check(
    check: &Check<'_>,
    store: &str,
    inventory: &dyn Inventory,
    name: &str,
) -> Result<Option<Finding>, Error> {
    let old = |stored: &Stored| stored.created_at < check.before.min(OffsetDateTime::now_utc() - STARTUP_CHECK_TIME);
    let stored = inventory.examine(name).await?;
    Ok(stored.filter(|stored| stored.size_bytes == 0 && old(stored)).map(|_| startup_check(store, name)))
}

fn startup_check(store: &str, name: &str) -> Finding {
    Finding::new(Kind::StartupCheck, "a gateway that was starting has left it").repaired_by(Repair::Sweep {
        image: None,
        store: store.to_owned(),
        name: name.to_owned(),
    })
}

fn unrepairable(finding: Finding) -> Finding {
    match finding.step {
        Some(_) => Finding { step: None, repair: None, ..finding }.advised("the store is read-only here"),
        None => finding,
    }
}
