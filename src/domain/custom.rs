//! Additional properties that a deployment describes: what Glance reads from `schema-image.json`.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::{Map, Value, json};

use super::Refusal;
use super::image::{Field, classify};

/// What a described property may hold.
enum Kind {
    /// Any text.
    Text,
    /// The id of an image, or null.
    ImageId,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// What Glance ships: name, kind, description.
const USUAL: [(&str, Kind, &str); 9] = [
    ("kernel_id", Kind::ImageId, "Image with the kernel to boot this one with, for images in AMI style."),
    ("ramdisk_id", Kind::ImageId, "Image with the ramdisk to boot this one with, for images in AMI style."),
    ("instance_uuid", Kind::Text, "The instance that this image was made from or for; nothing follows from it."),
    ("architecture", Kind::Text, "Processor architecture that the operating system is for, such as x86_64."),
    ("os_distro", Kind::Text, "Common name of the operating system's distribution, such as debian."),
    ("os_version", Kind::Text, "Version of the operating system, as its distributor writes it."),
    ("description", Kind::Text, "What this image is, for people."),
    (
        "cinder_encryption_key_id",
        Kind::Text,
        "Key in the key manager that a volume made from this image is encrypted with.",
    ),
    (
        "cinder_encryption_key_deletion_policy",
        Kind::OneOf(&["on_image_deletion", "do_not_delete"]),
        "Whether that key goes when this image goes; without it, it stays.",
    ),
];
/// A UUID in any case.
pub const UUID_PATTERN: &str =
    "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$";
/// Keywords that describe without restricting.
const ANNOTATIONS: [&str; 6] = ["title", "description", "default", "examples", "is_base", "$comment"];

/// One described property.
#[derive(Debug, Clone)]
struct Property {
    name: String,
    /// As the schema shows it.
    shown: Value,
    nullable: bool,
    values: Option<Vec<Value>>,
    pattern: Option<Regex>,
    chars_min: usize,
    chars_max: Option<usize>,
}

/// The described properties of a deployment. All others are any text.
#[derive(Debug, Clone, Default)]
pub struct CustomProperties {
    properties: Vec<Property>,
    required: BTreeSet<String>,
}

impl CustomProperties {
    /// What Glance ships.
    #[must_use]
    pub fn usual() -> Self {
        let described = USUAL.map(|(name, kind, description)| {
            let mut shown = match kind {
                Kind::Text => json!({"type": "string"}),
                Kind::ImageId => json!({"type": ["null", "string"], "pattern": UUID_PATTERN}),
                Kind::OneOf(words) => json!({"type": "string", "enum": words}),
            };
            shown["description"] = json!(description);
            (name.to_owned(), shown)
        });
        let properties = described.into_iter().filter_map(|(name, shown)| Property::read(name, shown).ok()).collect();
        Self { properties, required: BTreeSet::new() }
    }

    /// Reads a file in either of Glance's forms: properties by name, or those in `properties` beside the
    /// names of mandatory ones in `required`.
    ///
    /// # Errors
    /// Everything that is wrong with it, a sentence each.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let document: Value = serde_json::from_str(text).map_err(|e| vec![format!("it is not JSON: {e}")])?;
        let Value::Object(mut document) = document else { return Err(vec!["it must be a JSON object".into()]) };
        let mut problems = Vec::new();
        let mut required = BTreeSet::new();
        // A property of that name would be described by an object with a type of its own.
        if document.get("properties").is_some_and(|inner| inner.as_object().is_some_and(|i| !i.contains_key("type"))) {
            match document.remove("required") {
                None => {}
                Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
                    required = names.iter().filter_map(Value::as_str).map(str::to_owned).collect();
                }
                Some(_) => problems.push("'required' must be a list of names".to_owned()),
            }
            let inner = document.remove("properties");
            problems
                .extend(document.keys().map(|key| format!("'{key}' is unknown beside 'properties' and 'required'")));
            document = inner.and_then(|inner| inner.as_object().cloned()).unwrap_or_default();
        }
        let mut properties = Vec::new();
        for (name, shown) in document {
            match Property::read(name, shown) {
                Ok(property) => properties.push(property),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(Self { properties, required }) } else { Err(problems) }
    }

