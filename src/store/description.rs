//! What stands beside a blob for people with the `rbd` command, and to rebuild a lost catalog from: keys and values as
//! `rbd image-meta list` shows them. `docs/rbd-layout.md` lists the keys.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Attempt;
use crate::domain::content::Content;
use crate::domain::id::ImageId;
use crate::domain::image::{Attributes, Image, Visibility, timestamp};
use crate::domain::member::{MemberStatus, Membership};
use crate::domain::status::Status;

/// Prefix of every key.
pub const DESCRIPTION_PREFIX: &str = "rockpool.";
/// The version of the table of keys.
const SCHEMA: &str = "1";
/// Keys that are history: they may be behind the record.
const HISTORY: [&str; 2] = ["attempt", "updated_at"];

/// The description of an image that is being stored. Its members are not in it: they follow.
#[must_use]
pub fn description(image: &Image, content: &Content, attempt: Uuid) -> BTreeMap<String, String> {
    let a = &image.attributes;
    let mut keys = BTreeMap::from([
        ("schema", SCHEMA.to_owned()),
        ("state", "ready".to_owned()),
        // Sealed before the record is active.
        ("status", if image.status == Status::Deactivated { Status::Deactivated } else { Status::Active }.to_string()),
        ("attempt", attempt.as_simple().to_string()),
        ("id", image.id.to_string()),
        ("visibility", a.visibility.as_str().to_owned()),
        ("protected", a.protected.to_string()),
        ("os_hidden", a.hidden.to_string()),
        ("min_disk", a.min_disk_gib.to_string()),
        ("min_ram", a.min_ram_mib.to_string()),
        ("size", content.size_bytes.to_string()),
        ("created_at", timestamp(image.created_at)),
        ("updated_at", timestamp(image.updated_at)),
        ("tags", json!(a.tags).to_string()),
        ("properties", json!(a.properties).to_string()),
    ]);
    let optional = [
        ("name", a.name.clone()),
        ("owner", a.owner.clone()),
        ("disk_format", a.disk_format.clone()),
        ("container_format", a.container_format.clone()),
        ("virtual_size", content.virtual_size_bytes.map(|n| n.to_string())),
        ("checksum", content.checksum.clone()),
        ("os_hash_algo", content.os_hash_algo.clone()),
        ("os_hash_value", content.os_hash_value.clone()),
        ("converted", content.converted.then(|| "true".to_owned())),
    ];
    keys.extend(optional.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))));
    prefixed(keys)
}

/// The description of an image with its members.
#[must_use]
pub fn whole_description(
    image: &Image,
    content: &Content,
    members: &[Membership],
    attempt: Uuid,
) -> BTreeMap<String, String> {
    let mut keys = description(image, content, attempt);
    if !members.is_empty() {
        let member = |member: &Membership| {
            let said = json!({
                "member_id": member.project,
                "status": member.status.as_str(),
                "created_at": timestamp(member.created_at),
                "updated_at": timestamp(member.updated_at),
            });
            (member.project.clone(), said)
        };
        let list: Vec<Value> = members.iter().map(member).collect::<BTreeMap<_, _>>().into_values().collect();
        keys.insert(format!("{DESCRIPTION_PREFIX}members"), json!(list).to_string());
    }
    keys
}

/// What stands beside staged data.
#[must_use]
pub fn staged_description(attempt: Attempt) -> BTreeMap<String, String> {
    prefixed(BTreeMap::from([
        ("schema", SCHEMA.to_owned()),
        ("state", "staged".to_owned()),
        ("attempt", attempt.id.as_simple().to_string()),
        ("id", attempt.image.to_string()),
    ]))
}

fn prefixed(keys: BTreeMap<&str, String>) -> BTreeMap<String, String> {
    keys.into_iter().map(|(key, value)| (format!("{DESCRIPTION_PREFIX}{key}"), value)).collect()
}

