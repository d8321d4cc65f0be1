//! What a namespace holds, however it comes there.

use super::super::Error;
use super::events;
use crate::catalog::{Existing, Part, Tx};
use crate::domain::metadef::{Association, Content, Dated, Named, Namespace, Object, PARTS_MAX, Property};

/// What was added.
#[derive(Debug, Default)]
pub(super) struct Added {
    pub(super) associations: Vec<Dated<Association>>,
    pub(super) properties: Vec<Dated<Property>>,
    pub(super) objects: Vec<Dated<Object>>,
    pub(super) tags: Vec<Dated<Named>>,
}

impl Added {
    /// How much it is.
    pub(super) fn count(&self) -> usize {
        self.associations.len() + self.properties.len() + self.objects.len() + self.tags.len()
    }

    /// Tells the outbox of all of it.
    pub(super) async fn tell(&self, tx: &Tx, namespace: &Namespace) -> Result<(), Error> {
        let associations: Vec<_> = self.associations.iter().map(|a| events::association(namespace, a)).collect();
        tx.events("metadef_resource_type.create", &associations).await?;
        let objects: Vec<_> = self.objects.iter().map(|o| events::object(namespace, o, &o.item.name)).collect();
        tx.events("metadef_object.create", &objects).await?;
        let tags: Vec<_> = self.tags.iter().map(|t| events::tag(namespace, t, &t.item.name)).collect();
        tx.events("metadef_tag.create", &tags).await?;
        let properties: Vec<_> = self.properties.iter().map(|p| events::property(namespace, p, &p.item.name)).collect();
        Ok(tx.events("metadef_property.create", &properties).await?)
    }
}

/// Where new content comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A client: what is there stays.
    Client,
    /// A file. Types of resource that come from files are protected.
    File(Existing),
}

/// Adds what is not there yet, and says what that was.
pub(super) async fn add(tx: &Tx, namespace: &Namespace, content: &Content, origin: Origin) -> Result<Added, Error> {
    let (existing, protected) = match origin {
        Origin::Client => (Existing::Keep, false),
        Origin::File(existing) => (existing, true),
    };
    let mut added = Added::default();
    let id = namespace.id;
    if !content.associations.is_empty() {
        added.associations = tx.insert_metadef_associations(id, &content.associations, existing, protected).await?;
        check_count(tx, id, Part::Association, "resource types").await?;
    }
    if !content.properties.is_empty() {
        added.properties = tx.insert_metadef_properties(id, &content.properties, existing).await?;
        check_count(tx, id, Part::Property, "properties").await?;
    }
    if !content.objects.is_empty() {
        added.objects = tx.insert_metadef_objects(id, &content.objects, existing).await?;
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
