//! `/v2/info/usage`.

use axum::extract::{Request, State};
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use crate::api::error::Problem;
use crate::api::{AppState, body};
use crate::identity::Caller;

/// `GET /v2/info/usage`.
pub(in crate::api) async fn show(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let usage = state.services.usage(&caller).await?;
    let members: Map<String, Value> = usage
        .into_iter()
        .map(|usage| (usage.resource.as_str().to_owned(), json!({"limit": usage.limit, "usage": usage.used})))
        .collect();
    Ok(Json(json!({"usage": members})))
}