/// The keys, without their prefix, in which what stands beside a blob differs from what should.
#[must_use]
pub fn differences(should: &BTreeMap<String, String>, stands: &BTreeMap<String, String>) -> Vec<String> {
    let keys: BTreeSet<&String> = should.keys().chain(stands.keys()).collect();
    let keys = keys.into_iter().filter(|key| should.get(*key) != stands.get(*key));
    let named = keys.filter_map(|key| key.strip_prefix(DESCRIPTION_PREFIX));
    named.filter(|key| !HISTORY.contains(key)).map(str::to_owned).collect()
}

/// What a description says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// The record, without locations.
    pub image: Image,
    /// Its members.
    pub members: Vec<Membership>,
}

impl Described {
    /// Reads a description.
    ///
    /// # Errors
    /// What is missing or wrong, in words.
    pub fn read(keys: &BTreeMap<String, String>) -> Result<Self, String> {
        let keys = Keys(keys);
        keys.expect("schema", SCHEMA)?;
        keys.expect("state", "ready")?;
        let id = keys.parsed("id", ImageId::parse)?;
        let created_at = keys.parsed("created_at", moment)?;
        let json = |key| keys.parsed(key, |text| serde_json::from_str::<Value>(text).ok());
        let strings = |key| keys.parsed(key, |text| serde_json::from_str::<BTreeSet<String>>(text).ok());
        let attributes = Attributes {
            name: keys.text("name"),
            visibility: keys.parsed("visibility", Visibility::parse)?,
            owner: keys.text("owner"),
            protected: keys.parsed("protected", |text| text.parse().ok())?,
            hidden: keys.parsed("os_hidden", |text| text.parse().ok())?,
            container_format: keys.text("container_format"),
            disk_format: keys.text("disk_format"),
            min_disk_gib: keys.parsed("min_disk", |text| text.parse().ok().filter(|n| *n >= 0))?,
            min_ram_mib: keys.parsed("min_ram", |text| text.parse().ok().filter(|n| *n >= 0))?,
            tags: strings("tags")?,
            properties: keys.parsed("properties", |text| serde_json::from_str(text).ok())?,
        };
        let content = Content {
            size_bytes: keys.parsed("size", |text| text.parse().ok())?,
            virtual_size_bytes: keys.text("virtual_size").and_then(|text| text.parse().ok()),
            checksum: keys.text("checksum"),
            os_hash_algo: keys.text("os_hash_algo"),
            os_hash_value: keys.text("os_hash_value"),
            converted: keys.text("converted").as_deref() == Some("true"),
        };
        let members = match keys.text("members") {
            None => Vec::new(),
            Some(_) => members(id, &json("members")?).ok_or_else(|| wrong("members"))?,
        };
        let image = Image {
            id,
            status: keys.parsed("status", |text| {
                Status::parse(text).filter(|status| matches!(status, Status::Active | Status::Deactivated))
            })?,
            attributes,
            content: Some(content),
            locations: Vec::new(),
            upload_failure: None,
            import: Default::default(),
            created_at,
            updated_at: keys.text("updated_at").and_then(|text| moment(&text)).unwrap_or(created_at),
            version: 1,
        };
        Ok(Self { image, members })
    }
}

fn wrong(key: &str) -> String {
    format!("{DESCRIPTION_PREFIX}{key} is missing or says nothing that is known")
}

/// The keys of a description.
struct Keys<'k>(&'k BTreeMap<String, String>);

impl Keys<'_> {
    fn text(&self, key: &str) -> Option<String> {
        self.0.get(&format!("{DESCRIPTION_PREFIX}{key}")).cloned()
    }

    fn parsed<T>(&self, key: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, String> {
        self.text(key).and_then(|text| parse(&text)).ok_or_else(|| wrong(key))
    }

    fn expect(&self, key: &str, value: &str) -> Result<(), String> {
        self.parsed(key, |text| (text == value).then_some(()))
    }
}

fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}

