//! JSON patch as the Image API speaks it: a subset of RFC 6902 and an older form of its own.
//!
//! All operations are read and checked first, then applied to one copy of the attributes: a patch is
//! applied whole or not at all (`image-api.md` 3.4).

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Refusal;
use super::image::{Attributes, Field, Formats, PropertyOperation, check_writable, classify};
use super::limits::PATCH_OPERATIONS_MAX;
use super::location::Proposal;
use super::status::Status;

/// The two media types of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `application/openstack-images-v2.0-json-patch`: `{"add": "/path", "value": ...}`.
    V20,
    /// `application/openstack-images-v2.1-json-patch`: `{"op": "add", "path": "/path", "value": ...}`.
    V21,
}

impl Dialect {
    /// The media types, in the order in which `Accept-Patch` names them.
    pub const MEDIA_TYPES: [(&'static str, Self); 2] = [
        ("application/openstack-images-v2.1-json-patch", Self::V21),
        ("application/openstack-images-v2.0-json-patch", Self::V20),
    ];
}

/// What an operation does with its member.
#[derive(Debug, Clone, PartialEq)]
enum Action {
    Add(Value),
    Replace(Value),
    Remove,
}

/// One operation on one member of the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    action: Action,
    key: String,
}

/// One operation on `locations`. Positions are as they were written.
#[derive(Debug, Clone, PartialEq)]
pub enum LocationChange {
    /// `add /locations/<n>` or `add /locations/-`.
    Add(String, Proposal),
    /// `replace /locations`.
    Replace(Vec<Proposal>),
    /// `remove /locations/<n>`, or `-` for the last one.
    Remove(String),
}

/// A patch that is well formed.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    dialect: Dialect,
    operations: Vec<Operation>,
    location_changes: Vec<LocationChange>,
}

impl Patch {
    /// Reads a patch document.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for anything that is not a list of add, replace and remove operations on
    /// members of the image; the text names the operation.
    pub fn parse(document: &Value, dialect: Dialect) -> Result<Self, Refusal> {
        let list = document
            .as_array()
            .ok_or_else(|| Refusal::Invalid("Request body must be a JSON array of operation objects.".into()))?;
        if list.len() > PATCH_OPERATIONS_MAX {
            return Err(Refusal::Invalid(format!(
                "A patch has at most {PATCH_OPERATIONS_MAX} operations, this one has {}.",
                list.len()
            )));
        }
        let mut patch = Self { dialect, operations: Vec::new(), location_changes: Vec::new() };
        for item in list {
            let object = item.as_object().ok_or_else(|| Refusal::Invalid("Operations must be JSON objects.".into()))?;
            let parsed = match dialect {
                Dialect::V20 => operation_v20(object),
                Dialect::V21 => operation_v21(object),
            };
            match parsed? {
                Parsed::Member(operation) => patch.operations.push(operation),
                Parsed::Locations(change) => patch.location_changes.push(change),
            }
        }
        Ok(patch)
    }

    /// What it does to `locations`, in order.
    #[must_use]
    pub fn location_changes(&self) -> &[LocationChange] {
        &self.location_changes
    }

    /// Whether it does anything to other members.
    #[must_use]
    pub fn touches_members(&self) -> bool {
        !self.operations.is_empty()
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.location_changes.is_empty()
    }

    /// What the patch does with which additional properties, in its order. Whoever changes one has to know of it, and
    /// so has whoever names one that is not there.
    #[must_use]
    pub fn property_operations(&self, current: &Attributes) -> Vec<(PropertyOperation, &str)> {
        let mut present: BTreeSet<&str> = current.properties.keys().map(String::as_str).collect();
        let mut found = Vec::new();
        for operation in self.operations.iter().filter(|operation| classify(&operation.key) == Field::Property) {
            let name = operation.key.as_str();
            match (&operation.action, present.contains(name)) {
                (Action::Add(_), false) => {
                    present.insert(name);
                    found.push((PropertyOperation::Create, name));
                }
                (Action::Add(_) | Action::Replace(_), true) => {
                    found.extend([(PropertyOperation::Read, name), (PropertyOperation::Update, name)]);
                }
                (Action::Remove, true) => {
                    present.remove(name);
                    found.extend([(PropertyOperation::Read, name), (PropertyOperation::Delete, name)]);
                }
                (Action::Replace(_) | Action::Remove, false) => found.push((PropertyOperation::Read, name)),
            }
        }
        found
    }

