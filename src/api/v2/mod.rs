//! `/v2`: one file per resource. A handler extracts, makes one service call, and writes the answer.

pub(super) mod actions;
pub(super) mod cache;
pub(super) mod data;
pub(super) mod images;
pub(super) mod import;
pub(super) mod info;
pub(super) mod locations;
pub(super) mod members;
pub(super) mod metadefs;
pub(super) mod stores;
pub(super) mod tags;
pub(super) mod tasks;
pub(super) mod usage;