fn members(image: ImageId, list: &Value) -> Option<Vec<Membership>> {
    let member = |value: &Value| {
        let text = |key| value.get(key).and_then(Value::as_str);
        Some(Membership {
            image,
            project: text("member_id")?.to_owned(),
            status: MemberStatus::parse(text("status")?)?,
            created_at: moment(text("created_at")?)?,
            updated_at: moment(text("updated_at")?)?,
        })
    };
    list.as_array()?.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::{Strategy, any, prop, proptest};
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::{DESCRIPTION_PREFIX, Described, differences, whole_description};
    use crate::domain::content::Content;
    use crate::domain::id::ImageId;
    use crate::domain::image::{Attributes, Image, Visibility};
    use crate::domain::member::{MemberStatus, Membership};
    use crate::domain::status::Status;

    fn moments() -> impl Strategy<Value = OffsetDateTime> {
        (0_i64..4_000_000_000).prop_map(|s| OffsetDateTime::from_unix_timestamp(s).unwrap())
    }

    fn texts() -> impl Strategy<Value = Option<String>> {
        prop::option::of("\\PC{0,40}")
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        let flags = (any::<bool>(), any::<bool>(), 0..4_usize, 0..i32::MAX, 0..i32::MAX);
        let names = (texts(), texts(), texts(), texts());
        let sets = (
            prop::collection::btree_set("\\PC{0,20}", 0..4),
            prop::collection::btree_map("\\PC{1,20}", "\\PC{0,60}", 0..4),
        );
        (flags, names, sets).prop_map(|((protected, hidden, visibility, disk, ram), names, (tags, properties))| {
            Attributes {
                name: names.0,
                visibility: Visibility::ALL[visibility],
                owner: names.1,
                protected,
                hidden,
                container_format: names.2,
                disk_format: names.3,
                min_disk_gib: disk,
                min_ram_mib: ram,
                tags,
                properties,
            }
        })
    }

    fn contents() -> impl Strategy<Value = Content> {
        (any::<u64>(), prop::option::of(any::<u64>()), texts(), texts(), texts(), any::<bool>()).prop_map(
            |(size_bytes, virtual_size_bytes, checksum, os_hash_algo, os_hash_value, converted)| Content {
                size_bytes,
                virtual_size_bytes,
                checksum,
                os_hash_algo,
                os_hash_value,
                converted,
            },
        )
    }

    proptest! {
        #[test]
        fn what_is_described_can_be_read(
            attributes in attributes(),
            content in contents(),
            (created_at, updated_at) in (moments(), moments()),
            deactivated in any::<bool>(),
            members in prop::collection::vec(("\\PC{1,20}", 0..3_usize, moments(), moments()), 0..4),
        ) {
            let id = ImageId::random();
            // A project is a member once.
            let members: Vec<Membership> = members
                .into_iter()
                .map(|(project, status, created_at, updated_at)| {
                    (project.clone(), Membership { image: id, project, status: MemberStatus::ALL[status], created_at, updated_at })
                })
                .collect::<BTreeMap<_, _>>()
                .into_values()
                .collect();
            let image = Image {
                id,
                status: if deactivated { Status::Deactivated } else { Status::Active },
                attributes,
                content: Some(content.clone()),
                locations: Vec::new(),
                upload_failure: None,
                import: Default::default(),
                created_at,
                updated_at,
                version: 1,
            };
            let keys = whole_description(&image, &content, &members, Uuid::new_v4());
            assert_eq!(Described::read(&keys), Ok(Described { image: image.clone(), members: members.clone() }));
            let again = whole_description(&image, &content, &members, Uuid::new_v4());
            assert!(differences(&keys, &again).is_empty(), "another attempt is no difference");
            // Whatever is missing of what an image must have is named.
            for key in ["schema", "state", "status", "id", "visibility", "size", "tags", "properties", "created_at"] {
                let mut less = keys.clone();
                less.remove(&format!("{DESCRIPTION_PREFIX}{key}"));
                assert!(Described::read(&less).unwrap_err().contains(key), "{key}");
                assert_eq!(differences(&keys, &less), [key]);
            }
        }
    }
}
