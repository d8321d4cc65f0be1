//! `[fetch]`: the counterpart of Glance's `[import_filtering_opts]`.

use std::path::PathBuf;

use serde::Deserialize;

use crate::secret::Secret;

/// `[fetch]` of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Schemes that may be fetched from; empty: all but `disallowed_schemes`.
    pub allowed_schemes: Vec<String>,
    /// Schemes that may not; without effect beside `allowed_schemes`.
    pub disallowed_schemes: Vec<String>,
    /// Names, addresses and networks that may be fetched from, whatever kind of address they have; empty: all but
    /// `disallowed_hosts`.
    pub allowed_hosts: Vec<String>,
    /// Names, addresses and networks that may not; without effect beside `allowed_hosts`.
    pub disallowed_hosts: Vec<String>,
    /// Ports that may be fetched from; empty: all but `disallowed_ports`.
    pub allowed_ports: Vec<u16>,
    /// Ports that may not; without effect beside `allowed_ports`.
    pub disallowed_ports: Vec<u16>,
    /// Whether the addresses of RFC 1918 may be fetched from.
    pub allow_private_networks: bool,
    /// Addresses and networks that may be fetched from although their kind is refused.
    pub allowed_networks: Vec<String>,
    /// Most redirects of one request.
    pub redirects_max: u32,
    /// Whether a redirect may lead from https to http.
    pub allow_https_to_http: bool,
    /// PEM file of the authorities that may sign servers' certificates; without it, the system's.
    pub cafile: Option<PathBuf>,
    /// URL of the HTTP proxy that asks instead of us.
    pub proxy: Option<Secret>,
    /// Domains, addresses and networks that are asked without a proxy.
    pub no_proxy: Vec<String>,
    /// Whether proxies come from the environment: `http_proxy`, `https_proxy`, `no_proxy`.
    pub proxy_from_environment: bool,
    /// Longest wait for a name to be resolved and a connection to be made, in seconds.
    pub connect_timeout_s: u64,
    /// Longest wait for an answer, or for more of it, in seconds.
    pub idle_timeout_s: u64,
    /// Tries in a row that may fail.
    pub tries_max: u32,
    /// Longest time for one download, in seconds.
    pub deadline_s: u64,
    /// Rate below which a download is given up, in KiB/s.
    pub rate_min_kib_s: u64,
    /// How long servers may be waited for before the rate is looked at, in seconds.
    pub rate_window_s: u64,
    /// Connections of one download at once, where the server gives ranges.
    pub connections_max: usize,
    /// Size of a range, in MiB. Each connection holds one in memory at most.
    pub range_mib: u64,
    /// Beginnings of the names of properties that come along with an image of another region.
    pub glance_download_properties: Vec<String>,
}

impl Config {
    /// Everything that is wrong with the numbers, a sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value, max) in [
            ("connect_timeout_s", self.connect_timeout_s, 3600),
            ("idle_timeout_s", self.idle_timeout_s, 3600),
            ("tries_max", self.tries_max.into(), 1000),
            ("deadline_s", self.deadline_s, 365 * 86_400),
            ("rate_window_s", self.rate_window_s, 3600),
            ("connections_max", self.connections_max as u64, 32),
            ("range_mib", self.range_mib, 64),
        ] {
            if !(1..=max).contains(&value) {
                problems.push(format!("fetch.{name} must be from 1 to {max}"));
            }
        }
        if self.rate_min_kib_s > 1 << 20 {
            problems.push("fetch.rate_min_kib_s must be at most 1048576".into());
        }
        problems
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allowed_schemes: vec!["http".into(), "https".into()],
            disallowed_schemes: Vec::new(),
            allowed_hosts: Vec::new(),
            disallowed_hosts: Vec::new(),
            allowed_ports: vec![80, 443],
            disallowed_ports: Vec::new(),
            allow_private_networks: true,
            allowed_networks: Vec::new(),
            redirects_max: 5,
            allow_https_to_http: false,
            cafile: None,
            proxy: None,
            no_proxy: Vec::new(),
            proxy_from_environment: false,
            connect_timeout_s: 10,
            idle_timeout_s: 30,
            tries_max: 5,
            deadline_s: 86_400,
            rate_min_kib_s: 16,
            rate_window_s: 60,
            connections_max: 4,
            range_mib: 8,
            glance_download_properties: ["hw_", "trait:", "os_distro", "os_secure_boot", "os_type"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}
