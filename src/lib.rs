//! Rockpool: an OpenStack Image API gateway that keeps every image as one named, clonable RBD image.
//!
//! Layers, and who may use whom (an arrow never points up; `tests/gateway/layers.rs` checks it):
//!
//! ```text
//! domain   <- nothing
//! format   <- domain
//! secret, tls, telemetry <- nothing
//! catalog, identity, fetch <- domain, secret, tls
//! store    <- domain, secret, tls, fetch, telemetry
//! service  <- domain, format, catalog, store, identity, fetch, telemetry
//! worker   <- service
//! api      <- domain, identity, service, telemetry
//! config   <- the Config structs of the layers
//! cli      <- everything
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod domain;
pub mod fetch;
pub mod format;
pub mod identity;
pub mod secret;
pub mod service;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod worker;
