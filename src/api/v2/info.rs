//! `/v2/info/...`: what this deployment offers.

use axum::Json;
use axum::extract::Request;
use serde_json::{Value, json};

use crate::api::body;
use crate::api::error::Problem;

/// `GET /v2/info/import`. No method is offered, so no image carries `OpenStack-image-import-methods` either.
pub(in crate::api) async fn import(request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    Ok(Json(json!({
        "import-methods": {"description": "Import methods available.", "type": "array", "value": []},
    })))
}
