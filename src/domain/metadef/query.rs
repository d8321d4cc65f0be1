//! What the lists of metadata definitions are asked for.

use super::Visibility;
use crate::domain::Refusal;
use crate::domain::query::{Direction, PageSizes, limit};

/// What namespaces can be sorted by; a missing text sorts as the empty one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamespaceKey {
    /// Name.
    Name,
    /// Name for people.
    DisplayName,
    /// Description.
    Description,
    /// Visibility.
    Visibility,
    /// Whether it is protected.
    Protected,
    /// Owning project.
    Owner,
    /// Time of creation.
    CreatedAt,
    /// Time of the last change.
    UpdatedAt,
}

/// What tags can be sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKey {
    /// Name.
    Name,
    /// Time of creation.
    CreatedAt,
    /// Time of the last change.
    UpdatedAt,
}

/// The sort keys of namespaces, as clients write them.
const NAMESPACE_KEYS: [(&str, NamespaceKey); 9] = [
    ("namespace", NamespaceKey::Name),
    ("display_name", NamespaceKey::DisplayName),
    ("description", NamespaceKey::Description),
    ("visibility", NamespaceKey::Visibility),
    ("protected", NamespaceKey::Protected),
    ("owner", NamespaceKey::Owner),
    ("created_at", NamespaceKey::CreatedAt),
    ("updated_at", NamespaceKey::UpdatedAt),
    // The order of creation, too.
    ("id", NamespaceKey::CreatedAt),
];
/// The sort keys of tags, as clients write them.
const TAG_KEYS: [(&str, TagKey); 4] = [
    ("name", TagKey::Name),
    ("created_at", TagKey::CreatedAt),
    ("updated_at", TagKey::UpdatedAt),
    ("id", TagKey::CreatedAt),
];

/// Where a page of a list begins, and in which order it is. Ties are broken by the time of creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<K> {
    /// Most rows; `None` for all that there are.
    pub limit: Option<usize>,
    /// Name of the last row of the page before.
    pub marker: Option<String>,
    /// Most significant key.
    pub key: K,
    /// Direction of all keys.
    pub direction: Direction,
}

/// Which namespaces are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceQuery {
    /// Rows.
    pub page: Page<NamespaceKey>,
    /// Those of this visibility alone.
    pub visibility: Option<Visibility>,
    /// Those alone that apply to one of these types of resource.
    pub resource_types: Option<Vec<String>>,
}

impl NamespaceQuery {
    /// Reads the decoded pairs of a query string. Parameters without a meaning are passed over, as the reference does.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] naming the parameter.
    pub fn parse(pairs: &[(String, String)], sizes: PageSizes) -> Result<Self, Refusal> {
        let page = page(pairs, &NAMESPACE_KEYS, sizes.max)?;
        Ok(Self {
            page: Page { limit: page.limit.or(Some(sizes.default)), ..page },
            visibility: visibility(pairs)?,
            resource_types: single(pairs, "resource_types")?.map(|names| names.split(',').map(str::to_owned).collect()),
        })
    }
}

impl Page<TagKey> {
    /// Reads the decoded pairs of the query string of a list of tags.
    ///
    /// # Errors
    /// As [`NamespaceQuery::parse`].
    pub fn parse(pairs: &[(String, String)]) -> Result<Self, Refusal> {
        visibility(pairs)?;
        page(pairs, &TAG_KEYS, usize::MAX)
    }
}

/// Checks the query string of a list of objects, which is always whole and in order of creation, as the reference's is.
///
/// # Errors
/// As [`NamespaceQuery::parse`].
pub fn check_objects(pairs: &[(String, String)]) -> Result<(), Refusal> {
    match Page::<TagKey>::parse(pairs)?.limit {
        Some(0) => Err(Refusal::Invalid("limit param must be positive".into())),
        _ => Ok(()),
    }
}

/// The type of resource whose prefix is asked for; an empty one is none.
///
/// # Errors
/// [`Refusal::Invalid`] for any other parameter.
pub fn resource_type(pairs: &[(String, String)]) -> Result<Option<&str>, Refusal> {
    if let Some((name, _)) = pairs.iter().find(|(name, _)| name != "resource_type") {
        return Err(Refusal::Invalid(format!("Query parameter '{name}' is unknown here; known: resource_type.")));
    }
    Ok(single(pairs, "resource_type")?.filter(|name| !name.is_empty()))
}

