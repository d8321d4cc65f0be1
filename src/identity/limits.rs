//! `[limits]`: how much each project may use, and who says so.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Identity, Unavailable};
use crate::domain::limits::{ProjectLimits, Resource, parse_size};

/// Where unified limits come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// There are none.
    #[default]
    Off,
    /// From this configuration.
    Config,
    /// From Keystone: Glance's `use_keystone_limits`.
    Keystone,
}

/// Limits as Keystone has them: sizes in MiB; negative: no limit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Numbers {
    /// All images, each copy counted, in MiB.
    pub image_size_total: i64,
    /// What is staged and not yet imported, in MiB.
    pub image_stage_total: i64,
    /// Images.
    pub image_count_total: i64,
    /// Images whose data is arriving.
    pub image_count_uploading: i64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { image_size_total: -1, image_stage_total: -1, image_count_total: -1, image_count_uploading: -1 }
    }
}

impl Numbers {
    fn limits(&self) -> ProjectLimits {
        ProjectLimits::unified(|resource| match resource {
            Resource::ImageSizeTotal => self.image_size_total,
            Resource::ImageStageTotal => self.image_stage_total,
            Resource::ImageCountTotal => self.image_count_total,
            Resource::ImageCountUploading => self.image_count_uploading,
        })
    }
}

/// `[limits]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Most bytes of one project's images, each copy counted: `10GB`; `0`: no quota.
    pub user_storage_quota: String,
    /// Where unified limits come from.
    pub source: Source,
    /// Unified limits of projects that are not named.
    pub default: Numbers,
    /// Unified limits of single projects, by id.
    pub projects: BTreeMap<String, Numbers>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user_storage_quota: "0".into(),
            source: Source::default(),
            default: Numbers::default(),
            projects: BTreeMap::new(),
        }
    }
}

/// How much each project may use; one per process.
#[derive(Debug, Clone)]
pub enum Limits {
    /// As much as it likes.
    Off,
    /// `user_storage_quota`: the same number of bytes for each.
    Storage(ProjectLimits),
    /// Unified limits from the configuration.
    Config {
        /// Of projects that are not named.
        default: ProjectLimits,
        /// Of single projects.
        projects: BTreeMap<String, ProjectLimits>,
    },
    /// Unified limits from Keystone.
    Keystone,
}

impl Limits {
    /// Reads the section.
    ///
    /// # Errors
    /// What is wrong with it, in sentences.
    pub fn new(config: &Config) -> Result<Self, Vec<String>> {
        let Some(storage_bytes) = parse_size(&config.user_storage_quota) else {
            return Err(vec![format!(
                "limits.user_storage_quota must be a whole number with B, KB, MB, GB or TB behind it and no blank, such as \"500GB\", not \"{}\"",
                config.user_storage_quota
            )]);
        };
        Ok(match config.source {
            Source::Off if storage_bytes == 0 => Self::Off,
            Source::Off => Self::Storage(ProjectLimits::storage(storage_bytes)),
            Source::Keystone => Self::Keystone,
            Source::Config => Self::Config {
                default: config.default.limits(),
                projects: config.projects.iter().map(|(id, numbers)| (id.clone(), numbers.limits())).collect(),
            },
        })
    }

    /// Whether these are unified limits, which clients may look up.
    #[must_use]
    pub fn unified(&self) -> bool {
        match self {
            Self::Off | Self::Storage(_) => false,
            Self::Config { .. } | Self::Keystone => true,
        }
    }

    /// What `project` may use; `None`: nobody counts. `identity` is who knows of Keystone's limits, and `request_id`
    /// [`super::Caller::request_id`] of whoever wants something.
    ///
    /// # Errors
    /// Keystone does not answer.
    pub async fn of(
        &self,
        project: &str,
        identity: &Identity,
        request_id: Option<&str>,
    ) -> Result<Option<ProjectLimits>, Unavailable> {
        Ok(match self {
            Self::Off => None,
            Self::Storage(limits) => Some(*limits),
            Self::Config { default, projects } => Some(*projects.get(project).unwrap_or(default)),
            Self::Keystone => identity.limits(project, request_id).await?.map(|limits| {
                ProjectLimits::unified(|resource| match resource {
                    Resource::ImageSizeTotal => limits.image_size_total_mib,
                    Resource::ImageStageTotal => limits.image_stage_total_mib,
                    Resource::ImageCountTotal => limits.image_count_total,
                    Resource::ImageCountUploading => limits.image_count_uploading,
                })
            }),
        })
    }
}
