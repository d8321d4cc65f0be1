//! `GET /v2/info/stores` and `GET /v2/info/stores/detail`.

use super::{Error, Services};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};
use crate::store::About;

/// A store, as clients may choose it.
#[derive(Debug, Clone)]
pub struct StoreInfo {
    /// Name.
    pub id: String,
    /// Whether uploads that name no store go there.
    pub default: bool,
    /// What it says about itself.
    pub about: About,
}

impl Services {
    /// Every store, by name.
    #[must_use]
    pub fn stores_info(&self) -> Vec<StoreInfo> {
        let info =
            |name: &str, about| StoreInfo { id: name.to_owned(), default: name == self.stores.default_name(), about };
        self.stores.iter().map(|store| info(store.name(), store.about())).collect()
    }

    /// Every store with what an operator wants to know of it.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub fn stores_detail(&self, caller: &Caller) -> Result<Vec<StoreInfo>, Error> {
        self.authorize(Action::StoresInfoDetail, caller, Target::Nothing)?;
        Ok(self.stores_info())
    }
}
