//! `rockpool.toml`: composes the sections that the layers own. `rockpool.example.toml` documents every
//! option; a test keeps it complete.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::api::Certificate;
use crate::domain::content::HashAlgorithm;
use crate::domain::custom::CustomProperties;
use crate::domain::image::{Field, Formats, classify};
use crate::domain::import::Method;
use crate::domain::limits::Quotas;
use crate::domain::query::PageSizes;
use crate::fetch::Fetcher;
use crate::format::inspect;
use crate::identity::limits::{Limits, Source};
use crate::identity::local::Local;
use crate::identity::protection::{Protections, RuleFormat};
use crate::identity::{Identity, Mode, Policy, keystone, policy};
use crate::service::{ConvertOnUpload, Plugin};
use crate::store::{Common, Kind, Specific};
use crate::{api, catalog, fetch, identity, service, store};

/// Environment variables that override secrets, and what they override: a section and an option.
const ENVIRONMENT: [(&str, &str, &str); 4] = [
    ("ROCKPOOL_CATALOG_URL", "catalog", "url"),
    ("ROCKPOOL_CATALOG_PASSWORD", "catalog", "password"),
    ("ROCKPOOL_KEYSTONE_PASSWORD", "identity.keystone", "password"),
    ("ROCKPOOL_KEYSTONE_APPLICATION_CREDENTIAL_SECRET", "identity.keystone", "application_credential_secret"),
];
/// Shortest lease: several renewals must fit into it.
const LEASE_MIN_S: u64 = 3;

