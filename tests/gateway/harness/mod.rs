//! Starts gateways on throwaway databases and talks to them as a client would.

mod certificates;
mod fsck;
mod gateway;
mod http;
mod keystone;
mod nginx;
mod objects;
mod own;
mod proxy;
mod servers;
mod site;
mod slow;
mod state;
mod web;
mod wire;

pub(crate) use certificates::make_certificates;
pub(crate) use fsck::{OwnPool, Told};
pub(crate) use gateway::{Gateway, Options, TAKEOVER_S, Token};
pub(crate) use http::{Answer, Client};
pub(crate) use keystone::{FakeKeystone, Fault, OWN_CREDENTIAL, OWN_PASSWORD, OWN_USER, project_token};
pub(crate) use nginx::Nginx;
pub(crate) use objects::Objects;
pub(crate) use own::OwnServers;
pub(crate) use proxy::Proxy;
pub(crate) use servers::{FAR_POOL, ceph, far_keyring, new_user, psql, rbd, rbd_as, run, servers, try_rbd};
pub(crate) use site::Site;
pub(crate) use slow::{SlowDownload, SlowUpload};
pub(crate) use state::{
    Foreign, Session, assert_active, assert_consistent, await_clean, hash, left_in_pool, status_of,
};
pub(crate) use web::Web;
pub(crate) use wire::Wire;

/// Bytes that do not compress and are the same every time: a xorshift stream from `seed`.
pub(crate) fn random_bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Waits until `condition` holds, at most `seconds`.
#[track_caller]
pub(crate) fn eventually(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(seconds);
    while !condition() {
        assert!(std::time::Instant::now() < end, "not within {seconds} s: {what}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A file of the folder `shared`, which some machines have beside the repository. Where it is missing, the
/// test counts as skipped.
pub(crate) fn shared(file: &str) -> Option<std::path::PathBuf> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared").join(file);
    if path.exists() {
        return Some(path);
    }
    skip("no ../shared");
    None
}

/// Says that this test cannot run here, and why: it then counts as skipped.
pub(crate) fn skip(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: {reason}\n");
    if let Some(list) = std::env::var_os("ROCKPOOL_TEST_SKIPPED") {
        use std::io::Write as _;
        std::fs::OpenOptions::new().create(true).append(true).open(list).unwrap().write_all(line.as_bytes()).unwrap();
    }
    eprint!("skipped {line}");
}
