//! `/v2/info/...`: what this deployment offers.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

use crate::api::error::Problem;
use crate::api::{AppState, body};

/// `GET /v2/info/import`.
pub(in crate::api) async fn import(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(json!({
        "import-methods": {"description": "Import methods available.", "type": "array", "value": state.services.import_methods()},
    })))
}
