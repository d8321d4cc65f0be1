//! Limits on what a client may send, with Glance's defaults (`image-api.md` 3.1, 3.8).

/// Longest name, owner, tag and property name, in characters.
pub const TEXT_CHARS_MAX: usize = 255;
/// Longest value of one additional property, in bytes. Glance's column is TEXT (64 KiB on MySQL).
pub const PROPERTY_VALUE_BYTES_MAX: usize = 65_535;
/// Largest JSON body of a metadata request, in bytes.
pub const JSON_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most operations in one PATCH.
pub const PATCH_OPERATIONS_MAX: usize = 4096;
/// Longest query string, in bytes.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;

/// Most filters of one list request: each costs the database a look per image.
pub const FILTERS_MAX: usize = 64;

/// Configurable quotas on one image.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    /// Most additional properties; negative: no limit.
    pub properties: i64,
    /// Most tags; negative: no limit.
    pub tags: i64,
}

impl Quotas {
    /// Whether `count` exceeds `quota`, where a negative quota means no limit.
    #[must_use]
    pub fn exceeded(quota: i64, count: usize) -> bool {
        quota >= 0 && i64::try_from(count).unwrap_or(i64::MAX) > quota
    }
}