/// `[server]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Certificate of that address, with its chain, in PEM; without, it speaks plain HTTP.
    pub tls_certificate_file: Option<PathBuf>,
    /// Key of the certificate.
    pub tls_key_file: Option<PathBuf>,
    /// Base URL that clients reach the service by.
    pub public_endpoint: Option<String>,
    /// Addresses and networks of the proxies in front whose word about their clients is believed.
    pub trusted_proxies: Vec<String>,
    /// Longest time for a request head, in seconds; also how long an idle connection stays open.
    pub header_timeout_s: u64,
    /// Longest pause between two frames of a body, in seconds, in either direction.
    pub body_idle_timeout_s: u64,
    /// Largest request head, in bytes.
    pub header_bytes_max: usize,
    /// Most open connections.
    pub connections_max: usize,
    /// Most uploads and downloads at once.
    pub transfers_max: usize,
    /// Longest wait for running transfers after SIGTERM, in seconds.
    pub drain_timeout_s: u64,
    /// While this file exists, `/healthcheck` says 503.
    pub healthcheck_disable_path: Option<PathBuf>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9292)),
            tls_certificate_file: None,
            tls_key_file: None,
            public_endpoint: None,
            trusted_proxies: Vec::new(),
            header_timeout_s: 15,
            body_idle_timeout_s: 60,
            header_bytes_max: 64 * 1024,
            connections_max: 4096,
            transfers_max: 64,
            drain_timeout_s: 120,
            healthcheck_disable_path: Some(PathBuf::from("/etc/rockpool/healthcheck_disable")),
        }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object per line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Form.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`, `trace`, or filters by module.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// `[metrics]`: what Prometheus is told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Whether `/metrics` is served.
    pub enabled: bool,
    /// Address and port of `/metrics`; without, it is beside the Image API.
    pub listen: Option<SocketAddr>,
    /// How old what is not counted, but asked for, may be, in seconds.
    pub gather_interval_s: u64,
    /// Whether the names of the public OpenStack exporter are served, too.
    pub openstack_exporter_names: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { enabled: true, listen: None, gather_interval_s: 30, openstack_exporter_names: false }
    }
}

/// `[images]`: what images may be, and how they are shown.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// Store for uploads that name none; needed with several stores.
    pub default_store: Option<String>,
    /// Algorithm of `os_hash_value`: `sha512`, `sha384`, `sha256`, `sha1`, or `none`.
    pub hashing_algorithm: String,
    /// Whether to compute the MD5 `checksum`.
    pub checksum: bool,
    /// Largest image, in bytes.
    pub image_size_cap_bytes: u64,
    /// Values of `disk_format`.
    pub disk_formats: Vec<String>,
    /// Values of `container_format`.
    pub container_formats: Vec<String>,
    /// Most additional properties of an image; negative: no limit.
    pub image_property_quota: i64,
    /// Most tags of an image; negative: no limit.
    pub image_tag_quota: i64,
    /// Additional properties that are more than any text, as in Glance's `schema-image.json`.
    pub image_schema_file: Option<PathBuf>,
    /// Most members of an image; negative: no limit.
    pub image_member_quota: i64,
    /// File that says who may see and change which additional properties, as Glance has it.
    pub property_protection_file: Option<PathBuf>,
    /// What stands in that file behind each operation.
    pub property_protection_rule_format: RuleFormat,
    /// Most locations of an image; negative: no limit.
    pub image_location_quota: i64,
    /// Page size without `limit`.
    pub limit_param_default: usize,
    /// Largest page.
    pub api_limit_max: usize,
    /// Whether images show `direct_url`, which Nova and Cinder clone from.
    pub show_image_direct_url: bool,
    /// Whether images show `locations`.
    pub show_multiple_locations: bool,
    /// Whether bytes that others register by the locations call are read and hashed here.
    pub do_secure_hash: bool,
    /// Most MiB that one such job reads in a second while nobody waits for it; 0: no limit.
    pub secure_hash_rate_mib_s: u64,
    /// Blocks of `chunk_size_mib` that one upload holds in memory at most.
    pub upload_blocks_in_flight: usize,
    /// Whether uploads to RBD stores become raw: `never`, `on-request` or `always`.
    pub convert_on_upload: ConvertOnUpload,
}

impl Default for Images {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            default_store: None,
            hashing_algorithm: "sha512".into(),
            checksum: true,
            image_size_cap_bytes: 1 << 40,
            disk_formats: names(&["ami", "ari", "aki", "vhd", "vhdx", "vmdk", "raw", "qcow2", "vdi", "iso", "ploop"]),
            container_formats: names(&["ami", "ari", "aki", "bare", "ovf", "ova", "docker", "compressed"]),
            image_property_quota: 128,
            image_tag_quota: 128,
            image_schema_file: None,
            image_member_quota: 128,
            property_protection_file: None,
            property_protection_rule_format: RuleFormat::Roles,
            image_location_quota: 10,
            limit_param_default: 25,
            api_limit_max: 1000,
            show_image_direct_url: true,
            show_multiple_locations: false,
            do_secure_hash: true,
            secure_hash_rate_mib_s: 200,
            upload_blocks_in_flight: 3,
            convert_on_upload: ConvertOnUpload::OnRequest,
        }
    }
}

/// `[jobs]`: work that survives its gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Jobs {
    /// How long a gateway may stay silent before others take over its uploads, in seconds.
    pub lease_s: u64,
    /// How often each gateway looks for such jobs, in seconds.
    pub poll_interval_s: u64,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { lease_s: 15, poll_interval_s: 5 }
    }
}

/// `[tasks]`: what administrators see of work that a client does not wait for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tasks {
    /// How long a task is shown after its end, in hours.
    pub time_to_live_h: u32,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { time_to_live_h: 48 }
    }
}

/// `[import]`: data that a client does not send by `PUT .../file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Import {
    /// Methods that are offered.
    pub methods: Vec<String>,
    /// How long staged data waits to be imported, in hours.
    pub staging_time_h: u32,
    /// What is done to imported data.
    pub plugins: Vec<String>,
    /// Properties of every imported image.
    pub inject: BTreeMap<String, String>,
    /// Who has one of these roles gets images without them.
    pub inject_ignore_user_roles: Vec<String>,
    /// Most bytes that one packed byte may stand for.
    pub decompression_ratio_max: u64,
}

impl Default for Import {
    fn default() -> Self {
        Self {
            methods: Method::ALL.map(|method| method.as_str().to_owned()).into(),
            staging_time_h: 24,
            plugins: Plugin::ALL.map(|plugin| plugin.as_str().to_owned()).into(),
            inject: BTreeMap::new(),
            inject_ignore_user_roles: vec!["admin".into()],
            decompression_ratio_max: 1000,
        }
    }
}

