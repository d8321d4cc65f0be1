//! The members of every metadata definition, in one table each: what a client's document is checked against,
//! and what `/v2/schemas/metadefs` publishes.

use serde_json::{Map, Value};

use super::{DESCRIPTION_CHARS_MAX, NAME_CHARS_MAX, Visibility};
use crate::domain::Refusal;
use crate::domain::image::check_text;
use crate::domain::limits::TEXT_CHARS_MAX;

/// Longest value that a refusal repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// What a member holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// One line of text, not empty, of at most so many characters.
    Name(usize),
    /// One line of text, at most so many characters.
    Line(usize),
    /// Text with line breaks, of at most so many characters.
    Text(Option<usize>),
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// The JSON type of a value; null is one of them.
    Type,
    /// `true` or `false`.
    Boolean,
    /// `true` or `false`, where the latter is understood.
    BooleanOrFalse,
    /// Any number.
    Number,
    /// A whole number that is not negative.
    Natural,
    /// The same, where 0 is understood.
    NaturalOrZero,
    /// A list of texts.
    Texts,
    /// A list of texts, none of them twice.
    UniqueTexts,
    /// A regular expression; who evaluates it, and in which dialect, is not known here.
    Pattern,
    /// A list of anything.
    List,
    /// Anything.
    Anything,
    /// An object of this shape.
    Object(&'static Shape),
    /// A list of objects of this shape.
    Objects(&'static Shape),
    /// Properties by their names.
    Properties,
    /// A moment that the service sets.
    Moment,
    /// A path that the service sets.
    Path,
}

impl Kind {
    /// Whether the service alone sets it.
    #[must_use]
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::Moment | Self::Path)
    }
}

/// A member of an object.
#[derive(Debug)]
pub struct Member {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What it is for; may be empty.
    pub about: &'static str,
}

/// The members of an object; there are no others.
#[derive(Debug)]
pub struct Shape {
    /// What the object is called in schemas and refusals.
    pub name: &'static str,
    /// Its members.
    pub members: &'static [Member],
    /// Those that must be there.
    pub required: &'static [&'static str],
}

const fn member(name: &'static str, kind: Kind, about: &'static str) -> Member {
    Member { name, kind, about }
}

/// The JSON types of a property's value.
pub const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// The values of a property that is an array.
pub static ITEMS: Shape =
    Shape { name: "items", members: &[member("type", Kind::Type, ""), member("enum", Kind::List, "")], required: &[] };

/// A property: a subset of JSON schema.
pub static PROPERTY: Shape = Shape {
    name: "property",
    members: &[
        member("name", Kind::Name(NAME_CHARS_MAX), ""),
        member("title", Kind::Text(None), ""),
        member("description", Kind::Text(None), ""),
        member("operators", Kind::Texts, ""),
        member("type", Kind::Type, ""),
        member("required", Kind::UniqueTexts, ""),
        member("minimum", Kind::Number, ""),
        member("maximum", Kind::Number, ""),
        member("maxLength", Kind::Natural, ""),
        member("minLength", Kind::NaturalOrZero, ""),
        member("pattern", Kind::Pattern, ""),
        member("enum", Kind::List, ""),
        member("readonly", Kind::Boolean, ""),
        member("default", Kind::Anything, ""),
        member("items", Kind::Object(&ITEMS), ""),
        member("maxItems", Kind::Natural, ""),
        member("minItems", Kind::NaturalOrZero, ""),
        member("uniqueItems", Kind::BooleanOrFalse, ""),
        member("additionalItems", Kind::Boolean, ""),
    ],
    required: &["type", "title"],
};

/// A named group of properties.
pub static OBJECT: Shape = Shape {
    name: "object",
    members: &[
        member("name", Kind::Name(NAME_CHARS_MAX), ""),
        member("description", Kind::Text(None), ""),
        member("required", Kind::UniqueTexts, ""),
        member("properties", Kind::Properties, ""),
        member("schema", Kind::Path, ""),
        member("self", Kind::Path, ""),
        member("created_at", Kind::Moment, "When the object was made."),
        member("updated_at", Kind::Moment, "When the object last changed."),
    ],
    required: &["name"],
};

/// A label.
pub static TAG: Shape = Shape {
    name: "tag",
    members: &[
        member("name", Kind::Name(NAME_CHARS_MAX), ""),
        member("created_at", Kind::Moment, "When the tag was made."),
        member("updated_at", Kind::Moment, "When the tag last changed."),
    ],
    required: &["name"],
};

