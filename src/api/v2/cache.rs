//! `/v2/cache`, of which there is none: each call is checked as if there were, then refused.

use axum::extract::{Path, Request};

use crate::api::error::Problem;
use crate::api::{App, By, body};
use crate::identity::policy::Action;

/// `GET /v2/cache`.
pub(in crate::api) async fn list(app: App, by: By, request: Request) -> Problem {
    refuse(app, by, Action::CacheList, None, request).await
}

/// `DELETE /v2/cache`.
pub(in crate::api) async fn clear(app: App, by: By, request: Request) -> Problem {
    refuse(app, by, Action::CacheDelete, None, request).await
}

/// `PUT /v2/cache/{id}`.
pub(in crate::api) async fn queue(app: App, by: By, Path(id): Path<String>, request: Request) -> Problem {
    refuse(app, by, Action::CacheImage, Some(id), request).await
}

/// `DELETE /v2/cache/{id}`.
pub(in crate::api) async fn evict(app: App, by: By, Path(id): Path<String>, request: Request) -> Problem {
    refuse(app, by, Action::CacheDelete, Some(id), request).await
}

/// `GET /v2/cache/nodes/{id}`.
pub(in crate::api) async fn nodes(app: App, by: By, Path(id): Path<String>, request: Request) -> Problem {
    refuse(app, by, Action::ListCachedNodes, Some(id), request).await
}

/// `POST /v2/cache/clean`.
pub(in crate::api) async fn clean(app: App, by: By, request: Request) -> Problem {
    refuse(app, by, Action::CacheClean, None, request).await
}

/// `POST /v2/cache/prune`.
pub(in crate::api) async fn prune(app: App, by: By, request: Request) -> Problem {
    refuse(app, by, Action::CachePrune, None, request).await
}

async fn refuse(app: App, caller: By, action: Action, image: Option<String>, request: Request) -> Problem {
    match body::none(&request) {
        Ok(()) => app.services.no_cache(&caller, action, image.as_deref()).await.into(),
        Err(unwanted) => unwanted,
    }
}
