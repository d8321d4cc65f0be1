//! `/v2/metadefs/resource_types`, and which of them a namespace applies to.

use super::super::{Error, Services, conclude};
use super::content::{self, Origin};
use super::{check_unprotected, events, target};
use crate::catalog::Part;
use crate::domain::metadef::{Association, Content, Dated, Named};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

impl Services {
    /// `GET /v2/metadefs/resource_types`: all that a namespace ever applied to.
    ///
    /// # Errors
    /// [`Error::Forbidden`].
    pub async fn metadef_resource_types(&self, caller: &Caller) -> Result<Vec<Dated<Named>>, Error> {
        self.authorize(Action::ListMetadefResourceTypes, caller, Target::Project(&caller.project_id)).await?;
        Ok(self.catalog.metadef_resource_types().await?)
    }

    /// `GET .../resource_types`: what the namespace applies to.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn metadef_associations(
        &self,
        caller: &Caller,
        namespace: &str,
    ) -> Result<Vec<Dated<Association>>, Error> {
        let namespace = self.metadef_namespace(caller, namespace, Action::ListMetadefResourceTypes).await?;
        // Who may list them may still not be shown any.
        let shown = self.policy.allows(Action::GetMetadefResourceType, caller, target(&namespace)).await;
        Ok(if shown { namespace.associations } else { Vec::new() })
    }

    /// `POST .../resource_types`: makes the namespace apply to a type, which is made if it is new.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it applies to it already.
    pub async fn add_metadef_association(
        &self,
        caller: &Caller,
        namespace: &str,
        association: &Association,
    ) -> Result<Dated<Association>, Error> {
        let actions = [Action::AddMetadefResourceTypeAssociation];
        let (tx, namespace) = self.change_metadefs(caller, namespace, &actions).await?;
        let added = async {
            let one = Content { associations: vec![association.clone()], ..Content::default() };
            let added = content::add(&tx, &namespace, &one, Origin::Client).await?;
            added.tell(&tx, &namespace).await?;
            added.associations.into_iter().next().ok_or_else(|| {
                Error::Conflict(format!(
                    "Namespace {} applies to resource type {} already.",
                    namespace.attributes.name, association.name
                ))
            })
        }
        .await;
        conclude(tx, added).await
    }

    /// `DELETE .../resource_types/{resource_type}`: the type itself stays.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when the namespace is protected.
    pub async fn remove_metadef_association(
        &self,
        caller: &Caller,
        namespace: &str,
        resource_type: &str,
    ) -> Result<(), Error> {
        let actions = [Action::RemoveMetadefResourceTypeAssociation];
        let (tx, namespace) = self.change_metadefs(caller, namespace, &actions).await?;
        let removed = async {
            let gone = tx.delete_metadef_part(Part::Association, namespace.id, resource_type).await?;
            let gone =
                gone.ok_or_else(|| Error::NotFound(format!("Failed to find resource type {resource_type} to delete")))?;
            check_unprotected(&namespace)?;
            Ok(tx.events("metadef_resource_type.delete", &[events::association(&namespace, &gone)]).await?)
        }
        .await;
        conclude(tx, removed).await
    }
}
