//! `[stores.NAME]` of the kinds that are reached through Apache OpenDAL.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::secret::Secret;
use crate::tls::Trust;

/// Options of `type = "file"`; the counterparts of Glance's `filesystem_store_*`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// Folder that all images are in (`filesystem_store_datadir`). It must be there, and the same on every gateway.
    pub data_dir: PathBuf,
}

/// Options of `type = "s3"`; the counterparts of Glance's `s3_store_*`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// URL of the service (`s3_store_host`).
    pub endpoint: String,
    /// Region that requests are signed for (`s3_store_region_name`).
    #[serde(default = "default_region")]
    pub region: String,
    /// Bucket (`s3_store_bucket`). It must be there.
    pub bucket: String,
    /// Whether the bucket is part of the host's name instead of the path (`s3_store_bucket_url_format`).
    #[serde(default)]
    pub virtual_host_style: bool,
    /// Who we are (`s3_store_access_key`).
    pub access_key_id: String,
    /// The key to it (`s3_store_secret_key`).
    #[serde(default)]
    pub secret_access_key: Option<Secret>,
    /// File that holds that key and nothing else.
    #[serde(default)]
    pub secret_access_key_file: Option<PathBuf>,
    /// Length of the parts of an upload in MiB, unless the image needs longer ones (`s3_store_large_object_chunk_size`).
    #[serde(default = "default_s3_part_size_mib")]
    pub part_size_mib: u64,
    /// PEM file of the authorities that may sign the server's certificate; without it, the system's
    /// (`s3_store_cacert`).
    #[serde(default)]
    pub cafile: Option<PathBuf>,
    /// Longest wait for a connection, in seconds.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: u64,
    /// Longest wait for an answer, in seconds, and for the next bytes of one. Sending data may take longer.
    #[serde(default = "default_op_timeout_s")]
    pub op_timeout_s: u64,
}

/// Options of `type = "swift"`; the counterparts of Glance's `swift_store_*`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwiftConfig {
    /// URL of the account, such as `https://swift.example.org/v1/AUTH_<project>` (`swift_store_endpoint`).
    pub endpoint: String,
    /// Container (`swift_store_container`). It must be there.
    pub container: String,
    /// Where tokens come from (`swift_store_auth_address`): Keystone's URL, or `.../auth/v1.0` without `project_name`.
    pub auth_url: String,
    /// Who we are (`swift_store_user`).
    pub user: String,
    /// The key to it (`swift_store_key`).
    #[serde(default)]
    pub key: Option<Secret>,
    /// File that holds that key and nothing else.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// Project of the account. Without it the first version of Swift's own authentication is spoken.
    #[serde(default)]
    pub project_name: Option<String>,
    /// Domain of `user`.
    #[serde(default = "default_domain")]
    pub user_domain_name: String,
    /// Domain of `project_name`.
    #[serde(default = "default_domain")]
    pub project_domain_name: String,
    /// Length of the segments of an image in MiB, unless it needs longer ones
    /// (`swift_store_large_object_chunk_size`).
    #[serde(default = "default_swift_part_size_mib")]
    pub part_size_mib: u64,
    /// PEM file of the authorities that may sign the servers' certificates; without it, the system's
    /// (`swift_store_cacert`).
    #[serde(default)]
    pub cafile: Option<PathBuf>,
    /// Longest wait for a connection, in seconds.
    #[serde(default = "default_connect_timeout_s")]
    pub connect_timeout_s: u64,
    /// Longest wait for an answer, in seconds, and for the next bytes of one. Sending data may take longer.
    #[serde(default = "default_op_timeout_s")]
    pub op_timeout_s: u64,
}

fn default_region() -> String {
    "us-east-1".into()
}
fn default_domain() -> String {
    "Default".into()
}
fn default_s3_part_size_mib() -> u64 {
    16
}
fn default_swift_part_size_mib() -> u64 {
    64
}
fn default_connect_timeout_s() -> u64 {
    10
}
fn default_op_timeout_s() -> u64 {
    30
}

/// Shortest part that S3 takes, and the longest that this service holds in memory.
const PART_SIZE_MIB: std::ops::RangeInclusive<u64> = 5..=super::PART_MIB_MAX;

impl FileConfig {
    /// Everything that is wrong with the section of store `name`, in sentences.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        let relative = !self.data_dir.is_absolute();
        relative.then(|| format!("stores.{name}.data_dir must be an absolute path")).into_iter().collect()
    }
}

