//! What `GET /v2/images` asks for.
//!
//! The raw query is read here, once: every mistake is a 400 before the catalog is asked anything.

use std::num::IntErrorKind;

use time::OffsetDateTime;
use time::format_description::well_known::Iso8601;

use super::Refusal;
use super::id::ImageId;
use super::image::{Visibility, check_text};
use super::limits::{FILTERS_MAX, QUERY_BYTES_MAX};
use super::member::MemberStatus;

/// Columns that a list can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortKey {
    /// Name, a missing one sorting as the empty text.
    Name,
    /// State.
    Status,
    /// Container format.
    ContainerFormat,
    /// Disk format.
    DiskFormat,
    /// Size, a missing one sorting as 0.
    Size,
    /// Identifier.
    Id,
    /// Time of creation.
    CreatedAt,
    /// Time of the last change.
    UpdatedAt,
}

impl SortKey {
    const ALL: [(&'static str, Self); 8] = [
        ("name", Self::Name),
        ("status", Self::Status),
        ("container_format", Self::ContainerFormat),
        ("disk_format", Self::DiskFormat),
        ("size", Self::Size),
        ("id", Self::Id),
        ("created_at", Self::CreatedAt),
        ("updated_at", Self::UpdatedAt),
    ];

    fn parse(name: &str) -> Result<Self, Refusal> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, key)| key).ok_or_else(|| {
            let names = Self::ALL.map(|(known, _)| known).join(", ");
            Refusal::Invalid(format!("Invalid sort key: {name}. It must be one of the following: {names}."))
        })
    }
}

/// Direction of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Largest first.
    Descending,
}

impl Direction {
    pub(super) fn parse(name: &str) -> Result<Self, Refusal> {
        match name {
            "asc" => Ok(Self::Ascending),
            "desc" => Ok(Self::Descending),
            other => Err(Refusal::Invalid(format!(
                "Invalid sort direction: {other}. It must be one of the following: asc, desc."
            ))),
        }
    }
}

/// Text columns that a filter can compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextField {
    /// Name.
    Name,
    /// State.
    Status,
    /// Container format.
    ContainerFormat,
    /// Disk format.
    DiskFormat,
    /// Owning project.
    Owner,
    /// MD5.
    Checksum,
    /// Hash algorithm.
    OsHashAlgo,
    /// Hash.
    OsHashValue,
}

/// Whole-number columns that a filter can compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberField {
    /// Bytes stored.
    Size,
    /// Bytes of the virtual disk.
    VirtualSize,
    /// GiB of disk needed.
    MinDisk,
    /// MiB of memory needed.
    MinRam,
}

/// Time columns that a filter can compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeField {
    /// Time of creation.
    CreatedAt,
    /// Time of the last change.
    UpdatedAt,
}

/// How a filter compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `<`
    Less,
    /// `<=`
    AtMost,
}

/// One condition on an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// The id is one of these.
    Ids(Vec<ImageId>),
    /// The text column has one of these values.
    Text(TextField, Vec<String>),
    /// The number compares so.
    Number(NumberField, Comparison, i64),
    /// The time compares so.
    Time(TimeField, Comparison, OffsetDateTime),
    /// The image is (not) protected.
    Protected(bool),
    /// The image has this tag.
    Tag(String),
    /// The image has this additional property with this value.
    Property(String, String),
}

/// Which visibilities are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VisibilityFilter {
    /// The default: everything but other projects' community images.
    Usual,
    /// One visibility.
    Only(Visibility),
    /// Everything, community images included.
    All,
}

/// Whose images a caller may see. It is part of every catalog query, so that an unscoped list or
/// look-up cannot be expressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All images, other projects' community images in lists only when asked for. The project is the
    /// administrator's own.
    Everything(Option<String>),
    /// What this project may see.
    Project(String),
}