fn page<K: Copy>(pairs: &[(String, String)], keys: &[(&str, K)], limit_max: usize) -> Result<Page<K>, Refusal> {
    let name = single(pairs, "sort_key")?.unwrap_or("created_at");
    let key = keys.iter().find(|(known, _)| *known == name).map(|(_, key)| *key).ok_or_else(|| {
        let names: Vec<&str> = keys.iter().map(|(known, _)| *known).collect();
        Refusal::Invalid(format!("Invalid sort key: {name}. It must be one of the following: {}.", names.join(", ")))
    })?;
    Ok(Page {
        limit: single(pairs, "limit")?.map(|value| limit(value, limit_max)).transpose()?,
        marker: single(pairs, "marker")?.map(str::to_owned),
        key,
        direction: single(pairs, "sort_dir")?.map_or(Ok(Direction::Descending), Direction::parse)?,
    })
}

fn visibility(pairs: &[(String, String)]) -> Result<Option<Visibility>, Refusal> {
    let Some(name) = single(pairs, "visibility")? else { return Ok(None) };
    Visibility::parse(name).map(Some).ok_or_else(|| {
        Refusal::Invalid(format!("Invalid visibility value: {name}. It must be one of the following: public, private."))
    })
}

/// The value of a parameter that can be given once.
fn single<'a>(pairs: &'a [(String, String)], name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = pairs.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Refusal::Invalid(format!("Query parameter '{name}' is given twice; give it once."))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::proptest;

    use super::{NamespaceKey, NamespaceQuery, Page, TagKey, check_objects, resource_type};
    use crate::domain::Refusal;
    use crate::domain::query::{Direction, PageSizes, pairs};

    const SIZES: PageSizes = PageSizes { default: 25, max: 1000 };

    #[test]
    fn what_clients_ask_for() {
        let query = NamespaceQuery::parse(&[], SIZES).unwrap();
        assert_eq!(
            (query.page.limit, query.page.key, query.page.direction),
            (Some(25), NamespaceKey::CreatedAt, Direction::Descending)
        );
        let raw = "limit=5000&sort_key=namespace&sort_dir=asc&marker=a&visibility=public&resource_types=A,B&foo=bar";
        let query = NamespaceQuery::parse(&pairs(raw).unwrap(), SIZES).unwrap();
        assert_eq!(
            (query.page.limit, query.page.key, query.page.marker.as_deref()),
            (Some(1000), NamespaceKey::Name, Some("a"))
        );
        assert_eq!(query.resource_types, Some(vec!["A".to_owned(), "B".to_owned()]));
        let page = Page::<TagKey>::parse(&pairs("limit=0").unwrap()).unwrap();
        assert_eq!((page.limit, page.key), (Some(0), TagKey::CreatedAt));
        assert!(check_objects(&pairs("limit=1").unwrap()).is_ok());
        assert!(check_objects(&pairs("limit=0").unwrap()).is_err());
        assert_eq!(resource_type(&pairs("resource_type=").unwrap()), Ok(None));
        assert_eq!(resource_type(&pairs("resource_type=a").unwrap()), Ok(Some("a")));
        assert!(resource_type(&pairs("resource_typ=a").unwrap()).is_err());
    }

    #[test]
    fn what_is_refused() {
        for bad in [
            "limit=abc",
            "limit=-1",
            "limit=1&limit=1",
            "sort_key=bogus",
            "sort_dir=up",
            "visibility=shared",
            "marker=a&marker=b",
        ] {
            let pairs = pairs(bad).unwrap();
            assert!(matches!(NamespaceQuery::parse(&pairs, SIZES), Err(Refusal::Invalid(_))), "{bad}");
            assert!(matches!(Page::<TagKey>::parse(&pairs), Err(Refusal::Invalid(_))), "{bad}");
        }
        assert!(Page::<TagKey>::parse(&pairs("sort_key=owner").unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn no_query_panics(raw in "[a-z_=&%,0-9-]{0,60}|\\PC{0,30}") {
            if let Ok(pairs) = pairs(&raw) {
                let _ = NamespaceQuery::parse(&pairs, SIZES);
                let _ = Page::<TagKey>::parse(&pairs);
                let _ = (check_objects(&pairs), resource_type(&pairs).map(drop));
            }
        }
    }
}
