//! `/v2/metadefs`: one file per resource.

pub(in crate::api) mod namespaces;
