//! What rules compare: values of credentials and targets, as the text that Python's `str` makes of them. That text
//! is part of the policy language: `True`, `None` and `['a', 'b']` stand in operators' files.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Number, Value};

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Fact<'a> {
    /// There is such an attribute, and it is not set.
    Null,
    /// Yes or no.
    Flag(bool),
    /// A number.
    Integer(i64),
    /// A text.
    Text(Cow<'a, str>),
    /// A list of texts.
    Texts(&'a BTreeSet<String>),
    /// What a command line or a file says.
    Json(&'a Value),
}

/// The question has no answer, such as one for a part of something that has no parts. Nothing is allowed then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unanswerable;

impl<'a> From<&'a str> for Fact<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl<'a, T: Into<Fact<'a>>> From<Option<T>> for Fact<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<'a> Fact<'a> {
    /// The value as text.
    pub(super) fn text(&self) -> Cow<'a, str> {
        match self {
            Self::Null => "None".into(),
            Self::Flag(true) => "True".into(),
            Self::Flag(false) => "False".into(),
            Self::Integer(number) => number.to_string().into(),
            Self::Text(text) => text.clone(),
            Self::Texts(texts) => {
                let quoted: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
                format!("[{}]", quoted.join(", ")).into()
            }
            Self::Json(Value::String(text)) => text.into(),
            Self::Json(value) => written(value).into(),
        }
    }

    /// The value as JSON.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Flag(flag) => (*flag).into(),
            Self::Integer(number) => (*number).into(),
            Self::Text(text) => text.as_ref().into(),
            Self::Texts(texts) => texts.iter().map(String::as_str).collect(),
            Self::Json(value) => (*value).clone(),
        }
    }

    /// Whether this, or the part of it that `path` leads to, is the `wanted` text. Of a list, one element has to be.
    pub(super) fn is(&self, path: &[String], wanted: &str) -> Result<bool, Unanswerable> {
        match self {
            Self::Texts(texts) if path.is_empty() || texts.is_empty() => Ok(texts.contains(wanted)),
            Self::Texts(_) => Err(Unanswerable),
            Self::Json(Value::Array(items)) => {
                for item in items {
                    if part_is(item, path, wanted)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Json(value) => part_is(value, path, wanted),
            Self::Null | Self::Flag(_) | Self::Integer(_) | Self::Text(_) if path.is_empty() => {
                Ok(self.text() == wanted)
            }
            Self::Null | Self::Flag(_) | Self::Integer(_) | Self::Text(_) => Err(Unanswerable),
        }
    }
}

fn part_is(value: &Value, path: &[String], wanted: &str) -> Result<bool, Unanswerable> {
    let Some((key, rest)) = path.split_first() else { return Ok(Fact::Json(value).text() == wanted) };
    let Value::Object(members) = value else { return Err(Unanswerable) };
    members.get(key).map_or(Ok(false), |part| Fact::Json(part).is(rest, wanted))
}

/// Python's `repr`.
fn written(value: &Value) -> String {
    match value {
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Number(number) => number_written(number),
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}: {}", quoted(key), written(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
    }
}

fn number_written(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float_written(float),
        _ => number.to_string(),
    }
}

/// Python's notation: an exponent of two digits, and only for what is very large or very small.
pub(super) fn float_written(float: f64) -> String {
    let scientific = format!("{float:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent @ -4..16) if exponent >= 0 && float.fract() == 0.0 => format!("{float:.1}"),
        Ok(-4..16) => format!("{float}"),
        Ok(exponent) => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        Err(_) => scientific,
    }
}

fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if character == quote => out.extend(['\\', quote]),
            _ if character.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Fact, Unanswerable};

    #[test]
    fn values_are_written_as_python_writes_them() {
        for (value, text) in [
            (json!(null), "None"),
            (json!(true), "True"),
            (json!(false), "False"),
            (json!(5), "5"),
            (json!(-1.5), "-1.5"),
            (json!(2.0), "2.0"),
            (json!(0.0001), "0.0001"),
            (json!(0.00001), "1e-05"),
            (json!(1e15), "1000000000000000.0"),
            (json!(1.25e16), "1.25e+16"),
            (json!("it's"), "it's"),
            (json!(["a", "it's", "\"'", 1, null]), r#"['a', "it's", '"\'', 1, None]"#),
            (json!({"a": [true], "b": "\n\u{1}é"}), r"{'a': [True], 'b': '\n\x01é'}"),
        ] {
            assert_eq!(Fact::Json(&value).text(), text);
        }
    }

    #[test]
    fn a_path_leads_through_objects_and_lists() {
        let value = json!({"a": [{"b": "x"}, {"b": ["y", "z"]}], "s": "x"});
        let is = |path: &[&str], wanted: &str| {
            let path: Vec<String> = path.iter().map(|part| (*part).to_owned()).collect();
            Fact::Json(&value).is(&path, wanted)
        };
        assert_eq!(is(&["a", "b"], "x"), Ok(true));
        assert_eq!(is(&["a", "b"], "z"), Ok(true));
        assert_eq!(is(&["a", "b"], "w"), Ok(false));
        assert_eq!(is(&["a", "c"], "x"), Ok(false));
        assert_eq!(is(&["s", "b"], "x"), Err(Unanswerable));
    }
}