/// A list request. The caller's scope is added by the service (`catalog::images_list`).
#[derive(Debug, Clone, PartialEq)]
pub struct ImageQuery {
    /// Page size; 0 gives an empty page.
    pub limit: usize,
    /// The last image of the previous page.
    pub marker: Option<ImageId>,
    /// Sort keys, most significant first; always ends with `created_at` and `id`.
    pub sort: Vec<(SortKey, Direction)>,
    /// Conditions, all of which must hold.
    pub filters: Vec<Filter>,
    /// Visibilities.
    pub visibility: VisibilityFilter,
    /// Which memberships put another project's shared image into the list; `None`: any.
    pub member_status: Option<MemberStatus>,
    /// Whether hidden images are listed *instead of* the others.
    pub hidden: bool,
}

/// Page sizes of a deployment.
#[derive(Debug, Clone, Copy)]
pub struct PageSizes {
    /// Without `limit`.
    pub default: usize,
    /// Larger limits are cut to this, silently, as the reference does.
    pub max: usize,
}

/// The decoded `name=value` pairs of a query string.
///
/// # Errors
/// [`Refusal::Invalid`] for a query that is too long or not UTF-8 after decoding.
pub fn pairs(raw: &str) -> Result<Vec<(String, String)>, Refusal> {
    if raw.len() > QUERY_BYTES_MAX {
        return Err(Refusal::Invalid(format!("The query string is longer than {QUERY_BYTES_MAX} bytes.")));
    }
    let decoded: Vec<(String, String)> = form_urlencoded::parse(raw.as_bytes()).into_owned().collect();
    // The decoder replaces what is not UTF-8: a value that held no replacement character before and
    // holds one now was malformed.
    if !raw.to_ascii_lowercase().contains("%ef%bf%bd")
        && decoded.iter().any(|(name, value)| name.contains('\u{FFFD}') || value.contains('\u{FFFD}'))
    {
        return Err(Refusal::Invalid("The query string is not valid UTF-8.".into()));
    }
    for (name, value) in &decoded {
        check_text("query parameter name", name, false)?;
        check_text(&format!("query parameter '{name}'"), value, true)?;
    }
    Ok(decoded)
}

impl ImageQuery {
    /// Reads the decoded pairs of a query string.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the parameter.
    pub fn parse(pairs: &[(String, String)], sizes: PageSizes) -> Result<Self, Refusal> {
        let mut query = Self {
            limit: sizes.default,
            marker: None,
            sort: Vec::new(),
            filters: Vec::new(),
            visibility: VisibilityFilter::Usual,
            member_status: Some(MemberStatus::Accepted),
            hidden: false,
        };
        let mut sort = None;
        let (mut keys, mut directions) = (Vec::new(), Vec::new());
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            let repeatable = matches!(name.as_str(), "tag" | "sort_key" | "sort_dir");
            if !repeatable && seen.contains(&name.as_str()) {
                return Err(Refusal::Invalid(format!("Query parameter '{name}' is given twice; give it once.")));
            }
            seen.push(name);
            match name.as_str() {
                "limit" => query.limit = limit(value, sizes.max)?,
                "marker" => {
                    query.marker = Some(
                        ImageId::parse(value)
                            .ok_or_else(|| Refusal::Invalid(format!("No image found with ID {value}")))?,
                    )
                }
                "sort" => sort = Some(value.as_str()),
                "sort_key" => keys.push(SortKey::parse(value)?),
                "sort_dir" => directions.push(Direction::parse(value)?),
                "visibility" => query.visibility = visibility(value)?,
                "member_status" => query.member_status = member_status(value)?,
                // Deleted images are never listed, whatever it says; Glance ignores it, too.
                "deleted" => {}
                "os_hidden" => query.hidden = boolean_any_case(name, value)?,
                _ => query.filters.push(filter(name, value)?),
            }
        }
        if query.filters.len() > FILTERS_MAX {
            return Err(Refusal::Invalid(format!(
                "A list takes at most {FILTERS_MAX} filters, this one has {}.",
                query.filters.len()
            )));
        }
        query.sort = sort_order(sort, &keys, &directions)?;
        Ok(query)
    }
}

pub(super) fn limit(value: &str, max: usize) -> Result<usize, Refusal> {
    let number = match value.parse::<i64>() {
        Err(error) if *error.kind() == IntErrorKind::PosOverflow => i64::MAX,
        parsed => parsed.map_err(|_| Refusal::Invalid("limit param must be an integer".into()))?,
    };
    usize::try_from(number)
        .map(|limit| limit.min(max))
        .map_err(|_| Refusal::Invalid("limit param must be positive".into()))
}

