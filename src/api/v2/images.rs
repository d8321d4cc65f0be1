//! `/v2/images` and `/v2/images/{id}`.

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::page::link;
use crate::api::versions::base_url;
use crate::api::wire::image::image as wire;
use crate::api::{AppState, body};
use crate::domain::patch::{Dialect, Patch};
use crate::domain::query::{ImageQuery, pairs};
use crate::identity::Caller;

/// The list.
const PATH: &str = "/v2/images";

/// `POST /v2/images`.
pub(in crate::api) async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let base = base_url(&state, request.headers());
    let expected = "The request body must be a JSON object with the attributes of the image.";
    let members = body::object(request, state.settings.body_idle_timeout, expected).await?;
    let image = state.services.create(&caller, &members).await?;
    let location = format!("{base}/v2/images/{}", image.id);
    let stores = state.services.store_names().collect::<Vec<_>>().join(",");
    let headers = [(LOCATION, location), (HeaderName::from_static("openstack-image-store-ids"), stores)];
    let methods = state.services.import_methods().join(",");
    let methods = (!methods.is_empty()).then(|| [(HeaderName::from_static("openstack-image-import-methods"), methods)]);
    Ok((StatusCode::CREATED, headers, methods, Json(wire(&image, &state.settings, caller.is_admin()))).into_response())
}

/// `GET /v2/images`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let raw = raw.unwrap_or_default();
    let pairs = pairs(&raw)?;
    let query = ImageQuery::parse(&pairs, state.services.settings().page_sizes)?;
    let page = state.services.list(&caller, &query).await?;
    let images: Vec<Value> = page.images.iter().map(|image| wire(image, &state.settings, caller.is_admin())).collect();
    let mut document = json!({"images": images, "first": link(PATH, &pairs, None), "schema": "/v2/schemas/images"});
    if let Some(last) = page.next {
        document["next"] = json!(link(PATH, &pairs, Some(&last.to_string())));
    }
    Ok(Json(document))
}

/// `GET /v2/images/{id}`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let image = state.services.show(&caller, &id).await?;
    Ok(Json(wire(&image, &state.settings, caller.is_admin())))
}

/// `PATCH /v2/images/{id}`.
pub(in crate::api) async fn update(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let Some(dialect) = dialect(request.headers()) else { return Ok(unsupported_patch()) };
    let document = body::json(request, state.settings.body_idle_timeout).await?;
    let patch = Patch::parse(&document, dialect)?;
    let image = state.services.update(&caller, &id, &patch).await?;
    Ok(Json(wire(&image, &state.settings, caller.is_admin())).into_response())
}

fn dialect(headers: &HeaderMap) -> Option<Dialect> {
    let media_type = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
    Dialect::MEDIA_TYPES.into_iter().find(|(name, _)| *name == media_type).map(|(_, dialect)| dialect)
}

fn unsupported_patch() -> Response {
    let names = Dialect::MEDIA_TYPES.map(|(name, _)| name).join(", ");
    let mut response =
        Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("The media type of a PATCH must be one of: {names}."))
            .into_response();
    if let Ok(value) = HeaderValue::from_str(&names) {
        response.headers_mut().insert(HeaderName::from_static("accept-patch"), value);
    }
    response
}

/// `DELETE /v2/images/{id}`.
pub(in crate::api) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete(&caller, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
