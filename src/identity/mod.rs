//! Who is asking, and what they may do.

mod caller;
pub mod local;
pub mod policy;

pub use caller::Caller;