/// The whole configuration, checked.
#[derive(Clone)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// What is in `server.tls_certificate_file` and `server.tls_key_file`.
    pub certificate: Option<Arc<Certificate>>,
    /// `[log]`
    pub log: Log,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[catalog]`
    pub catalog: catalog::Config,
    /// `[stores.NAME]`
    pub stores: BTreeMap<String, store::Config>,
    /// `[images]`
    pub images: Images,
    /// `[inspection]`
    pub inspection: Arc<inspect::Rules>,
    /// `[jobs]`
    pub jobs: Jobs,
    /// `[tasks]`
    pub tasks: Tasks,
    /// `[fetch]`, ready for use.
    pub fetch: Arc<Fetcher>,
    /// `[import]`
    pub import: Import,
    /// `[flood]`
    pub flood: api::flood::Config,
    /// `[cors]`
    pub cors: api::cors::Config,
    /// `[identity]`
    pub identity: Arc<Identity>,
    /// `[limits]`
    pub limits: Limits,
    /// `[policy]`, with the rules that its files have.
    pub policy: Arc<Policy>,
    /// What is in `images.property_protection_file`.
    pub protections: Option<Arc<Protections>>,
    /// Algorithm that `images.hashing_algorithm` names.
    pub hashing_algorithm: Option<HashAlgorithm>,
    /// Store that `images.default_store` names, or the only one.
    pub default_store: String,
    /// Additional properties that `images.image_schema_file` describes, or Glance's usual ones.
    pub custom_properties: CustomProperties,
}

impl Config {
    /// Reads and checks the file at `path`, with secrets from `environment` where it has them.
    ///
    /// # Errors
    /// Everything that is wrong with it, a sentence each.
    pub fn load(path: &Path, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let text =
            std::fs::read_to_string(path).map_err(|e| vec![format!("{} cannot be read: {e}", path.display())])?;
        Self::parse(&text, environment)
    }

    fn parse(text: &str, environment: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut document: Table =
            text.parse().map_err(|e: toml::de::Error| vec![format!("the file is not TOML: {}", e.message())])?;
        let mut problems = Vec::new();
        for (variable, section, key) in ENVIRONMENT {
            let table = section.split('.').try_fold(&mut document, |table, name| table.get_mut(name)?.as_table_mut());
            if let Some(table) = table
                && let Some(value) = environment(variable)
            {
                table.insert(key.into(), Value::String(value));
                table.remove(&format!("{key}_file"));
            }
        }
        let server: Option<Server> = section(&mut document, "server", true, &mut problems);
        let log: Option<Log> = section(&mut document, "log", true, &mut problems);
        let metrics: Option<Metrics> = section(&mut document, "metrics", true, &mut problems);
        let catalog: Option<catalog::Config> = section(&mut document, "catalog", false, &mut problems);
        let images: Option<Images> = section(&mut document, "images", true, &mut problems);
        let inspection: Option<inspect::Rules> = section(&mut document, "inspection", true, &mut problems);
        let jobs: Option<Jobs> = section(&mut document, "jobs", true, &mut problems);
        let tasks: Option<Tasks> = section(&mut document, "tasks", true, &mut problems);
        let fetch: Option<fetch::Config> = section(&mut document, "fetch", true, &mut problems);
        let import: Option<Import> = section(&mut document, "import", true, &mut problems);
        let flood: Option<api::flood::Config> = section(&mut document, "flood", true, &mut problems);
        let cors: Option<api::cors::Config> = section(&mut document, "cors", true, &mut problems);
        let identity = identity(&mut document, &mut problems);
        let limits: Option<identity::limits::Config> = section(&mut document, "limits", true, &mut problems);
        let policy = policy(&mut document, &mut problems);
        let stores = stores(&mut document, &mut problems);
        for name in document.keys() {
            problems.push(format!(
                "unknown section [{name}]; known: server, log, metrics, catalog, stores.NAME, images, inspection, jobs, tasks, import, fetch, flood, cors, identity, limits, policy"
            ));
        }
        if let Some(catalog) = &catalog {
            problems.extend(catalog.problems());
        }
        problems.extend(stores.values().flat_map(store::Config::problems));
        if limits.as_ref().is_some_and(|limits| limits.source == Source::Keystone)
            && identity.as_ref().is_some_and(|identity| matches!(**identity, Identity::Local(_)))
        {
            problems.push("limits.source is \"keystone\", but identity.mode is \"local\"".into());
        }
        let limits = limits.and_then(|config| Limits::new(&config).map_err(|found| problems.extend(found)).ok());
        let mut certificate = None;
        if let Some(server) = &server {
            problems.extend(server_problems(server));
            certificate = read_certificate(server).map_err(|problem| problems.push(problem)).ok().flatten();
        }
        if let Some(log) = &log
            && let Err(error) = tracing_subscriber::EnvFilter::try_new(&log.level)
        {
            problems.push(format!("log.level \"{}\" cannot be read: {error}", log.level));
        }
        if let Some(metrics) = &metrics {
            problems.extend(at_least_one("metrics", &[("gather_interval_s", metrics.gather_interval_s)]));
            if metrics.listen.is_some() && metrics.listen == server.as_ref().map(|server| server.listen) {
                problems.push("metrics.listen is server.listen: leave it out to have /metrics there".into());
            }
        }
        if let Some(inspection) = &inspection {
            problems.extend(inspection.problems());
        }
        if let Some(jobs) = &jobs {
            problems.extend(jobs_problems(jobs));
        }
        if let Some(tasks) = &tasks {
            problems.extend(at_least_one("tasks", &[("time_to_live_h", tasks.time_to_live_h.into())]));
        }
        let fetch = fetch.and_then(|config| Fetcher::new(&config).map_err(|found| problems.extend(found)).ok());
        if let Some(import) = &import {
            problems.extend(import_problems(import));
        }
        if let Some(flood) = &flood {
            for text in flood.exempt_addresses.iter().filter(|text| network(text).is_none()) {
                problems.push(format!(
                    "flood.exempt_addresses must be addresses or networks such as 10.0.0.0/8, not \"{text}\""
                ));
            }
        }
        if let Some(cors) = &cors {
            problems.extend(cors.problems());
        }
        let mut hashing_algorithm = None;
        let mut protections = None;
        let mut default_store = None;
        let mut custom_properties = CustomProperties::usual();
        if let Some(images) = &images {
            problems.extend(images_problems(images));
            hashing_algorithm = HashAlgorithm::parse(&images.hashing_algorithm);
            default_store = choose_default_store(images, &stores, &mut problems);
            if let (Some(path), Some(policy)) = (&images.property_protection_file, &policy) {
                match Protections::load(path, images.property_protection_rule_format, policy) {
                    Ok(found) => protections = Some(Arc::new(found)),
                    Err(found) => problems.extend(found),
                }
            }
            if let Some(path) = &images.image_schema_file {
                match read_custom_properties(path) {
                    Ok(found) => custom_properties = found,
                    Err(found) => problems.extend(found),
                }
            }
        }
        match (
            server,
            log,
            metrics,
            catalog,
            images,
            inspection,
            jobs,
            tasks,
            fetch,
            import,
            flood,
            cors,
            identity,
            limits,
            policy,
            default_store,
        ) {
            (
                Some(server),
                Some(log),
                Some(metrics),
                Some(catalog),
                Some(images),
                Some(inspection),
                Some(jobs),
                Some(tasks),
                Some(fetch),
                Some(import),
                Some(flood),
                Some(cors),
                Some(identity),
                Some(limits),
                Some(policy),
                Some(default_store),
            ) if problems.is_empty() => Ok(Self {
                server,
                certificate,
                log,
                metrics,
                catalog,
                stores,
                images,
                inspection: Arc::new(inspection),
                jobs,
                tasks,
                fetch: Arc::new(fetch),
                import,
                flood,
                cors,
                identity,
                limits,
                policy,
                protections,
                hashing_algorithm,
                default_store,
                custom_properties,
            }),
            _ => Err(problems),
        }
    }

    /// What the services need.
    #[must_use]
    pub fn service(&self, gateway: String) -> service::Settings {
        let images = &self.images;
        service::Settings {
            gateway,
            formats: self.formats(),
            quotas: Quotas {
                properties: images.image_property_quota,
                tags: images.image_tag_quota,
                members: images.image_member_quota,
                locations: images.image_location_quota,
            },
            protections: self.protections.clone(),
            page_sizes: PageSizes { default: images.limit_param_default, max: images.api_limit_max },
            image_size_cap_bytes: images.image_size_cap_bytes,
            checksum: images.checksum,
            hashing_algorithm: self.hashing_algorithm,
            show_multiple_locations: images.show_multiple_locations,
            do_secure_hash: images.do_secure_hash,
            secure_hash_rate_bytes: images.secure_hash_rate_mib_s.saturating_mul(1024 * 1024),
            upload_blocks_in_flight: images.upload_blocks_in_flight,
            inspection: Arc::clone(&self.inspection),
            lease: Duration::from_secs(self.jobs.lease_s),
            client_idle_timeout: Duration::from_secs(self.server.body_idle_timeout_s),
            transfers_max: self.server.transfers_max,
            task_time_to_live: Duration::from_secs(3600 * u64::from(self.tasks.time_to_live_h)),
            convert_on_upload: images.convert_on_upload,
            import: service::ImportSettings {
                methods: self.import.methods.iter().filter_map(|name| Method::parse(name)).collect(),
                staging_time: Duration::from_secs(3600 * u64::from(self.import.staging_time_h)),
                plugins: self.import.plugins.iter().filter_map(|name| Plugin::parse(name)).collect(),
                inject: self.import.inject.clone(),
                inject_ignored_roles: self.import.inject_ignore_user_roles.clone(),
                decompression_ratio_max: self.import.decompression_ratio_max,
            },
            event_retention_days: self.catalog.event_retention_days,
            openstack_exporter_names: self.metrics.enabled && self.metrics.openstack_exporter_names,
        }
    }

    fn formats(&self) -> Formats {
        Formats {
            disk: self.images.disk_formats.clone(),
            container: self.images.container_formats.clone(),
            properties: self.custom_properties.clone(),
        }
    }

    /// What each address and project may take.
    #[must_use]
    pub fn flood(&self) -> api::flood::Flood {
        let exempt = self.flood.exempt_addresses.iter().filter_map(|text| network(text)).collect();
        api::flood::Flood::new(&self.flood, exempt)
    }

    /// What the API needs.
    #[must_use]
    pub fn api(&self) -> api::Settings {
        let server = &self.server;
        api::Settings {
            public_endpoint: server.public_endpoint.clone(),
            cors: self.cors.clone(),
            trusted_proxies: server.trusted_proxies.iter().filter_map(|text| network(text)).collect(),
            show_image_direct_url: self.images.show_image_direct_url,
            show_multiple_locations: self.images.show_multiple_locations,
            store_weights: self.stores.iter().map(|(name, store)| (name.clone(), store.common.weight)).collect(),
            formats: self.formats(),
            body_idle_timeout: Duration::from_secs(server.body_idle_timeout_s),
            header_timeout: Duration::from_secs(server.header_timeout_s),
            header_bytes_max: server.header_bytes_max,
            connections_max: server.connections_max,
            healthcheck_disable_path: server.healthcheck_disable_path.clone(),
            certificate: self.certificate.clone(),
            metrics: self.metrics.enabled && self.metrics.listen.is_none(),
        }
    }
}

/// Takes a section out of the document. Every key that cannot be used is reported, not the first alone.
fn section<T: DeserializeOwned>(
    document: &mut Table,
    name: &str,
    optional: bool,
    problems: &mut Vec<String>,
) -> Option<T> {
    match document.remove(name) {
        None if optional => read(Table::new(), name, problems),
        None => {
            problems.push(format!("the section [{name}] is missing"));
            None
        }
        Some(Value::Table(table)) => read(table, name, problems),
        Some(_) => {
            problems.push(format!("{name} must be a section: [{name}]"));
            None
        }
    }
}

fn read<T: DeserializeOwned>(mut table: Table, name: &str, problems: &mut Vec<String>) -> Option<T> {
    let before = problems.len();
    loop {
        match T::deserialize(table.clone()) {
            // Usable as far as it goes: its values are checked, too, before all is refused.
            Ok(value) => return Some(value),
            Err(error) => {
                // Without the offending key the others can be looked at.
                let text = error.to_string();
                let text = text.trim();
                let quoted = |after: &str| {
                    text.split_once(after).and_then(|(_, rest)| rest.split('`').next()).map(str::to_owned)
                };
                // What is wrong deeper down goes with the whole of what it is in.
                let culprit = quoted("in `")
                    .map(|path| path.split(['.', '[']).next().unwrap_or_default().to_owned())
                    .or_else(|| quoted("unknown field `"));
                let missing_by_us = text.starts_with("missing field") && problems.len() > before;
                if !missing_by_us {
                    problems.push(format!("[{name}]: {}", text.replace('\n', " ")));
                }
                if culprit.is_none_or(|key| table.remove(&key).is_none()) {
                    return None;
                }
            }
        }
    }
}

