//! `/v2/metadefs/namespaces/{namespace}/objects`.

use super::super::{Error, Services, conclude};
use super::content::{self, Origin};
use super::{check_unprotected, events, or_taken, taken, target};
use crate::catalog::Part;
use crate::domain::metadef::{Content, Dated, Object};
use crate::identity::Caller;
use crate::identity::policy::Action;

fn missing(name: &str) -> Error {
    Error::NotFound(format!("Could not find metadata object {name}"))
}

impl Services {
    /// `GET .../objects`: all of them, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn metadef_objects(&self, caller: &Caller, namespace: &str) -> Result<Vec<Dated<Object>>, Error> {
        let namespace = self.metadef_namespace(caller, namespace, Action::GetMetadefObjects).await?;
        // Who may list them may still not be shown any.
        if !self.policy.allows(Action::GetMetadefObject, caller, target(&namespace)).await {
            return Ok(Vec::new());
        }
        Ok(self.catalog.metadef_parts(Part::Object, namespace.id).await?)
    }

    /// `GET .../objects/{object}`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn metadef_object(&self, caller: &Caller, namespace: &str, name: &str) -> Result<Dated<Object>, Error> {
        let namespace = self.metadef_namespace(caller, namespace, Action::GetMetadefObject).await?;
        self.catalog.metadef_part(Part::Object, namespace.id, name).await?.ok_or_else(|| missing(name))
    }

    /// `POST .../objects`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when there is one of that name.
    pub async fn create_metadef_object(
        &self,
        caller: &Caller,
        namespace: &str,
        object: &Object,
    ) -> Result<Dated<Object>, Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::AddMetadefObject]).await?;
        let created = async {
            let one = Content { objects: vec![object.clone()], ..Content::default() };
            let added = content::add(&tx, &namespace, &one, Origin::Client).await?;
            added.tell(&tx, &namespace).await?;
            let created = added.objects.into_iter().next();
            created.ok_or_else(|| Error::Conflict(taken("object", &object.name, &namespace.attributes.name)))
        }
        .await;
        conclude(tx, created).await
    }

    /// `PUT .../objects/{object}`: replaces it whole.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when another one has the new name.
    pub async fn replace_metadef_object(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
        object: &Object,
    ) -> Result<Dated<Object>, Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::ModifyMetadefObject]).await?;
        let replaced = async {
            let updated = tx.update_metadef_object(namespace.id, name, object).await;
            let updated = or_taken(updated, || taken("object", &object.name, &namespace.attributes.name))?;
            let updated = updated.ok_or_else(|| missing(name))?;
            tx.events("metadef_object.update", &[events::object(&namespace, &updated, name)]).await?;
            Ok(updated)
        }
        .await;
        conclude(tx, replaced).await
    }

    /// `DELETE .../objects/{object}`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when the namespace is protected.
    pub async fn delete_metadef_object(&self, caller: &Caller, namespace: &str, name: &str) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::DeleteMetadefObject]).await?;
        let deleted = async {
            let gone = tx.delete_metadef_part(Part::Object, namespace.id, name).await?.ok_or_else(|| missing(name))?;
            check_unprotected(&namespace)?;
            Ok(tx.events("metadef_object.delete", &[events::object(&namespace, &gone, name)]).await?)
        }
        .await;
        conclude(tx, deleted).await
    }

    /// `DELETE .../objects`: all of them.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when the namespace is protected.
    pub async fn delete_metadef_objects(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        let actions = [Action::DeleteMetadefNamespace];
        self.empty_metadefs(caller, namespace, &actions, Part::Object, "metadef_namespace.delete_objects").await
    }
}
