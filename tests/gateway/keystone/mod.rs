//! `[identity] mode = "keystone"`, against a Keystone that says and breaks what a test wants.

mod cache;
mod faults;
mod limits;
mod real;
mod session;
mod tokens;

use crate::harness::{FakeKeystone, Gateway, Options};

fn start() -> (FakeKeystone, Gateway) {
    start_with(Options::default())
}

fn start_with(options: Options) -> (FakeKeystone, Gateway) {
    let keystone = FakeKeystone::start();
    let gateway = Gateway::start(options.keystone(&keystone.url));
    (keystone, gateway)
}
