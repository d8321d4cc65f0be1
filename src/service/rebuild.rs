//! `rockpool rebuild`: records of a lost or older catalog, from what stands beside the data in the pools.
//!
//! Only what is described whole is taken up, and each image in one transaction, so that it may be cut off and run again.
//! No event tells of it: to the world these images were never gone.

use std::sync::Arc;

use serde::Serialize;
use serde_json::Map;
use uuid::Uuid;

use super::pace::Pace;
use super::{Error, Services, conclude};
use crate::catalog::Tx;
use crate::domain::id::ImageId;
use crate::domain::image::{Image, Location, timestamp};
use crate::domain::member::Membership;
use crate::domain::status::{DEACTIVATE, LOCATE, Status};
use crate::store::description::{Described, differences};
use crate::store::inventory::{Inventory, Meaning};
use crate::store::{Store, whole_description};

/// Names of one page.
const PAGE: u32 = 500;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Whether records are written.
    pub write: bool,
    /// Whether records that exist may be replaced by what stands beside the data, where that is newer.
    pub overwrite: bool,
    /// Images of the stores looked at in one second; 0: as fast as it goes.
    pub images_per_s: u32,
}

/// An image that can be had again.
#[derive(Debug, Clone, Serialize)]
pub struct Restored {
    /// Its id.
    pub image: String,
    /// Its name.
    pub name: Option<String>,
    /// Its project.
    pub owner: Option<String>,
    /// Its state.
    pub status: String,
    /// Who may see it.
    pub visibility: String,
    /// Bytes.
    pub size: u64,
    /// How many projects it is shared with.
    pub members: usize,
    /// Where its data is.
    pub stores: Vec<String>,
    /// Whether a record exists that is replaced.
    pub replaces: bool,
}

/// What is told while it goes on.
#[derive(Debug)]
pub enum Told<'t> {
    /// This would be restored.
    Restorable(&'t Restored),
    /// This has been.
    Restored(&'t Restored),
    /// This is not, and why.
    Skipped {
        /// Where it is, as STORE/NAME.
        place: &'t str,
        /// What keeps it.
        why: &'t str,
    },
    /// This store could not be read.
    Unchecked(String),
}

/// How it ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Names looked at.
    pub stored: u64,
    /// Images that the catalog has as they are.
    pub known: u64,
    /// Images that can be had again.
    pub restorable: u64,
    /// How many of them have been.
    pub restored: u64,
    /// Images that cannot.
    pub skipped: u64,
    /// Stores that could not be read.
    pub unchecked: u64,
}

/// A copy of an image.
struct Copy {
    store: String,
    url: String,
    described: Described,
}

/// What becomes of an image.
enum Outcome {
    /// The record is as it should be.
    Known,
    /// It is restored, or can be.
    Restored(Restored),
    /// It is not.
    Skipped(String),
}

impl Services {
    /// Restores what the catalog does not have, and tells of each image.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for the catalog; stores that do not answer are told as unchecked.
    pub async fn rebuild(
        self: &Arc<Self>,
        request: Request,
        tell: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        // The catalog first: without it nothing can be said of the stores.
        self.catalog.ping().await?;
        for store in self.stores.iter() {
            let Some(inventory) = store.inventory() else { continue };
            if let Err(error) = self.rebuild_from(request, store, inventory, &mut summary, tell).await {
                summary.unchecked += 1;
                tell(Told::Unchecked(format!("store {}: {error}", store.name())));
            }
        }
        Ok(summary)
    }

