//! Namespaces.

use std::fmt::Write as _;

use tokio_postgres::Row;

use super::{decode, project};
use crate::catalog::images_list::{sign, word};
use crate::catalog::{Catalog, Error, Param, Tx};
use crate::domain::metadef::{
    Attributes, Dated, Named, Namespace, NamespaceKey, NamespaceQuery, Object, Parts, Property, Visibility,
};
use crate::domain::query::Scope;

/// Columns of a namespace `n`.
const COLUMNS: &str =
    "n.id, n.name, n.display_name, n.description, n.visibility, n.protected, n.owner, n.created_at, n.updated_at";
/// The types of resource that it applies to.
const ASSOCIATIONS: &str =
    "(SELECT json_agg(a ORDER BY a.id) FROM metadef_associations a WHERE a.namespace_id = n.id) AS associations";
/// The condition that a namespace may be seen by the project in the first parameter, or by an administrator, who has none there.
const VISIBLE: &str = "($1::text /* owner */ IS NULL OR owner = $1 OR visibility = 'public')";

/// A namespace without its associations.
fn bare(row: &Row) -> Result<Namespace, Error> {
    let name: String = row.get("name");
    let visibility: String = row.get("visibility");
    let visibility = Visibility::parse(&visibility).ok_or_else(|| Error::Inconsistent {
        table: "metadef_namespaces",
        row: name.clone(),
        what: format!("unknown visibility {visibility}"),
    })?;
    Ok(Namespace {
        id: row.get("id"),
        attributes: Attributes {
            name,
            display_name: row.get("display_name"),
            description: row.get("description"),
            visibility,
            protected: row.get("protected"),
            owner: row.get("owner"),
        },
        associations: Vec::new(),
        created_at: row.get("created_at"),
        updated_at: row.get("updated_at"),
    })
}

fn namespace(row: &Row) -> Result<Namespace, Error> {
    Ok(Namespace { associations: decode(row, "metadef_associations", "associations")?, ..bare(row)? })
}