    /// The properties as the schema of an image shows them.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.properties.iter().map(|property| (property.name.as_str(), &property.shown))
    }

    /// Whether the property may be null, which the empty text stands for in the catalog.
    #[must_use]
    pub fn is_nullable(&self, name: &str) -> bool {
        self.properties.iter().any(|property| property.nullable && property.name == name)
    }

    /// Names of members that every new image must have.
    #[must_use]
    pub fn required(&self) -> &BTreeSet<String> {
        &self.required
    }

    /// Refuses a new image without a mandatory member.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming it.
    pub fn check_required(&self, members: &Map<String, Value>) -> Result<(), Refusal> {
        match self.required.iter().find(|name| !members.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(Refusal::Invalid(format!(
                "Provided object does not match schema 'image': '{name}' is a required property."
            ))),
        }
    }

    /// The text that a value of the property `name` stands for, if the description permits it: null is no text.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the property and the rule.
    pub fn text<'v>(&self, name: &str, value: &'v Value) -> Result<&'v str, Refusal> {
        let described = self.properties.iter().find(|property| property.name == name);
        let wanted = match described {
            Some(property) => property.check(value),
            None if value.is_string() => Ok(()),
            None => Err("a string".to_owned()),
        };
        wanted.map_err(|wanted| super::image::expected(name, value, &wanted))?;
        Ok(value.as_str().unwrap_or_default())
    }
}

impl Property {
    fn read(name: String, mut shown: Value) -> Result<Self, String> {
        let wrong = |what: &str| format!("property '{name}': {what}");
        if classify(&name) != Field::Property {
            return Err(wrong("images have an attribute of that name"));
        }
        let rules = shown.as_object().ok_or_else(|| wrong("it must be described by an object"))?;
        let mut property = Self {
            name: name.clone(),
            shown: Value::Null,
            nullable: false,
            values: None,
            pattern: None,
            chars_min: 0,
            chars_max: None,
        };
        let chars = |rule: &Value| {
            rule.as_u64()
                .and_then(|chars| usize::try_from(chars).ok())
                .ok_or_else(|| wrong("a length must be a number"))
        };
        for (keyword, rule) in rules {
            match keyword.as_str() {
                "type" => {
                    let types = rule.as_array().map_or_else(|| vec![rule.clone()], Clone::clone);
                    if types.iter().any(|name| name != "string" && name != "null") {
                        return Err(wrong(
                            "properties are text: its type must be \"string\" or [\"null\", \"string\"]",
                        ));
                    }
                    property.nullable = types.iter().any(|name| name == "null");
                }
                "enum" => {
                    let values = rule.as_array().filter(|values| values.iter().all(|v| v.is_string() || v.is_null()));
                    property.values = Some(values.ok_or_else(|| wrong("'enum' must be a list of texts"))?.clone());
                }
                "pattern" => {
                    let pattern = rule.as_str().ok_or_else(|| wrong("'pattern' must be a text"))?;
                    let pattern = Regex::new(pattern).map_err(|e| wrong(&format!("'pattern' cannot be used: {e}")))?;
                    property.pattern = Some(pattern);
                }
                "minLength" => property.chars_min = chars(rule)?,
                "maxLength" => property.chars_max = Some(chars(rule)?),
                annotation if ANNOTATIONS.contains(&annotation) => {}
                other => {
                    return Err(wrong(&format!(
                        "'{other}' is not known here; type, enum, pattern, minLength and maxLength are"
                    )));
                }
            }
        }
        shown["is_base"] = json!(false);
        property.shown = shown;
        Ok(property)
    }

