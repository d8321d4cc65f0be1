//! The links of a page of a list.

/// The list's own URL with another marker: everything else that was asked for is asked for again.
pub(super) fn link(path: &str, pairs: &[(String, String)], marker: Option<&str>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs.iter().filter(|(name, _)| name != "marker"));
    if let Some(marker) = marker {
        query.append_pair("marker", marker);
    }
    let query = query.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::link;

    #[test]
    fn next_echoes_the_whole_query() {
        let pairs = crate::domain::query::pairs("tag=a&tag=b%26c&limit=2&marker=x&name=in:%22a,b%22").unwrap();
        let next = link("/v2/images", &pairs, Some("m"));
        let (_, query) = next.split_once('?').unwrap();
        let again = crate::domain::query::pairs(query).unwrap();
        let mut expected = pairs.clone();
        expected.retain(|(name, _)| name != "marker");
        expected.push(("marker".into(), "m".into()));
        assert_eq!(again, expected);
        assert_eq!(link("/v2/images", &[], None), "/v2/images");
    }
}