impl Catalog {
    /// One page of the namespaces in scope, in order. `None`: the marker is none of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn metadef_namespaces(
        &self,
        query: &NamespaceQuery,
        scope: &Scope,
    ) -> Result<Option<Vec<Namespace>>, Error> {
        let page = &query.page;
        let (key, word, sign) = (expression(page.key), word(page.direction), sign(page.direction));
        let project = project(scope);
        let visibility = query.visibility.map(Visibility::as_str);
        let limit = page.limit.and_then(|limit| i64::try_from(limit).ok());
        let mut params: Vec<Param<'_>> = vec![&project, &visibility, &limit];
        let mut conditions = String::new();
        if let Some(types) = &query.resource_types {
            params.push(types);
            let _ = write!(
                conditions,
                " AND EXISTS (SELECT FROM metadef_associations a WHERE a.namespace_id = n.id AND a.name = ANY(${} /* resource_types */))",
                params.len()
            );
        }
        if let Some(marker) = &page.marker {
            params.push(marker);
            let _ = write!(
                conditions,
                " AND ({key}, created_at, id) {sign} (SELECT {key}, created_at, id FROM metadef_namespaces WHERE {VISIBLE} AND name = ${} /* marker */)",
                params.len()
            );
        }
        let sql = format!(
            "-- metadef_namespaces\n\
            SELECT {COLUMNS}, {ASSOCIATIONS} FROM metadef_namespaces n\n\
            WHERE {VISIBLE} AND ($2::text /* visibility */ IS NULL OR visibility = $2){conditions}\n\
            ORDER BY {key} {word}, created_at {word}, id {word} LIMIT $3 /* limit */"
        );
        let rows = self.rows("metadef_namespaces", &sql, &params).await?;
        // An empty page may be the end of the list, or no list at all.
        if let (true, Some(marker)) = (rows.is_empty(), &page.marker)
            && self.metadef_namespace(marker, scope).await?.is_none()
        {
            return Ok(None);
        }
        rows.iter().map(namespace).collect::<Result<_, _>>().map(Some)
    }

    /// The namespace of that name, if it is in scope.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn metadef_namespace(&self, name: &str, scope: &Scope) -> Result<Option<Namespace>, Error> {
        let sql = format!(
            "-- metadef_namespace\nSELECT {COLUMNS}, {ASSOCIATIONS} FROM metadef_namespaces n WHERE {VISIBLE} AND name = $2 /* name */"
        );
        let rows = self.rows("metadef_namespace", &sql, &[&project(scope), &name]).await?;
        rows.first().map(namespace).transpose()
    }

    /// The names of all namespaces, in the order in which they were made.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn metadef_namespace_names(&self) -> Result<Vec<String>, Error> {
        let sql = "-- metadef_namespace_names\nSELECT name FROM metadef_namespaces ORDER BY created_at, id";
        Ok(self.rows("metadef_namespace_names", sql, &[]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// The namespace of that name with all that it holds, if it is in scope.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn metadef_namespace_whole(
        &self,
        name: &str,
        scope: &Scope,
    ) -> Result<Option<(Namespace, Parts)>, Error> {
        let sql = format!(
            "-- metadef_namespace_whole\n\
            SELECT {COLUMNS}, {ASSOCIATIONS},\n\
              (SELECT json_agg(p ORDER BY p.id) FROM metadef_properties p WHERE p.namespace_id = n.id) AS properties,\n\
              (SELECT json_agg(o ORDER BY o.id) FROM metadef_objects o WHERE o.namespace_id = n.id) AS objects,\n\
              (SELECT json_agg(t ORDER BY t.created_at DESC, t.id DESC) FROM metadef_tags t WHERE t.namespace_id = n.id) AS tags\n\
            FROM metadef_namespaces n WHERE {VISIBLE} AND name = $2 /* name */"
        );
        let rows = self.rows("metadef_namespace_whole", &sql, &[&project(scope), &name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let tags: Vec<Named> = decode(row, "metadef_tags", "tags")?;
        let parts = Parts {
            properties: decode::<Vec<Property>>(row, "metadef_properties", "properties")?,
            objects: decode::<Vec<Dated<Object>>>(row, "metadef_objects", "objects")?,
            tags: tags.into_iter().map(|tag| tag.name).collect(),
        };
        Ok(Some((namespace(row)?, parts)))
    }
}

impl Tx {
    /// The namespace of that name under a row lock, if it is in scope, without its associations. Until the end of the
    /// transaction nobody else changes it or what it holds.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn lock_metadef_namespace(&self, name: &str, scope: &Scope) -> Result<Option<Namespace>, Error> {
        let sql = format!(
            "-- metadef_namespace_lock\n\
            SELECT {COLUMNS} FROM metadef_namespaces n WHERE {VISIBLE} AND name = $2 /* name */ FOR NO KEY UPDATE"
        );
        let rows = self.rows(&sql, &[&project(scope), &name]).await?;
        rows.first().map(bare).transpose()
    }

    /// Adds a namespace. `None`: there is one of that name.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_metadef_namespace(&self, attributes: &Attributes) -> Result<Option<Namespace>, Error> {
        let sql = format!(
            "-- metadef_namespace_insert\n\
            INSERT INTO metadef_namespaces AS n (name, display_name, description, visibility, protected, owner)\n\
            VALUES ($1 /* name */, $2 /* display_name */, $3 /* description */, $4 /* visibility */, $5 /* protected */, $6 /* owner */)\n\
            ON CONFLICT (name) DO NOTHING RETURNING {COLUMNS}"
        );
        let a = attributes;
        let rows = self
            .rows(&sql, &[&a.name, &a.display_name, &a.description, &a.visibility.as_str(), &a.protected, &a.owner])
            .await?;
        rows.first().map(bare).transpose()
    }

    /// Replaces the attributes of a namespace that is locked by the caller.
    ///
    /// # Errors
    /// [`Error::Exists`] when another one has that name; [`Error::Unavailable`].
    pub async fn update_metadef_namespace(&self, id: i64, attributes: &Attributes) -> Result<Namespace, Error> {
        let sql = format!(
            "-- metadef_namespace_update\n\
            UPDATE metadef_namespaces n SET name = $2 /* name */, display_name = $3 /* display_name */, description = $4 /* description */,\n\
              visibility = $5 /* visibility */, protected = $6 /* protected */, owner = $7 /* owner */, updated_at = now()\n\
            WHERE n.id = $1 /* id */ RETURNING {COLUMNS}"
        );
        let a = attributes;
        let rows = self
            .rows(
                &sql,
                &[&id, &a.name, &a.display_name, &a.description, &a.visibility.as_str(), &a.protected, &a.owner],
            )
            .await?;
        rows.first().map(bare).transpose()?.ok_or(Error::Conflict("metadef_namespace_update"))
    }

    /// Removes the namespaces of these names with all that they hold, and then every type of resource that came from
    /// a file and to which nothing applies any more. Returns the names of the namespaces that were there.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn unload_metadef_namespaces(&self, names: &[String]) -> Result<Vec<String>, Error> {
        let sql = "-- metadef_namespaces_unload\nDELETE FROM metadef_namespaces WHERE name = ANY($1 /* name */) RETURNING name";
        let unloaded = self.rows(sql, &[&names]).await?.iter().map(|row| row.get(0)).collect();
        // Whoever is applying a namespace to a type has written, or will not find the type that is removed here.
        self.batch("-- metadef_resource_types_lock\nLOCK TABLE metadef_resource_types IN SHARE ROW EXCLUSIVE MODE")
            .await?;
        let sql = "-- metadef_resource_types_unload\n\
            DELETE FROM metadef_resource_types t\n\
            WHERE t.protected AND NOT EXISTS (SELECT FROM metadef_associations a WHERE a.name = t.name)";
        self.execute(sql, &[]).await?;
        Ok(unloaded)
    }

    /// Removes a namespace that is locked by the caller, with all that it holds.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete_metadef_namespace(&self, id: i64) -> Result<(), Error> {
        let sql = "-- metadef_namespace_delete\nDELETE FROM metadef_namespaces WHERE id = $1 /* id */";
        self.execute(sql, &[&id]).await.map(drop)
    }
}

/// What a key sorts by; missing values have an explicit place.
fn expression(key: NamespaceKey) -> &'static str {
    match key {
        NamespaceKey::Name => "name",
        NamespaceKey::DisplayName => "coalesce(display_name, '')",
        NamespaceKey::Description => "coalesce(description, '')",
        NamespaceKey::Visibility => "visibility",
        NamespaceKey::Protected => "protected",
        NamespaceKey::Owner => "owner",
        NamespaceKey::CreatedAt => "created_at",
        NamespaceKey::UpdatedAt => "updated_at",
    }
}