    /// What the value should be, if it is not.
    fn check(&self, value: &Value) -> Result<(), String> {
        let or_null = if self.nullable { " or null" } else { "" };
        let text = match value {
            Value::Null if self.nullable => return Ok(()),
            Value::String(text) => text,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                return Err(format!("a string{or_null}"));
            }
        };
        if let Some(values) = &self.values
            && !values.contains(value)
        {
            let list = values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ");
            return Err(format!("one of {list}{or_null}"));
        }
        if let Some(pattern) = &self.pattern
            && !pattern.is_match(text)
        {
            let what =
                if pattern.as_str() == UUID_PATTERN { "a UUID".into() } else { format!("a text like {pattern}") };
            return Err(format!("{what}{or_null}"));
        }
        let chars = text.chars().count();
        if chars < self.chars_min {
            return Err(format!("a text of at least {} characters", self.chars_min));
        }
        match self.chars_max {
            Some(max) if chars > max => Err(format!("a text of at most {max} characters")),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::CustomProperties;

    #[test]
    fn both_forms_of_the_file_are_read() {
        let flat = CustomProperties::parse(r#"{"a": {"type": "string"}, "properties": {"type": "string"}}"#).unwrap();
        assert_eq!(flat.shown().map(|(name, _)| name).collect::<Vec<_>>(), ["a", "properties"]);
        let extended =
            CustomProperties::parse(r#"{"properties": {"a": {"maxLength": 3}}, "required": ["a", "name"]}"#).unwrap();
        assert_eq!(extended.required().iter().collect::<Vec<_>>(), ["a", "name"]);
        assert_eq!(extended.shown().next().unwrap().1, &json!({"maxLength": 3, "is_base": false}));
        assert!(CustomProperties::parse("{}").unwrap().shown().next().is_none());
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_at_once() {
        let problems = |text: &str| CustomProperties::parse(text).unwrap_err().join("\n");
        assert!(problems("[]").contains("object") && problems("{").contains("not JSON"));
        let all = problems(
            r#"{"a": {"type": "integer"}, "b": {"pattern": "("}, "c": {"minimum": 1}, "d": 5, "name": {"type": "string"}, "e": {"enum": [1]}, "f": {"maxLength": -1}}"#,
        );
        for name in ["'a'", "'b'", "'c'", "'d'", "'name'", "'e'", "'f'"] {
            assert!(all.contains(name), "{name}: {all}");
        }
        assert!(problems(r#"{"properties": {}, "required": "a"}"#).contains("required"));
        assert!(problems(r#"{"properties": {}, "other": 1}"#).contains("'other'"));
    }

    #[test]
    fn values_follow_their_description() {
        let custom = CustomProperties::parse(
            r#"{"word": {"enum": ["x", "y"]}, "short": {"minLength": 2, "maxLength": 3}, "null": {"type": ["null", "string"]}, "hex": {"pattern": "^[0-9a-f]+$"}}"#,
        )
        .unwrap();
        let refused = |name: &str, value: &Value| custom.text(name, value).unwrap_err().to_string();
        for (name, good, bad, rule) in [
            ("word", json!("x"), json!("z"), "one of x, y"),
            ("short", json!("äöü"), json!("abcd"), "at most 3"),
            ("short", json!("ab"), json!("a"), "at least 2"),
            ("null", json!(null), json!(1), "a string or null"),
            ("hex", json!("0f"), json!("g"), "^[0-9a-f]+$"),
            ("any", json!("anything"), json!(null), "a string"),
        ] {
            custom.text(name, &good).unwrap();
            let text = refused(name, &bad);
            assert!(text.contains(&format!("'{name}'")) && text.contains(rule), "{text}");
        }
        let usual = CustomProperties::usual();
        assert_eq!(usual.shown().count(), 9);
        usual.text("kernel_id", &json!("0F0E0D0C-0b0a-4000-8000-000000000000")).unwrap();
        assert!(usual.text("ramdisk_id", &json!("x")).is_err());
        assert!(usual.text("cinder_encryption_key_deletion_policy", &json!("never")).is_err());
    }
}