fn stores(document: &mut Table, problems: &mut Vec<String>) -> BTreeMap<String, store::Config> {
    let mut stores = BTreeMap::new();
    match document.remove("stores") {
        Some(Value::Table(tables)) => {
            for (name, table) in tables {
                match table {
                    // Nova looks for a store's name by substring in a comma list.
                    _ if name.is_empty() || name.contains([',', ' ']) || name.starts_with("os_glance") => {
                        problems.push(format!("stores.\"{name}\": a store's name has no comma and no blank, and does not begin with os_glance"));
                    }
                    Value::Table(table) => {
                        if let Some(store) = store(&name, table, problems) {
                            stores.insert(name, store);
                        }
                    }
                    _ => problems.push(format!("stores.{name} must be a section: [stores.{name}]")),
                }
            }
        }
        Some(_) => problems.push("stores must be sections: [stores.NAME]".into()),
        None => problems.push("there is no store: add a section [stores.NAME]".into()),
    }
    stores
}

/// One store: what every one has, then what its kind needs.
fn store(name: &str, mut table: Table, problems: &mut Vec<String>) -> Option<store::Config> {
    let section = format!("stores.{name}");
    let common = Common::OPTIONS.into_iter().filter_map(|key| table.remove_entry(key)).collect();
    let mut common = Common { name: name.to_owned(), ..read(common, &section, problems)? };
    common.read_only |= common.kind == Kind::Http;
    let specific = match common.kind {
        Kind::Rbd => Specific::Rbd(read(table, &section, problems)?),
        Kind::File => Specific::File(read(table, &section, problems)?),
        Kind::S3 => Specific::S3(read(table, &section, problems)?),
        Kind::Swift => Specific::Swift(read(table, &section, problems)?),
        Kind::Http => Specific::Http(read(table, &section, problems)?),
    };
    Some(store::Config { common, specific })
}

