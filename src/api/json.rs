//! JSON as strict as it is meant: what two readers would understand differently is refused.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads one document. Nesting is bounded by the library, at 128 levels.
///
/// # Errors
/// What is wrong and where, also a key that an object has twice: one of its values would be lost in silence.
pub(super) fn parse(bytes: &[u8]) -> serde_json::Result<Value> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = reader.deserialize_any(Strict)?;
    reader.end()?;
    Ok(value)
}

/// Builds a value, and looks at the keys of each object.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Strict)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            let value = members.next_value_seed(Strict)?;
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key '{key}' is given twice in one object; give it once")));
            }
            object.insert(key, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, proptest};
    use serde_json::Value;

    use super::parse;

    #[test]
    fn a_key_is_given_once() {
        for twice in [r#"{"a": 1, "a": 1}"#, r#"[{"b": {"a": 1, "\u0061": 2}}]"#] {
            let error = parse(twice.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("'a'") && error.contains("line 1"), "{error}");
        }
        parse(br#"{"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}], "A": 1}"#).unwrap();
    }

    #[test]
    fn depth_is_bounded_and_one_document_is_all() {
        let nested = |levels: usize| parse(format!("{}{}", "[".repeat(levels), "]".repeat(levels)).as_bytes());
        nested(100).unwrap();
        nested(200).unwrap_err();
        nested(1_000_000).unwrap_err();
        for bad in [&b"{} {}"[..], b"", b"\xef\xbb\xbf{}", b"\"\xff\"", br#""\ud800""#, b"1e999", b"NaN"] {
            parse(bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn everything_else_reads_as_ever(text in any::<String>(), number in any::<f64>(), whole in any::<i64>()) {
            let value = serde_json::json!({"text": text, "list": [number, whole, u64::MAX, true, null], "o": {"x": {}}});
            let written = value.to_string();
            assert_eq!(parse(written.as_bytes()).unwrap(), serde_json::from_str::<Value>(&written).unwrap());
        }
    }
}
