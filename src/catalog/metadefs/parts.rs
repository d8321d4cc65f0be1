//! What a namespace holds: properties, objects, tags, and the types of resource that it applies to.
//!
//! Writers hold the namespace's row lock. An insertion returns what it added or replaced: what is missing was there.

use serde::de::DeserializeOwned;
use tokio_postgres::types::Json;

use super::decode;
use crate::catalog::images_list::{sign, word};
use crate::catalog::{Catalog, Error, Param, Tx};
use crate::domain::metadef::{Association, Dated, Named, Object, Page, Property, TagKey};

/// A kind of thing that a namespace holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// An association with a type of resource.
    Association,
    /// A property.
    Property,
    /// An object.
    Object,
    /// A tag.
    Tag,
}

impl Part {
    fn table(self) -> &'static str {
        match self {
            Self::Association => "metadef_associations",
            Self::Property => "metadef_properties",
            Self::Object => "metadef_objects",
            Self::Tag => "metadef_tags",
        }
    }
}

/// What becomes of a thing that is there already when one of its name comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays.
    Keep,
    /// The one that comes takes its place, if they differ.
    Replace,
}

impl Existing {
    /// The end of an insertion; `columns` are those that make a difference.
    fn clause(self, columns: &[&str]) -> String {
        match self {
            Self::Keep => "ON CONFLICT DO NOTHING".into(),
            Self::Replace => {
                let set: Vec<String> = columns.iter().map(|column| format!("{column} = excluded.{column}")).collect();
                // As text, because JSON has no equality in Postgres.
                let differ: Vec<String> = columns
                    .iter()
                    .map(|column| format!("x.{column}::text IS DISTINCT FROM excluded.{column}::text"))
                    .collect();
                format!(
                    "ON CONFLICT (namespace_id, name) DO UPDATE SET {}, updated_at = now() WHERE {}",
                    set.join(", "),
                    differ.join(" OR ")
                )
            }
        }
    }
}

impl Catalog {
    /// All things of one kind, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn metadef_parts<T: DeserializeOwned>(&self, part: Part, namespace_id: i64) -> Result<Vec<T>, Error> {
        let table = part.table();
        let sql = format!(
            "-- metadef_parts\n\
            SELECT json_agg(x ORDER BY x.id) AS parts FROM {table} x WHERE x.namespace_id = $1 /* namespace_id */"
        );
        let rows = self.rows("metadef_parts", &sql, &[&namespace_id]).await?;
        rows.first().map_or_else(|| Ok(Vec::new()), |row| decode(row, table, "parts"))
    }

    /// The thing of that kind and name.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn metadef_part<T: DeserializeOwned>(
        &self,
        part: Part,
        namespace_id: i64,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let table = part.table();
        let sql = format!(
            "-- metadef_part\n\
            SELECT row_to_json(x) AS part FROM {table} x WHERE x.namespace_id = $1 /* namespace_id */ AND x.name = $2 /* name */"
        );
        let rows = self.rows("metadef_part", &sql, &[&namespace_id, &name]).await?;
        rows.first().map_or(Ok(None), |row| decode(row, table, "part"))
    }

    /// One page of a namespace's tags, in order. `None`: the marker is none of them.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn metadef_tags(&self, namespace_id: i64, page: &Page<TagKey>) -> Result<Option<Vec<String>>, Error> {
        let (key, word, sign) = (column(page.key), word(page.direction), sign(page.direction));
        let after = match page.marker {
            None => String::new(),
            Some(_) => format!(
                "AND ({key}, created_at, id) {sign} (SELECT {key}, created_at, id FROM metadef_tags WHERE namespace_id = $1 AND name = $3 /* marker */)"
            ),
        };
        let sql = format!(
            "-- metadef_tags\n\
            SELECT name FROM metadef_tags WHERE namespace_id = $1 /* namespace_id */ {after}\n\
            ORDER BY {key} {word}, created_at {word}, id {word} LIMIT $2 /* limit */"
        );
        let limit = page.limit.and_then(|limit| i64::try_from(limit).ok());
        let mut params: Vec<Param<'_>> = vec![&namespace_id, &limit];
        if let Some(marker) = &page.marker {
            params.push(marker);
        }
        let rows = self.rows("metadef_tags", &sql, &params).await?;
        // An empty page may be the end of the list, or no list at all.
        if let (true, Some(marker)) = (rows.is_empty(), &page.marker)
            && self.metadef_part::<Named>(Part::Tag, namespace_id, marker).await?.is_none()
        {
            return Ok(None);
        }
        Ok(Some(rows.iter().map(|row| row.get(0)).collect()))
    }

    /// Every type of resource, oldest first.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn metadef_resource_types(&self) -> Result<Vec<Dated<Named>>, Error> {
        let sql = "-- metadef_resource_types\nSELECT json_agg(t ORDER BY t.id) AS types FROM metadef_resource_types t";
        let rows = self.rows("metadef_resource_types", sql, &[]).await?;
        rows.first().map_or_else(|| Ok(Vec::new()), |row| decode(row, "metadef_resource_types", "types"))
    }
}