fn identity(document: &mut Table, problems: &mut Vec<String>) -> Option<Arc<Identity>> {
    let section_of_keystone = match document.get_mut("identity") {
        Some(Value::Table(table)) => table.remove("keystone"),
        _ => None,
    };
    let config: identity::Config = section(document, "identity", false, problems)?;
    let identity = match (config.mode, section_of_keystone) {
        (Mode::Local, None) => Local::new(&config).map(Identity::Local),
        (Mode::Local, Some(_)) => Err(vec!["[identity.keystone] is there, but identity.mode is \"local\"".into()]),
        (Mode::Keystone, Some(Value::Table(table))) => {
            let config: keystone::Config = read(table, "identity.keystone", problems)?;
            keystone::Keystone::new(&config).map(|keystone| Identity::Keystone(Box::new(keystone)))
        }
        (Mode::Keystone, _) => {
            Err(vec!["identity.mode is \"keystone\", but the section [identity.keystone] is missing".into()])
        }
    };
    identity.map(Arc::new).map_err(|found| problems.extend(found)).ok()
}

fn policy(document: &mut Table, problems: &mut Vec<String>) -> Option<Arc<Policy>> {
    let config: policy::Config = section(document, "policy", true, problems)?;
    problems.extend(at_least_one(
        "policy",
        &[("reload_interval_s", config.reload_interval_s), ("remote_timeout_s", config.remote_timeout_s)],
    ));
    Policy::load(config).map(Arc::new).map_err(|found| problems.extend(found)).ok()
}

