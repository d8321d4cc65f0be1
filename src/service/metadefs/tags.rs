//! `/v2/metadefs/namespaces/{namespace}/tags`.

use std::collections::BTreeSet;

use super::super::{Error, Services, conclude};
use super::content::{self, Origin};
use super::{check_unprotected, events, or_taken, taken};
use crate::catalog::Part;
use crate::domain::metadef::{Content, Dated, Named, Page, TagKey};
use crate::identity::Caller;
use crate::identity::policy::Action;

fn missing(name: &str) -> Error {
    Error::NotFound(format!("Could not find metadata tag {name}"))
}

impl Services {
    /// `GET .../tags`: names.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a marker that is no tag of the namespace.
    pub async fn metadef_tags(
        &self,
        caller: &Caller,
        namespace: &str,
        page: &Page<TagKey>,
    ) -> Result<Vec<String>, Error> {
        let namespace = self.metadef_namespace(caller, namespace, Action::GetMetadefTags).await?;
        let names = self.catalog.metadef_tags(namespace.id, page).await?;
        names.ok_or_else(|| missing(page.marker.as_deref().unwrap_or_default()))
    }

    /// `GET .../tags/{tag}`.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn metadef_tag(&self, caller: &Caller, namespace: &str, name: &str) -> Result<Dated<Named>, Error> {
        let namespace = self.metadef_namespace(caller, namespace, Action::GetMetadefTag).await?;
        self.catalog.metadef_part(Part::Tag, namespace.id, name).await?.ok_or_else(|| missing(name))
    }

    /// `POST .../tags/{tag}`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when there is one of that name.
    pub async fn create_metadef_tag(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
    ) -> Result<Dated<Named>, Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::AddMetadefTag]).await?;
        let created = async {
            let one = Content { tags: vec![name.to_owned()], ..Content::default() };
            let added = content::add(&tx, &namespace, &one, Origin::Client).await?;
            added.tell(&tx, &namespace).await?;
            let created = added.tags.into_iter().next();
            created.ok_or_else(|| Error::Conflict(taken("tag", name, &namespace.attributes.name)))
        }
        .await;
        conclude(tx, created).await
    }

    /// `POST .../tags`: adds these tags to those that are there, or puts them in their place; no tags at all change
    /// nothing, as in the reference.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when one of them is there already.
    pub async fn create_metadef_tags(
        &self,
        caller: &Caller,
        namespace: &str,
        names: &[String],
        append: bool,
    ) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::AddMetadefTags]).await?;
        let created = async {
            if names.is_empty() {
                return Ok(());
            }
            if !append {
                tx.delete_metadef_parts(Part::Tag, namespace.id).await?;
            }
            let all = Content { tags: names.to_vec(), ..Content::default() };
            let added = content::add(&tx, &namespace, &all, Origin::Client).await?;
            let made: BTreeSet<&str> = added.tags.iter().map(|tag| tag.item.name.as_str()).collect();
            if let Some(there) = names.iter().find(|name| !made.contains(name.as_str())) {
                return Err(Error::Conflict(taken("tag", there, &namespace.attributes.name)));
            }
            added.tell(&tx, &namespace).await
        }
        .await;
        conclude(tx, created).await
    }

    /// `PUT .../tags/{tag}`: gives it another name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when another one has the new name.
    pub async fn rename_metadef_tag(
        &self,
        caller: &Caller,
        namespace: &str,
        name: &str,
        next: &str,
    ) -> Result<Dated<Named>, Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::ModifyMetadefTag]).await?;
        let renamed = async {
            let updated = tx.update_metadef_tag(namespace.id, name, next).await;
            let updated = or_taken(updated, || taken("tag", next, &namespace.attributes.name))?;
            let updated = updated.ok_or_else(|| missing(name))?;
            tx.events("metadef_tag.update", &[events::tag(&namespace, &updated, name)]).await?;
            Ok(updated)
        }
        .await;
        conclude(tx, renamed).await
    }

    /// `DELETE .../tags/{tag}`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when the namespace is protected.
    pub async fn delete_metadef_tag(&self, caller: &Caller, namespace: &str, name: &str) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, namespace, &[Action::DeleteMetadefTag]).await?;
        let deleted = async {
            let gone = tx.delete_metadef_part(Part::Tag, namespace.id, name).await?.ok_or_else(|| missing(name))?;
            check_unprotected(&namespace)?;
            Ok(tx.events("metadef_tag.delete", &[events::tag(&namespace, &gone, name)]).await?)
        }
        .await;
        conclude(tx, deleted).await
    }

    /// `DELETE .../tags`: all of them.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Forbidden`] when the namespace is protected.
    pub async fn delete_metadef_tags(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        let actions = [Action::DeleteMetadefNamespace, Action::DeleteMetadefTags];
        self.empty_metadefs(caller, namespace, &actions, Part::Tag, "metadef_namespace.delete_tags").await
    }
}
