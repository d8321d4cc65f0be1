//! Tests against a real cluster: `ROCKPOOL_TEST_CEPH_DIR` names the state folder of a throwaway one, as
//! tests/run.sh makes it (ceph.conf, keyrings of the users admin, rockpool, classic and nova, pools `images`
//! and `vms`, process ids in `run`). Every test uses names of its own and removes them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking; helpers are tests, too")]

mod bytes_io;
mod clones;
mod connections;
mod dead_writer;
mod dropped;
mod flatten;
mod lifecycle;
mod misuse;
mod stopped;
mod support;