fn choose_default_store(
    images: &Images,
    stores: &BTreeMap<String, store::Config>,
    problems: &mut Vec<String>,
) -> Option<String> {
    let chosen = match &images.default_store {
        Some(name) if stores.contains_key(name) => Some(name),
        Some(name) => {
            problems.push(format!("images.default_store: there is no section [stores.{name}]"));
            None
        }
        None if stores.len() > 1 => {
            problems.push("images.default_store must name one of the stores when there are several".into());
            None
        }
        None => stores.keys().next(),
    };
    if let Some(name) = chosen
        && stores.get(name).is_some_and(|store| store.common.read_only)
    {
        problems.push(format!("the default store takes uploads: stores.{name} cannot be read_only, or of type http"));
    }
    chosen.cloned()
}

fn read_custom_properties(path: &Path) -> Result<CustomProperties, Vec<String>> {
    let name = format!("images.image_schema_file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| vec![format!("{name} cannot be read: {e}")])?;
    CustomProperties::parse(&text)
        .map_err(|problems| problems.into_iter().map(|problem| format!("{name}: {problem}")).collect())
}

fn read_certificate(server: &Server) -> Result<Option<Arc<Certificate>>, String> {
    match (&server.tls_certificate_file, &server.tls_key_file) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => Certificate::load(certificate, key).map(Arc::new).map(Some),
        (Some(_), None) => Err("server.tls_certificate_file is set, but server.tls_key_file is not".into()),
        (None, Some(_)) => Err("server.tls_key_file is set, but server.tls_certificate_file is not".into()),
    }
}

