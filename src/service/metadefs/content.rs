//! What a namespace holds, however it comes there.

use super::super::Error;
use crate::catalog::{Part, Tx};
use crate::domain::metadef::{Association, Content, Dated, Named, Namespace, Object, PARTS_MAX, Property};

/// What was added.
#[derive(Debug, Default)]
pub(super) struct Added {
    pub(super) associations: Vec<Dated<Association>>,
    pub(super) properties: Vec<Dated<Property>>,
    pub(super) objects: Vec<Dated<Object>>,
    pub(super) tags: Vec<Dated<Named>>,
}

/// Adds what is not there yet. Types of resource that are new are `protected` when they come from files.
pub(super) async fn add(tx: &Tx, namespace: &Namespace, content: &Content, protected: bool) -> Result<Added, Error> {
    let mut added = Added::default();
    let id = namespace.id;
    if !content.associations.is_empty() {
        added.associations = tx.insert_metadef_associations(id, &content.associations, protected).await?;
        check_count(tx, id, Part::Association, "resource types").await?;
    }
    if !content.properties.is_empty() {
        added.properties = tx.insert_metadef_properties(id, &content.properties).await?;
        check_count(tx, id, Part::Property, "properties").await?;
    }
    if !content.objects.is_empty() {
        added.objects = tx.insert_metadef_objects(id, &content.objects).await?;
        check_count(tx, id, Part::Object, "objects").await?;
    }
    if !content.tags.is_empty() {
        added.tags = tx.insert_metadef_tags(id, &content.tags).await?;
        check_count(tx, id, Part::Tag, "tags").await?;
    }
    Ok(added)
}

async fn check_count(tx: &Tx, namespace_id: i64, part: Part, what: &str) -> Result<(), Error> {
    let count = tx.count_metadef_parts(part, namespace_id).await?;
    if count > PARTS_MAX {
        return Err(Error::TooLarge(format!("A namespace has at most {PARTS_MAX} {what}; these would be {count}.")));
    }
    Ok(())
}
