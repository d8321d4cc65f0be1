//! `POST /v2/images/{id}/import`: what is asked for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Refusal;
use super::location::{Validation, validation};

/// Where an import has its data from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Staged by the client before.
    GlanceDirect,
    /// Fetched from a URL.
    WebDownload,
    /// Another copy of the same image.
    CopyImage,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 3] = [Self::GlanceDirect, Self::WebDownload, Self::CopyImage];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GlanceDirect => "glance-direct",
            Self::WebDownload => "web-download",
            Self::CopyImage => "copy-image",
        }
    }

    /// The method of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }
}

/// Property of an image by which clients that cannot send `validation_data` say what is to be fetched: `sha256:HEX`.
pub const EXPECTED_HASH: &str = "rockpool_expected_hash";

/// Reads the value of [`EXPECTED_HASH`].
///
/// # Errors
/// [`Refusal::Invalid`] naming the property.
pub fn expected_hash(value: &str) -> Result<Validation, Refusal> {
    let invalid = |why: String| Refusal::Invalid(format!("The property {EXPECTED_HASH}: {why}"));
    let (algorithm, hash) = value
        .split_once(':')
        .ok_or_else(|| invalid("must be an algorithm and a hash, such as sha256:e3b0c4...".into()))?;
    let expected =
        Validation { checksum: None, os_hash_algo: algorithm.to_lowercase(), os_hash_value: hash.trim().to_owned() };
    expected.check().map_err(invalid)?;
    Ok(expected)
}

/// Property of an image by which a client asks that its upload be converted; the one value is `raw`.
pub const CONVERT: &str = "rockpool_convert";

/// Reads the value of [`CONVERT`].
///
/// # Errors
/// [`Refusal::Invalid`] naming the property.
pub fn asks_for_raw(value: &str) -> Result<(), Refusal> {
    match value {
        "raw" => Ok(()),
        _ => Err(Refusal::Invalid(format!(
            "The property {CONVERT}: must be raw, the one format that images are converted to, not '{value}'; remove it to keep the image as it is."
        ))),
    }
}

/// A request for an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where the data is from.
    pub method: Method,
    /// URL of the data, for [`Method::WebDownload`].
    pub uri: Option<String>,
    /// What that data must be, if the client knows.
    pub expected: Option<Validation>,
    /// Stores to bring it to, if the client named some.
    pub stores: Option<Vec<String>>,
    /// All stores instead.
    pub all_stores: bool,
    /// Whether a store that fails is the failure of the whole.
    pub all_must_succeed: bool,
}

impl Request {
    /// Reads the body of a request, of which these methods are offered.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the member.
    pub fn parse(body: &Map<String, Value>, offered: &[Method]) -> Result<Self, Refusal> {
        let invalid = |text: String| Err(Refusal::Invalid(text));
        let method = match body.get("method") {
            None => return invalid("Import request requires a 'method' field.".into()),
            Some(Value::Object(method)) => method,
            Some(_) => return invalid("'method' must be an object with the 'name' of an import method.".into()),
        };
        let name = match method.get("name") {
            None => return invalid("Import request requires a 'name' field in its 'method'.".into()),
            Some(Value::String(name)) => name,
            Some(_) => return invalid("The 'name' of the import method must be a string.".into()),
        };
        let Some(known) = Method::parse(name).filter(|method| offered.contains(method)) else {
            let names: Vec<&str> = offered.iter().map(|method| method.as_str()).collect();
            return invalid(format!(
                "'{name}' is not a valid import method value. Offered at this site: {}.",
                names.join(", ")
            ));
        };
        let flag = |name: &str, default| match body.get(name) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Refusal::Invalid(format!("'{name}' must be boolean value only."))),
        };
        let (all_stores, all_must_succeed) = (flag("all_stores", false)?, flag("all_stores_must_succeed", true)?);
        let uri = match method.get("uri") {
            None | Some(Value::Null) => None,
            Some(Value::String(uri)) if known == Method::WebDownload => Some(uri.clone()),
            Some(Value::String(_)) => {
                return invalid(format!("'uri' is for the method web-download alone, not for {name}."));
            }
            Some(_) => return invalid("The 'uri' of the import method must be a string.".into()),
        };
        if known == Method::WebDownload && uri.is_none() {
            return invalid("The import method web-download requires a 'uri' in its 'method'.".into());
        }
        let expected = match method.get("validation_data") {
            None => None,
            Some(_) if known != Method::WebDownload => {
                return invalid(format!("'validation_data' is for the method web-download alone, not for {name}."));
            }
            Some(value) => validation(value, &[], false)?,
        };
        if let Some(Err(why)) = expected.as_ref().map(Validation::check) {
            return invalid(format!("validation_data: {why}"));
        }
        Ok(Self { method: known, uri, expected, stores: stores(body.get("stores"))?, all_stores, all_must_succeed })
    }
}