/// A network, or the one of a single address.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn server_problems(server: &Server) -> Vec<String> {
    let mut problems = at_least_one(
        "server",
        &[
            ("header_timeout_s", server.header_timeout_s),
            ("body_idle_timeout_s", server.body_idle_timeout_s),
            ("connections_max", server.connections_max as u64),
            ("transfers_max", server.transfers_max as u64),
        ],
    );
    if server.header_bytes_max < 8192 {
        problems.push("server.header_bytes_max must be at least 8192".into());
    }
    for text in server.trusted_proxies.iter().filter(|text| network(text).is_none()) {
        problems
            .push(format!("server.trusted_proxies must be addresses or networks such as 10.0.0.0/8, not \"{text}\""));
    }
    if let Some(endpoint) = &server.public_endpoint
        && !(endpoint.starts_with("http://") || endpoint.starts_with("https://"))
    {
        problems.push(format!(
            "server.public_endpoint must be a URL such as https://image.example.org, not \"{endpoint}\""
        ));
    }
    problems
}

fn images_problems(images: &Images) -> Vec<String> {
    let mut problems = at_least_one(
        "images",
        &[
            ("image_size_cap_bytes", images.image_size_cap_bytes),
            ("limit_param_default", images.limit_param_default as u64),
            ("api_limit_max", images.api_limit_max as u64),
            ("upload_blocks_in_flight", images.upload_blocks_in_flight as u64),
        ],
    );
    if images.hashing_algorithm != "none" && HashAlgorithm::parse(&images.hashing_algorithm).is_none() {
        let names = HashAlgorithm::ALL.map(HashAlgorithm::as_str).join(", ");
        problems.push(format!(
            "images.hashing_algorithm must be one of {names}, none, not \"{}\"",
            images.hashing_algorithm
        ));
    }
    problems
}

fn import_problems(import: &Import) -> Vec<String> {
    let mut problems = at_least_one(
        "import",
        &[
            ("staging_time_h", import.staging_time_h.into()),
            ("decompression_ratio_max", import.decompression_ratio_max),
        ],
    );
    for name in import.plugins.iter().filter(|name| Plugin::parse(name).is_none()) {
        let known = Plugin::ALL.map(Plugin::as_str).join(", ");
        problems.push(format!("import.plugins: there is no plugin \"{name}\"; known: {known}"));
    }
    let place = |plugin: Plugin| import.plugins.iter().position(|name| name == plugin.as_str());
    if let (Some(decompression), Some(conversion)) = (place(Plugin::Decompression), place(Plugin::Conversion))
        && conversion < decompression
    {
        problems.push(
            "import.plugins: \"conversion\" must come after \"decompression\": what is packed cannot be converted"
                .into(),
        );
    }
    for name in import.inject.keys().filter(|name| !matches!(classify(name), Field::Property)) {
        problems.push(format!("import.inject: \"{name}\" is no additional property"));
    }
    for name in import.methods.iter().filter(|name| Method::parse(name).is_none()) {
        let known = Method::ALL.map(Method::as_str).join(", ");
        problems.push(format!("import.methods: there is no method \"{name}\"; known: {known}"));
    }
    problems
}

fn jobs_problems(jobs: &Jobs) -> Vec<String> {
    let mut problems = at_least_one("jobs", &[("poll_interval_s", jobs.poll_interval_s)]);
    if jobs.lease_s < LEASE_MIN_S {
        problems.push(format!("jobs.lease_s must be at least {LEASE_MIN_S}: a lease must outlive a few renewals"));
    }
    problems
}

