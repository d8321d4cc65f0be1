//! List pages: one keyset statement over the images that a scope may list.
//!
//! A project's list is the union of a few arms (its own images, public ones, those shared with it),
//! each of which walks an index in the order asked for and stops after a page; the union is ordered
//! and cut again. The cost of a page does not depend on how many images there are, nor on how deep in
//! the list it lies.

use std::fmt::Write as _;

use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::images::COLUMNS;
use super::{Catalog, Error, Param, Params};
use crate::domain::id::ImageId;
use crate::domain::image::{Image, Visibility};
use crate::domain::query::{
    Comparison, Direction, Filter, ImageQuery, NumberField, Scope, SortKey, TextField, TimeField, VisibilityFilter,
};

/// Pages up to this length fetch so many images in each arm, written into the statement: with a number that it knows,
/// Postgres sees that a plan for any values is as good as one for these, keeps it, and does not plan every page anew,
/// which takes longer than fetching it.
const SHORT_PAGE: usize = 32;

/// Parameters of a statement under construction.
#[derive(Default)]
struct Values(Vec<(Box<dyn ToSql + Sync + Send>, Type)>);

/// A value whose type in Postgres is known, so that the statement can be sent without asking for it.
trait Value: ToSql + Sync + Send + 'static {
    const TYPE: Type;
}

impl Value for String {
    const TYPE: Type = Type::TEXT;
}

impl Value for Vec<String> {
    const TYPE: Type = Type::TEXT_ARRAY;
}

impl Value for i64 {
    const TYPE: Type = Type::INT8;
}

impl Value for Uuid {
    const TYPE: Type = Type::UUID;
}

impl Value for Vec<Uuid> {
    const TYPE: Type = Type::UUID_ARRAY;
}

impl Value for OffsetDateTime {
    const TYPE: Type = Type::TIMESTAMPTZ;
}

impl Values {
    /// Adds a value and returns its placeholder with the column's name.
    fn bind<V: Value>(&mut self, value: V, column: &str) -> String {
        self.0.push((Box::new(value), V::TYPE));
        format!("${} /* {column} */", self.0.len())
    }
}

