//! `/v2/info/stores`, and `/v2/stores/{store}/{image}`.

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde_json::{Map, Value, json};

use crate::api::error::Problem;
use crate::api::{AppState, body};
use crate::identity::Caller;
use crate::service::StoreInfo;

/// `GET /v2/info/stores`.
pub(in crate::api) async fn info(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let stores: Vec<Value> = state.services.stores_info().iter().map(|store| Value::Object(brief(store))).collect();
    Ok(Json(json!({"stores": stores})))
}

/// `GET /v2/info/stores/detail`.
pub(in crate::api) async fn detail(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Json<Value>, Problem> {
    body::none(&request)?;
    let detailed = |store: StoreInfo| {
        let mut object = brief(&store);
        object.insert("type".into(), json!(store.common.kind.as_str()));
        object.insert("weight".into(), json!(store.common.weight));
        object.insert("properties".into(), Value::Object(store.properties));
        Value::Object(object)
    };
    let stores: Vec<Value> = state.services.stores_detail(&caller).await?.into_iter().map(detailed).collect();
    Ok(Json(json!({"stores": stores})))
}

/// `DELETE /v2/stores/{store}/{image}`.
pub(in crate::api) async fn delete(
    State(state): State<AppState>,
    Extension(caller): Extension<Caller>,
    Path((store, image)): Path<(String, String)>,
    request: Request,
) -> Result<StatusCode, Problem> {
    body::none(&request)?;
    state.services.delete_from_store(&caller, &store, &image).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn brief(store: &StoreInfo) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".into(), json!(store.common.name));
    if let Some(description) = &store.common.description {
        object.insert("description".into(), json!(description));
    }
    // Strings, as Glance has them; what is not true is not there.
    if store.default {
        object.insert("default".into(), json!("true"));
    }
    if store.common.read_only {
        object.insert("read-only".into(), json!("true"));
    }
    object
}
