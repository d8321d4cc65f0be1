//! Images of another region of the same cloud: what `glance-download` gets. The operator's catalog says where they are, and
//! no user: such a server may have any address, is asked without a proxy, and its redirects are not followed.

use std::collections::BTreeMap;

use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::exchange::{Answer, Question};
use super::target::Target;
use super::{Error, Fetched, Fetcher};
use crate::domain::id::ImageId;
use crate::domain::image::RESERVED_PREFIX;
use crate::secret::Secret;

/// Largest record of an image, in bytes.
const RECORD_BYTES_MAX: usize = 4 << 20;

/// An image of another region, as far as it is taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Number of bytes.
    pub size_bytes: u64,
    /// `raw`, `qcow2`, ...
    pub disk_format: Option<String>,
    /// `bare`, ...
    pub container_format: Option<String>,
    /// Algorithm and value of its hash.
    pub hash: Option<(String, String)>,
    /// Those of its properties that are to be copied.
    pub properties: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Record {
    status: String,
    size: Option<u64>,
    disk_format: Option<String>,
    container_format: Option<String>,
    os_hash_algo: Option<String>,
    os_hash_value: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Fetcher {
    /// The record of an image that is kept by the image service at `endpoint`, as the catalog names it.
    ///
    /// # Errors
    /// [`Error`]: there is no such image for that token, or it has no data.
    pub async fn remote_image(&self, endpoint: &str, token: &Secret, id: ImageId) -> Result<Remote, Error> {
        let (target, question) = self.remote(endpoint, token, &format!("/v2/images/{id}"))?;
        let mut answer = self.ask(&target, &question).await?;
        let host = target.host.clone();
        if answer.status != StatusCode::OK {
            return Err(not_given(&answer));
        }
        let mut text = Vec::new();
        while let Some(piece) = answer.next().await? {
            if text.len() + piece.len() > RECORD_BYTES_MAX {
                return Err(Error::Unusable(format!("The image service {host} sends a record that is too large.")));
            }
            text.extend_from_slice(&piece);
        }
        let record: Record = serde_json::from_slice(&text)
            .map_err(|_| Error::Unusable(format!("The image service {host} sends a record that cannot be read.")))?;
        if record.status != "active" {
            return Err(Error::Unusable(format!("The image {id} of the other region is not active.")));
        }
        let size_bytes = record
            .size
            .ok_or_else(|| Error::Unusable(format!("The image service {host} does not know the size of {id}.")))?;
        let copied = |name: &str| {
            !name.starts_with(RESERVED_PREFIX)
                && self.config.glance_download_properties.iter().any(|prefix| name.starts_with(prefix.as_str()))
        };
        let properties =
            record.others.into_iter().filter(|(name, _)| copied(name)).filter_map(|(name, value)| match value {
                Value::String(text) => Some((name, text)),
                _ => None,
            });
        Ok(Remote {
            size_bytes,
            disk_format: record.disk_format,
            container_format: record.container_format,
            hash: record.os_hash_algo.zip(record.os_hash_value),
            properties: properties.collect(),
        })
    }

    /// Begins to get the data of such an image, which has `size_bytes`.
    ///
    /// # Errors
    /// [`Error`], before the first byte.
    pub async fn open_remote(
        &self,
        endpoint: &str,
        token: &Secret,
        id: ImageId,
        size_bytes: u64,
    ) -> Result<Fetched, Error> {
        let (target, question) = self.remote(endpoint, token, &format!("/v2/images/{id}/file"))?;
        let host = target.host.clone();
        let fetched = self.open_target(target, question, size_bytes).await?;
        if fetched.size_bytes.is_some_and(|size| size != size_bytes) {
            return Err(Error::Unusable(format!(
                "The image service {host} has {} bytes of {id}, and its record says {size_bytes}.",
                fetched.size_bytes.unwrap_or_default()
            )));
        }
        Ok(Fetched { size_bytes: Some(size_bytes), ..fetched })
    }

    fn remote(&self, endpoint: &str, token: &Secret, path: &str) -> Result<(Target, Question), Error> {
        let base = endpoint.trim_end_matches('/').trim_end_matches("/v2");
        let target = Target::parse(&format!("{base}{path}"))
            .map_err(|why| Error::Unusable(format!("The endpoint of the other region's image service {why}.")))?;
        let mut value = HeaderValue::from_str(token.expose())
            .map_err(|_| Error::Unusable("The token cannot be sent on.".into()))?;
        value.set_sensitive(true);
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-auth-token"), value)]);
        Ok((target, Question { headers, trusted: true, ..Question::default() }))
    }
}

fn not_given(answer: &Answer) -> Error {
    let host = &answer.target.host;
    match answer.status {
        StatusCode::UNAUTHORIZED => Error::Unusable(format!(
            "The image service {host} does not accept the token of the request: it may have expired meanwhile."
        )),
        StatusCode::NOT_FOUND => Error::Unusable(format!("The image service {host} has no such image for you.")),
        _ => answer.failure(),
    }
}