    /// Whether any operation concerns the owner.
    #[must_use]
    pub fn touches_owner(&self) -> bool {
        self.operations.iter().any(|operation| operation.key == "owner")
    }

    /// The attributes after the patch.
    ///
    /// # Errors
    /// The first operation that cannot be applied, by the table of `image-api.md` 3.4.
    pub fn apply(&self, current: &Attributes, status: Status, formats: &Formats) -> Result<Attributes, Refusal> {
        let mut next = current.clone();
        for operation in &self.operations {
            self.apply_one(operation, &mut next, status, formats)?;
        }
        Ok(next)
    }

    fn apply_one(
        &self,
        operation: &Operation,
        next: &mut Attributes,
        status: Status,
        formats: &Formats,
    ) -> Result<(), Refusal> {
        let key = operation.key.as_str();
        if key == "stores" {
            return Err(Refusal::Conflict("Property stores does not exist.".into()));
        }
        check_writable(key)?;
        if matches!(key, "disk_format" | "container_format") && !status.formats_are_open() {
            return Err(Refusal::Forbidden(format!("Attribute {key} can be replaced only for a queued image.")));
        }
        let property = classify(key) == Field::Property;
        let present = next.properties.contains_key(key);
        match &operation.action {
            Action::Remove if !property => Err(Refusal::Forbidden(format!("Attribute '{key}' can not be removed."))),
            Action::Remove if formats.properties.required().contains(key) => Err(Refusal::Invalid(format!(
                "'{key}' is a required property of images; replace it instead of removing it."
            ))),
            Action::Remove => match next.properties.remove(key) {
                Some(_) => Ok(()),
                None => Err(Refusal::Conflict(format!("Property {key} does not exist."))),
            },
            Action::Replace(_) if property && !present => {
                Err(Refusal::Conflict(format!("Property {key} does not exist.")))
            }
            Action::Add(_) if self.dialect == Dialect::V20 && (!property || present) => {
                Err(Refusal::Conflict(format!("Property {key} already present.")))
            }
            Action::Add(value) | Action::Replace(value) => next.set(key, value, formats),
        }
    }
}

/// An operation, by what it is about.
enum Parsed {
    Member(Operation),
    Locations(LocationChange),
}

fn operation_v21(object: &Map<String, Value>) -> Result<Parsed, Refusal> {
    let op = object
        .get("op")
        .and_then(Value::as_str)
        .ok_or_else(|| Refusal::Invalid("Unable to find 'op' in JSON Schema change: an operation needs it.".into()))?;
    let path = object.get("path").and_then(Value::as_str).ok_or_else(|| {
        Refusal::Invalid("Unable to find 'path' in JSON Schema change: an operation needs it.".into())
    })?;
    operation(op, path, object.get("value"))
}

fn operation_v20(object: &Map<String, Value>) -> Result<Parsed, Refusal> {
    let mut found = None;
    for (name, path) in object {
        // RFC 6902 has others ignored.
        if matches!(name.as_str(), "add" | "remove" | "replace") && found.replace((name, path)).is_some() {
            return Err(Refusal::Invalid(
                "Operation objects must contain only one member named \"add\", \"remove\", or \"replace\".".into(),
            ));
        }
    }
    let (op, path) = found.ok_or_else(|| {
        Refusal::Invalid(
            "Operation objects must contain exactly one member named \"add\", \"remove\", or \"replace\".".into(),
        )
    })?;
    let path =
        path.as_str().ok_or_else(|| Refusal::Invalid(format!("The path of operation '{op}' must be a string.")))?;
    operation(op, path, object.get("value"))
}

fn operation(op: &str, path: &str, value: Option<&Value>) -> Result<Parsed, Refusal> {
    let (key, position) = pointer(path)?;
    let needs_value = || {
        value.cloned().ok_or_else(|| Refusal::Invalid(format!("Operation \"{op}\" requires a member named \"value\".")))
    };
    let action = match op {
        "add" => Action::Add(needs_value()?),
        "replace" => Action::Replace(needs_value()?),
        "remove" => Action::Remove,
        other => {
            return Err(Refusal::Invalid(format!(
                "Operations must be one of add, replace, remove; '{other}' is none of them."
            )));
        }
    };
    if key != "locations" {
        return Ok(Parsed::Member(Operation { action, key }));
    }
    let change = match (action, position) {
        (Action::Add(value), Some(position)) => LocationChange::Add(position, Proposal::parse(&value)?),
        (Action::Remove, Some(position)) => LocationChange::Remove(position),
        (Action::Replace(value), None) => {
            let list =
                value.as_array().ok_or_else(|| Refusal::Invalid("locations must be a list of locations.".into()))?;
            LocationChange::Replace(list.iter().map(Proposal::parse).collect::<Result<_, _>>()?)
        }
        (Action::Add(_) | Action::Replace(_) | Action::Remove, _) => {
            return Err(Refusal::Invalid(format!(
                "Invalid JSON pointer for this resource: '{path}': locations are added at and removed from /locations/<n>, and replaced as /locations."
            )));
        }
    };
    Ok(Parsed::Locations(change))
}

