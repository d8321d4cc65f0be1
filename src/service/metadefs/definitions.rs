//! `rockpool metadefs`: definitions from files and to files, as an administrator of the machine has them.

use super::super::{Error, conclude};
use super::content::{self, Origin};
use crate::catalog::{Catalog, Existing};
use crate::domain::metadef::Definition;
use crate::domain::query::Scope;

/// What becomes of a namespace that is there already when a definition of it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// It stays as it is.
    Skip,
    /// What it lacks is added.
    Add,
    /// What it lacks is added, and what differs is replaced.
    PreferNew,
    /// It is removed with all that it holds, and made anew.
    Overwrite,
}

/// What has become of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loaded {
    /// The namespace is new.
    Added,
    /// It was there and has stayed as it was.
    Kept,
    /// So many things were added to it or replaced in it.
    Merged(usize),
    /// It was there and has been made anew.
    Overwritten,
}

/// Loads one definition, whole or not at all.
///
/// # Errors
/// [`Error::TooLarge`] when a namespace would hold too much, [`Error::Conflict`] when somebody changes it at the same time.
pub async fn load(catalog: &Catalog, definition: &Definition, merge: Merge) -> Result<Loaded, Error> {
    let Definition { attributes, content } = definition;
    let tx = catalog.begin("metadef_load").await?;
    let loaded = async {
        // 1. A new namespace gets all of it.
        let all = Origin::File(Existing::Keep);
        if let Some(namespace) = tx.insert_metadef_namespace(attributes).await? {
            content::add(&tx, &namespace, content, all).await?;
            return Ok(Loaded::Added);
        }
        if merge == Merge::Skip {
            return Ok(Loaded::Kept);
        }
        // 2. One that is there is locked first.
        let raced =
            || Error::Conflict(format!("Namespace {} was changed at the same time; try again.", attributes.name));
        let old = tx.lock_metadef_namespace(&attributes.name, &Scope::Everything(None)).await?.ok_or_else(raced)?;
        if merge == Merge::Overwrite {
            tx.delete_metadef_namespace(old.id).await?;
            let namespace = tx.insert_metadef_namespace(attributes).await?.ok_or_else(raced)?;
            content::add(&tx, &namespace, content, all).await?;
            return Ok(Loaded::Overwritten);
        }
        // 3. It gets what it lacks, and perhaps what is newer.
        let newer = merge == Merge::PreferNew;
        let existing = if newer { Existing::Replace } else { Existing::Keep };
        let mut changed = content::add(&tx, &old, content, Origin::File(existing)).await?.count();
        if newer && old.attributes != *attributes {
            tx.update_metadef_namespace(old.id, attributes).await?;
            changed += 1;
        }
        Ok(if changed == 0 { Loaded::Kept } else { Loaded::Merged(changed) })
    }
    .await;
    conclude(tx, loaded).await
}

/// Removes the namespaces of these names, or all that there are, whether they are protected or not. Returns the
/// names of those that were there.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn unload(catalog: &Catalog, names: Option<&[String]>) -> Result<Vec<String>, Error> {
    let names = match names {
        Some(names) => names.to_vec(),
        None => catalog.metadef_namespace_names().await?,
    };
    let tx = catalog.begin("metadef_unload").await?;
    let unloaded = async { Ok(tx.unload_metadef_namespaces(&names).await?) }.await;
    conclude(tx, unloaded).await
}

/// The names of all namespaces, in the order in which they were made.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn names(catalog: &Catalog) -> Result<Vec<String>, Error> {
    Ok(catalog.metadef_namespace_names().await?)
}

/// A namespace with all that it holds, as a file defines it. `None`: there is none of that name any more.
///
/// # Errors
/// [`Error::Unavailable`].
pub async fn export(catalog: &Catalog, name: &str) -> Result<Option<Definition>, Error> {
    let whole = catalog.metadef_namespace_whole(name, &Scope::Everything(None)).await?;
    Ok(whole.map(|(namespace, parts)| Definition::of(namespace, parts)))
}
