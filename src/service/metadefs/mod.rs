//! Metadata definitions: one file per resource, each use-case a story of numbered steps.
//!
//! Who may not see a namespace is told that there is none; only then does the policy say who may do what. Every
//! change is made under the row lock of its namespace, so that parallel ones follow each other.

mod content;
pub mod definitions;
mod events;
mod namespaces;
mod objects;
mod properties;
mod resource_types;
mod tags;

use super::{Error, Services, conclude};
use crate::catalog::{self, Part, Tx};
use crate::domain::metadef::Namespace;
use crate::identity::Caller;
use crate::identity::policy::{Action, Target};

pub use namespaces::NamespacePage;

fn target(namespace: &Namespace) -> Target<'_> {
    let attributes = &namespace.attributes;
    Target::Metadef { owner: Some(&attributes.owner), visibility: attributes.visibility.as_str() }
}

fn missing(name: &str) -> Error {
    Error::NotFound(format!("Namespace {name} not found"))
}

impl Services {
    /// The namespace of that name, if the caller may see it and do that with it.
    async fn metadef_namespace(&self, caller: &Caller, name: &str, action: Action) -> Result<Namespace, Error> {
        let namespace = self.catalog.metadef_namespace(name, &caller.scope()).await?.ok_or_else(|| missing(name))?;
        self.authorize_in(&namespace, caller, action).await?;
        Ok(namespace)
    }

    /// Refuses what the policy does not allow. To one who may not even see it, a namespace does not exist.
    async fn authorize_in(&self, namespace: &Namespace, caller: &Caller, action: Action) -> Result<(), Error> {
        let allowed = self.authorize(action, caller, target(namespace)).await;
        if allowed.is_err() && !self.policy.allows(Action::GetMetadefNamespace, caller, target(namespace)).await {
            return Err(missing(&namespace.attributes.name));
        }
        allowed
    }

    /// Begins a change of the namespace of that name or of what it holds, if the caller may see it and do all that.
    async fn change_metadefs(&self, caller: &Caller, name: &str, actions: &[Action]) -> Result<(Tx, Namespace), Error> {
        let tx = self.catalog.begin("metadefs_change").await?;
        let locked = tx.lock_metadef_namespace(name, &caller.scope()).await?;
        let allowed = async {
            let namespace = locked.ok_or_else(|| missing(name))?;
            for action in actions {
                self.authorize_in(&namespace, caller, *action).await?;
            }
            Ok(namespace)
        };
        match allowed.await {
            Ok(namespace) => Ok((tx, namespace)),
            Err(refused) => conclude(tx, Err(refused)).await,
        }
    }

    /// Removes all that the namespace holds of one kind.
    async fn empty_metadefs(
        &self,
        caller: &Caller,
        name: &str,
        actions: &[Action],
        part: Part,
        event: &'static str,
    ) -> Result<(), Error> {
        let (tx, namespace) = self.change_metadefs(caller, name, actions).await?;
        let emptied = async {
            check_unprotected(&namespace)?;
            tx.delete_metadef_parts(part, namespace.id).await?;
            Ok(tx.events(event, &[events::namespace(&namespace, name)]).await?)
        }
        .await;
        conclude(tx, emptied).await
    }
}

/// Refuses to remove anything of a protected namespace.
fn check_unprotected(namespace: &Namespace) -> Result<(), Error> {
    if !namespace.attributes.protected {
        return Ok(());
    }
    Err(Error::Forbidden(format!(
        "Metadata definition namespace {} is protected: neither it nor what it holds can be deleted.",
        namespace.attributes.name
    )))
}

fn taken(what: &str, name: &str, namespace: &str) -> String {
    format!("A metadata definition {what} with name={name} already exists in namespace={namespace}.")
}

/// What a taken name means for whoever wants it.
fn or_taken<T>(outcome: Result<T, catalog::Error>, taken: impl FnOnce() -> String) -> Result<T, Error> {
    match outcome {
        Err(catalog::Error::Exists(_)) => Err(Error::Conflict(taken())),
        outcome => Ok(outcome?),
    }
}