impl Tx {
    /// Applies a namespace to types of resource, which are made where they are new.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_metadef_associations(
        &self,
        namespace_id: i64,
        associations: &[Association],
        existing: Existing,
        protected: bool,
    ) -> Result<Vec<Dated<Association>>, Error> {
        let names: Vec<&String> = associations.iter().map(|association| &association.name).collect();
        // In the order of their names, whoever adds them: two that add the same ones do not wait for each other.
        let sql = "-- metadef_resource_types_insert\n\
            INSERT INTO metadef_resource_types (name, protected)\n\
            SELECT u.name, $2 /* protected */ FROM unnest($1::text[] /* name */) AS u (name) ORDER BY u.name ON CONFLICT DO NOTHING";
        self.execute(sql, &[&names, &protected]).await?;
        let prefixes: Vec<&Option<String>> = associations.iter().map(|association| &association.prefix).collect();
        let targets: Vec<&Option<String>> =
            associations.iter().map(|association| &association.properties_target).collect();
        let sql = format!(
            "-- metadef_associations_insert\n\
            INSERT INTO metadef_associations AS x (namespace_id, name, prefix, properties_target)\n\
            SELECT $1 /* namespace_id */, u.name, u.prefix, u.target\n\
            FROM unnest($2::text[] /* name */, $3::text[] /* prefix */, $4::text[] /* properties_target */) WITH ORDINALITY AS u (name, prefix, target, n)\n\
            ORDER BY u.n {} RETURNING row_to_json(x) AS part",
            existing.clause(&["prefix", "properties_target"])
        );
        self.parts(Part::Association, &sql, &[&namespace_id, &names, &prefixes, &targets]).await
    }

    /// Adds properties.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_metadef_properties(
        &self,
        namespace_id: i64,
        properties: &[Property],
        existing: Existing,
    ) -> Result<Vec<Dated<Property>>, Error> {
        let names: Vec<&String> = properties.iter().map(|property| &property.name).collect();
        let definitions: Vec<_> = properties.iter().map(|property| Json(&property.definition)).collect();
        let sql = format!(
            "-- metadef_properties_insert\n\
            INSERT INTO metadef_properties AS x (namespace_id, name, definition)\n\
            SELECT $1 /* namespace_id */, u.name, u.definition\n\
            FROM unnest($2::text[] /* name */, $3::json[] /* definition */) WITH ORDINALITY AS u (name, definition, n)\n\
            ORDER BY u.n {} RETURNING row_to_json(x) AS part",
            existing.clause(&["definition"])
        );
        self.parts(Part::Property, &sql, &[&namespace_id, &names, &definitions]).await
    }

    /// Adds objects.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_metadef_objects(
        &self,
        namespace_id: i64,
        objects: &[Object],
        existing: Existing,
    ) -> Result<Vec<Dated<Object>>, Error> {
        let names: Vec<&String> = objects.iter().map(|object| &object.name).collect();
        let descriptions: Vec<&Option<String>> = objects.iter().map(|object| &object.description).collect();
        let required: Vec<_> = objects.iter().map(|object| object.required.as_ref().map(Json)).collect();
        let properties: Vec<_> = objects.iter().map(|object| object.properties.as_ref().map(Json)).collect();
        let sql = format!(
            "-- metadef_objects_insert\n\
            INSERT INTO metadef_objects AS x (namespace_id, name, description, required, properties)\n\
            SELECT $1 /* namespace_id */, u.name, u.description, u.required, u.properties\n\
            FROM unnest($2::text[] /* name */, $3::text[] /* description */, $4::json[] /* required */, $5::json[] /* properties */)\n\
              WITH ORDINALITY AS u (name, description, required, properties, n)\n\
            ORDER BY u.n {} RETURNING row_to_json(x) AS part",
            existing.clause(&["description", "required", "properties"])
        );
        self.parts(Part::Object, &sql, &[&namespace_id, &names, &descriptions, &required, &properties]).await
    }

    /// Adds tags.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn insert_metadef_tags(&self, namespace_id: i64, names: &[String]) -> Result<Vec<Dated<Named>>, Error> {
        let sql = "-- metadef_tags_insert\n\
            INSERT INTO metadef_tags AS x (namespace_id, name)\n\
            SELECT $1 /* namespace_id */, u.name FROM unnest($2::text[] /* name */) WITH ORDINALITY AS u (name, n)\n\
            ORDER BY u.n ON CONFLICT DO NOTHING RETURNING row_to_json(x) AS part";
        self.parts(Part::Tag, sql, &[&namespace_id, &names]).await
    }

    /// Replaces a property. `None`: there is none of that name.
    ///
    /// # Errors
    /// [`Error::Exists`] when another one has the new name; [`Error::Unavailable`].
    pub async fn update_metadef_property(
        &self,
        namespace_id: i64,
        name: &str,
        property: &Property,
    ) -> Result<Option<Dated<Property>>, Error> {
        let sql = "-- metadef_property_update\n\
            UPDATE metadef_properties x SET name = $3 /* name */, definition = $4 /* definition */, updated_at = now()\n\
            WHERE x.namespace_id = $1 /* namespace_id */ AND x.name = $2 /* name */ RETURNING row_to_json(x) AS part";
        let params: [Param<'_>; 4] = [&namespace_id, &name, &property.name, &Json(&property.definition)];
        self.parts(Part::Property, sql, &params).await.map(|mut parts| parts.pop())
    }

    /// Replaces an object. `None`: there is none of that name.
    ///
    /// # Errors
    /// [`Error::Exists`] when another one has the new name; [`Error::Unavailable`].
    pub async fn update_metadef_object(
        &self,
        namespace_id: i64,
        name: &str,
        object: &Object,
    ) -> Result<Option<Dated<Object>>, Error> {
        let sql = "-- metadef_object_update\n\
            UPDATE metadef_objects x SET name = $3 /* name */, description = $4 /* description */, required = $5 /* required */,\n\
              properties = $6 /* properties */, updated_at = now()\n\
            WHERE x.namespace_id = $1 /* namespace_id */ AND x.name = $2 /* name */ RETURNING row_to_json(x) AS part";
        let required = object.required.as_ref().map(Json);
        let properties = object.properties.as_ref().map(Json);
        let params: [Param<'_>; 6] = [&namespace_id, &name, &object.name, &object.description, &required, &properties];
        self.parts(Part::Object, sql, &params).await.map(|mut parts| parts.pop())
    }

    /// Renames a tag. `None`: there is none of that name.
    ///
    /// # Errors
    /// [`Error::Exists`] when another one has the new name; [`Error::Unavailable`].
    pub async fn update_metadef_tag(
        &self,
        namespace_id: i64,
        name: &str,
        next: &str,
    ) -> Result<Option<Dated<Named>>, Error> {
        let sql = "-- metadef_tag_update\n\
            UPDATE metadef_tags x SET name = $3 /* name */, updated_at = now()\n\
            WHERE x.namespace_id = $1 /* namespace_id */ AND x.name = $2 /* name */ RETURNING row_to_json(x) AS part";
        self.parts(Part::Tag, sql, &[&namespace_id, &name, &next]).await.map(|mut parts| parts.pop())
    }

    /// Removes the thing of that kind and name, and returns what it was.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete_metadef_part<T: DeserializeOwned>(
        &self,
        part: Part,
        namespace_id: i64,
        name: &str,
    ) -> Result<Option<T>, Error> {
        let sql = format!(
            "-- metadef_part_delete\n\
            DELETE FROM {} x WHERE x.namespace_id = $1 /* namespace_id */ AND x.name = $2 /* name */ RETURNING row_to_json(x) AS part",
            part.table()
        );
        self.parts(part, &sql, &[&namespace_id, &name]).await.map(|mut parts| parts.pop())
    }

    /// Removes all things of one kind.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn delete_metadef_parts(&self, part: Part, namespace_id: i64) -> Result<(), Error> {
        let sql =
            format!("-- metadef_parts_delete\nDELETE FROM {} WHERE namespace_id = $1 /* namespace_id */", part.table());
        self.execute(&sql, &[&namespace_id]).await.map(drop)
    }

    /// How many things of one kind there are.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn count_metadef_parts(&self, part: Part, namespace_id: i64) -> Result<usize, Error> {
        let sql = format!(
            "-- metadef_parts_count\nSELECT count(*) FROM {} WHERE namespace_id = $1 /* namespace_id */",
            part.table()
        );
        let rows = self.rows(&sql, &[&namespace_id]).await?;
        Ok(rows.first().and_then(|row| usize::try_from(row.get::<_, i64>(0)).ok()).unwrap_or(0))
    }

    async fn parts<T: DeserializeOwned>(&self, part: Part, sql: &str, params: &[Param<'_>]) -> Result<Vec<T>, Error> {
        let rows = self.rows(sql, params).await?;
        let parts = rows.iter().map(|row| decode::<Option<T>>(row, part.table(), "part"));
        parts.filter_map(Result::transpose).collect()
    }
}

fn column(key: TagKey) -> &'static str {
    match key {
        TagKey::Name => "name",
        TagKey::CreatedAt => "created_at",
        TagKey::UpdatedAt => "updated_at",
    }
}