fn visibility(value: &str) -> Result<VisibilityFilter, Refusal> {
    match value {
        "all" => Ok(VisibilityFilter::All),
        other => Visibility::parse(other)
            .map(VisibilityFilter::Only)
            .ok_or_else(|| Refusal::Invalid(format!("Invalid visibility value: {other}. It must be one of the following: public, private, shared, community, all."))),
    }
}

fn member_status(value: &str) -> Result<Option<MemberStatus>, Refusal> {
    match value {
        "all" => Ok(None),
        other => MemberStatus::parse(other).map(Some).ok_or_else(|| {
            Refusal::Invalid(format!(
                "Invalid status: {other}. It must be one of the following: pending, accepted, rejected, all."
            ))
        }),
    }
}

fn boolean_any_case(name: &str, value: &str) -> Result<bool, Refusal> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Refusal::Invalid(format!(
            "Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'."
        ))),
    }
}

/// The complete order: what was asked for, then `created_at` and `id`, so that it is total.
fn sort_order(
    sort: Option<&str>,
    keys: &[SortKey],
    directions: &[Direction],
) -> Result<Vec<(SortKey, Direction)>, Refusal> {
    let mut order = Vec::new();
    let mut default = Direction::Descending;
    match sort {
        Some(_) if !keys.is_empty() || !directions.is_empty() => {
            return Err(Refusal::Invalid("Old and new sorting syntax cannot be combined".into()));
        }
        Some(text) => {
            for part in text.split(',') {
                let (key, direction) = match part.trim().split_once(':') {
                    Some((key, direction)) => (key.trim(), Direction::parse(direction.trim())?),
                    None => (part.trim(), Direction::Descending),
                };
                order.push((SortKey::parse(key)?, direction));
            }
            if let [(_, only)] = order[..] {
                default = only;
            }
        }
        None => {
            if directions.len() > 1 && directions.len() != keys.len() {
                return Err(Refusal::Invalid("Number of sort dirs does not match the number of sort keys".into()));
            }
            if let [only] = directions {
                default = *only;
            }
            for (index, key) in keys.iter().enumerate() {
                order.push((*key, directions.get(index).copied().unwrap_or(default)));
            }
        }
    }
    for key in [SortKey::CreatedAt, SortKey::Id] {
        if !order.iter().any(|(known, _)| *known == key) {
            order.push((key, default));
        }
    }
    Ok(order)
}

fn filter(name: &str, value: &str) -> Result<Filter, Refusal> {
    let text = |field| Ok(Filter::Text(field, vec![value.to_owned()]));
    let operated = |field| Ok(Filter::Text(field, operands(name, value)?));
    match name {
        "id" => Ok(Filter::Ids(operands(name, value)?.iter().filter_map(|id| ImageId::parse(id)).collect())),
        "name" => operated(TextField::Name),
        "status" => operated(TextField::Status),
        "container_format" => operated(TextField::ContainerFormat),
        "disk_format" => operated(TextField::DiskFormat),
        "owner" => text(TextField::Owner),
        "checksum" => text(TextField::Checksum),
        "os_hash_algo" => text(TextField::OsHashAlgo),
        "os_hash_value" => text(TextField::OsHashValue),
        "size" => number(NumberField::Size, Comparison::Equal, name, value),
        "virtual_size" => number(NumberField::VirtualSize, Comparison::Equal, name, value),
        "min_disk" => number(NumberField::MinDisk, Comparison::Equal, name, value),
        "min_ram" => number(NumberField::MinRam, Comparison::Equal, name, value),
        "created_at" => time(TimeField::CreatedAt, name, value),
        "updated_at" => time(TimeField::UpdatedAt, name, value),
        "protected" => match value {
            "true" => Ok(Filter::Protected(true)),
            "false" => Ok(Filter::Protected(false)),
            _ => Err(Refusal::Invalid(format!(
                "Invalid value '{value}' for 'protected' filter. Valid values are 'true' or 'false'."
            ))),
        },
        "tag" => Ok(Filter::Tag(value.to_owned())),
        "changes-since" => Err(Refusal::Invalid("The \"changes-since\" filter is no longer available on v2.".into())),
        "properties" | "locations" | "tags" => {
            Err(Refusal::Invalid(format!("'{name}' is not a filter; name a property itself, or use 'tag'.")))
        }
        _ => match range_filter(name, value) {
            Some(filter) => filter,
            None => Ok(Filter::Property(name.to_owned(), value.to_owned())),
        },
    }
}