fn at_least_one(section: &str, values: &[(&str, u64)]) -> Vec<String> {
    values
        .iter()
        .filter(|(_, value)| *value == 0)
        .map(|(key, _)| format!("{section}.{key} must be at least 1"))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;
    use toml::{Table, Value};

    use super::{Config, Images, Jobs, Log, Metrics, Server, Tasks};
    use crate::{api, catalog, fetch, identity, store};

    const EXAMPLE: &str = include_str!("../rockpool.example.toml");

    fn problems(text: &str) -> Vec<String> {
        match Config::parse(text, |_| None) {
            Ok(_) => Vec::new(),
            Err(problems) => problems,
        }
    }

    /// Names of the fields that a section takes, as its deserializer lists them.
    fn fields<T: DeserializeOwned>() -> BTreeSet<String> {
        let table = Table::from_iter([("?".to_owned(), Value::Boolean(true))]);
        let Err(error) = T::deserialize(table) else { panic!("the section takes any key") };
        let text = error.to_string();
        let (_, list) = text.split_once("expected").unwrap_or_else(|| panic!("{text}"));
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn the_example_documents_every_option() {
        // Every option is there, active or as "#name = value".
        let text: String = EXAMPLE
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|rest| !rest.starts_with(' ') && !rest.is_empty()).unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let document: Table = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
        let keys = |path: &[&str]| {
            let table = path.iter().fold(&document, |table, name| match &table[*name] {
                Value::Table(inner) => inner,
                Value::Array(list) => list[0].as_table().unwrap(),
                _ => panic!("{name}"),
            });
            table.keys().cloned().collect::<BTreeSet<_>>()
        };
        assert_eq!(keys(&["server"]), fields::<Server>());
        assert_eq!(keys(&["log"]), fields::<Log>());
        assert_eq!(keys(&["metrics"]), fields::<Metrics>());
        assert_eq!(keys(&["catalog"]), fields::<catalog::Config>());
        let common = fields::<store::Common>();
        assert_eq!(common, store::Common::OPTIONS.map(str::to_owned).into());
        assert_eq!(keys(&["stores", "ceph"]), &common | &fields::<store::rbd::Config>());
        // What every store has is documented with the first.
        let type_of = BTreeSet::from(["type".to_owned()]);
        assert_eq!(keys(&["stores", "folder"]), &type_of | &fields::<store::object::FileConfig>());
        assert_eq!(keys(&["stores", "bucket"]), &type_of | &fields::<store::object::S3Config>());
        assert_eq!(keys(&["stores", "container"]), &type_of | &fields::<store::object::SwiftConfig>());
        assert_eq!(keys(&["images"]), fields::<Images>());
        assert_eq!(keys(&["import"]), fields::<super::Import>());
        assert_eq!(keys(&["jobs"]), fields::<Jobs>());
        assert_eq!(keys(&["tasks"]), fields::<Tasks>());
        assert_eq!(keys(&["fetch"]), fields::<fetch::Config>());
        assert_eq!(keys(&["flood"]), fields::<api::flood::Config>());
        assert_eq!(keys(&["cors"]), fields::<api::cors::Config>());
        let mut sections = fields::<identity::Config>();
        sections.insert("keystone".into());
        assert_eq!(keys(&["identity"]), sections);
        assert_eq!(keys(&["identity", "keystone"]), fields::<identity::keystone::Config>());
        assert_eq!(keys(&["limits"]), fields::<identity::limits::Config>());
        assert_eq!(keys(&["limits", "default"]), fields::<identity::limits::Numbers>());
        assert_eq!(keys(&["identity", "users"]), fields::<identity::local::User>());
        assert_eq!(keys(&["identity", "projects"]), fields::<identity::local::Project>());
        assert_eq!(keys(&["identity", "tokens"]), fields::<identity::local::Token>());
        assert_eq!(keys(&["policy"]), fields::<identity::policy::Config>());
    }

    #[test]
    fn the_example_is_valid_but_for_its_files() {
        for problem in problems(EXAMPLE) {
            assert!(problem.contains("cannot be read"), "{problem}");
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let found = problems(
            r#"
            [server]
            listen = "nowhere"
            trusted_proxies = ["everybody"]
            drain_timeout_s = "soon"
            [catalog]
            url = "mysql://x"
            pool_sise = 3
            [stores.a]
            user = "client.glance"
            chunk_size_mib = 3
            [images]
            hashing_algorithm = "crc32"
            api_limit_max = 0
            [jobs]
            lease_s = 1
            [cors]
            allowed_origin = ["*"]
            [identity]
            mode = "anonymous"
            [colour]
            "#,
        );
        for expected in [
            "listen",
            "everybody",
            "allow_credentials",
            "drain_timeout_s",
            "catalog",
            "pool_sise",
            "chunk_size_mib",
            "client.",
            "crc32",
            "api_limit_max",
            "lease_s",
            "anonymous",
            "[colour]",
        ] {
            assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:#?}");
        }
    }

    #[test]
    fn secrets_come_from_the_environment_too() {
        let dir = std::env::temp_dir().join(format!("rockpool-config-{}", uuid::Uuid::new_v4()));
        std::fs::write(&dir, "").unwrap();
        let file = dir.display();
        let text = format!(
            "[catalog]\nurl = \"postgres://u@h/d\"\npassword_file = \"/nonexistent\"\n[stores.a]\nuser = \"u\"\nceph_conf = \"{file}\"\n[identity]\nmode = \"local\"\n"
        );
        assert_eq!(problems(&text).len(), 1);
        let config = Config::parse(&text, |name| (name == "ROCKPOOL_CATALOG_PASSWORD").then(|| "secret".into()));
        std::fs::remove_file(&dir).unwrap();
        assert_eq!(
            config.map_err(|e| e.join("; ")).unwrap_or_else(|e| panic!("{e}")).catalog.password.as_deref(),
            Some("secret")
        );
    }
}
