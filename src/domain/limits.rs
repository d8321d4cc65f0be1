//! Limits on what a client may send and a project may use, with Glance's defaults (`image-api.md` 3.1, 3.8).

use super::Refusal;

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
/// Longest URL of a location, in characters.
pub const LOCATION_URL_CHARS_MAX: usize = 255;
/// Largest metadata of a location, in bytes of JSON.
pub const LOCATION_METADATA_BYTES_MAX: usize = 4096;
/// Deepest nesting of it.
pub const LOCATION_METADATA_DEPTH_MAX: usize = 8;

/// Most filters of one list request: each costs the database a look per image.
pub const FILTERS_MAX: usize = 64;

/// Configurable quotas on one image.
#[derive(Debug, Clone, Copy)]
pub struct Quotas {
    /// Most additional properties; negative: no limit.
    pub properties: i64,
    /// Most tags; negative: no limit.
    pub tags: i64,
    /// Most members; negative: no limit.
    pub members: i64,
    /// Most locations; negative: no limit.
    pub locations: i64,
}

impl Quotas {
    /// Refuses more locations than an image may have.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`].
    pub fn check_locations(&self, count: usize) -> Result<(), Refusal> {
        if Self::exceeded(self.locations, count) {
            return Err(Refusal::TooLarge(format!(
                "The limit has been exceeded on the number of allowed image locations. Attempted: {count}, Maximum: {}",
                self.locations
            )));
        }
        Ok(())
    }

    /// Whether `count` exceeds `quota`, where a negative quota means no limit.
    #[must_use]
    pub fn exceeded(quota: i64, count: usize) -> bool {
        quota >= 0 && i64::try_from(count).unwrap_or(i64::MAX) > quota
    }
}

/// Bytes of a MiB, in which limits on sizes are given.
const MIB: u64 = 1 << 20;

/// What a project uses up, by the names of the limits in Keystone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Bytes of all its images, each copy counted.
    ImageSizeTotal,
    /// Bytes that are staged and not yet imported.
    ImageStageTotal,
    /// Images.
    ImageCountTotal,
    /// Images whose data is arriving.
    ImageCountUploading,
}

impl Resource {
    /// All of them, in the order in which [`ProjectLimits`] keeps them.
    pub const ALL: [Self; 4] =
        [Self::ImageSizeTotal, Self::ImageStageTotal, Self::ImageCountTotal, Self::ImageCountUploading];

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageSizeTotal => "image_size_total",
            Self::ImageStageTotal => "image_stage_total",
            Self::ImageCountTotal => "image_count_total",
            Self::ImageCountUploading => "image_count_uploading",
        }
    }

    /// How much one unit of a limit is: sizes are limited in MiB and counted in bytes.
    #[must_use]
    pub fn unit(self) -> u64 {
        match self {
            Self::ImageSizeTotal | Self::ImageStageTotal => MIB,
            Self::ImageCountTotal | Self::ImageCountUploading => 1,
        }
    }
}

/// What one project may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectLimits {
    /// In bytes or images; `None`: as much as it likes.
    maxima: [Option<u64>; Resource::ALL.len()],
    /// The option or registered limit that bounds the bytes of its images.
    size_name: &'static str,
}

impl ProjectLimits {
    /// Limits as Keystone has them: sizes in MiB; a negative one is no limit.
    #[must_use]
    pub fn unified(limit: impl Fn(Resource) -> i64) -> Self {
        let maximum =
            |resource: Resource| u64::try_from(limit(resource)).ok().map(|n| n.saturating_mul(resource.unit()));
        Self { maxima: Resource::ALL.map(maximum), size_name: Resource::ImageSizeTotal.as_str() }
    }

    /// A limit on the bytes of a project's images alone.
    #[must_use]
    pub fn storage(bytes: u64) -> Self {
        Self { maxima: [Some(bytes), None, None, None], size_name: "user_storage_quota" }
    }

    /// Most of `resource`, in bytes or images; `None`: as much as the project likes.
    #[must_use]
    pub fn maximum(&self, resource: Resource) -> Option<u64> {
        self.maxima[resource as usize]
    }

    /// Refuses what would exceed the limit: `asked` is part of `used`.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] with the project, the limit, what is used and what was asked for.
    pub fn check(&self, project: &str, resource: Resource, used: u64, asked: u64) -> Result<(), Refusal> {
        let Some(maximum) = self.maximum(resource).filter(|maximum| used > *maximum) else { return Ok(()) };
        let (name, unit) = match resource {
            Resource::ImageSizeTotal => (self.size_name, "bytes"),
            Resource::ImageStageTotal => (resource.as_str(), "bytes"),
            Resource::ImageCountTotal => (resource.as_str(), "images"),
            Resource::ImageCountUploading => (resource.as_str(), "images at once"),
        };
        Err(Refusal::TooLarge(format!(
            "Project {project} is over its limit: {name} is {maximum} {unit}, {} are in use or reserved, and {asked} more were asked for.",
            used.saturating_sub(asked)
        )))
    }
}

/// The bytes of a size as Glance's option `user_storage_quota` writes it: `10GB`, with binary units and no blank.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let exponent = match &text[digits.len()..] {
        "" | "B" => 0,
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        "TB" => 40,
        _ => return None,
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(1 << exponent)
}

#[cfg(test)]
mod tests {
    use super::{ProjectLimits, Resource, parse_size};

    #[test]
    fn sizes_are_read_as_glance_reads_them() {
        for (text, bytes) in [("0", 0), ("17", 17), ("17B", 17), ("2KB", 2048), ("1GB", 1 << 30), ("16TB", 1 << 44)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "B", "-1", "+1", "1 GB", "1gb", "1PB", "1.5GB", "99999999TB", "GB1"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn a_limit_holds_to_the_unit() {
        let limits = ProjectLimits::unified(|resource| match resource {
            Resource::ImageSizeTotal => 3,
            Resource::ImageStageTotal => -1,
            Resource::ImageCountTotal => 0,
            Resource::ImageCountUploading => i64::MAX,
        });
        let check = |resource, used| limits.check("p", resource, used, 1);
        assert!(check(Resource::ImageSizeTotal, 3 << 20).is_ok());
        assert!(check(Resource::ImageStageTotal, u64::MAX).is_ok());
        assert!(check(Resource::ImageCountTotal, 0).is_ok());
        assert!(check(Resource::ImageCountUploading, 1 << 62).is_ok());
        let refusal = check(Resource::ImageSizeTotal, (3 << 20) + 1).unwrap_err().to_string();
        for word in ["Project p ", "image_size_total is 3145728 bytes", "3145728 are in use", "and 1 more"] {
            assert!(refusal.contains(word), "{word}: {refusal}");
        }
        assert!(check(Resource::ImageCountTotal, 1).is_err());
        let refusal = ProjectLimits::storage(0).check("p", Resource::ImageSizeTotal, 1, 1).unwrap_err().to_string();
        assert!(refusal.contains("user_storage_quota is 0 bytes"), "{refusal}");
    }
}
