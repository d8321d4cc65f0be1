//! Metadata definitions: which properties resources may carry, what they mean, and to what they apply.

mod query;
mod request;
pub mod shape;

use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;

pub use query::{NamespaceKey, NamespaceQuery, Page, TagKey, check_objects, resource_type};
pub use request::{Definition, tag_name, tags};

/// Longest name of a namespace or of anything in one, in characters.
pub const NAME_CHARS_MAX: usize = 80;
/// Longest description of a namespace, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 500;
/// Most properties, most objects, most tags and most resource types of one namespace: whoever reads it is sent all.
pub const PARTS_MAX: usize = 10_000;
/// Owner of definitions that are loaded from files which name none.
pub const LOADED_OWNER: &str = "admin";

/// Who may see a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everybody.
    Public,
    /// Its owner.
    Private,
}

impl Visibility {
    /// Every name.
    pub const NAMES: [&str; 2] = ["public", "private"];

    /// The name in the API and in the catalog.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
        }
    }

    /// The visibility of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Public, Self::Private].into_iter().find(|visibility| visibility.as_str() == name)
    }
}

/// What clients set of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Unique name.
    pub name: String,
    /// Name for people.
    pub display_name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Who may see it.
    pub visibility: Visibility,
    /// Whether it, and what it holds, is safe from deletion.
    pub protected: bool,
    /// Owning project.
    pub owner: String,
}

/// A namespace as the catalog knows it.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Key in the catalog; clients never see it.
    pub id: i64,
    /// What clients set.
    pub attributes: Attributes,
    /// Types of resource that it applies to, oldest first.
    pub associations: Vec<Dated<Association>>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When its attributes last changed.
    pub updated_at: OffsetDateTime,
}

impl Namespace {
    /// The association with a type of resource.
    #[must_use]
    pub fn association(&self, resource_type: &str) -> Option<&Association> {
        self.associations.iter().map(|association| &association.item).find(|item| item.name == resource_type)
    }
}

/// Says that a namespace applies to a type of resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Association {
    /// Name of the type.
    pub name: String,
    /// Stands before the names of properties on resources of that type.
    pub prefix: Option<String>,
    /// Which of the resource's sets of properties is meant.
    pub properties_target: Option<String>,
}

/// A property, with the JSON schema subset that describes its values.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Property {
    /// Name within the namespace.
    pub name: String,
    /// Everything else, as it was written.
    pub definition: Map<String, Value>,
}

/// A named group of properties.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Object {
    /// Name within the namespace.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Names of the properties that must be there, if its author said anything of them.
    pub required: Option<Vec<String>>,
    /// Definitions by name, if its author gave any.
    pub properties: Option<Map<String, Value>>,
}

/// Something that has nothing but a name: a tag, a type of resource.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
}

/// Something that the catalog holds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Dated<T> {
    /// What it holds.
    #[serde(flatten)]
    pub item: T,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// All that a namespace holds, as a client writes it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Content {
    /// Types of resource that it applies to.
    pub associations: Vec<Association>,
    /// Properties.
    pub properties: Vec<Property>,
    /// Objects.
    pub objects: Vec<Object>,
    /// Names of tags.
    pub tags: Vec<String>,
}

/// All that a namespace holds besides its associations, as the catalog has it.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// Properties, oldest first.
    pub properties: Vec<Property>,
    /// Objects, oldest first.
    pub objects: Vec<Dated<Object>>,
    /// Names of tags, newest first.
    pub tags: Vec<String>,
}

impl Parts {
    /// Writes `prefix` before the name of every property.
    pub fn add_prefix(&mut self, prefix: &str) {
        for property in &mut self.properties {
            property.name.insert_str(0, prefix);
        }
        for object in &mut self.objects {
            let properties = object.item.properties.take().unwrap_or_default();
            object.item.properties = Some(
                properties.into_iter().map(|(name, definition)| (format!("{prefix}{name}"), definition)).collect(),
            );
            for name in object.item.required.iter_mut().flatten() {
                name.insert_str(0, prefix);
            }
        }
    }
}