/// `size_min`, `min_ram_max`, ...: `None` when the name is none of them.
fn range_filter(name: &str, value: &str) -> Option<Result<Filter, Refusal>> {
    let (column, comparison) = match (name.strip_suffix("_min"), name.strip_suffix("_max")) {
        (Some(column), _) => (column, Comparison::AtLeast),
        (None, Some(column)) => (column, Comparison::AtMost),
        (None, None) => return None,
    };
    let field = match column {
        "size" => NumberField::Size,
        "virtual_size" => NumberField::VirtualSize,
        "min_disk" => NumberField::MinDisk,
        "min_ram" => NumberField::MinRam,
        _ => {
            return Some(Err(Refusal::Invalid(format!(
                "Unable to filter by unknown range '{name}'; known: size, virtual_size, min_disk, min_ram with _min or _max."
            ))));
        }
    };
    // A bound that no number reaches is a bound all the same.
    let beyond = value.parse::<i64>().is_err_and(|error| *error.kind() == IntErrorKind::PosOverflow);
    let filter =
        if beyond { Ok(Filter::Number(field, comparison, i64::MAX)) } else { number(field, comparison, name, value) };
    Some(filter)
}

fn number(field: NumberField, comparison: Comparison, name: &str, value: &str) -> Result<Filter, Refusal> {
    value.parse().map(|number| Filter::Number(field, comparison, number)).map_err(|_| {
        Refusal::Invalid(format!("Unable to filter '{name}' on a range with a non-numeric value '{value}'."))
    })
}

fn time(field: TimeField, name: &str, value: &str) -> Result<Filter, Refusal> {
    let operators = [
        ("eq:", Comparison::Equal),
        ("neq:", Comparison::NotEqual),
        ("gte:", Comparison::AtLeast),
        ("gt:", Comparison::Greater),
        ("lte:", Comparison::AtMost),
        ("lt:", Comparison::Less),
    ];
    let (comparison, text) = operators
        .iter()
        .find_map(|(prefix, comparison)| value.strip_prefix(prefix).map(|text| (*comparison, text)))
        .unwrap_or((Comparison::Equal, value));
    let bad = || Refusal::Invalid(format!("Bad \"{name}\" query filter format. Use ISO 8601 DateTime notation."));
    let moment = parse_time(text).ok_or_else(bad)?;
    Ok(Filter::Time(field, comparison, moment))
}

/// An ISO 8601 moment; without an offset it is in UTC, without a time it is midnight.
fn parse_time(text: &str) -> Option<OffsetDateTime> {
    // A '+' of an offset that was not percent-encoded has become a blank.
    let text = text.trim().replace(' ', "+");
    OffsetDateTime::parse(&text, &Iso8601::DEFAULT)
        .ok()
        .or_else(|| OffsetDateTime::parse(&format!("{text}Z"), &Iso8601::DEFAULT).ok())
        .or_else(|| OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Iso8601::DEFAULT).ok())
}

/// The values of `v`, `eq:v` or `in:a,b,"c,d"`.
fn operands(name: &str, value: &str) -> Result<Vec<String>, Refusal> {
    match value.split_once(':') {
        None => Ok(vec![value.to_owned()]),
        Some(("eq", operand)) => Ok(vec![operand.to_owned()]),
        Some(("in", list)) => split_quoted(list).ok_or_else(|| {
            Refusal::Invalid(format!(
                "Invalid filter value in:{list} of '{name}': a quote must open and close a whole value."
            ))
        }),
        Some((operator, _)) => Err(Refusal::Invalid(format!(
            "Unable to filter '{name}' by operator '{operator}'; known: eq, in. A value that contains ':' needs 'eq:' in front of it."
        ))),
    }
}

