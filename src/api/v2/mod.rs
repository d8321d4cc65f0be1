//! `/v2`: one file per resource. A handler extracts, makes one service call, and writes the answer.

pub(super) mod cache;
pub(super) mod data;
pub(super) mod images;
pub(super) mod stores;
pub(super) mod usage;
