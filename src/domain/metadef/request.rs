//! What clients and files say, read into what is meant.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::shape::{ASSOCIATION, NAMESPACE, OBJECT, PROPERTY, TAG, TAGS};
use super::{Association, Attributes, Content, Object, PARTS_MAX, Property, Visibility};
use crate::domain::Refusal;

/// A whole namespace, as a client or a file defines it.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The namespace itself.
    pub attributes: Attributes,
    /// What it holds.
    pub content: Content,
}

impl Definition {
    /// Reads a client's document. What it does not say is private, unprotected, and owned by `owner`.
    ///
    /// # Errors
    /// As [`super::shape::Shape::check`]; [`Refusal::Conflict`] for a name that is there twice.
    pub fn parse(document: &Value, owner: &str) -> Result<Self, Refusal> {
        let members = NAMESPACE.check(document)?;
        let attributes = Attributes {
            name: text(members, "namespace").unwrap_or_default(),
            display_name: text(members, "display_name"),
            description: text(members, "description"),
            visibility: text(members, "visibility")
                .and_then(|name| Visibility::parse(&name))
                .unwrap_or(Visibility::Private),
            protected: members.get("protected").and_then(Value::as_bool).unwrap_or(false),
            owner: text(members, "owner").unwrap_or_else(|| owner.to_owned()),
        };
        let content = Content {
            associations: list(members, "resource_type_associations").map(Association::read).collect(),
            properties: members
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .filter_map(|(name, definition)| Some(Property::read(name, definition.as_object()?)))
                .collect(),
            objects: list(members, "objects").map(Object::read).collect(),
            tags: list(members, "tags").filter_map(|tag| text(tag, "name")).collect(),
        };
        unique("resource type", content.associations.iter().map(|association| &association.name))?;
        unique("object", content.objects.iter().map(|object| &object.name))?;
        unique("tag", content.tags.iter())?;
        for (what, count) in [
            ("resource types", content.associations.len()),
            ("properties", content.properties.len()),
            ("objects", content.objects.len()),
            ("tags", content.tags.len()),
        ] {
            check_count(what, count)?;
        }
        Ok(Self { attributes, content })
    }

    /// Reads a file, of ours, of Glance's, or exported by it: what is null there is not said, and what the service
    /// sets is passed over.
    ///
    /// # Errors
    /// As [`Definition::parse`].
    pub fn parse_file(mut document: Value, owner: &str) -> Result<Self, Refusal> {
        if let Some(members) = document.as_object_mut() {
            members.retain(|name, _| {
                !NAMESPACE.members.iter().any(|member| member.name == name && member.kind.is_read_only())
            });
            drop_nulls(members);
            for name in ["resource_type_associations", "objects", "tags"] {
                members
                    .get_mut(name)
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object_mut)
                    .for_each(drop_nulls);
            }
        }
        Self::parse(&document, owner)
    }
}

impl Association {
    /// Reads a client's document.
    ///
    /// # Errors
    /// As [`super::shape::Shape::check`].
    pub fn parse(document: &Value) -> Result<Self, Refusal> {
        ASSOCIATION.check(document).map(Self::read)
    }

    fn read(members: &Map<String, Value>) -> Self {
        Self {
            name: text(members, "name").unwrap_or_default(),
            prefix: text(members, "prefix"),
            properties_target: text(members, "properties_target"),
        }
    }
}

impl Property {
    /// Reads a client's document.
    ///
    /// # Errors
    /// As [`super::shape::Shape::check`].
    pub fn parse(document: &Value) -> Result<Self, Refusal> {
        let members = PROPERTY.check(document)?;
        let name = text(members, "name").ok_or_else(|| {
            Refusal::Invalid("Provided object does not match schema 'property': 'name' is a required property.".into())
        })?;
        Ok(Self::read(&name, members))
    }

    fn read(name: &str, members: &Map<String, Value>) -> Self {
        let definition = members.iter().filter(|(member, _)| *member != "name");
        Self { name: name.to_owned(), definition: definition.map(|(k, v)| (k.clone(), v.clone())).collect() }
    }
}

impl Object {
    /// Reads a client's document.
    ///
    /// # Errors
    /// As [`super::shape::Shape::check`].
    pub fn parse(document: &Value) -> Result<Self, Refusal> {
        OBJECT.check(document).map(Self::read)
    }

    fn read(members: &Map<String, Value>) -> Self {
        let required = members.get("required").and_then(Value::as_array);
        Self {
            name: text(members, "name").unwrap_or_default(),
            description: text(members, "description"),
            required: required.map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            properties: members.get("properties").and_then(Value::as_object).cloned(),
        }
    }
}

/// Reads the name of a tag from a client's document.
///
/// # Errors
/// As [`super::shape::Shape::check`].
pub fn tag_name(document: &Value) -> Result<String, Refusal> {
    TAG.check(document).map(|members| text(members, "name").unwrap_or_default())
}

/// Reads the names of many tags from a client's document.
///
/// # Errors
/// As [`super::shape::Shape::check`]; [`Refusal::Conflict`] for a name that is there twice.
pub fn tags(document: &Value) -> Result<Vec<String>, Refusal> {
    let names: Vec<String> = list(TAGS.check(document)?, "tags").filter_map(|tag| text(tag, "name")).collect();
    unique("tag", names.iter())?;
    check_count("tags", names.len())?;
    Ok(names)
}

fn text(members: &Map<String, Value>, name: &str) -> Option<String> {
    members.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn list<'a>(members: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Map<String, Value>> {
    members.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

fn drop_nulls(members: &mut Map<String, Value>) {
    members.retain(|_, value| !value.is_null());
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(Refusal::Conflict(format!("The {what} '{name}' is there twice; names are unique.")));
        }
    }
    Ok(())
}

fn check_count(what: &str, count: usize) -> Result<(), Refusal> {
    if count > PARTS_MAX {
        return Err(Refusal::TooLarge(format!("A namespace has at most {PARTS_MAX} {what}; these are {count}.")));
    }
    Ok(())
}
