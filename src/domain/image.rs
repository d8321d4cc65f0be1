//! An image record, and the rules for the attributes that clients may set.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

use super::Refusal;
use super::content::Content;
use super::custom::CustomProperties;
use super::id::ImageId;
use super::limits::{PROPERTY_VALUE_BYTES_MAX, Quotas, TEXT_CHARS_MAX};
use super::status::Status;

/// Who may see an image besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody, and it is in everybody's list.
    Public,
    /// Everybody who knows the id; in the list of others only when asked for.
    Community,
    /// The owner and the image's members.
    Shared,
    /// The owner.
    Private,
}

impl Visibility {
    /// Every visibility, in the order of the reference's schema.
    pub const ALL: [Self; 4] = [Self::Community, Self::Public, Self::Private, Self::Shared];

    /// The name in the API and in the catalog.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Community => "community",
            Self::Shared => "shared",
            Self::Private => "private",
        }
    }

    /// The visibility of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|visibility| visibility.as_str() == name)
    }
}

/// Where a copy of the bytes is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub struct Location {
    /// Name of the store that holds it.
    pub store: String,
    /// `rbd://<fsid>/<pool>/<image>/<snapshot>`.
    pub url: String,
    /// What whoever registered it says about it.
    pub metadata: Map<String, Value>,
    /// Whether the data goes when the location goes. What others made under names of their own stays theirs.
    pub owned: bool,
}

/// What a client may set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Display name.
    pub name: Option<String>,
    /// Who may see it.
    pub visibility: Visibility,
    /// Owning project.
    pub owner: Option<String>,
    /// Whether deletion is refused.
    pub protected: bool,
    /// Whether it stays out of default lists (`os_hidden`).
    pub hidden: bool,
    /// `bare`, `ovf`, ...
    pub container_format: Option<String>,
    /// `raw`, `qcow2`, ...
    pub disk_format: Option<String>,
    /// Smallest disk to boot it from, in GiB.
    pub min_disk_gib: i32,
    /// Least memory to boot it with, in MiB.
    pub min_ram_mib: i32,
    /// Labels.
    pub tags: BTreeSet<String>,
    /// Additional properties.
    pub properties: BTreeMap<String, String>,
}

/// An image as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Identifier, and name of the RBD image.
    pub id: ImageId,
    /// State.
    pub status: Status,
    /// What clients set.
    pub attributes: Attributes,
    /// What is known of the bytes; `None` until they are stored.
    pub content: Option<Content>,
    /// Copies of the bytes, first choice first.
    pub locations: Vec<Location>,
    /// Why the last upload failed, for people; `None` once data is there.
    pub upload_failure: Option<String>,
    /// What imports say about it.
    pub import: Import,
    /// When the record was made.
    pub created_at: OffsetDateTime,
    /// When the record last changed.
    pub updated_at: OffsetDateTime,
    /// Counts the changes of the record: a writer names the version it read.
    pub version: i64,
}

/// What imports say about an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Import {
    /// The task that is at work on it; no other may begin.
    pub task: Option<Uuid>,
    /// Stores that it is on its way to; `None`: there was no import.
    pub to: Option<Vec<String>>,
    /// Stores that the last import could not bring it to.
    pub failed: Option<Vec<String>>,
}

/// A moment as the API writes it: whole seconds, UTC.
#[must_use]
pub fn timestamp(moment: OffsetDateTime) -> String {
    let m = moment.to_offset(UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        m.year(),
        u8::from(m.month()),
        m.day(),
        m.hour(),
        m.minute(),
        m.second()
    )
}

/// What this deployment accepts, where deployments differ.
#[derive(Debug, Clone, Default)]
pub struct Formats {
    /// Values of `disk_format`.
    pub disk: Vec<String>,
    /// Values of `container_format`.
    pub container: Vec<String>,
    /// Additional properties that are more than any text.
    pub properties: CustomProperties,
}

