//! `rockpool scrub`: whether stored data is still what was recorded. Reads, and changes no data.

use serde::Serialize;

use super::{Error, Services, locate};
use crate::catalog::Scrub;
use crate::domain::content::{Content, HashAlgorithm};
use crate::domain::image::{Image, Location};
use crate::domain::query::Scope;
use crate::domain::status::Status;
use crate::store::{self, Kind};

/// Records of one page.
const PAGE: i64 = 500;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Bytes read in one second; 0: as fast as it goes.
    pub bytes_per_s: u64,
    /// Data that has not changed is read again after so many days; 0: each time.
    pub days: u32,
}

/// Data that is not what was recorded, or that could not be read.
#[derive(Debug, Clone, Serialize)]
pub struct Bad {
    /// The image.
    pub image: String,
    /// Its name.
    pub name: Option<String>,
    /// The store.
    pub store: String,
    /// Where in it.
    pub url: String,
    /// Algorithm of the hash.
    pub algorithm: &'static str,
    /// What is recorded.
    pub expected: String,
    /// What the data has; `None`: it could not be read.
    pub found: Option<String>,
    /// What kept it from being read.
    pub why: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Copies that are what they should be.
    pub good: u64,
    /// Bytes that were compared.
    pub bytes: u64,
    /// Copies that have not changed since they were good.
    pub skipped: u64,
    /// Copies that nothing is recorded of to compare with.
    pub unhashed: u64,
    /// Copies that are not what they should be.
    pub mismatches: u64,
    /// Copies that could not be read.
    pub unreadable: u64,
}

impl Services {
    /// Reads what has not been read for a while, and tells what is bad.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for the catalog.
    pub async fn scrub(&self, request: Request, tell: &mut (dyn FnMut(&Bad) + Send)) -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut after = None;
        loop {
            let page = self.catalog.images_after(after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(summary) };
            after = Some(last.id);
            for image in page.iter().filter(|image| matches!(image.status, Status::Active | Status::Deactivated)) {
                let scrubbed = self.catalog.scrubs(image.id, request.days).await?;
                for location in &image.locations {
                    self.scrub_copy(image, location, scrubbed.get(&location.url), request, &mut summary, tell).await?;
                }
            }
        }
    }

    async fn scrub_copy(
        &self,
        image: &Image,
        location: &Location,
        last: Option<&Scrub>,
        request: Request,
        summary: &mut Summary,
        tell: &mut (dyn FnMut(&Bad) + Send),
    ) -> Result<(), Error> {
        let Some((algorithm, expected)) = image.content.as_ref().and_then(recorded) else {
            summary.unhashed += 1;
            return Ok(());
        };
        // 1. Has it been read before, and not changed?
        let read = async {
            let store = self.stores.get(Some(&location.store))?;
            if store.common().kind == Kind::Http {
                return Ok(None);
            }
            let identity = match store.inventory() {
                Some(inventory) => {
                    let stored = inventory.examine(&inventory.name(&location.url).await?).await?;
                    stored.map(|stored| stored.identity).unwrap_or_default()
                }
                None => String::new(),
            };
            if last.is_some_and(|last| last.matches && last.hash == expected && last.identity == identity) {
                return Ok(None);
            }
            // 2. All of it.
            let reader = store.open(&location.url).await?;
            let size_bytes = reader.size_bytes();
            let found = locate::hash_whole(reader, algorithm, request.bytes_per_s).await?;
            Ok::<_, store::Error>(Some((identity, size_bytes, found)))
        };
        let read = read.await;
        // 3. What came of it, if anybody still wants to know.
        let bad = |found: Option<String>, why: Option<String>| Bad {
            image: image.id.to_string(),
            name: image.attributes.name.clone(),
            store: location.store.clone(),
            url: location.url.clone(),
            algorithm: algorithm.as_str(),
            expected: expected.to_owned(),
            found,
            why,
        };
        match read {
            Ok(None) => summary.skipped += 1,
            Ok(Some((identity, size_bytes, found))) => {
                let matches = found.eq_ignore_ascii_case(expected);
                if !matches && !self.is_current(image, location).await? {
                    return Ok(());
                }
                summary.bytes += size_bytes;
                let (url, hash) = (location.url.clone(), expected.to_owned());
                self.catalog.record_scrub(&Scrub { image: image.id, url, hash, identity, matches }).await?;
                if matches {
                    summary.good += 1;
                } else {
                    summary.mismatches += 1;
                    tell(&bad(Some(found), None));
                }
            }
            Err(error) if self.is_current(image, location).await? => {
                summary.unreadable += 1;
                tell(&bad(None, Some(error.to_string())));
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Whether an image still says that this data is its own.
    async fn is_current(&self, seen: &Image, location: &Location) -> Result<bool, Error> {
        let image = self.catalog.image(seen.id, &Scope::Everything(None)).await?;
        Ok(image.is_some_and(|image| image.content == seen.content && image.locations.contains(location)))
    }
}

/// What the bytes were when they were stored: the hash of what is stored, or else that of what came, if that is stored.
fn recorded(content: &Content) -> Option<(HashAlgorithm, &str)> {
    let hash = content.os_hash_algo.as_deref().and_then(HashAlgorithm::named).zip(content.os_hash_value.as_deref());
    hash.or_else(|| content.checksum.as_deref().filter(|_| !content.converted).map(|md5| (HashAlgorithm::Md5, md5)))
}

#[cfg(test)]
mod tests {
    use super::recorded;
    use crate::domain::content::{Content, HashAlgorithm};

    #[test]
    fn the_hash_of_what_is_stored_is_what_counts() {
        let text = |text: &str| Some(text.to_owned());
        let none = Content::of_size(1);
        assert_eq!(recorded(&none), None);
        let md5 = Content { checksum: text("m"), ..none.clone() };
        assert_eq!(recorded(&md5), Some((HashAlgorithm::Md5, "m")));
        // Converted on the way: the MD5 is of other bytes.
        assert_eq!(recorded(&Content { converted: true, ..md5.clone() }), None);
        let both = Content { os_hash_algo: text("sha256"), os_hash_value: text("h"), ..md5 };
        assert_eq!(recorded(&both), Some((HashAlgorithm::Sha256, "h")));
    }
}
