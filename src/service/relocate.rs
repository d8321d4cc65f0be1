//! Locations in a PATCH: what can be found out before anything is locked, and what is written under the lock.

use std::collections::BTreeMap;

use serde_json::json;

use super::unlocate::Removal;
use super::upload::check_formats;
use super::{Error, Services};
use crate::catalog::Tx;
use crate::domain::image::{Attributes, Image, Location};
use crate::domain::location::Found;
use crate::domain::patch::{LocationChange, Patch};
use crate::domain::relocate::{Relocated, Rules, relocate};
use crate::domain::status::{LOCATE, Status};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

/// What was found out about the locations that a patch names.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Data at URLs that are new to the image.
    found: BTreeMap<String, Found>,
    /// URLs that it has and that nobody uses.
    unused: Vec<String>,
}

impl Services {
    /// Looks at what a patch does to the locations of an image.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for callers who may not, [`Error::Invalid`] for a location that cannot be one,
    /// [`Error::Conflict`] for data in use.
    pub(super) async fn survey(&self, caller: &Caller, image: &Image, patch: &Patch) -> Result<Survey, Error> {
        let changes = patch.location_changes();
        let mut survey = Survey::default();
        if changes.is_empty() {
            return Ok(survey);
        }
        // 1. May the caller?
        for change in changes {
            self.check_location_change(caller, image, change).await?;
        }
        // 2. Is there data where the caller says?
        let status = image.status;
        if !matches!(status, Status::Queued | Status::Active) {
            return Err(Error::Conflict(format!("It's not allowed to change locations if image status is {status}.")));
        }
        self.settings.quotas.check_locations(named(changes).count())?;
        for url in named(changes) {
            let known = image.locations.iter().any(|location| location.url == url);
            if !known && !survey.found.contains_key(url) {
                survey.found.insert(url.to_owned(), self.find_data(caller, image, url).await?);
            }
        }
        // 3. Is what is to go in use?
        let next = relocate(image, changes, self.rules(&survey))?;
        for location in gone(&image.locations, &next.locations) {
            self.check_unused(image, location).await?;
            survey.unused.push(location.url.clone());
        }
        Ok(survey)
    }

    async fn check_location_change(
        &self,
        caller: &Caller,
        image: &Image,
        change: &LocationChange,
    ) -> Result<(), Error> {
        let target = Target::from(image);
        match change {
            LocationChange::Replace(list) if list.is_empty() => {
                return Err(Error::Forbidden("Cannot set locations to empty list.".into()));
            }
            LocationChange::Add(..) | LocationChange::Replace(_) => {
                self.authorize(Action::SetImageLocation, caller, target).await?;
            }
            LocationChange::Remove(_) => self.authorize(Action::DeleteImageLocation, caller, target).await?,
        }
        self.authorize(Action::GetImageLocation, caller, target).await?;
        if !self.settings.show_multiple_locations {
            return Err(Error::Forbidden(
                "It's not allowed to update locations if locations are invisible (show_multiple_locations).".into(),
            ));
        }
        Ok(())
    }

    fn rules<'r>(&'r self, survey: &'r Survey) -> Rules<'r> {
        Rules { found: &survey.found, algorithm: self.settings.hashing_algorithm, quotas: &self.settings.quotas }
    }

    /// A locked image with its locations as the patch makes them, written down, and jobs for the data that goes.
    pub(super) async fn relocate(
        &self,
        tx: &Tx,
        image: Image,
        patch: &Patch,
        attributes: &Attributes,
        survey: &Survey,
    ) -> Result<(Image, Vec<Removal>), Error> {
        if patch.location_changes().is_empty() {
            return Ok((image, Vec::new()));
        }
        let next = relocate(&image, patch.location_changes(), self.rules(survey))?;
        let activated = next.status != image.status;
        if activated {
            check_formats(attributes)?;
        }
        // 1. Locks of everything that comes or goes, before any of it is touched.
        let new = gone(&next.locations, &image.locations);
        let old: Vec<Location> = gone(&image.locations, &next.locations).into_iter().cloned().collect();
        tx.lock_urls(new.iter().copied().chain(&old).map(|location| location.url.as_str())).await?;
        for location in &new {
            self.take_up(tx, &location.url).await?;
        }
        if old.iter().any(|location| !survey.unused.contains(&location.url)) {
            return Err(Error::Conflict(
                "The locations were changed by another request at the same time; try again.".into(),
            ));
        }
        let removals = self.give_up_data(tx, image.id, &old, Some(&self.settings.gateway)).await?;
        // 2. The rows.
        if let Some(content) = next.content.as_ref().filter(|_| activated) {
            tx.set_content(image.id, content).await?;
            tx.transition(image.id, &LOCATE).await?;
            tx.image_event("image.activate", image.id, &json!({})).await?;
        }
        tx.set_locations(image.id, &image.locations, &next.locations).await?;
        let Relocated { status, content, locations } = next;
        Ok((Image { status, content, locations, ..image }, removals))
    }
}

/// URLs that changes bring.
fn named(changes: &[LocationChange]) -> impl Iterator<Item = &str> {
    changes
        .iter()
        .flat_map(|change| match change {
            LocationChange::Add(_, proposal) => std::slice::from_ref(proposal),
            LocationChange::Replace(proposals) => proposals,
            LocationChange::Remove(_) => &[],
        })
        .map(|proposal| proposal.url.as_str())
}

/// Those of `before` that are not in `after`.
fn gone<'l>(before: &'l [Location], after: &[Location]) -> Vec<&'l Location> {
    before.iter().filter(|old| after.iter().all(|new| new.url != old.url)).collect()
}
