//! `/v2/tasks`, `/v2/tasks/{id}` and `/v2/images/{id}/tasks`.

use axum::extract::{Path, RawQuery, Request, State};
use axum::http::header::{ALLOW, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::page::link;
use crate::api::versions::base_url;
use crate::api::wire::task as wire;
use crate::api::{AppState, body};
use crate::domain::query::pairs;
use crate::domain::task::TaskQuery;
use crate::identity::Caller;

/// The list.
const PATH: &str = "/v2/tasks";

/// `GET /v2/tasks`.
pub(in crate::api) async fn list(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    RawQuery(raw): RawQuery,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let tasks = state.services.tasks(&caller).await?;
    body::none(&request)?;
    let pairs = pairs(&raw.unwrap_or_default())?;
    let query = TaskQuery::parse(&pairs, state.services.settings().page_sizes)?;
    let page = tasks.list(&query).await?;
    let mut document = json!({
        "tasks": page.iter().map(|task| wire::stub(task, &state.settings)).collect::<Vec<_>>(),
        "first": link(PATH, &pairs, None),
        "schema": "/v2/schemas/tasks",
    });
    if let Some(last) = page.last().filter(|_| page.len() == query.limit) {
        document["next"] = json!(link(PATH, &pairs, Some(&last.id.to_string())));
    }
    Ok(Json(document))
}

/// `POST /v2/tasks`.
pub(in crate::api) async fn create(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let tasks = state.services.tasks(&caller).await?;
    let base = base_url(&state, request.headers());
    let expected = "The request body must be a JSON object with the type and the input of the task.";
    let body = body::object(request, state.settings.body_idle_timeout, expected).await?;
    let task = tasks.create(&body).await?;
    let location = format!("{base}{}", wire::path(&task));
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(wire::task(&task, &state.settings))).into_response())
}

/// `GET /v2/tasks/{id}`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let tasks = state.services.tasks(&caller).await?;
    body::none(&request)?;
    Ok(Json(wire::task(&tasks.show(&id).await?, &state.settings)))
}

/// `DELETE /v2/tasks/{id}`: never, of any task.
pub(in crate::api) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    state.services.tasks(&caller).await?;
    body::none(&request)?;
    let text = "This operation is currently not permitted on Glance Tasks. They are auto deleted after reaching the time based on their expires_at property.";
    let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, text).into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Ok(response)
}

/// `GET /v2/images/{id}/tasks`.
pub(in crate::api) async fn of_image(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let tasks = state.services.image_tasks(&caller, &id).await?;
    Ok(Json(json!({"tasks": tasks.iter().map(wire::row).collect::<Vec<_>>()})))
}
