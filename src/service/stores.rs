//! `GET /v2/info/stores` and `GET /v2/info/stores/detail`.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Error, Services};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};
use crate::store::{Common, Store};

/// A store, as clients may choose it.
#[derive(Debug, Clone)]
pub struct StoreInfo {
    /// Whether uploads that name no store go there.
    pub default: bool,
    /// What every store has.
    pub common: Common,
    /// What its kind has, by Glance's names.
    pub properties: Map<String, Value>,
}

impl Services {
    /// Every store, by name.
    #[must_use]
    pub fn stores_info(&self) -> Vec<StoreInfo> {
        let info = |store: &Arc<dyn Store>| StoreInfo {
            default: store.name() == self.stores.default_name(),
            common: store.common().clone(),
            properties: store.properties(),
        };
        self.stores.iter().map(info).collect()
    }

    /// Every store with what an operator wants to know of it.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn stores_detail(&self, caller: &Caller) -> Result<Vec<StoreInfo>, Error> {
        self.authorize(Action::StoresInfoDetail, caller, Target::Nothing).await?;
        Ok(self.stores_info())
    }
}
