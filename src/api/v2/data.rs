//! `/v2/images/{id}/file` and `/v2/images/{id}/stage`.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::api::error::Problem;
use crate::api::{AppState, body};
use crate::domain::image::Image;
use crate::domain::query::pairs;
use crate::identity::Caller;
use crate::service::{Fetched, Upload};

/// The one media type of image data.
const OCTET_STREAM: &str = "application/octet-stream";

/// `PUT /v2/images/{id}/file`.
pub(in crate::api) async fn upload(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (parts, body) = request.into_parts();
    check_media_type(&parts.headers)?;
    let upload = Upload {
        body: body::stream(body, state.settings.body_idle_timeout),
        declared_bytes: declared_bytes(&parts.headers)?,
        store: text(&parts.headers, "x-image-meta-store")?.map(str::to_owned),
    };
    state.services.upload(&caller, &id, upload).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `PUT /v2/images/{id}/stage`.
pub(in crate::api) async fn stage(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (parts, body) = request.into_parts();
    check_media_type(&parts.headers)?;
    let upload = Upload {
        body: body::stream(body, state.settings.body_idle_timeout),
        declared_bytes: declared_bytes(&parts.headers)?,
        store: None,
    };
    state.services.stage(&caller, &id, upload).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let media_type = text(headers, CONTENT_TYPE.as_str())?.unwrap_or("");
    if media_type.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case(OCTET_STREAM)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("The Content-Type of image data must be {OCTET_STREAM}, not '{media_type}'."),
    ))
}

/// The length that the client announces: by `X-OpenStack-Image-Size`, or by the length of its body.
fn declared_bytes(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let number = |name: &'static str| -> Result<Option<u64>, Problem> {
        let Some(value) = text(headers, name)? else { return Ok(None) };
        let digits = Some(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
            Problem::bad_request(format!("The header {name} must be a whole number of bytes, not '{value}'."))
        })
    };
    match (number("x-openstack-image-size")?, number("content-length")?) {
        (Some(size), Some(length)) if size != length => Err(Problem::bad_request(format!(
            "Size mismatch: x-openstack-image-size says {size} bytes, content-length says {length}."
        ))),
        (Some(size), _) => Ok(Some(size)),
        (None, length) => Ok(length),
    }
}

pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Problem> {
    headers
        .get(name)
        .map(|value| value.to_str().map_err(|_| Problem::bad_request(format!("The header {name} must be ASCII text."))))
        .transpose()
}

/// `GET /v2/images/{id}/file`.
pub(in crate::api) async fn download(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    body::none(&request)?;
    let headers = request.headers();
    let query = pairs(&raw.unwrap_or_default())?;
    let image = state.services.downloadable(&caller, &id).await?;
    let wanted: Vec<&str> =
        query.iter().filter(|(name, _)| name == "prefer").map(|(_, value)| value.as_str()).collect();
    let preferred = state.services.preferred_stores(&caller, &image, &wanted.join(",")).await?;
    let etag = etag(&image);
    // Bytes of an image never change: whoever has them needs nothing.
    if let (Some(etag), Some(known)) = (&etag, text(headers, IF_NONE_MATCH.as_str())?)
        && known.split(',').any(|tag| tag.trim() == "*" || tag.trim().trim_start_matches("W/") == etag)
    {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag.clone())]).into_response());
    }
    let other_version = text(headers, IF_RANGE.as_str())?.is_some_and(|tag| Some(tag.trim()) != etag.as_deref());
    let range = text(headers, RANGE.as_str())?.filter(|_| !other_version);
    match state.services.download(&image, &preferred, range).await? {
        Fetched::Nothing => Ok(StatusCode::NO_CONTENT.into_response()),
        Fetched::OutOfRange(size) => {
            let text =
                format!("The range '{}' is not within the {size} bytes of the image.", range.unwrap_or_default());
            let mut response = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, text).into_response();
            response.headers_mut().extend(header(CONTENT_RANGE, &format!("bytes */{size}")));
            Ok(response)
        }
        Fetched::Data(download) => {
            let size = image.content.as_ref().map_or(0, |content| content.size_bytes);
            let mut out = HeaderMap::new();
            out.extend(header(CONTENT_TYPE, OCTET_STREAM));
            out.extend(header(CONTENT_LENGTH, &(download.end - download.start).to_string()));
            out.extend(header(ACCEPT_RANGES, "bytes"));
            out.extend(etag.and_then(|etag| header(ETAG, &etag)));
            // In hex and of the whole image, as Glance sends it and its clients compare it.
            let checksum = image
                .content
                .as_ref()
                .filter(|content| !content.converted)
                .and_then(|content| content.checksum.as_deref());
            out.extend(checksum.and_then(|md5| header(HeaderName::from_static("content-md5"), md5)));
            let status = if download.partial {
                out.extend(header(CONTENT_RANGE, &format!("bytes {}-{}/{size}", download.start, download.end - 1)));
                StatusCode::PARTIAL_CONTENT
            } else {
                StatusCode::OK
            };
            Ok((status, out, Body::from_stream(download.bytes)).into_response())
        }
    }
}

fn header(name: HeaderName, value: &str) -> Option<(HeaderName, axum::http::HeaderValue)> {
    axum::http::HeaderValue::from_str(value).ok().map(|value| (name, value))
}

/// A strong validator: the hash of the bytes, or the id, whose bytes never change either.
fn etag(image: &Image) -> Option<String> {
    let content = image.content.as_ref()?;
    let hash = content.os_hash_value.as_deref().or(content.checksum.as_deref());
    Some(format!("\"{}\"", hash.map_or_else(|| image.id.to_string(), str::to_owned)))
}
