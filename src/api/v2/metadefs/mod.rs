//! `/v2/metadefs`: one file per resource, and the schemas of all.

pub(in crate::api) mod namespaces;
pub(in crate::api) mod objects;
pub(in crate::api) mod properties;
pub(in crate::api) mod resource_types;
pub(in crate::api) mod schemas;
pub(in crate::api) mod tags;