fn stores(value: Option<&Value>) -> Result<Option<Vec<String>>, Refusal> {
    let wrong = || Refusal::Invalid("'stores' must be a list of names of stores, at least one.".into());
    let names = match value {
        None => return Ok(None),
        Some(Value::Array(names)) if !names.is_empty() => names,
        Some(_) => return Err(wrong()),
    };
    let mut stores: Vec<String> = Vec::new();
    for name in names {
        let name = name.as_str().ok_or_else(wrong)?;
        if !stores.iter().any(|known| known == name) {
            stores.push(name.to_owned());
        }
    }
    Ok(Some(stores))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Method, Request, expected_hash};

    #[test]
    fn what_is_asked_for() {
        let parse = |body: serde_json::Value| Request::parse(body.as_object().unwrap(), &Method::ALL);
        let plain = parse(json!({"method": {"name": "glance-direct"}})).unwrap();
        assert_eq!((plain.method, plain.all_must_succeed, plain.stores), (Method::GlanceDirect, true, None));
        let named =
            parse(json!({"method": {"name": "copy-image"}, "stores": ["a", "b", "a"], "all_stores": false})).unwrap();
        assert_eq!(named.stores.unwrap(), ["a", "b"]);
        for bad in [
            json!({}),
            json!({"method": "web-download"}),
            json!({"method": {}}),
            json!({"method": {"name": 5}}),
            json!({"method": {"name": "file-upload"}}),
            json!({"method": {"name": "web-download"}}),
            json!({"method": {"name": "web-download", "uri": 5}}),
            json!({"method": {"name": "glance-direct", "uri": "http://x/"}}),
            json!({"method": {"name": "glance-direct", "validation_data": {"os_hash_algo": "md5", "os_hash_value": "0"}}}),
            json!({"method": {"name": "web-download", "uri": "http://x/", "validation_data": {"os_hash_algo": "md5"}}}),
            json!({"method": {"name": "web-download", "uri": "http://x/", "validation_data": {"os_hash_algo": "md5", "os_hash_value": "0"}}}),
            json!({"method": {"name": "glance-direct"}, "stores": []}),
            json!({"method": {"name": "glance-direct"}, "stores": "a"}),
            json!({"method": {"name": "glance-direct"}, "stores": [5]}),
            json!({"method": {"name": "glance-direct"}, "all_stores": "yes"}),
            json!({"method": {"name": "glance-direct"}, "all_stores_must_succeed": 1}),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad}");
        }
        let body = json!({"method": {"name": "glance-direct"}});
        assert!(Request::parse(body.as_object().unwrap(), &[Method::CopyImage]).is_err());
    }

    #[test]
    fn what_is_expected() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let told = expected_hash(&format!("MD5:{md5}")).unwrap();
        assert_eq!((told.os_hash_algo.as_str(), told.os_hash_value.as_str()), ("md5", md5));
        for bad in ["", md5, "md5:", "sha256:d41d8cd98f00b204e9800998ecf8427e", "crc32:00000000"] {
            assert!(expected_hash(bad).unwrap_err().to_string().contains("rockpool_expected_hash"), "{bad}");
        }
        let method = json!({"name": "web-download", "uri": "http://x/", "validation_data": {"os_hash_algo": "md5", "os_hash_value": md5}});
        let request = Request::parse(json!({"method": method}).as_object().unwrap(), &Method::ALL).unwrap();
        assert_eq!(request.expected, Some(told));
    }
}
