//! What a patch makes of the locations of an image, by the table of `image-api.md` 3.4.

use std::collections::BTreeMap;

use super::Refusal;
use super::content::{Content, HashAlgorithm};
use super::image::{Image, Location};
use super::limits::Quotas;
use super::location::{Found, Proposal, Validation};
use super::patch::LocationChange;
use super::status::Status;

/// What everything else is measured by.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'r> {
    /// Data that was found at the URLs that are new to the image.
    pub found: &'r BTreeMap<String, Found>,
    /// Algorithm that given hashes must be of.
    pub algorithm: Option<HashAlgorithm>,
    /// How many locations there may be.
    pub quotas: &'r Quotas,
}

/// An image's locations, and what follows from them.
#[derive(Debug, Clone, PartialEq)]
pub struct Relocated {
    /// `active`, if the image was queued and got a location.
    pub status: Status,
    /// What is known of the bytes.
    pub content: Option<Content>,
    /// The locations, in order.
    pub locations: Vec<Location>,
}

/// Carries out changes one after the other.
///
/// # Errors
/// The first that cannot be carried out.
pub fn relocate(image: &Image, changes: &[LocationChange], rules: Rules<'_>) -> Result<Relocated, Refusal> {
    let mut next =
        Relocated { status: image.status, content: image.content.clone(), locations: image.locations.clone() };
    for change in changes {
        match change {
            LocationChange::Add(position, proposal) => next.add(position, proposal, rules)?,
            LocationChange::Replace(proposals) => next.replace(proposals, rules)?,
            LocationChange::Remove(position) => next.remove(position)?,
        }
    }
    Ok(next)
}

impl Relocated {
    fn add(&mut self, position: &str, proposal: &Proposal, rules: Rules<'_>) -> Result<(), Refusal> {
        self.check_status("add", &[Status::Queued, Status::Active])?;
        let validation = self.validation(std::slice::from_ref(proposal), rules)?;
        let count = self.locations.len();
        let at = index(position, count, count + 1)
            .ok_or_else(|| Refusal::Invalid("Invalid position for adding a location.".into()))?;
        if self.locations.iter().any(|location| location.url == proposal.url) {
            return Err(duplicate());
        }
        rules.quotas.check_locations(count + 1)?;
        let location = self.accept(proposal, rules)?;
        self.locations.insert(at, location);
        self.complete(validation);
        Ok(())
    }

    fn replace(&mut self, proposals: &[Proposal], rules: Rules<'_>) -> Result<(), Refusal> {
        if proposals.is_empty() {
            return Err(Refusal::Forbidden("Cannot set locations to empty list.".into()));
        }
        self.check_status("replace", &[Status::Queued, Status::Active])?;
        let validation = self.validation(proposals, rules)?;
        let mut urls: Vec<&str> = proposals.iter().map(|proposal| proposal.url.as_str()).collect();
        urls.sort_unstable();
        if urls.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(duplicate());
        }
        rules.quotas.check_locations(proposals.len())?;
        if self.locations.is_empty() {
            for proposal in proposals {
                let location = self.accept(proposal, rules)?;
                self.locations.push(location);
            }
        } else {
            // Other places would be other bytes: what there is can be put in order and described, no more.
            let known = |proposal: &Proposal| {
                let known = self.locations.iter().find(|location| location.url == proposal.url)?;
                Some(Location { metadata: proposal.metadata.clone(), ..known.clone() })
            };
            let kept: Option<Vec<Location>> = proposals.iter().map(known).collect();
            self.locations = kept.filter(|kept| kept.len() == self.locations.len()).ok_or_else(|| {
                Refusal::Invalid(
                    "Original locations is not empty: the same urls can be given in another order and with other metadata; others are added and removed one by one.".into(),
                )
            })?;
        }
        self.complete(validation);
        Ok(())
    }

    fn remove(&mut self, position: &str) -> Result<(), Refusal> {
        self.check_status("remove", &[Status::Active])?;
        let count = self.locations.len();
        if count < 2 {
            return Err(Refusal::Forbidden("Cannot remove last location in the image.".into()));
        }
        let at = index(position, count - 1, count)
            .ok_or_else(|| Refusal::Invalid("Invalid position for removing a location.".into()))?;
        self.locations.remove(at);
        Ok(())
    }

    fn check_status(&self, what: &str, permitted: &[Status]) -> Result<(), Refusal> {
        if permitted.contains(&self.status) {
            return Ok(());
        }
        Err(Refusal::Conflict(format!("It's not allowed to {what} locations if image status is {}.", self.status)))
    }

    /// The location that was found for a proposal, if it can be one of this image's.
    fn accept(&mut self, proposal: &Proposal, rules: Rules<'_>) -> Result<Location, Refusal> {
        let found = rules.found.get(&proposal.url).ok_or_else(|| {
            Refusal::Conflict("The locations were changed by another request at the same time; try again.".into())
        })?;
        let size_bytes = found.size_bytes;
        let known = self.content.get_or_insert(Content::of_size(size_bytes));
        if known.size_bytes != size_bytes {
            return Err(Refusal::Invalid(format!(
                "Invalid location: it holds {size_bytes} bytes, the image has {}.",
                known.size_bytes
            )));
        }
        Ok(Location { metadata: proposal.metadata.clone(), ..found.location.clone() })
    }

    /// An image that waited for data has it now.
    fn complete(&mut self, validation: Option<Validation>) {
        self.status = Status::Active;
        if let (Some(given), Some(content)) = (validation, self.content.as_mut()) {
            content.checksum = given.checksum.map(|md5| md5.to_ascii_lowercase());
            content.os_hash_algo = Some(given.os_hash_algo);
            content.os_hash_value = Some(given.os_hash_value.to_ascii_lowercase());
        }
    }

    /// What is said of the bytes and not known yet.
    fn validation(&self, proposals: &[Proposal], rules: Rules<'_>) -> Result<Option<Validation>, Refusal> {
        let mut given = proposals.iter().filter_map(|proposal| proposal.validation.as_ref());
        let Some(first) = given.next() else { return Ok(None) };
        if given.any(|other| other != first) {
            return Err(Refusal::Conflict("Conflicting values in validation_data.".into()));
        }
        let content = self.content.as_ref();
        let fields = [
            ("checksum", first.checksum.as_deref(), content.and_then(|c| c.checksum.as_deref())),
            ("os_hash_algo", Some(first.os_hash_algo.as_str()), content.and_then(|c| c.os_hash_algo.as_deref())),
            ("os_hash_value", Some(first.os_hash_value.as_str()), content.and_then(|c| c.os_hash_value.as_deref())),
        ];
        let new: Vec<&str> = fields
            .into_iter()
            .filter(|(_, given, known)| given.is_some() && given != known)
            .map(|(name, _, known)| match known {
                Some(_) => Err(Refusal::Conflict(format!("{name} is already set with a different value."))),
                None => Ok(name),
            })
            .collect::<Result<_, _>>()?;
        if new.is_empty() {
            return Ok(None);
        }
        if self.status != Status::Queued {
            return Err(Refusal::Conflict(format!(
                "New value(s) for {} may only be provided when image status is 'queued'.",
                new.join(", ")
            )));
        }
        let wanted = rules.algorithm.map_or("none", HashAlgorithm::as_str);
        if first.os_hash_algo != wanted {
            return Err(Refusal::Conflict(format!("os_hash_algo must be {wanted}, not {}.", first.os_hash_algo)));
        }
        first.check().map_err(|why| Refusal::Conflict(format!("validation_data: {why}")))?;
        Ok(Some(first.clone()))
    }
}