/// The member that a JSON pointer names, and the position in it, where it can have one.
fn pointer(path: &str) -> Result<(String, Option<String>), Refusal> {
    let invalid = |why: &str| Refusal::Invalid(format!("Invalid JSON pointer for this resource: '{path}': {why}."));
    let rest = path.strip_prefix('/').ok_or_else(|| invalid("it must start with '/'"))?;
    if rest.is_empty() || rest.split('/').any(|segment| segment.trim().is_empty()) {
        return Err(invalid("it has an empty segment"));
    }
    let mut segments = rest.split('/');
    let first = segments.next().unwrap_or_default();
    // `/locations/<n>` is the one pointer of depth two.
    if segments.clone().count() > usize::from(first == "locations") {
        return Err(invalid("it is too deep, members of the image alone can be changed"));
    }
    let segment = |text: &str| unescape(text.trim()).ok_or_else(|| invalid("'~' must be followed by 0 or 1"));
    Ok((segment(first)?, segments.next().map(segment).transpose()?))
}

fn unescape(segment: &str) -> Option<String> {
    let mut text = String::with_capacity(segment.len());
    let mut characters = segment.chars();
    while let Some(character) = characters.next() {
        match character {
            '~' => text.push(match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            }),
            other => text.push(other),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::{Value, json};

    use super::{Dialect, Patch};
    use crate::domain::Refusal;
    use crate::domain::custom::CustomProperties;
    use crate::domain::image::PropertyOperation::{Create, Delete, Read, Update};
    use crate::domain::image::{Attributes, Formats};
    use crate::domain::status::Status;

    fn formats() -> Formats {
        Formats { disk: vec!["raw".into()], container: vec!["bare".into()], properties: CustomProperties::default() }
    }

    fn image() -> Attributes {
        let mut attributes = Attributes::new(Some("p".into()));
        attributes.properties.insert("old".into(), "1".into());
        attributes
    }

    fn apply(document: &Value, dialect: Dialect, status: Status) -> Result<Attributes, Refusal> {
        Patch::parse(document, dialect)?.apply(&image(), status, &formats())
    }

    #[test]
    fn add_replace_remove() {
        let next = apply(
            &json!([
                {"op": "replace", "path": "/name", "value": "n"},
                {"op": "add", "path": "/a~1b~0c", "value": "x"},
                {"op": "add", "path": "/old", "value": "2"},
                {"op": "replace", "path": "/tags", "value": ["t"]},
            ]),
            Dialect::V21,
            Status::Active,
        )
        .unwrap();
        assert_eq!(next.name.as_deref(), Some("n"));
        assert_eq!(next.properties["a/b~c"], "x");
        assert_eq!(next.properties["old"], "2");
        let next =
            apply(&json!([{"remove": "/old"}, {"add": "/new", "value": "v", "x": 1}]), Dialect::V20, Status::Active)
                .unwrap();
        assert_eq!(next.properties.keys().collect::<Vec<_>>(), ["new"]);
        let foreign = json!([{"op": "replace", "path": "/name", "value": "n", "x": 1}]);
        assert_eq!(apply(&foreign, Dialect::V21, Status::Active).unwrap().name.as_deref(), Some("n"));
    }

    #[test]
    fn a_required_property_stays() {
        let properties = CustomProperties::parse(r#"{"properties": {}, "required": ["old"]}"#).unwrap();
        let formats = Formats { properties, ..formats() };
        let apply =
            |document: &Value| Patch::parse(document, Dialect::V21).unwrap().apply(&image(), Status::Active, &formats);
        let refused = apply(&json!([{"op": "remove", "path": "/old"}])).unwrap_err();
        assert!(matches!(&refused, Refusal::Invalid(text) if text.contains("'old'")), "{refused}");
        // Unlike in Glance, nothing else is held up by it.
        apply(&json!([{"op": "replace", "path": "/old", "value": "2"}, {"op": "add", "path": "/x", "value": "y"}]))
            .unwrap();
    }

    #[test]
    fn refusals_by_kind() {
        let kind = |document: Value, dialect| match apply(&document, dialect, Status::Active) {
            Ok(_) => "ok",
            Err(Refusal::Invalid(_)) => "400",
            Err(Refusal::Forbidden(_)) => "403",
            Err(Refusal::Conflict(_)) => "409",
            Err(Refusal::TooLarge(_)) => "413",
            Err(Refusal::Unsupported(_)) => "415",
        };
        for (document, expected) in [
            (json!([]), "ok"),
            (json!({}), "400"),
            (json!([5]), "400"),
            (json!([{"op": "test", "path": "/name", "value": 1}]), "400"),
            (json!([{"op": "add", "path": "/name"}]), "400"),
            (json!([{"op": "add", "path": "name", "value": "x"}]), "400"),
            (json!([{"op": "add", "path": "/a/b", "value": "x"}]), "400"),
            (json!([{"op": "add", "path": "/a/", "value": "x"}]), "400"),
            (json!([{"op": "add", "path": "/tags/-", "value": "x"}]), "400"),
            (json!([{"op": "add", "path": "/a~2", "value": "x"}]), "400"),
            (json!([{"op": "replace", "path": "/missing", "value": "x"}]), "409"),
            (json!([{"op": "remove", "path": "/missing"}]), "409"),
            (json!([{"op": "replace", "path": "/stores", "value": "x"}]), "409"),
            (json!([{"op": "remove", "path": "/name"}]), "403"),
            (json!([{"op": "replace", "path": "/status", "value": "active"}]), "403"),
            (json!([{"op": "add", "path": "/os_glance_x", "value": "x"}]), "403"),
            (json!([{"op": "replace", "path": "/disk_format", "value": "raw"}]), "403"),
            (json!([{"op": "add", "path": "/locations/-", "value": {}}]), "400"),
            (json!([{"op": "add", "path": "/locations/-", "value": {"url": "x", "metadata": {}}}]), "ok"),
            (json!([{"op": "add", "path": "/locations", "value": {"url": "x", "metadata": {}}}]), "400"),
            (json!([{"op": "add", "path": "/locations/0/url", "value": "x"}]), "400"),
            (json!([{"op": "replace", "path": "/locations/0", "value": {"url": "x", "metadata": {}}}]), "400"),
            (json!([{"op": "replace", "path": "/locations", "value": {"url": "x", "metadata": {}}}]), "400"),
            (json!([{"op": "replace", "path": "/locations", "value": [{"url": "x"}]}]), "400"),
            (json!([{"op": "remove", "path": "/locations"}]), "400"),
        ] {
            assert_eq!(kind(document.clone(), Dialect::V21), expected, "{document}");
        }
        for (document, expected) in [
            (json!([{"add": "/old", "value": "x"}]), "409"),
            (json!([{"add": "/a", "replace": "/b", "value": "x"}]), "400"),
            (json!([{"value": "x"}]), "400"),
        ] {
            assert_eq!(kind(document.clone(), Dialect::V20), expected, "{document}");
        }
    }

    #[test]
    fn what_a_patch_does_with_properties_follows_its_order() {
        let operation = |op: &str, name: &str| json!({"op": op, "path": format!("/{name}"), "value": "v"});
        let document = json!([
            operation("add", "new"),
            operation("replace", "new"),
            operation("remove", "old"),
            operation("add", "old"),
            operation("replace", "name"),
            operation("remove", "missing"),
        ]);
        let patch = Patch::parse(&document, Dialect::V21).unwrap();
        let expected = [
            (Create, "new"),
            (Read, "new"),
            (Update, "new"),
            (Read, "old"),
            (Delete, "old"),
            (Create, "old"),
            (Read, "missing"),
        ];
        assert_eq!(patch.property_operations(&image()), expected);
    }

    proptest! {
        #[test]
        fn no_pointer_or_value_panics(op in "add|replace|remove|test", path in "[/~a-z01 -]{0,12}|\\PC{0,8}", text in any::<String>()) {
            let document = json!([{"op": op, "path": path, "value": text}]);
            let _ = apply(&document, Dialect::V21, Status::Queued);
        }
    }
}