impl S3Config {
    /// Everything that is wrong with the section of store `name`, in sentences; looks at files.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = of_server(name, &[("endpoint", &self.endpoint)], self.cafile.as_deref());
        problems.extend(of_lengths(name, self.part_size_mib, self.connect_timeout_s, self.op_timeout_s));
        problems.extend(self.secret().err().map(|problem| format!("stores.{name}.secret_access_key{problem}")));
        problems.extend(empty(name, &[("bucket", &self.bucket), ("access_key_id", &self.access_key_id)]));
        problems
    }

    pub(super) fn secret(&self) -> Result<Secret, String> {
        secret(self.secret_access_key.as_ref(), self.secret_access_key_file.as_deref())
    }

    pub(super) fn timeouts(&self) -> (Duration, Duration) {
        (Duration::from_secs(self.connect_timeout_s), Duration::from_secs(self.op_timeout_s))
    }
}

impl SwiftConfig {
    /// Everything that is wrong with the section of store `name`, in sentences; looks at files.
    #[must_use]
    pub fn problems(&self, name: &str) -> Vec<String> {
        let urls = [("endpoint", &self.endpoint), ("auth_url", &self.auth_url)];
        let mut problems = of_server(name, &urls, self.cafile.as_deref());
        problems.extend(of_lengths(name, self.part_size_mib, self.connect_timeout_s, self.op_timeout_s));
        problems.extend(self.secret().err().map(|problem| format!("stores.{name}.key{problem}")));
        problems.extend(empty(name, &[("container", &self.container), ("user", &self.user)]));
        problems
    }

    pub(super) fn secret(&self) -> Result<Secret, String> {
        secret(self.key.as_ref(), self.key_file.as_deref())
    }

    pub(super) fn timeouts(&self) -> (Duration, Duration) {
        (Duration::from_secs(self.connect_timeout_s), Duration::from_secs(self.op_timeout_s))
    }
}

/// Whom to believe.
pub(super) fn trust<'p>(cafile: Option<&'p Path>, urls: &[&str]) -> Trust<'p> {
    match cafile {
        Some(file) => Trust::Authorities(file),
        None if urls.iter().any(|url| url.starts_with("https:")) => Trust::System,
        // Nothing is encrypted, so no authority is needed.
        None => Trust::Anybody,
    }
}

/// The secret, which stands in the section or in a file. A problem continues the name of the option.
fn secret(here: Option<&Secret>, file: Option<&Path>) -> Result<Secret, String> {
    match (here, file) {
        (Some(secret), None) => Ok(secret.clone()),
        (None, Some(path)) => Secret::from_file(path).map_err(|problem| format!("_file {problem}")),
        (Some(_), Some(_)) => Err(" and the file of it cannot both be set".into()),
        (None, None) => Err(" is missing, or the file of it".into()),
    }
}

fn of_server(name: &str, urls: &[(&str, &String)], cafile: Option<&Path>) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, url) in urls {
        let plain = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        // Not repeated: somebody may have put a password into it.
        if plain.is_none_or(|rest| rest.is_empty() || rest.contains(['@', '?', '#'])) {
            problems.push(format!(
                "stores.{name}.{key} must be a URL such as https://objects.example.org, without a password"
            ));
        }
    }
    if let Some(file) = cafile
        && let Err(problem) = crate::tls::client(Trust::Authorities(file))
    {
        problems.push(format!("stores.{name}.cafile {problem}"));
    }
    problems
}

fn of_lengths(name: &str, part_size_mib: u64, connect_timeout_s: u64, op_timeout_s: u64) -> Vec<String> {
    let mut problems = Vec::new();
    if !PART_SIZE_MIB.contains(&part_size_mib) {
        problems.push(format!(
            "stores.{name}.part_size_mib must be from {} to {}, not {part_size_mib}",
            PART_SIZE_MIB.start(),
            PART_SIZE_MIB.end()
        ));
    }
    for (key, seconds) in [("connect_timeout_s", connect_timeout_s), ("op_timeout_s", op_timeout_s)] {
        if seconds == 0 {
            problems.push(format!("stores.{name}.{key} must be at least 1: 0 would mean to wait for ever"));
        }
    }
    problems
}

fn empty(name: &str, texts: &[(&str, &String)]) -> Vec<String> {
    let empty = texts.iter().filter(|(_, text)| text.is_empty());
    empty.map(|(key, _)| format!("stores.{name}.{key} must not be empty")).collect()
}