/// A tag among many that one request sets.
static LABEL: Shape =
    Shape { name: "tag", members: &[member("name", Kind::Name(NAME_CHARS_MAX), "")], required: &["name"] };

/// The tags that one request sets.
pub static TAGS: Shape =
    Shape { name: "tags", members: &[member("tags", Kind::Objects(&LABEL), "")], required: &["tags"] };

/// Says that a namespace applies to a type of resource.
pub static ASSOCIATION: Shape = Shape {
    name: "resource_type_association",
    members: &[
        member("name", Kind::Name(NAME_CHARS_MAX), "The type of resource, by Heat's name for it where it has one."),
        member(
            "prefix",
            Kind::Line(NAME_CHARS_MAX),
            "Stands before each property's name on resources of this type; it brings its own separator, such as a colon.",
        ),
        member(
            "properties_target",
            Kind::Line(NAME_CHARS_MAX),
            "Which of a resource's sets of properties is meant, where it has several: a volume has user and image metadata.",
        ),
        member("created_at", Kind::Moment, "When the type was associated."),
        member("updated_at", Kind::Moment, "When the association last changed."),
    ],
    required: &["name"],
};

/// A namespace, with all that it holds.
pub static NAMESPACE: Shape = Shape {
    name: "namespace",
    members: &[
        member("namespace", Kind::Name(NAME_CHARS_MAX), "Its name, which no other namespace has."),
        member("display_name", Kind::Line(NAME_CHARS_MAX), "Its name for people."),
        member("description", Kind::Text(Some(DESCRIPTION_CHARS_MAX)), "What it is for."),
        member("visibility", Kind::OneOf(&Visibility::NAMES), "Who may see it: everybody, or its owner."),
        member("protected", Kind::Boolean, "Whether it, and what it holds, is safe from deletion."),
        member("owner", Kind::Line(TEXT_CHARS_MAX), "The project that it belongs to."),
        member("created_at", Kind::Moment, "When the namespace was made."),
        member("updated_at", Kind::Moment, "When the namespace last changed."),
        member("schema", Kind::Path, ""),
        member("self", Kind::Path, ""),
        member("resource_type_associations", Kind::Objects(&ASSOCIATION), ""),
        member("properties", Kind::Properties, ""),
        member("objects", Kind::Objects(&OBJECT), ""),
        member("tags", Kind::Objects(&TAG), ""),
    ],
    required: &["namespace"],
};

impl Shape {
    /// Checks a client's document and returns its members.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] for members that the service alone sets, [`Refusal::Invalid`] for whatever else does
    /// not fit; the text names the member.
    pub fn check<'a>(&self, document: &'a Value) -> Result<&'a Map<String, Value>, Refusal> {
        if let Some(members) = document.as_object()
            && let Some(member) = self.members.iter().find(|m| m.kind.is_read_only() && members.contains_key(m.name))
        {
            return Err(Refusal::Forbidden(format!("Attribute '{}' is read-only.", member.name)));
        }
        self.check_within(document, "")
            .map_err(|text| Refusal::Invalid(format!("Provided object does not match schema '{}': {text}", self.name)))
    }

    /// Checks an object at `path` of a document, without which it is the document. What the service sets is left
    /// unread here: clients send back what they were shown.
    fn check_within<'a>(&self, value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, String> {
        let Some(members) = value.as_object() else { return Err(must_be(path, "a JSON object", value)) };
        for (name, value) in members {
            match self.members.iter().find(|member| member.name == name) {
                Some(member) => member.kind.check(value, &inside(path, name))?,
                None => {
                    let known: Vec<&str> = self.members.iter().map(|member| member.name).collect();
                    return Err(format!("'{}' is unknown; known: {}.", shorten(&inside(path, name)), known.join(", ")));
                }
            }
        }
        match self.required.iter().find(|name| !members.contains_key(**name)) {
            Some(missing) => Err(format!("'{}' is a required property.", inside(path, missing))),
            None => Ok(members),
        }
    }
}