    async fn rebuild_from(
        &self,
        request: Request,
        store: &Arc<dyn Store>,
        inventory: &dyn Inventory,
        summary: &mut Summary,
        tell: &mut (dyn FnMut(Told<'_>) + Send),
    ) -> Result<(), Error> {
        let mut pace = Pace::new(request.images_per_s.into());
        let mut after = String::new();
        loop {
            let page = inventory.names(&after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.name);
            summary.stored += page.len() as u64;
            let mut urls = Vec::new();
            for listed in &page {
                if let Meaning::Image(id) = listed.meaning {
                    urls.push((id, inventory.url(&listed.name).await?));
                }
            }
            let all: Vec<String> = urls.iter().map(|(_, url)| url.clone()).collect();
            let referred = self.catalog.referred(&all).await?;
            for (id, url) in urls {
                // 1. What the catalog has is not looked at, unless it may be replaced.
                if referred.contains(&url) && !request.overwrite {
                    summary.known += 1;
                    continue;
                }
                pace.take(1).await;
                // 2. What is described, here and in the other stores.
                let outcome = match self.copies(id).await? {
                    // Told with the first store that has it.
                    Ok(copies) if copies.first().is_some_and(|copy| copy.store != store.name()) => continue,
                    Ok(copies) => self.restore_image(request, copies).await?,
                    Err(why) => Outcome::Skipped(why),
                };
                // 3. What has become of it.
                match outcome {
                    Outcome::Known => summary.known += 1,
                    Outcome::Restored(restored) => {
                        summary.restorable += 1;
                        summary.restored += u64::from(request.write);
                        tell(if request.write { Told::Restored(&restored) } else { Told::Restorable(&restored) });
                    }
                    Outcome::Skipped(why) => {
                        summary.skipped += 1;
                        tell(Told::Skipped { place: &format!("{}/{id}", store.name()), why: &why });
                    }
                }
            }
        }
    }

    /// The copies of an image, as they are described, or why it cannot be told what they are.
    async fn copies(&self, id: ImageId) -> Result<Result<Vec<Copy>, String>, Error> {
        let mut copies = Vec::new();
        let mut wrong = None;
        for store in self.stores.iter() {
            let Some(inventory) = store.inventory() else { continue };
            let Some(stored) = inventory.examine(&id.to_string()).await? else { continue };
            let read = Described::read(&stored.description).and_then(|described| {
                let size_bytes = described.image.content.as_ref().map(|content| content.size_bytes);
                if described.image.id != id {
                    return Err(format!("it is described as image {}", described.image.id));
                }
                if stored.published_bytes.is_none() {
                    return Err("it has no snapshot".to_owned());
                }
                match stored.published_bytes == size_bytes {
                    true => Ok(described),
                    false => Err("it does not have the size that it is described with".to_owned()),
                }
            });
            match read {
                Ok(described) => {
                    let url = inventory.url(&id.to_string()).await?;
                    copies.push(Copy { store: store.name().to_owned(), url, described });
                }
                Err(why) => wrong = Some(format!("store {}: {why}", store.name())),
            }
        }
        let content = |copy: &Copy| copy.described.image.content.clone();
        let same = copies.windows(2).all(|pair| content(&pair[0]) == content(&pair[1]));
        Ok(match (copies.is_empty(), wrong) {
            (false, _) if !same => Err("its copies are described as different data".to_owned()),
            (false, _) => Ok(copies),
            // Nothing there any more: nothing to be restored, and nothing to be told.
            (true, wrong) => Err(wrong.unwrap_or_else(|| "it has gone meanwhile".to_owned())),
        })
    }

    async fn restore_image(&self, request: Request, copies: Vec<Copy>) -> Result<Outcome, Error> {
        let locations: Vec<Location> = copies
            .iter()
            .map(|copy| Location {
                store: copy.store.clone(),
                url: copy.url.clone(),
                metadata: Map::new(),
                owned: true,
            })
            .collect();
        let withheld = copies.iter().any(|copy| copy.described.image.status == Status::Deactivated);
        // The last one that was written; where copies disagree, the data stays withheld.
        let newest = copies.into_iter().map(|copy| copy.described).max_by_key(|described| described.image.updated_at);
        let Some(mut described) = newest else { return Ok(Outcome::Skipped("it has gone meanwhile".into())) };
        if withheld {
            described.image.status = Status::Deactivated;
        }
        let tx = self.catalog.begin("rebuild_image").await?;
        let restored = self.try_restore(&tx, request, &described, &locations).await;
        if request.write {
            return conclude(tx, restored).await;
        }
        tx.rollback().await?;
        restored
    }

    /// What would become of an image, and makes it so: a dry run is one that is rolled back.
    async fn try_restore(
        &self,
        tx: &Tx,
        request: Request,
        described: &Described,
        locations: &[Location],
    ) -> Result<Outcome, Error> {
        let skipped = |why: &str| Ok(Outcome::Skipped(why.to_owned()));
        let Described { image, members } = described;
        let id = image.id;
        let Some(content) = &image.content else { return skipped("it is not described") };
        let existing = tx.lock_image(id).await?;
        if tx.is_worked_on(id).await? {
            return skipped("a job is at work on it");
        }
        tx.lock_urls(locations.iter().map(|location| location.url.as_str())).await?;
        let replaced = existing.is_some();
        // 1. May it be?
        let (old, kept) = match existing {
            Some(existing) => {
                let now = tx.members(id).await?;
                match replaceable(request, described, &existing, &now, locations) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Outcome::Known),
                    Err(why) => return skipped(why),
                }
                for member in now {
                    tx.delete_member(id, &member.project).await?;
                }
                tx.update_attributes(id, &existing.attributes, &image.attributes, image.updated_at).await?;
                let others = existing.locations.iter().filter(|old| locations.iter().all(|new| new.url != old.url));
                let kept: Vec<Location> = others.cloned().collect();
                (existing.locations, kept)
            }
            None => {
                if !tx.reserve_id(id).await? && !request.overwrite {
                    return skipped("this catalog knows that it was deleted; --overwrite brings it back");
                }
                tx.insert_image(&Image { status: Status::Queued, ..image.clone() }).await?;
                (Vec::new(), Vec::new())
            }
        };
        // 2. As it was.
        tx.set_content(id, content).await?;
        let all = [locations, &kept].concat();
        tx.set_locations(id, &old, &all).await?;
        for member in members {
            tx.insert_member(member).await?;
        }
        tx.transition(id, &LOCATE).await?;
        if image.status == Status::Deactivated {
            tx.transition(id, &DEACTIVATE).await?;
        }
        tx.set_updated_at(id, image.updated_at).await?;
        // Copies that were behind are brought up to date.
        tx.leave_describe_job(id).await?;
        Ok(Outcome::Restored(Restored {
            image: id.to_string(),
            name: image.attributes.name.clone(),
            owner: image.attributes.owner.clone(),
            status: image.status.to_string(),
            visibility: image.attributes.visibility.as_str().to_owned(),
            size: content.size_bytes,
            members: members.len(),
            stores: all.into_iter().map(|location| location.store).collect(),
            replaces: replaced,
        }))
    }
}