/// Attributes that the service alone sets.
const READ_ONLY: [&str; 14] = [
    "created_at",
    "updated_at",
    "status",
    "checksum",
    "size",
    "virtual_size",
    "direct_url",
    "self",
    "file",
    "schema",
    "id",
    "os_hash_algo",
    "os_hash_value",
    "stores",
];
/// Names that may not be used for properties.
const RESERVED: [&str; 4] = ["location", "locations", "deleted", "deleted_at"];
/// Prefix of the names that Glance keeps for itself.
pub const RESERVED_PREFIX: &str = "os_glance";

/// What a name in a request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// One of the settable attributes.
    Attribute,
    /// The service's own.
    ReadOnly,
    /// Not available to clients.
    Reserved,
    /// An additional property.
    Property,
}

/// What somebody does with an additional property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyOperation {
    /// Adds it.
    Create,
    /// Sees it.
    Read,
    /// Changes its value.
    Update,
    /// Removes it.
    Delete,
}

/// The refusal of an additional property that is not the caller's to write, whether it exists or not.
#[must_use]
pub fn reserved(name: &str) -> Refusal {
    Refusal::Forbidden(format!("Attribute '{name}' is reserved."))
}

/// Classifies the name of a field.
#[must_use]
pub fn classify(name: &str) -> Field {
    match name {
        "name" | "visibility" | "owner" | "protected" | "os_hidden" | "container_format" | "disk_format"
        | "min_disk" | "min_ram" | "tags" => Field::Attribute,
        _ if READ_ONLY.contains(&name) => Field::ReadOnly,
        _ if RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX) => Field::Reserved,
        _ => Field::Property,
    }
}

/// The refusal for a field that clients may not write, if it is one.
pub fn check_writable(name: &str) -> Result<(), Refusal> {
    match classify(name) {
        Field::ReadOnly => Err(Refusal::Forbidden(format!("Attribute '{name}' is read-only."))),
        Field::Reserved => Err(reserved(name)),
        Field::Attribute | Field::Property => Ok(()),
    }
}

impl Attributes {
    /// The attributes of an image that `owner` creates without saying anything.
    #[must_use]
    pub fn new(owner: Option<String>) -> Self {
        Self {
            name: None,
            visibility: Visibility::Shared,
            owner,
            protected: false,
            hidden: false,
            container_format: None,
            disk_format: None,
            min_disk_gib: 0,
            min_ram_mib: 0,
            tags: BTreeSet::new(),
            properties: BTreeMap::new(),
        }
    }

    /// Sets one attribute or property from its JSON value.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for read-only and reserved names, [`Refusal::Invalid`] for a value of
    /// the wrong type, length or range; the text names the field.
    pub fn set(&mut self, key: &str, value: &Value, formats: &Formats) -> Result<(), Refusal> {
        check_writable(key)?;
        match key {
            "name" => self.name = text_or_null(key, value)?,
            "owner" => self.owner = text_or_null(key, value)?,
            "visibility" => {
                let names = Visibility::ALL.map(Visibility::as_str);
                self.visibility =
                    value.as_str().and_then(Visibility::parse).ok_or_else(|| one_of(key, value, &names, false))?;
            }
            "protected" => self.protected = boolean(key, value)?,
            "os_hidden" => self.hidden = boolean(key, value)?,
            "container_format" => self.container_format = format_name(key, value, &formats.container)?,
            "disk_format" => self.disk_format = format_name(key, value, &formats.disk)?,
            "min_disk" => self.min_disk_gib = non_negative(key, value)?,
            "min_ram" => self.min_ram_mib = non_negative(key, value)?,
            "tags" => self.tags = tags(value)?,
            _ => {
                check_property_name(key)?;
                self.properties.insert(key.to_owned(), property_value(key, value, &formats.properties)?);
            }
        }
        Ok(())
    }

    /// Checks the counts against the configured quotas.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] naming the quota.
    pub fn check_quotas(&self, quotas: &Quotas) -> Result<(), Refusal> {
        // What the service writes itself is not charged.
        let count = self.properties.keys().filter(|name| !name.starts_with(RESERVED_PREFIX)).count();
        if Quotas::exceeded(quotas.properties, count) {
            return Err(Refusal::TooLarge(format!(
                "The limit has been exceeded on the number of allowed image properties. Attempted: {count}, Maximum: {}",
                quotas.properties
            )));
        }
        self.check_tag_quota(quotas)
    }

