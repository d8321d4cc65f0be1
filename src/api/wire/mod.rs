//! JSON shapes: each is a table of members, from which documents are written and schemas are made.

pub(super) mod image;
pub(super) mod member;
pub(super) mod metadef;
pub(super) mod task;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Settings;
use crate::domain::custom::UUID_PATTERN;

/// For whom a document is written, and how.
pub(super) struct View<'a> {
    pub(super) settings: &'a Settings,
    /// Whether the reader administers the cloud.
    pub(super) admin: bool,
}

/// A member of the documents about a `T`.
pub(super) struct Member<T> {
    pub(super) name: &'static str,
    /// What it is, for people.
    pub(super) description: &'static str,
    /// Whether the service alone sets it.
    pub(super) read_only: bool,
    /// Type and limits, as JSON schema says them.
    pub(super) schema: Schema,
    /// Its value; `None` where it is not shown.
    pub(super) write: Write<T>,
}

type Schema = fn(&Settings) -> Value;
type Write<T> = fn(&T, &View<'_>) -> Option<Value>;

/// A member that clients may set, or that nobody thinks of setting.
const fn member<T>(name: &'static str, description: &'static str, schema: Schema, write: Write<T>) -> Member<T> {
    Member { name, description, read_only: false, schema, write }
}

const fn read_only<T>(name: &'static str, description: &'static str, schema: Schema, write: Write<T>) -> Member<T> {
    Member { name, description, read_only: true, schema, write }
}

/// A value that is shown.
fn some(value: impl Serialize) -> Option<Value> {
    serde_json::to_value(value).ok()
}

/// Writes what the table says of `it` into `object`.
pub(super) fn write<'m, T: 'm>(
    table: impl IntoIterator<Item = &'m Member<T>>,
    it: &T,
    view: &View<'_>,
    object: &mut Map<String, Value>,
) {
    for member in table {
        if let Some(value) = (member.write)(it, view) {
            object.insert(member.name.into(), value);
        }
    }
}

/// The `properties` of the schema that the table makes.
pub(super) fn properties<'m, T: 'm>(
    table: impl IntoIterator<Item = &'m Member<T>>,
    settings: &Settings,
) -> Map<String, Value> {
    let describe = |member: &Member<T>| {
        let mut schema = (member.schema)(settings);
        if !member.description.is_empty() {
            schema["description"] = json!(member.description);
        }
        if member.read_only {
            schema["readOnly"] = json!(true);
        }
        (member.name.to_owned(), schema)
    };
    table.into_iter().map(describe).collect()
}

fn text(_: &Settings) -> Value {
    json!({"type": "string"})
}

fn integer(_: &Settings) -> Value {
    json!({"type": "integer"})
}

fn boolean(_: &Settings) -> Value {
    json!({"type": "boolean"})
}

fn integer_or_null(_: &Settings) -> Value {
    json!({"type": ["null", "integer"]})
}

fn uuid(_: &Settings) -> Value {
    json!({"type": "string", "pattern": UUID_PATTERN})
}

/// Text of at most so many characters, or null.
fn text_or_null<const CHARS_MAX: usize>(_: &Settings) -> Value {
    json!({"type": ["null", "string"], "maxLength": CHARS_MAX})
}
