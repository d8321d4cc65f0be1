//! What clients and files say, read into what is meant, and written again.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::shape::{ASSOCIATION, NAMESPACE, OBJECT, PROPERTY, TAG, TAGS};
use super::{
    Association, Attributes, Content, LOADED_OWNER, Namespace, Object, PARTS_MAX, Parts, Property, Visibility,
};
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
    pub fn parse_file(mut document: Value) -> Result<Self, Refusal> {
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
        Self::parse(&document, LOADED_OWNER)
    }

    /// What would define a namespace as it is.
    #[must_use]
    pub fn of(namespace: Namespace, parts: Parts) -> Self {
        let Parts { properties, objects, mut tags } = parts;
        // In the order in which they were made.
        tags.reverse();
        let content = Content {
            associations: namespace.associations.into_iter().map(|association| association.item).collect(),
            properties,
            objects: objects.into_iter().map(|object| object.item).collect(),
            tags,
        };
        Self { attributes: namespace.attributes, content }
    }

    /// The document that [`Definition::parse_file`] reads it from.
    #[must_use]
    pub fn document(&self) -> Value {
        let (a, content) = (&self.attributes, &self.content);
        let mut document = said([
            ("namespace", json!(a.name)),
            ("display_name", json!(a.display_name)),
            ("description", json!(a.description)),
            ("visibility", json!(a.visibility.as_str())),
            ("protected", json!(a.protected)),
            // Files that name no owner belong to this one.
            ("owner", if a.owner == LOADED_OWNER { Value::Null } else { json!(a.owner) }),
        ]);
        let associations = content.associations.iter().map(|a| {
            said([
                ("name", json!(a.name)),
                ("prefix", json!(a.prefix)),
                ("properties_target", json!(a.properties_target)),
            ])
        });
        let objects = content.objects.iter().map(|o| {
            said([
                ("name", json!(o.name)),
                ("description", json!(o.description)),
                ("required", json!(o.required)),
                ("properties", json!(o.properties)),
            ])
        });
        let properties = content.properties.iter().map(|p| (p.name.clone(), Value::Object(p.definition.clone())));
        document["resource_type_associations"] = associations.collect();
        document["properties"] = properties.collect();
        document["objects"] = objects.collect();
        document["tags"] = content.tags.iter().map(|name| json!({"name": name})).collect();
        document
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

fn said<const N: usize>(members: [(&str, Value); N]) -> Value {
    members.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
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

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use proptest::{collection, option};
    use serde_json::{Map, Value, json};

    use super::{Definition, Object, Property, tag_name, tags};
    use crate::domain::Refusal;
    use crate::domain::metadef::{Association, Attributes, Content, LOADED_OWNER, NAME_CHARS_MAX, Visibility};

    #[test]
    fn what_is_not_said_has_its_default() {
        let Definition { attributes, content } = Definition::parse(&json!({"namespace": "n"}), "p").unwrap();
        assert_eq!(
            (attributes.visibility, attributes.protected, attributes.owner.as_str()),
            (Visibility::Private, false, "p")
        );
        assert_eq!(content, Content::default());
        let object = Object::parse(&json!({"name": "o", "required": []})).unwrap();
        assert_eq!((object.required, object.properties), (Some(Vec::new()), None));
        let property = Property::parse(&json!({"type": "string", "name": "p", "title": "t", "default": null})).unwrap();
        assert_eq!(Value::Object(property.definition), json!({"type": "string", "title": "t", "default": null}));
    }

    #[test]
    fn a_file_may_say_nothing_by_null_and_repeat_what_it_was_shown() {
        let file = json!({
            "namespace": "n", "description": null, "self": "/x", "created_at": null,
            "resource_type_associations": [{"name": "r", "prefix": null, "created_at": "2020-01-01T00:00:00Z"}],
            "objects": [{"name": "o", "properties": null, "self": "/y"}],
        });
        let Definition { attributes, content } = Definition::parse_file(file.clone()).unwrap();
        assert_eq!((attributes.description, attributes.owner.as_str()), (None, LOADED_OWNER));
        assert_eq!(content.associations[0].prefix, None);
        assert_eq!(content.objects[0].properties, None);
        // A client says what it means.
        assert!(matches!(Definition::parse(&file, "p"), Err(Refusal::Forbidden(_))));
        for null in [json!({"namespace": "n", "description": null}), json!({"namespace": "n", "objects": null})] {
            assert!(matches!(Definition::parse(&null, "p"), Err(Refusal::Invalid(_))));
        }
    }

    #[test]
    fn names_are_unique_and_bounded() {
        let many =
            |count: usize| json!({"tags": (0..count).map(|n| json!({"name": n.to_string()})).collect::<Vec<_>>()});
        assert_eq!(tags(&many(10_000)).unwrap().len(), 10_000);
        assert!(matches!(tags(&many(10_001)), Err(Refusal::TooLarge(_))));
        assert!(matches!(tags(&json!({"tags": [{"name": "a"}, {"name": "a"}]})), Err(Refusal::Conflict(_))));
        assert_eq!(tag_name(&json!({"name": "ü".repeat(NAME_CHARS_MAX)})).unwrap().chars().count(), NAME_CHARS_MAX);
        assert!(matches!(tag_name(&json!({"name": "ü".repeat(NAME_CHARS_MAX + 1)})), Err(Refusal::Invalid(_))));
    }

    /// Any JSON, with the names that mean something more often than chance would have it.
    fn document() -> impl Strategy<Value = Value> {
        let name = prop_oneof![
            proptest::sample::select(vec![
                "namespace",
                "name",
                "title",
                "type",
                "properties",
                "objects",
                "tags",
                "resource_type_associations",
                "items",
                "enum",
                "default",
                "required",
                "visibility",
                "protected",
                "self",
                "minLength",
                "operators",
                "prefix",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,4}",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            proptest::sample::select(vec!["string", "public", "", "n"]).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                collection::vec((name.clone(), inner), 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn definition() -> impl Strategy<Value = Definition> {
        let name = || "[a-zü:_ ]{1,8}";
        let property = (name(), any::<Option<i32>>(), any::<bool>()).prop_map(|(name, default, list)| {
            let kind = if list { "array" } else { "integer" };
            let document =
                json!({"name": name, "title": "t", "type": kind, "default": default, "enum": [1, "a", null]});
            Property::parse(&document).unwrap()
        });
        let object =
            (name(), option::of("[a-z\\n]{0,5}"), option::of(collection::btree_set(name(), 0..3)), any::<bool>())
                .prop_map(|(name, description, required, with)| Object {
                    name,
                    description,
                    required: required.map(|names| names.into_iter().collect()),
                    properties: with
                        .then(|| json!({"q": {"title": "Q", "type": "string"}}).as_object().cloned().unwrap()),
                });
        let association = (name(), option::of(name()), option::of(name()))
            .prop_map(|(name, prefix, properties_target)| Association { name, prefix, properties_target });
        let attributes =
            (name(), option::of(name()), option::of("[a-z\\n]{0,9}"), any::<bool>(), any::<bool>(), "admin|p-[a-z]{3}")
                .prop_map(|(name, display_name, description, public, protected, owner)| Attributes {
                    name,
                    display_name,
                    description,
                    visibility: if public { Visibility::Public } else { Visibility::Private },
                    protected,
                    owner,
                });
        let parts = (
            collection::vec(association, 0..3),
            collection::vec(property, 0..3),
            collection::vec(object, 0..3),
            collection::btree_set(name(), 0..3),
        );
        (attributes, parts).prop_map(|(attributes, (associations, properties, objects, tags))| {
            let mut content = Content { associations, properties, objects, tags: tags.into_iter().collect() };
            let mut seen = std::collections::BTreeSet::new();
            content.associations.retain(|a| seen.insert(a.name.clone()));
            seen.clear();
            content.properties.retain(|p| seen.insert(p.name.clone()));
            seen.clear();
            content.objects.retain(|o| seen.insert(o.name.clone()));
            Definition { attributes, content }
        })
    }

    proptest! {
        #[test]
        fn no_document_panics(document in document()) {
            let _ = Definition::parse(&document, "p");
            let _ = Object::parse(&document);
            let _ = Property::parse(&document);
            let _ = Association::parse(&document);
            let _ = (tag_name(&document), tags(&document));
            let _ = Definition::parse_file(document);
        }

        #[test]
        fn what_is_written_is_read_again(definition in definition()) {
            let text = definition.document().to_string();
            assert_eq!(Definition::parse_file(serde_json::from_str(&text).unwrap()).unwrap(), definition);
        }
    }
}
