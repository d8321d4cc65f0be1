//! What an upload in parts leaves on an S3 server when its gateway dies: parts that no listing of objects shows and that
//! cost money all the same. OpenDAL does not know of them once the writer is gone, so they are asked for here.

use bytes::Bytes;
use hyper::http::{Method, Request, StatusCode};
use opendal::{Buffer, HttpTransporter};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqsign_aws_v4::{Credential, RequestSigner};
use reqsign_core::{Context, SignRequest as _};
use serde::Deserialize;

use super::config::S3Config;
use crate::secret::Secret;
use crate::store::Error;

/// Uploads that have begun and not ended, of one bucket.
pub(super) struct Uploads {
    transport: HttpTransporter,
    /// URL of the bucket, without a slash at its end.
    bucket: String,
    region: String,
    access_key_id: String,
    secret: Secret,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listing {
    #[serde(default)]
    upload: Vec<Upload>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

impl Uploads {
    pub(super) fn new(transport: HttpTransporter, config: &S3Config, secret: Secret) -> Self {
        let endpoint = config.endpoint.trim_end_matches('/');
        let bucket = match endpoint.split_once("://") {
            Some((scheme, host)) if config.virtual_host_style => format!("{scheme}://{}.{host}", config.bucket),
            Some(_) | None => format!("{endpoint}/{}", config.bucket),
        };
        let (region, access_key_id) = (config.region.clone(), config.access_key_id.clone());
        Self { transport, bucket, region, access_key_id, secret }
    }

    /// Ends those of `key`. Whoever still writes to one of them gets an error from now on.
    pub(super) async fn abort(&self, key: &str) -> Result<(), Error> {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let url = format!("{}?uploads&prefix={}", self.bucket, encode(key));
        let (status, body) = self.ask(Method::GET, &url).await?;
        if status != StatusCode::OK {
            return Err(unexpected(status));
        }
        let text = String::from_utf8_lossy(&body);
        let listing: Listing =
            quick_xml::de::from_str(&text).map_err(|e| Error::Other(format!("uploads cannot be listed: {e}")))?;
        for upload in listing.upload.iter().filter(|upload| upload.key == key) {
            let url = format!("{}/{}?uploadId={}", self.bucket, encode(key), encode(&upload.upload_id));
            match self.ask(Method::DELETE, &url).await? {
                (StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::NOT_FOUND, _) => {}
                (status, _) => return Err(unexpected(status)),
            }
        }
        Ok(())
    }

    async fn ask(&self, method: Method, url: &str) -> Result<(StatusCode, Bytes), Error> {
        let failed = |e: &dyn std::fmt::Display| Error::Other(format!("a request cannot be signed: {e}"));
        let request = Request::builder().method(method).uri(url).body(Buffer::new()).map_err(|e| failed(&e))?;
        let (mut parts, body) = request.into_parts();
        let credential = Credential {
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret.expose().to_owned(),
            session_token: None,
            expires_in: None,
        };
        RequestSigner::new("s3", &self.region)
            .sign_request(&Context::new(), &mut parts, Some(&credential), None)
            .await
            .map_err(|e| failed(&e))?;
        let answer = self.transport.send(Request::from_parts(parts, body)).await.map_err(super::error)?;
        Ok((answer.status(), answer.into_body().to_bytes()))
    }
}

fn unexpected(status: StatusCode) -> Error {
    match status {
        StatusCode::FORBIDDEN => Error::Denied("uploads that were begun may not be listed or ended".into()),
        status if status.is_server_error() => Error::Unavailable(format!("the server answers {status}")),
        status => Error::Other(format!("the server answers {status} to a question for uploads")),
    }
}