/// The position that a path names: below `end`, or `-`, which is `last`.
fn index(position: &str, last: usize, end: usize) -> Option<usize> {
    if position == "-" {
        return Some(last);
    }
    let digits = !position.is_empty() && position.bytes().all(|byte| byte.is_ascii_digit());
    position.parse().ok().filter(|at| digits && *at < end)
}

fn duplicate() -> Refusal {
    Refusal::Invalid("Duplicate location: the image has that url already, or it is given twice.".into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Map, json};
    use time::OffsetDateTime;

    use super::{Relocated, Rules, relocate};
    use crate::domain::Refusal;
    use crate::domain::content::{Content, HashAlgorithm};
    use crate::domain::id::ImageId;
    use crate::domain::image::{Attributes, Image, Import, Location};
    use crate::domain::limits::Quotas;
    use crate::domain::location::{Found, Proposal};
    use crate::domain::patch::LocationChange;
    use crate::domain::status::Status;

    fn location(url: &str) -> Location {
        Location { store: "ceph".into(), url: url.into(), metadata: Map::new(), owned: false }
    }

    fn image(status: Status, urls: &[&str]) -> Image {
        let content =
            Content { os_hash_algo: Some("sha256".into()), os_hash_value: Some("aa".into()), ..Content::of_size(5) };
        Image {
            id: ImageId::random(),
            status,
            attributes: Attributes::new(None),
            content: (status != Status::Queued).then_some(content),
            locations: urls.iter().map(|url| location(url)).collect(),
            upload_failure: None,
            import: Import::default(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
            version: 1,
        }
    }

    fn proposal(url: &str) -> Proposal {
        Proposal { url: url.into(), metadata: Map::new(), validation: None }
    }

    fn hashed(url: &str, algorithm: &str, value: &str) -> Proposal {
        let validation = json!({"os_hash_algo": algorithm, "os_hash_value": value});
        Proposal::parse(&json!({"url": url, "metadata": {}, "validation_data": validation})).unwrap()
    }

    fn apply(image: &Image, changes: &[LocationChange]) -> Result<Relocated, Refusal> {
        let found = [("a", 5), ("b", 5), ("c", 5), ("d", 6)]
            .map(|(url, size_bytes)| (url.to_owned(), Found { location: location(url), size_bytes }));
        let rules = Rules {
            found: &BTreeMap::from(found),
            algorithm: Some(HashAlgorithm::Sha256),
            quotas: &Quotas { properties: 1, tags: 1, members: 1, locations: 3 },
        };
        relocate(image, changes, rules)
    }

    fn add(position: &str, url: &str) -> LocationChange {
        LocationChange::Add(position.into(), proposal(url))
    }

    fn remove(position: &str) -> LocationChange {
        LocationChange::Remove(position.into())
    }

    fn replace(urls: &[&str]) -> LocationChange {
        LocationChange::Replace(urls.iter().map(|url| proposal(url)).collect())
    }

    #[test]
    fn what_can_be_done() {
        let active = |urls: &[&str], changes: &[LocationChange]| {
            let next = apply(&image(Status::Active, urls), changes).unwrap();
            next.locations.into_iter().map(|location| location.url).collect::<String>()
        };
        assert_eq!(active(&["a"], &[add("-", "b")]), "ab");
        assert_eq!(active(&["a"], &[add("0", "b"), add("1", "c")]), "bca");
        assert_eq!(active(&["a"], &[add("1", "b")]), "ab");
        assert_eq!(active(&["a", "b", "c"], &[remove("-")]), "ab");
        assert_eq!(active(&["a", "b", "c"], &[remove("0"), remove("0")]), "c");
        assert_eq!(active(&["a", "b"], &[replace(&["b", "a"])]), "ba");
        let queued = apply(&image(Status::Queued, &[]), &[add("-", "a"), add("-", "b"), remove("0")]).unwrap();
        assert_eq!((queued.status, queued.content.unwrap().size_bytes), (Status::Active, 5));
        let queued = apply(&image(Status::Queued, &[]), &[replace(&["b", "a"])]).unwrap();
        assert_eq!(queued.locations.len(), 2);
        let value = "ABCDEF01".repeat(8);
        let change = LocationChange::Add("-".into(), hashed("a", "sha256", &value));
        let content = apply(&image(Status::Queued, &[]), &[change]).unwrap().content.unwrap();
        assert_eq!(content.os_hash_value, Some(value.to_lowercase()));
        let change = LocationChange::Add("-".into(), hashed("b", "sha256", "aa"));
        apply(&image(Status::Active, &["a"]), &[change]).unwrap();
    }

    #[test]
    fn what_cannot() {
        let kind = |image: &Image, changes: &[LocationChange]| match apply(image, changes) {
            Ok(_) => "ok",
            Err(Refusal::Invalid(_)) => "400",
            Err(Refusal::Forbidden(_)) => "403",
            Err(Refusal::Conflict(_)) => "409",
            Err(Refusal::TooLarge(_)) => "413",
            Err(Refusal::Unsupported(_)) => "415",
        };
        let one = image(Status::Active, &["a"]);
        let two = image(Status::Active, &["a", "b"]);
        for (image, change, expected) in [
            (&one, replace(&[]), "403"),
            (&one, replace(&["b"]), "400"),
            (&one, replace(&["a", "b"]), "400"),
            (&two, replace(&["a"]), "400"),
            (&two, replace(&["a", "a"]), "400"),
            (&one, remove("0"), "403"),
            (&two, remove("2"), "400"),
            (&two, remove("x"), "400"),
            (&two, remove("+1"), "400"),
            (&two, remove("99999999999999999999999"), "400"),
            (&one, add("2", "b"), "400"),
            (&one, add("-1", "b"), "400"),
            (&one, add("", "b"), "400"),
            (&one, add("-", "a"), "400"),
            (&one, add("-", "d"), "400"),
            (&one, add("-", "e"), "409"),
            (&image(Status::Queued, &[]), replace(&["a", "d"]), "400"),
            (&image(Status::Queued, &[]), remove("0"), "409"),
            (&image(Status::Active, &["a", "b", "c"]), add("-", "d"), "413"),
            (&image(Status::Queued, &[]), replace(&["a", "b", "c", "d"]), "413"),
        ] {
            assert_eq!(kind(image, std::slice::from_ref(&change)), expected, "{change:?}");
        }
        for status in [Status::Saving, Status::Importing, Status::Uploading, Status::Deactivated] {
            for change in [add("-", "c"), replace(&["b", "a"]), remove("0")] {
                assert_eq!(kind(&image(status, &["a", "b"]), &[change]), "409", "{status}");
            }
        }
    }

    #[test]
    fn hashes_that_contradict_are_conflicts() {
        let value = "a".repeat(64);
        let refused =
            |image: &Image, proposals: Vec<Proposal>| match apply(image, &[LocationChange::Replace(proposals)]) {
                Err(Refusal::Conflict(why)) => why,
                other => panic!("{other:?}"),
            };
        let (queued, active) = (image(Status::Queued, &[]), image(Status::Active, &["a"]));
        for (image, proposals, rule) in [
            (&queued, vec![hashed("a", "sha256", &value), hashed("b", "sha256", &value[1..])], "Conflicting"),
            (&queued, vec![hashed("a", "sha256", "aa")], "size"),
            (&queued, vec![hashed("a", "sha256", &"x".repeat(64))], "hexadecimal"),
            (&queued, vec![hashed("a", "sha512", &"a".repeat(128))], "must be sha256"),
            (&active, vec![hashed("a", "sha256", &value)], "already set"),
        ] {
            let why = refused(image, proposals);
            assert!(why.contains(rule), "{why}");
        }
    }
}
