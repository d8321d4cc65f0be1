//! What this service gets from elsewhere by itself: an address that somebody gives it, and nothing that the operator
//! does not allow.

mod address;
mod config;
mod rules;
mod target;

pub use config::Config;
pub use rules::Rules;
pub use target::{Host, Scheme, Target, URL_BYTES_MAX};
