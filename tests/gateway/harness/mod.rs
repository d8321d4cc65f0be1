//! Starts gateways on throwaway databases and talks to them as a client would.

mod gateway;
mod http;
mod keystone;
mod own;
mod proxy;
mod servers;
mod slow;
mod state;
mod wire;

pub(crate) use gateway::{Gateway, Options, TAKEOVER_S, Token};
pub(crate) use http::{Answer, Client};
pub(crate) use keystone::{FakeKeystone, Fault, OWN_CREDENTIAL, OWN_PASSWORD, project_token};
pub(crate) use own::OwnServers;
pub(crate) use proxy::Proxy;
pub(crate) use servers::{FAR_POOL, ceph, psql, rbd, run, servers, try_rbd};
pub(crate) use slow::{SlowDownload, SlowUpload};
pub(crate) use state::{Session, assert_active, assert_consistent, await_clean, hash, left_in_pool, status_of};
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
