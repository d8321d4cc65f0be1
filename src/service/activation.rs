//! `POST /v2/images/{id}/actions/deactivate` and `.../reactivate`: the data of an image is withheld from all but
//! administrators, and given free again.

use serde_json::json;

use super::{Error, Services, conclude, lock};
use crate::domain::status::{DEACTIVATE, REACTIVATE, Transition};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

impl Services {
    /// Withholds the data of an active image. Downloads that have begun go on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`], also for an image that has no data yet.
    pub async fn deactivate(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        self.change_activation(caller, id, Action::Deactivate, &DEACTIVATE).await
    }

    /// Gives the data of a deactivated image free again.
    ///
    /// # Errors
    /// As [`Services::deactivate`].
    pub async fn reactivate(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        self.change_activation(caller, id, Action::Reactivate, &REACTIVATE).await
    }

    async fn change_activation(
        &self,
        caller: &Caller,
        id: &str,
        action: Action,
        transition: &Transition,
    ) -> Result<(), Error> {
        let image = self.permitted(action, caller, id).await?;
        let tx = self.catalog.begin("image_activation").await?;
        let changed = async {
            let image = lock(&tx, image.id).await?;
            self.authorize(action, caller, Target::from(&image)).await?;
            // What is so already need not be made so.
            if image.status == transition.to {
                return Ok(());
            }
            if !transition.allows(image.status) {
                let verb = action.rule();
                return Err(Error::Forbidden(format!("Not allowed to {verb} image in status '{}'.", image.status)));
            }
            tx.transition(image.id, transition).await?;
            // Whoever rebuilds a catalog from the store must not give the data free.
            tx.leave_describe_job(image.id).await?;
            Ok(tx.image_event("image.update", image.id, &json!({})).await?)
        };
        let changed = changed.await;
        conclude(tx, changed).await?;
        self.job_bell.notify_one();
        Ok(())
    }
}
