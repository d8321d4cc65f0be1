//! `/v2/metadefs/namespaces/{namespace}/properties`.

use super::super::{Error, Services, conclude};
use super::content::{self, Origin};
use super::{check_unprotected, events, or_taken, taken};
use crate::catalog::Part;
use crate::domain::metadef::{Content, Namespace, Property};
use crate::identity::Caller;
use crate::identity::policy::Action;

fn missing(name: &str) -> Error {
    Error::NotFound(format!("Could not find property {name}"))
}

/// The name of a property within its namespace, given the one that it has on a type of resource.
fn without_prefix<'a>(namespace: &Namespace, name: &'a str, resource_type: &str) -> Result<&'a str, Error> {
    let association = namespace.association(resource_type).ok_or_else(|| {
        Error::NotFound(format!(
            "Namespace {} does not apply to resource type {resource_type}.",
            namespace.attributes.name
        ))
    })?;
    let prefix = association.prefix.as_deref().unwrap_or_default();
    name.strip_prefix(prefix).ok_or_else(|| {
        Error::NotFound(format!("Property {name} does not begin with '{prefix}', as those of {resource_type} do."))
    })
}

impl Services {
    /// `GET .../properties`: all of them, oldest first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn metadef_properties(&self, caller: &Caller, namespace: &str) -> Result<Vec<Property>, Error> {
        let namespace = self.metadef_namespace(caller, namespace, Action::GetMetadefProperties).await?;
        Ok(self.catalog.metadef_parts(Part::Property, namespace.id).await?)
    }

    /// `GET .../properties/{property}`; with a type of resource by the name that it has there.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn metadef_property(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
        resource_type: Option<&str>,
    ) -> Result<Property, Error> {
        let namespace = self.metadef_namespace(caller, namespace, Action::GetMetadefProperty).await?;
        let name = match resource_type {
            None => name,
            Some(resource_type) => {
                self.authorize_in(&namespace, caller, Action::GetMetadefResourceType).await?;
                without_prefix(&namespace, name, resource_type)?
            }
        };
        self.catalog.metadef_part(Part::Property, namespace.id, name).await?.ok_or_else(|| missing(name))
    }

    /// `POST .../properties`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when there is one of that name.
    pub async fn create_metadef_property(
        &self,
        caller: &Caller,
        namespace: &str,
        property: &Property,
    ) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::AddMetadefProperty]).await?;
        let created = async {
            let one = Content { properties: vec![property.clone()], ..Content::default() };
            let added = content::add(&tx, &namespace, &one, Origin::Client).await?;
            if added.properties.is_empty() {
                return Err(Error::Conflict(taken("property", &property.name, &namespace.attributes.name)));
            }
            added.tell(&tx, &namespace).await
        }
        .await;
        conclude(tx, created).await
    }

    /// `PUT .../properties/{property}`: replaces it whole.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when another one has the new name.
    pub async fn replace_metadef_property(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
        property: &Property,
    ) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::ModifyMetadefProperty]).await?;
        let replaced = async {
            let updated = tx.update_metadef_property(namespace.id, name, property).await;
            let updated = or_taken(updated, || taken("property", &property.name, &namespace.attributes.name))?;
            let updated = updated.ok_or_else(|| missing(name))?;
            Ok(tx.events("metadef_property.update", &[events::property(&namespace, &updated, name)]).await?)
        }
        .await;
        conclude(tx, replaced).await
    }

    /// `DELETE .../properties/{property}`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when the namespace is protected.
    pub async fn delete_metadef_property(&self, caller: &Caller, namespace: &str, name: &str) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::RemoveMetadefProperty]).await?;
        let deleted = async {
            let gone =
                tx.delete_metadef_part(Part::Property, namespace.id, name).await?.ok_or_else(|| missing(name))?;
            check_unprotected(&namespace)?;
            Ok(tx.events("metadef_property.delete", &[events::property(&namespace, &gone, name)]).await?)
        }
        .await;
        conclude(tx, deleted).await
    }

    /// `DELETE .../properties`: all of them.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when the namespace is protected.
    pub async fn delete_metadef_properties(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        let actions = [Action::DeleteMetadefNamespace];
        self.empty_metadefs(caller, namespace, &actions, Part::Property, "metadef_namespace.delete_properties").await
    }
}