/// Whether a record that exists is to be replaced; `false`: it says the same.
fn replaceable(
    request: Request,
    described: &Described,
    existing: &Image,
    members: &[Membership],
    locations: &[Location],
) -> Result<bool, &'static str> {
    let attempt = Uuid::nil();
    let says = |image: &Image, members: &[Membership]| {
        let content = image.content.as_ref()?;
        Some(whole_description(image, content, members, attempt))
    };
    let refers = |new: &Location| existing.locations.iter().any(|old| old.url == new.url);
    let same = match (says(&described.image, &described.members), says(existing, members)) {
        (Some(new), Some(old)) => differences(&new, &old).is_empty() && locations.iter().all(refers),
        _ => false,
    };
    match existing.status {
        Status::Active | Status::Deactivated if same => Ok(false),
        _ if !request.overwrite => Err("a record exists that says something else; --overwrite replaces it"),
        // What stands beside the data knows whole seconds.
        Status::Active | Status::Deactivated | Status::Queued
            if timestamp(existing.updated_at) > timestamp(described.image.updated_at) =>
        {
            Err("the record is newer than what stands beside the data")
        }
        Status::Active | Status::Deactivated | Status::Queued => Ok(true),
        Status::Saving | Status::Uploading | Status::Importing => {
            Err("its record waits for data; rockpool fsck --repair queues it again")
        }
        Status::Deleted => Err("it is being deleted"),
    }
}
