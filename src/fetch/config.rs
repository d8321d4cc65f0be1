//! `[fetch]`: the counterpart of Glance's `[import_filtering_opts]`.

use serde::Deserialize;

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
        }
    }
}