/// Splits at commas outside of double quotes.
fn split_quoted(list: &str) -> Option<Vec<String>> {
    let mut values = Vec::new();
    let mut rest = list;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (value, after) = quoted.split_once('"')?;
            values.push(value.to_owned());
            match after.strip_prefix(',') {
                Some(next) => rest = next,
                None if after.is_empty() => return Some(values),
                None => return None,
            }
        } else {
            let (value, next) = match rest.split_once(',') {
                Some((value, next)) => (value, Some(next)),
                None => (rest, None),
            };
            if value.contains('"') {
                return None;
            }
            values.push(value.to_owned());
            match next {
                Some(next) => rest = next,
                None => return Some(values),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{
        Comparison, Direction, Filter, ImageQuery, NumberField, PageSizes, SortKey, TextField, VisibilityFilter, pairs,
    };
    use crate::domain::Refusal;

    const SIZES: PageSizes = PageSizes { default: 25, max: 1000 };

    fn parse(raw: &str) -> Result<ImageQuery, Refusal> {
        ImageQuery::parse(&pairs(raw)?, SIZES)
    }

    #[test]
    fn defaults() {
        let query = parse("").unwrap();
        assert_eq!(query.limit, 25);
        assert_eq!(query.sort, [(SortKey::CreatedAt, Direction::Descending), (SortKey::Id, Direction::Descending)]);
        assert_eq!(query.visibility, VisibilityFilter::Usual);
        assert!(!query.hidden);
    }

    #[test]
    fn what_clients_send() {
        let query = parse("limit=200&sort_key=name&sort_dir=asc").unwrap();
        assert_eq!(query.sort[0], (SortKey::Name, Direction::Ascending));
        assert_eq!(query.sort[2], (SortKey::Id, Direction::Ascending));
        assert_eq!(parse("sort=status:asc").unwrap().sort[2], (SortKey::Id, Direction::Ascending));
        assert_eq!(parse("limit=5000").unwrap().limit, 1000);
        assert_eq!(parse("limit=0").unwrap().limit, 0);
        let query = parse("sort=name:asc,size&tag=a&tag=b&name=in:a,%22b,c%22&size_min=1&os_distro=debian").unwrap();
        assert_eq!(query.sort[1], (SortKey::Size, Direction::Descending));
        assert_eq!(
            query.filters,
            [
                Filter::Tag("a".into()),
                Filter::Tag("b".into()),
                Filter::Text(TextField::Name, vec!["a".into(), "b,c".into()]),
                Filter::Number(NumberField::Size, Comparison::AtLeast, 1),
                Filter::Property("os_distro".into(), "debian".into()),
            ]
        );
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "limit=-1",
            "limit=abc",
            "limit=1&limit=2",
            "marker=abc",
            "sort=",
            "sort=bogus",
            "sort=name:up",
            "sort=name&sort_key=size",
            "sort_key=name&sort_key=size&sort_dir=asc&sort_dir=desc&sort_dir=asc",
            "visibility=",
            "member_status=x",
            "os_hidden=maybe",
            "protected=True",
            "size_min=x",
            "foo_min=1",
            "min_ram=abc",
            "name=like:x",
            "name=in:%22a",
            "name=%00",
            "name=%FF",
            "created_at=yesterday",
            "changes-since=2020",
            "locations=x",
        ] {
            assert!(matches!(parse(bad), Err(Refusal::Invalid(_))), "{bad}");
        }
        for good in [
            "created_at=gt:2020-01-01T00:00:00Z",
            "updated_at=2020-01-01",
            "created_at=lte:2020-01-01T00:00:00%2B01:00",
            "updated_at=gte:2026-01-01T00:00:00.000000",
        ] {
            parse(good).unwrap_or_else(|e| panic!("{good}: {e}"));
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(raw in "[a-z_=&%:,0-9\"-]{0,60}|\\PC{0,30}") {
            let _ = parse(&raw);
        }
    }
}
