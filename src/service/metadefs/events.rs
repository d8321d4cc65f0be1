//! What the outbox is told of metadata definitions: the fields of the reference's notifications.

use serde_json::{Value, json};

use crate::domain::image::timestamp;
use crate::domain::metadef::{Association, Dated, Named, Namespace, Object, Property};

/// A namespace, and the name that it had before.
pub(super) fn namespace(namespace: &Namespace, old: &str) -> Value {
    let a = &namespace.attributes;
    json!({
        "namespace": a.name,
        "namespace_old": old,
        "display_name": a.display_name,
        "description": a.description,
        "visibility": a.visibility.as_str(),
        "protected": a.protected,
        "owner": a.owner,
        "created_at": timestamp(namespace.created_at),
        "updated_at": timestamp(namespace.updated_at),
    })
}

/// An object, and the name that it had before.
pub(super) fn object(namespace: &Namespace, object: &Dated<Object>, old: &str) -> Value {
    let o = &object.item;
    let details = json!({"description": o.description, "required": o.required, "properties": o.properties});
    part(namespace, &o.name, old, object, details)
}

/// A property, and the name that it had before.
pub(super) fn property(namespace: &Namespace, property: &Dated<Property>, old: &str) -> Value {
    part(namespace, &property.item.name, old, property, Value::Object(property.item.definition.clone()))
}

/// A tag, and the name that it had before.
pub(super) fn tag(namespace: &Namespace, tag: &Dated<Named>, old: &str) -> Value {
    part(namespace, &tag.item.name, old, tag, json!({}))
}

/// A type of resource that the namespace applies to.
pub(super) fn association(namespace: &Namespace, association: &Dated<Association>) -> Value {
    let a = &association.item;
    let details = json!({"prefix": a.prefix, "properties_target": a.properties_target});
    part(namespace, &a.name, &a.name, association, details)
}

fn part<T>(namespace: &Namespace, name: &str, old: &str, dated: &Dated<T>, mut payload: Value) -> Value {
    payload["namespace"] = json!(namespace.attributes.name);
    payload["name"] = json!(name);
    payload["name_old"] = json!(old);
    payload["created_at"] = json!(timestamp(dated.created_at));
    payload["updated_at"] = json!(timestamp(dated.updated_at));
    payload
}
