//! `/v2/metadefs/namespaces`.

use super::super::{Error, Services, conclude};
use super::content::{self, Origin};
use super::{check_unprotected, events, missing, or_taken, target};
use crate::domain::metadef::{Attributes, Definition, Namespace, NamespaceQuery, Parts};
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

/// Some of the namespaces that a list asks for.
#[derive(Debug)]
pub struct NamespacePage {
    /// In order.
    pub namespaces: Vec<Namespace>,
    /// Whether there may be others behind them.
    pub more: bool,
}

impl Services {
    /// `GET /v2/metadefs/namespaces`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a marker that is no namespace the caller may see.
    pub async fn list_metadef_namespaces(
        &self,
        caller: &Caller,
        query: &NamespaceQuery,
    ) -> Result<NamespacePage, Error> {
        // 1. May the caller list any?
        let own = Target::Project(&caller.project_id);
        self.authorize(Action::GetMetadefNamespaces, caller, own).await?;
        self.authorize(Action::ListMetadefResourceTypes, caller, own).await?;
        // 2. Those in scope, less those that the policy keeps back: of a page of these alone nobody must be told, so
        //    the next one is looked at.
        let mut query = query.clone();
        loop {
            let page = self.catalog.metadef_namespaces(&query, &caller.scope()).await?;
            let namespaces = page.ok_or_else(|| missing(query.page.marker.as_deref().unwrap_or_default()))?;
            let more = Some(namespaces.len()) == query.page.limit;
            let last = namespaces.last().map(|namespace| namespace.attributes.name.clone());
            let mut shown = Vec::with_capacity(namespaces.len());
            for namespace in namespaces {
                if self.policy.allows(Action::GetMetadefNamespace, caller, target(&namespace)).await {
                    shown.push(namespace);
                }
            }
            let namespaces = shown;
            if !more || !namespaces.is_empty() || last.is_none() {
                return Ok(NamespacePage { namespaces, more });
            }
            query.page.marker = last;
        }
    }

    /// `POST /v2/metadefs/namespaces`: a namespace and all that it is to hold, or nothing.
    ///
    /// # Errors
    /// [`Error::Conflict`] when there is one of that name.
    pub async fn create_metadef_namespace(&self, caller: &Caller, definition: &Definition) -> Result<Namespace, Error> {
        // 1. Who may? Whatever comes with the namespace has a rule of its own.
        let content = &definition.content;
        let own = Target::Project(&caller.project_id);
        for (action, asked) in [
            (Action::AddMetadefNamespace, true),
            (Action::AddMetadefResourceTypeAssociation, !content.associations.is_empty()),
            (Action::AddMetadefObject, !content.objects.is_empty()),
            (Action::AddMetadefProperty, !content.properties.is_empty()),
            (Action::AddMetadefTag, !content.tags.is_empty()),
        ] {
            if asked {
                self.authorize(action, caller, own).await?;
            }
        }
        // 2. All of it at once.
        let tx = self.catalog.begin("metadef_namespace_create").await?;
        let created = async {
            let name = &definition.attributes.name;
            let namespace = tx
                .insert_metadef_namespace(&definition.attributes)
                .await?
                .ok_or_else(|| Error::Conflict(format!("The metadata definition namespace {name} already exists.")))?;
            tx.events("metadef_namespace.create", &[events::namespace(&namespace, name)]).await?;
            content::add(&tx, &namespace, content, Origin::Client).await?.tell(&tx, &namespace).await?;
            Ok(namespace)
        }
        .await;
        conclude(tx, created).await
    }

    /// `GET /v2/metadefs/namespaces/{namespace}`: the namespace and all that it holds; with the prefix of a type of
    /// resource before the names of its properties, where it has one.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn show_metadef_namespace(
        &self,
        caller: &Caller,
        name: &str,
        resource_type: Option<&str>,
    ) -> Result<(Namespace, Parts), Error> {
        // 1. May the caller see it, and what it holds? To one who may not see it, it does not exist.
        let whole = self.catalog.metadef_namespace_whole(name, &caller.scope()).await?;
        let (namespace, mut parts) = whole.ok_or_else(|| missing(name))?;
        if !self.policy.allows(Action::GetMetadefNamespace, caller, target(&namespace)).await {
            return Err(missing(name));
        }
        for action in [
            Action::ListMetadefResourceTypes,
            Action::GetMetadefObjects,
            Action::GetMetadefProperties,
            Action::GetMetadefTags,
        ] {
            self.authorize_in(&namespace, caller, action).await?;
        }
        // 2. As it is called on that type of resource.
        let association = resource_type.and_then(|resource_type| namespace.association(resource_type));
        if let Some(prefix) = association.and_then(|association| association.prefix.as_deref()) {
            parts.add_prefix(prefix);
        }
        Ok((namespace, parts))
    }

    /// `PUT /v2/metadefs/namespaces/{namespace}`: replaces its attributes, all of them, and nothing that it holds.
    ///
    /// # Errors
    /// [`Error::Conflict`] when another one has the new name.
    pub async fn replace_metadef_namespace(
        &self,
        caller: &Caller,
        name: &str,
        attributes: &Attributes,
    ) -> Result<Namespace, Error> {
        let (tx, old) = self.change_metadefs(caller, name, &[Action::ModifyMetadefNamespace]).await?;
        let replaced = async {
            let replaced = or_taken(tx.update_metadef_namespace(old.id, attributes).await, || {
                format!("The metadata definition namespace {} already exists; choose another name.", attributes.name)
            })?;
            tx.events("metadef_namespace.update", &[events::namespace(&replaced, &old.attributes.name)]).await?;
            Ok(replaced)
        }
        .await;
        conclude(tx, replaced).await
    }

    /// `DELETE /v2/metadefs/namespaces/{namespace}`, with all that it holds.
    ///
    /// # Errors
    /// [`Error::Forbidden`] when it is protected.
    pub async fn delete_metadef_namespace(&self, caller: &Caller, name: &str) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, name, &[Action::DeleteMetadefNamespace]).await?;
        let deleted = async {
            check_unprotected(&namespace)?;
            tx.delete_metadef_namespace(namespace.id).await?;
            Ok(tx
                .events("metadef_namespace.delete", &[events::namespace(&namespace, &namespace.attributes.name)])
                .await?)
        }
        .await;
        conclude(tx, deleted).await
    }
}
