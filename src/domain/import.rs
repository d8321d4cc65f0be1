//! `POST /v2/images/{id}/import`: what is asked for.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Refusal;
use super::endpoint::Interface;
use super::id::ImageId;
use super::image::check_text;
use super::limits::TEXT_CHARS_MAX;
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
    /// Fetched from the image service of another region of the same cloud.
    GlanceDownload,
}

impl Method {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::GlanceDirect, Self::WebDownload, Self::CopyImage, Self::GlanceDownload];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GlanceDirect => "glance-direct",
            Self::WebDownload => "web-download",
            Self::CopyImage => "copy-image",
            Self::GlanceDownload => "glance-download",
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

/// An image of another region of the same cloud.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteImage {
    /// The region, as the catalog calls it.
    pub region: String,
    /// Which of its endpoints is asked.
    pub interface: Interface,
    /// The image there.
    pub id: ImageId,
}

/// A request for an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Where the data is from.
    pub method: Method,
    /// URL of the data, for [`Method::WebDownload`].
    pub uri: Option<String>,
    /// The image to be fetched, for [`Method::GlanceDownload`].
    pub remote: Option<RemoteImage>,
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
        let uri = member(method, "uri", known, Method::WebDownload)?;
        if known == Method::WebDownload && uri.is_none() {
            return Err(missing("uri", known));
        }
        let remote = remote(method, known)?;
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
        let stores = stores(body.get("stores"))?;
        Ok(Self { method: known, uri, remote, expected, stores, all_stores, all_must_succeed })
    }
}

/// A text among the members of a method that belongs to the method `owner` alone.
fn member(members: &Map<String, Value>, name: &str, known: Method, owner: Method) -> Result<Option<String>, Refusal> {
    let invalid = |why: String| Err(Refusal::Invalid(why));
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if known == owner => Ok(Some(text.clone())),
        Some(Value::String(_)) => {
            invalid(format!("'{name}' is for the method {} alone, not for {}.", owner.as_str(), known.as_str()))
        }
        Some(_) => invalid(format!("The '{name}' of the import method must be a string.")),
    }
}

fn missing(name: &str, method: Method) -> Refusal {
    Refusal::Invalid(format!("The import method {} requires a '{name}' in its 'method'.", method.as_str()))
}

/// The image of another region that is to be fetched, if that is the method.
fn remote(members: &Map<String, Value>, known: Method) -> Result<Option<RemoteImage>, Refusal> {
    let invalid = |why: String| Refusal::Invalid(why);
    let member = |name: &str| member(members, name, known, Method::GlanceDownload);
    let (region, id) = (member("glance_region")?, member("glance_image_id")?);
    let interface = member("glance_service_interface")?;
    if known != Method::GlanceDownload {
        return Ok(None);
    }
    let region = region.filter(|region| !region.is_empty()).ok_or_else(|| missing("glance_region", known))?;
    if region.chars().count() > TEXT_CHARS_MAX {
        return Err(invalid(format!("The 'glance_region' is longer than {TEXT_CHARS_MAX} characters.")));
    }
    check_text("glance_region", &region, false)?;
    let id = id.ok_or_else(|| missing("glance_image_id", known))?;
    let id = ImageId::parse(&id).ok_or_else(|| {
        invalid("The 'glance_image_id' must be the id of an image in the other region: this image id does not look like a UUID.".into())
    })?;
    let interface = match interface {
        None => Interface::Public,
        Some(name) => Interface::parse(&name).ok_or_else(|| {
            let names = Interface::ALL.map(Interface::as_str).join(", ");
            invalid(format!("The 'glance_service_interface' must be one of the following: {names}."))
        })?,
    };
    Ok(Some(RemoteImage { region, interface, id }))
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

    use super::{Interface, Method, Request, expected_hash};

    const ID: &str = "6d0b3d2e-07d4-4a4f-9d0e-3f4f0f6f1a2b";

    #[test]
    fn what_is_asked_for() {
        let parse = |body: serde_json::Value| Request::parse(body.as_object().unwrap(), &Method::ALL);
        let plain = parse(json!({"method": {"name": "glance-direct"}})).unwrap();
        assert_eq!((plain.method, plain.all_must_succeed, plain.stores), (Method::GlanceDirect, true, None));
        let named =
            parse(json!({"method": {"name": "copy-image"}, "stores": ["a", "b", "a"], "all_stores": false})).unwrap();
        assert_eq!(named.stores.unwrap(), ["a", "b"]);
        let far = json!({"name": "glance-download", "glance_region": "two", "glance_image_id": ID});
        let remote = parse(json!({"method": far})).unwrap().remote.unwrap();
        assert_eq!((remote.region.as_str(), remote.interface), ("two", Interface::Public));
        assert_eq!(remote.id.to_string(), ID);
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
            json!({"method": {"name": "glance-download"}}),
            json!({"method": {"name": "glance-download", "glance_region": "two"}}),
            json!({"method": {"name": "glance-download", "glance_image_id": ID}}),
            json!({"method": {"name": "glance-download", "glance_region": "", "glance_image_id": ID}}),
            json!({"method": {"name": "glance-download", "glance_region": "a\u{0}", "glance_image_id": ID}}),
            json!({"method": {"name": "glance-download", "glance_region": "r".repeat(256), "glance_image_id": ID}}),
            json!({"method": {"name": "glance-download", "glance_region": 2, "glance_image_id": ID}}),
            json!({"method": {"name": "glance-download", "glance_region": "two", "glance_image_id": "x"}}),
            json!({"method": {"name": "glance-download", "glance_region": "two", "glance_image_id": ID, "glance_service_interface": "open"}}),
            json!({"method": {"name": "glance-download", "glance_region": "two", "glance_image_id": ID, "uri": "http://x/"}}),
            json!({"method": {"name": "glance-direct", "glance_region": "two"}}),
            json!({"method": {"name": "web-download", "uri": "http://x/", "glance_image_id": ID}}),
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