    /// Checks the number of tags against the configured quota.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] naming the quota.
    pub fn check_tag_quota(&self, quotas: &Quotas) -> Result<(), Refusal> {
        if Quotas::exceeded(quotas.tags, self.tags.len()) {
            return Err(Refusal::TooLarge(format!(
                "The limit has been exceeded on the number of allowed image tags. Attempted: {}, Maximum: {}",
                self.tags.len(),
                quotas.tags
            )));
        }
        Ok(())
    }
}

/// Checks a property's name.
pub fn check_property_name(key: &str) -> Result<(), Refusal> {
    if key.chars().count() > TEXT_CHARS_MAX {
        return Err(Refusal::Invalid(format!(
            "Custom property should not be greater than {TEXT_CHARS_MAX} characters."
        )));
    }
    check_text("property name", key, false)
}

/// Checks text that goes into the catalog: no control characters (Postgres cannot hold NUL, and a
/// terminal should not obey an image's name), and none outside the Basic Multilingual Plane, which
/// Glance's MySQL schema could not hold either and so refuses.
///
/// # Errors
/// [`Refusal::Invalid`] naming the field.
pub fn check_text(field: &str, text: &str, line_breaks: bool) -> Result<(), Refusal> {
    for character in text.chars() {
        let permitted_break = line_breaks && matches!(character, '\n' | '\r' | '\t');
        if character.is_control() && !permitted_break {
            return Err(Refusal::Invalid(format!(
                "{field} must not contain the control character U+{:04X}; remove it.",
                u32::from(character)
            )));
        }
        if u32::from(character) > 0xFFFF {
            return Err(Refusal::Invalid(format!("{field} can't contain 4 byte unicode characters.")));
        }
    }
    Ok(())
}

pub(super) fn expected(key: &str, value: &Value, what: &str) -> Refusal {
    let mut shown = value.to_string();
    if shown.chars().count() > 80 {
        shown = shown.chars().take(80).chain("...".chars()).collect();
    }
    Refusal::Invalid(format!("Provided object does not match schema 'image': '{key}' must be {what}, not {shown}."))
}

fn one_of(key: &str, value: &Value, names: &[&str], null: bool) -> Refusal {
    let list = names.join(", ");
    let null = if null { "null or " } else { "" };
    expected(key, value, &format!("{null}one of {list}"))
}

fn text_or_null(key: &str, value: &Value) -> Result<Option<String>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => {
            check_length(key, text)?;
            check_text(key, text, false)?;
            Ok(Some(text.clone()))
        }
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(expected(key, value, "a string or null"))
        }
    }
}

fn check_length(key: &str, text: &str) -> Result<(), Refusal> {
    let count = text.chars().count();
    if count > TEXT_CHARS_MAX {
        return Err(Refusal::Invalid(format!(
            "Provided object does not match schema 'image': '{key}' is too long: {count} characters, at most {TEXT_CHARS_MAX} are allowed."
        )));
    }
    Ok(())
}

fn boolean(key: &str, value: &Value) -> Result<bool, Refusal> {
    value.as_bool().ok_or_else(|| expected(key, value, "true or false"))
}

fn format_name(key: &str, value: &Value, known: &[String]) -> Result<Option<String>, Refusal> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) if known.contains(name) => Ok(Some(name.clone())),
        Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            let names: Vec<&str> = known.iter().map(String::as_str).collect();
            Err(one_of(key, value, &names, true))
        }
    }
}

fn non_negative(key: &str, value: &Value) -> Result<i32, Refusal> {
    if !(value.is_i64() || value.is_u64()) {
        return Err(expected(key, value, "an integer"));
    }
    let number = value.as_i64().unwrap_or(i64::MAX);
    if number < 0 {
        return Err(Refusal::Invalid(format!(
            "Invalid value '{number}' for parameter '{key}': Cannot be a negative value"
        )));
    }
    i32::try_from(number)
        .map_err(|_| Refusal::Invalid(format!("'{key}' value out of range, must not exceed {}.", i32::MAX)))
}

