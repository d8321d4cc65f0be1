//! Black-box tests: the real daemon over HTTP and its command line, against a real Ceph and a real
//! Postgres that `tests/run.sh` starts. They assert what is stored, not only what is answered.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking; helpers are tests, too")]

mod actions;
mod adopt;
mod bad_input;
mod browser;
mod cache;
mod clones;
mod config;
mod conformance;
mod convert;
mod copies;
mod crash;
mod create;
mod database;
mod delete;
mod download;
mod events;
mod failures;
mod fsck;
mod glance_download;
mod harness;
mod health;
mod identity;
mod images;
mod import;
mod import_faults;
mod inspection;
mod keystone;
mod layers;
mod lifecycle;
mod list;
mod locations;
mod matrix;
mod members;
mod metadefs;
mod patch;
mod plans;
mod policy;
mod protections;
mod proxies;
mod quotas;
mod races;
mod readiness;
mod rebuild;
mod relocate;
mod remote_checks;
mod routes;
mod schemas;
mod scrub;
mod show;
mod sight;
mod smuggling;
mod stage;
mod stalls;
mod store;
mod stores;
mod tags;
mod tasks;
mod upload;
mod versions;
#[path = "../formats/vmware.rs"]
mod vmware;
mod web;
mod web_download;
