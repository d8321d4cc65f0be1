//! The services of a cloud and where they are, as a token's catalog tells.

use serde::Deserialize;

/// What this service is called in catalogs and access rules.
pub(super) const SERVICE_TYPE: &str = "image";

/// The services.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Catalog(Vec<Service>);

/// A service.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Service {
    /// Such as `image`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) id: String,
    #[serde(default)]
    pub(super) endpoints: Vec<Endpoint>,
}

/// Where a service can be reached.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Endpoint {
    pub(super) id: String,
    interface: String,
    pub(super) region_id: Option<String>,
    url: String,
}

impl Catalog {
    /// All services.
    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.0.iter()
    }

    /// Whether there is a service of a type.
    pub(super) fn has(&self, kind: &str) -> bool {
        self.services().any(|service| service.kind == kind)
    }

    /// URL of a service at an interface, in a region if one is wanted.
    pub(super) fn url(&self, kind: &str, interface: &str, region: Option<&str>) -> Option<&str> {
        let mut endpoints =
            self.services().filter(|service| service.kind == kind).flat_map(|service| &service.endpoints);
        let wanted = |endpoint: &&Endpoint| {
            endpoint.interface == interface && (region.is_none() || endpoint.region_id.as_deref() == region)
        };
        endpoints.find(wanted).map(|endpoint| endpoint.url.as_str())
    }
}
