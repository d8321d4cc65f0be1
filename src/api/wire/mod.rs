//! JSON shapes.

pub(super) mod image;