impl Kind {
    fn check(self, value: &Value, path: &str) -> Result<(), String> {
        match self {
            Self::Name(chars_max) => match value.as_str() {
                Some("") => Err(format!("'{path}' must not be empty.")),
                _ => line(value, path, Some(chars_max), false),
            },
            Self::Line(chars_max) => line(value, path, Some(chars_max), false),
            Self::Text(chars_max) => line(value, path, chars_max, true),
            Self::Pattern => line(value, path, None, true),
            Self::OneOf(names) => match value.as_str() {
                Some(name) if names.contains(&name) => Ok(()),
                _ => Err(must_be(path, &format!("one of {}", names.join(", ")), value)),
            },
            Self::Type => match value {
                Value::Null => Ok(()),
                Value::String(name) if TYPES.contains(&name.as_str()) => Ok(()),
                _ => Err(must_be(path, &format!("one of {}, null", TYPES.join(", ")), value)),
            },
            Self::Boolean | Self::BooleanOrFalse => expect(value.is_boolean(), path, "true or false", value),
            Self::Number => expect(value.is_number(), path, "a number", value),
            Self::Natural | Self::NaturalOrZero => {
                expect(value.is_u64(), path, "a whole number that is not negative", value)
            }
            Self::Texts => texts(value, path).map(drop),
            Self::UniqueTexts => {
                let mut seen = std::collections::BTreeSet::new();
                match texts(value, path)?.into_iter().find(|text| !seen.insert(*text)) {
                    Some(twice) => Err(format!("'{path}' has '{}' twice.", shorten(twice))),
                    None => Ok(()),
                }
            }
            Self::List => {
                expect(value.is_array(), path, "a list", value)?;
                anything(value, path)
            }
            Self::Anything => anything(value, path),
            Self::Object(shape) => shape.check_within(value, path).map(drop),
            Self::Objects(shape) => {
                let Some(items) = value.as_array() else { return Err(must_be(path, "a list of objects", value)) };
                items
                    .iter()
                    .enumerate()
                    .try_for_each(|(n, item)| shape.check_within(item, &format!("{path}[{n}]")).map(drop))
            }
            Self::Properties => {
                let Some(properties) = value.as_object() else {
                    return Err(must_be(path, "an object of properties by their names", value));
                };
                properties.iter().try_for_each(|(name, property)| {
                    let path = inside(path, name);
                    Self::Name(NAME_CHARS_MAX).check(&Value::from(name.as_str()), &path)?;
                    PROPERTY.check_within(property, &path).map(drop)
                })
            }
            // Set by the service, whatever a client sends.
            Self::Moment | Self::Path => Ok(()),
        }
    }
}

fn inside(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn expect(holds: bool, path: &str, what: &str, value: &Value) -> Result<(), String> {
    if holds { Ok(()) } else { Err(must_be(path, what, value)) }
}

fn must_be(path: &str, what: &str, value: &Value) -> String {
    let path = if path.is_empty() { "the document".to_owned() } else { format!("'{}'", shorten(path)) };
    format!("{path} must be {what}, not {}.", shorten(&value.to_string()))
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(SHOWN_CHARS_MAX).chain("...".chars()).collect()
}

fn line(value: &Value, path: &str, chars_max: Option<usize>, line_breaks: bool) -> Result<(), String> {
    let Some(text) = value.as_str() else { return Err(must_be(path, "a string", value)) };
    if let Some(chars_max) = chars_max
        && text.chars().count() > chars_max
    {
        return Err(format!("'{}' is too long: at most {chars_max} characters are allowed.", shorten(path)));
    }
    check_text(&format!("'{}'", shorten(path)), text, line_breaks).map_err(|refusal| refusal.to_string())
}

fn texts<'a>(value: &'a Value, path: &str) -> Result<Vec<&'a str>, String> {
    let Some(items) = value.as_array() else { return Err(must_be(path, "a list of strings", value)) };
    items
        .iter()
        .map(|item| {
            line(item, path, None, true)?;
            item.as_str().ok_or_else(|| must_be(path, "a list of strings", value))
        })
        .collect()
}

/// Any value, but text in it that the catalog cannot hold. Its depth is the JSON parser's, which is bounded.
fn anything(value: &Value, path: &str) -> Result<(), String> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(_) => line(value, path, None, true),
        Value::Array(items) => items.iter().try_for_each(|item| anything(item, path)),
        Value::Object(members) => members.iter().try_for_each(|(name, member)| {
            line(&Value::from(name.as_str()), path, None, false)?;
            anything(member, path)
        }),
    }
}
