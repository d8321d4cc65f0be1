//! Metadata definitions as clients see them. What is not set is left out, as the reference does.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use crate::domain::image::timestamp;
use crate::domain::metadef::{Association, Content, Dated, Named, Namespace, Object, Parts, Property};

/// Characters of a name that have to be written otherwise in a path.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':').remove(b'@').remove(b'+');

/// Where a namespace is.
pub(in crate::api) fn namespace_path(name: &str) -> String {
    format!("/v2/metadefs/namespaces/{}", utf8_percent_encode(name, IN_PATH))
}

/// A namespace in a list, with the types of resource that it applies to.
pub(in crate::api) fn namespace(namespace: &Namespace) -> Value {
    let mut members = attributes(namespace);
    put_list(&mut members, "resource_type_associations", namespace.associations.iter().map(dated_association));
    Value::Object(members)
}

/// A namespace and all that it holds.
pub(in crate::api) fn whole_namespace(namespace: &Namespace, parts: &Parts) -> Value {
    let mut document = self::namespace(namespace);
    if let Value::Object(members) = &mut document {
        put_map(
            members,
            "properties",
            parts.properties.iter().map(|p| (p.name.clone(), Value::Object(definition(&p.definition)))),
        );
        put_list(members, "objects", parts.objects.iter().map(|o| object(&namespace.attributes.name, o)));
        put_list(members, "tags", parts.tags.iter().map(|name| json!({"name": name})));
    }
    document
}

/// A new namespace, with what its maker said of what it is to hold.
pub(in crate::api) fn created_namespace(namespace: &Namespace, content: &Content) -> Value {
    let mut members = attributes(namespace);
    put_list(
        &mut members,
        "resource_type_associations",
        content.associations.iter().map(|a| Value::Object(association(a))),
    );
    put_map(
        &mut members,
        "properties",
        content.properties.iter().map(|p| (p.name.clone(), Value::Object(definition(&p.definition)))),
    );
    put_list(&mut members, "objects", content.objects.iter().map(|object| Value::Object(said_object(object))));
    put_list(&mut members, "tags", content.tags.iter().map(|name| json!({"name": name})));
    Value::Object(members)
}

fn attributes(namespace: &Namespace) -> Map<String, Value> {
    let a = &namespace.attributes;
    let mut members = Map::new();
    members.insert("namespace".into(), json!(a.name));
    put_text(&mut members, "display_name", a.display_name.as_deref());
    put_text(&mut members, "description", a.description.as_deref());
    members.insert("visibility".into(), json!(a.visibility.as_str()));
    members.insert("protected".into(), json!(a.protected));
    members.insert("owner".into(), json!(a.owner));
    members.insert("created_at".into(), json!(timestamp(namespace.created_at)));
    members.insert("updated_at".into(), json!(timestamp(namespace.updated_at)));
    members.insert("self".into(), json!(namespace_path(&a.name)));
    members.insert("schema".into(), json!("/v2/schemas/metadefs/namespace"));
    members
}

fn association(association: &Association) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("name".into(), json!(association.name));
    put_text(&mut members, "prefix", association.prefix.as_deref());
    put_text(&mut members, "properties_target", association.properties_target.as_deref());
    members
}

/// A type of resource that a namespace applies to.
pub(in crate::api) fn dated_association(association: &Dated<Association>) -> Value {
    dated(self::association(&association.item), association)
}

/// A property with its name.
pub(in crate::api) fn property(property: &Property) -> Value {
    let mut members = Map::new();
    members.insert("name".into(), json!(property.name));
    members.extend(definition(&property.definition));
    Value::Object(members)
}

/// A tag, or a type of resource.
pub(in crate::api) fn named(named: &Dated<Named>) -> Value {
    let mut members = Map::new();
    members.insert("name".into(), json!(named.item.name));
    dated(members, named)
}

/// An object as it is: without a word of its author there are no properties, and none is required.
pub(in crate::api) fn object(namespace: &str, object: &Dated<Object>) -> Value {
    let mut document = written_object(namespace, object);
    if let Value::Object(members) = &mut document {
        members.entry("required").or_insert_with(|| json!([]));
        members.entry("properties").or_insert_with(|| json!({}));
    }
    document
}

/// An object that has just been written, with no more than its author said.
pub(in crate::api) fn written_object(namespace: &str, object: &Dated<Object>) -> Value {
    let mut members = said_object(&object.item);
    let path = format!("{}/objects/{}", namespace_path(namespace), utf8_percent_encode(&object.item.name, IN_PATH));
    members.insert("self".into(), json!(path));
    members.insert("schema".into(), json!("/v2/schemas/metadefs/object"));
    dated(members, object)
}

/// An object as its author said it.
fn said_object(object: &Object) -> Map<String, Value> {
    let mut members = Map::new();
    members.insert("name".into(), json!(object.name));
    if let Some(required) = &object.required {
        members.insert("required".into(), json!(required));
    }
    put_text(&mut members, "description", object.description.as_deref());
    if let Some(properties) = &object.properties {
        let shown = properties.iter().map(|(name, property)| match property {
            Value::Object(members) => (name.clone(), Value::Object(definition(members))),
            other => (name.clone(), other.clone()),
        });
        members.insert("properties".into(), Value::Object(shown.collect()));
    }
    members
}

/// A definition as the reference writes it: a default value that is a scalar becomes text, in Python's spelling.
fn definition(definition: &Map<String, Value>) -> Map<String, Value> {
    let mut shown = definition.clone();
    if let Some(default) = shown.get_mut("default") {
        match default {
            Value::Bool(true) => *default = json!("True"),
            Value::Bool(false) => *default = json!("False"),
            Value::Number(number) => *default = json!(number.to_string()),
            Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {}
        }
    }
    shown
}

fn dated<T>(mut members: Map<String, Value>, dated: &Dated<T>) -> Value {
    members.insert("created_at".into(), json!(timestamp(dated.created_at)));
    members.insert("updated_at".into(), json!(timestamp(dated.updated_at)));
    Value::Object(members)
}

fn put_text(members: &mut Map<String, Value>, name: &str, text: Option<&str>) {
    if let Some(text) = text {
        members.insert(name.into(), json!(text));
    }
}

fn put_list(members: &mut Map<String, Value>, name: &str, items: impl Iterator<Item = Value>) {
    let items: Vec<Value> = items.collect();
    if !items.is_empty() {
        members.insert(name.into(), Value::Array(items));
    }
}

fn put_map(members: &mut Map<String, Value>, name: &str, items: impl Iterator<Item = (String, Value)>) {
    let items: Map<String, Value> = items.collect();
    if !items.is_empty() {
        members.insert(name.into(), Value::Object(items));
    }
}