fn tags(value: &Value) -> Result<BTreeSet<String>, Refusal> {
    let list = value.as_array().ok_or_else(|| expected("tags", value, "a list of strings"))?;
    let mut tags = BTreeSet::new();
    for item in list {
        let tag = item.as_str().ok_or_else(|| expected("tags", item, "a list of strings"))?;
        check_tag(tag)?;
        tags.insert(tag.to_owned());
    }
    Ok(tags)
}

/// Checks one tag.
///
/// # Errors
/// [`Refusal::Invalid`].
pub fn check_tag(tag: &str) -> Result<(), Refusal> {
    check_length("tags", tag)?;
    check_text("tags", tag, false)
}

fn property_value(key: &str, value: &Value, described: &CustomProperties) -> Result<String, Refusal> {
    let text = described.text(key, value)?;
    if text.len() > PROPERTY_VALUE_BYTES_MAX {
        return Err(Refusal::Invalid(format!(
            "The value of property '{key}' is too long: {} bytes, at most {PROPERTY_VALUE_BYTES_MAX} are allowed.",
            text.len()
        )));
    }
    check_text(&format!("The value of property '{key}'"), text, true)?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    use super::{Attributes, CustomProperties, Formats, Refusal};

    fn formats() -> Formats {
        Formats {
            disk: vec!["raw".into(), "qcow2".into()],
            container: vec!["bare".into()],
            properties: CustomProperties::usual(),
        }
    }

    fn refused(key: &str, value: &Value) -> Refusal {
        Attributes::new(None).set(key, value, &formats()).unwrap_err()
    }

    #[test]
    fn every_attribute_takes_its_own_type_only() {
        let mut attributes = Attributes::new(Some("p".into()));
        for (key, value) in [
            ("name", json!("n")),
            ("name", json!(null)),
            ("visibility", json!("private")),
            ("protected", json!(true)),
            ("os_hidden", json!(false)),
            ("disk_format", json!("raw")),
            ("container_format", json!("bare")),
            ("min_disk", json!(2_147_483_647)),
            ("tags", json!(["b", "a", "b"])),
            ("hw_disk_bus", json!("virtio")),
            ("kernel_id", json!(null)),
        ] {
            attributes.set(key, &value, &formats()).unwrap_or_else(|e| panic!("{key}: {e}"));
        }
        assert_eq!(attributes.tags.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        for (key, value) in [
            ("name", json!(5)),
            ("name", json!("n".repeat(256))),
            ("name", json!("a\u{0}b")),
            ("name", json!("🐧")),
            ("visibility", json!("secret")),
            ("protected", json!("yes")),
            ("disk_format", json!("floppy")),
            ("min_disk", json!(-1)),
            ("min_disk", json!(1.5)),
            ("min_disk", json!(2_147_483_648_i64)),
            ("min_ram", json!("1")),
            ("tags", json!("a")),
            ("tags", json!([1])),
            ("hw_disk_bus", json!(1)),
            ("hw_disk_bus", json!(null)),
            ("kernel_id", json!("not-a-uuid")),
        ] {
            match refused(key, &value) {
                Refusal::Invalid(text) => assert!(text.contains(key) || text.contains("Name"), "{key}: {text}"),
                other => panic!("{key}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_the_service_owns_cannot_be_set() {
        for key in [
            "status",
            "checksum",
            "size",
            "id",
            "os_hash_value",
            "stores",
            "os_glance_x",
            "os_glanceish",
            "location",
            "locations",
            "deleted",
        ] {
            assert!(matches!(refused(key, &json!("x")), Refusal::Forbidden(_)), "{key}");
        }
    }

    proptest! {
        #[test]
        fn set_never_panics_and_never_stores_a_control_character(key in any::<String>(), text in any::<String>()) {
            let mut attributes = Attributes::new(None);
            if attributes.set(&key, &Value::String(text), &formats()).is_ok() {
                for (name, value) in &attributes.properties {
                    assert!(!name.chars().any(char::is_control));
                    assert!(!value.contains('\0'));
                }
                assert!(!attributes.name.unwrap_or_default().chars().any(char::is_control));
            }
        }
    }
}