impl Catalog {
    /// One page of images, in order. `None`: the marker is no image that the scope may list.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Inconsistent`].
    pub async fn list(&self, query: &ImageQuery, scope: &Scope) -> Result<Option<Vec<Image>>, Error> {
        let mut params = Values::default();
        let arms = arms(query, scope, &mut params);
        let filters = filters(query, &mut params);
        let after = match query.marker {
            None => String::new(),
            Some(marker) => {
                let Some(row) = self.marker(marker, query, scope).await? else { return Ok(None) };
                format!(" AND ({})", after(&row, &query.sort, &mut params))
            }
        };
        let order = order(&query.sort);
        let limit = params.bind(i64::try_from(query.limit).unwrap_or(i64::MAX), "limit");
        let arm_limit = if short(query) { SHORT_PAGE.to_string() } else { limit.clone() };
        // Written out: an index over the few hidden images is of use only to who asks for them.
        let hidden = if query.hidden { "i.hidden" } else { "NOT i.hidden" };
        let keys = query.sort.iter().map(|(key, _)| expression(*key)).collect::<Vec<_>>();
        let columns = keys.iter().enumerate().map(|(n, key)| format!("{key} AS k{n}")).collect::<Vec<_>>().join(", ");
        let outer = query
            .sort
            .iter()
            .enumerate()
            .map(|(n, (_, direction))| format!("k{n} {}", word(*direction)))
            .collect::<Vec<_>>()
            .join(", ");
        let union = arms
            .iter()
            .map(|arm| {
                format!("(SELECT i.id AS page_id, {columns} FROM images i WHERE {arm} AND i.status <> 'deleted' AND {hidden}{filters}{after} ORDER BY {order} LIMIT {arm_limit})")
            })
            .collect::<Vec<_>>()
            .join("\n  UNION ALL ");
        // By the limit within it, the second look at each image is one of its key, even where Postgres plans for a
        // page of any length and takes that for a tenth of the table.
        let sql = format!(
            "-- images_list\nSELECT image.* FROM (SELECT * FROM (\n  {union}\n) arms ORDER BY {outer} LIMIT {limit}) page\n\
             CROSS JOIN LATERAL (SELECT {COLUMNS} FROM images i WHERE i.id = page_id LIMIT 1) image ORDER BY {outer}"
        );
        // Only short, plain pages are kept prepared. Which plan is good for a filter depends on its value: a tag that
        // every image has, or none; for a long page, on how much a project has. And clients could fill the memory of
        // every connection with statements of their own.
        let rows = if short(query) && query.filters.is_empty() && query.sort.len() <= 3 {
            let values = params.0.iter().map(|(value, _)| &**value as Param<'_>).collect::<Vec<_>>();
            self.read("images_list", &sql, Params::Prepared(&values)).await?
        } else {
            let values = params.0.iter().map(|(value, kind)| (&**value as Param<'_>, kind.clone())).collect::<Vec<_>>();
            self.read("images_list", &sql, Params::Typed(&values)).await?
        };
        rows.iter().map(Image::try_from).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// The marker's sort keys, if the scope may see it.
    async fn marker(&self, marker: ImageId, query: &ImageQuery, scope: &Scope) -> Result<Option<Row>, Error> {
        if self.image(marker, scope).await?.is_none() {
            return Ok(None);
        }
        let keys = query.sort.iter().map(|(key, _)| expression(*key)).collect::<Vec<_>>().join(", ");
        let sql = format!("-- images_marker\nSELECT {keys} FROM images i WHERE i.id = $1 /* id */");
        Ok(self.rows("images_marker", &sql, &[&marker.uuid()]).await?.pop())
    }
}

fn short(query: &ImageQuery) -> bool {
    query.limit <= SHORT_PAGE
}

/// Conditions, no two of which hold for the same image, that together make up the scope.
fn arms(query: &ImageQuery, scope: &Scope, params: &mut Values) -> Vec<String> {
    let project = match scope {
        Scope::Everything(project) => return vec![everything(query.visibility, project.as_deref(), params)],
        Scope::Project(project) => params.bind(project.clone(), "owner"),
    };
    let wanted = |visibility| match query.visibility {
        VisibilityFilter::Usual => visibility != Visibility::Community,
        VisibilityFilter::Only(only) => only == visibility,
        VisibilityFilter::All => true,
    };
    let own = match query.visibility {
        VisibilityFilter::Usual | VisibilityFilter::All => format!("i.owner = {project}"),
        VisibilityFilter::Only(only) => format!("i.owner = {project} AND i.visibility = '{}'", only.as_str()),
    };
    let mut arms = vec![own];
    for (visibility, literal) in [(Visibility::Public, "public"), (Visibility::Community, "community")] {
        if wanted(visibility) {
            arms.push(format!("i.visibility = '{literal}' AND i.owner IS DISTINCT FROM {project}"));
        }
    }
    if wanted(Visibility::Shared) {
        let status =
            query.member_status.map_or(String::new(), |status| format!("AND m.status = '{}'", status.as_str()));
        let shared = format!("SELECT m.image_id FROM image_members m WHERE m.member = {project} {status}");
        // A long page looks up every image that is shared: as an array, so that Postgres does not join it with all of
        // them by reading the whole table.
        let among = if short(query) { format!("IN ({shared})") } else { format!("= ANY(ARRAY({shared}))") };
        arms.push(format!("i.visibility = 'shared' AND i.owner <> {project} AND i.id {among}"));
    }
    // Images without an owner are everybody's.
    match (wanted(Visibility::Shared), wanted(Visibility::Private)) {
        (true, true) => arms.push("i.owner IS NULL AND i.visibility IN ('shared', 'private')".into()),
        (true, false) => arms.push("i.owner IS NULL AND i.visibility = 'shared'".into()),
        (false, true) => arms.push("i.owner IS NULL AND i.visibility = 'private'".into()),
        (false, false) => {}
    }
    arms
}

fn everything(visibility: VisibilityFilter, project: Option<&str>, params: &mut Values) -> String {
    match visibility {
        VisibilityFilter::All => "true".into(),
        VisibilityFilter::Only(only) => format!("i.visibility = '{}'", only.as_str()),
        VisibilityFilter::Usual => match project {
            None => "i.visibility <> 'community'".into(),
            Some(project) => {
                format!("(i.visibility <> 'community' OR i.owner = {})", params.bind(project.to_owned(), "owner"))
            }
        },
    }
}

fn filters(query: &ImageQuery, params: &mut Values) -> String {
    let mut sql = String::new();
    for filter in &query.filters {
        let condition = match filter {
            Filter::Ids(ids) => {
                format!("i.id = ANY({})", params.bind(ids.iter().map(|id| id.uuid()).collect::<Vec<Uuid>>(), "id"))
            }
            Filter::Text(field, values) => {
                format!("{} = ANY({})", text_column(*field), params.bind(values.clone(), "text"))
            }
            Filter::Number(field, comparison, number) => {
                let number = params.bind(*number, "number");
                let condition = format!("{} {} {number}::bigint", number_column(*field), operator(*comparison));
                // A missing size sorts as 0, but is not found as such.
                if *field == NumberField::Size {
                    format!("i.size_bytes IS NOT NULL AND {condition}")
                } else {
                    condition
                }
            }
            Filter::Time(field, comparison, moment) => {
                let column = match field {
                    TimeField::CreatedAt => "i.created_at",
                    TimeField::UpdatedAt => "i.updated_at",
                };
                // The API shows whole seconds, so that is what a client compares with.
                format!("date_trunc('second', {column}) {} {}", operator(*comparison), params.bind(*moment, "moment"))
            }
            Filter::Protected(flag) => (if *flag { "i.protected" } else { "NOT i.protected" }).to_owned(),
            Filter::Tag(tag) => format!(
                "EXISTS (SELECT FROM image_tags t WHERE t.image_id = i.id AND t.value = {})",
                params.bind(tag.clone(), "tag")
            ),
            Filter::Property(name, value) => {
                let (name, value) = (params.bind(name.clone(), "name"), params.bind(value.clone(), "value"));
                format!(
                    "EXISTS (SELECT FROM image_properties p WHERE p.image_id = i.id AND p.name = {name} AND md5(p.value) = md5({value}) AND p.value = {value})"
                )
            }
        };
        sql.push_str(" AND ");
        sql.push_str(&condition);
    }
    sql
}

/// The condition that an image comes after the marker: the first key that differs decides.
fn after(marker: &Row, sort: &[(SortKey, Direction)], params: &mut Values) -> String {
    let values: Vec<String> = sort
        .iter()
        .enumerate()
        .map(|(n, (key, _))| match key {
            SortKey::Name | SortKey::Status | SortKey::ContainerFormat | SortKey::DiskFormat => {
                params.bind(marker.get::<_, String>(n), "marker")
            }
            SortKey::Size => params.bind(marker.get::<_, i64>(n), "marker"),
            SortKey::Id => params.bind(marker.get::<_, Uuid>(n), "marker"),
            SortKey::CreatedAt | SortKey::UpdatedAt => params.bind(marker.get::<_, OffsetDateTime>(n), "marker"),
        })
        .collect();
    let keys: Vec<&str> = sort.iter().map(|(key, _)| expression(*key)).collect();
    let first = sort.first().map_or(Direction::Descending, |(_, direction)| *direction);
    if sort.iter().all(|(_, direction)| *direction == first) {
        // A row comparison: Postgres starts the index scan right behind the marker.
        return format!("({}) {} ({})", keys.join(", "), sign(first), values.join(", "));
    }
    let mut sql = String::new();
    for n in 0..sort.len() {
        if n > 0 {
            sql.push_str(" OR ");
        }
        sql.push('(');
        for m in 0..n {
            let _ = write!(sql, "{} = {} AND ", keys[m], values[m]);
        }
        let _ = write!(sql, "{} {} {})", keys[n], sign(sort[n].1), values[n]);
    }
    sql
}

fn order(sort: &[(SortKey, Direction)]) -> String {
    sort.iter()
        .map(|(key, direction)| format!("{} {}", expression(*key), word(*direction)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// How a direction is written in ORDER BY.
pub(super) fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ascending => "ASC",
        Direction::Descending => "DESC",
    }
}

/// How what comes later compares.
pub(super) fn sign(direction: Direction) -> &'static str {
    match direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    }
}

/// What a key sorts by; missing values have an explicit place.
fn expression(key: SortKey) -> &'static str {
    match key {
        SortKey::Name => "coalesce(i.name, '')",
        SortKey::Status => "i.status",
        SortKey::ContainerFormat => "coalesce(i.container_format, '')",
        SortKey::DiskFormat => "coalesce(i.disk_format, '')",
        SortKey::Size => "coalesce(i.size_bytes, 0)",
        SortKey::Id => "i.id",
        SortKey::CreatedAt => "i.created_at",
        SortKey::UpdatedAt => "i.updated_at",
    }
}

fn text_column(field: TextField) -> &'static str {
    match field {
        // The expressions of the indexes; an image without a name is found by the empty one.
        TextField::Name => "coalesce(i.name, '')",
        TextField::Status => "i.status",
        TextField::ContainerFormat => "coalesce(i.container_format, '')",
        TextField::DiskFormat => "coalesce(i.disk_format, '')",
        TextField::Owner => "i.owner",
        TextField::Checksum => "i.checksum",
        TextField::OsHashAlgo => "i.os_hash_algo",
        TextField::OsHashValue => "i.os_hash_value",
    }
}

fn number_column(field: NumberField) -> &'static str {
    match field {
        NumberField::Size => "coalesce(i.size_bytes, 0)",
        NumberField::VirtualSize => "i.virtual_size_bytes",
        NumberField::MinDisk => "i.min_disk_gib",
        NumberField::MinRam => "i.min_ram_mib",
    }
}

fn operator(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        Comparison::Greater => ">",
        Comparison::AtLeast => ">=",
        Comparison::Less => "<",
        Comparison::AtMost => "<=",
    }
}
