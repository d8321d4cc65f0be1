//! From attempt to image.

use std::collections::BTreeMap;

use ceph::{Error, Kind, Pool};
use futures_util::future::try_join_all;

use super::{RbdStore, SNAPSHOT};
use crate::domain::location::RbdUrl;
use crate::store::{Attempt, DESCRIPTION_PREFIX};

/// Key that says which attempt an RBD image came from.
fn attempt_key() -> String {
    format!("{DESCRIPTION_PREFIX}attempt")
}

/// Whether the RBD image `name` exists and came from `attempt`.
pub(super) async fn is_of(pool: &Pool, name: &str, attempt: Attempt) -> Result<bool, Error> {
    let image = match pool.open_read_only(name, None).await {
        Ok(image) => image,
        Err(e) if e.kind() == Kind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    let owner = image.metadata_get(&attempt_key()).await;
    image.close().await?;
    Ok(owner?.is_some_and(|id| id == attempt.id.as_simple().to_string()))
}

/// Renames a sealed attempt to its image's id. Repeatable: an attempt that bears the name already is
/// left as it is.
pub(super) async fn publish(pool: &Pool, attempt: Attempt) -> Result<String, Error> {
    let name = attempt.image.to_string();
    match pool.rename_image(&RbdStore::attempt_name(attempt), &name).await {
        Ok(()) => {}
        Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Exists) => {
            if !is_of(pool, &name, attempt).await? {
                return Err(e);
            }
        }
        Err(e) => return Err(e),
    }
    let location = RbdUrl {
        fsid: pool.cluster().fsid().to_owned(),
        pool: pool.name().to_owned(),
        image: name,
        snapshot: SNAPSHOT.to_owned(),
    };
    Ok(location.to_string())
}

/// Makes the image metadata of `name` equal to `description`, as far as it is ours.
pub(super) async fn describe(pool: &Pool, name: &str, description: &BTreeMap<String, String>) -> Result<(), Error> {
    let image = pool.open(name).await?;
    let changed = async {
        let current = image.metadata_list().await?;
        // Which attempt it came from is history, not description.
        let ours = |key: &str| key.starts_with(DESCRIPTION_PREFIX) && key != attempt_key();
        try_join_all(
            description
                .iter()
                .filter(|(key, value)| ours(key) && current.get(*key) != Some(value))
                .map(|(key, value)| image.metadata_set(key, value)),
        )
        .await?;
        try_join_all(
            current
                .keys()
                .filter(|key| ours(key) && !description.contains_key(*key))
                .map(|key| image.metadata_remove(key)),
        )
        .await
    };
    let result = changed.await.map(drop);
    image.close().await?;
    result
}
