//! Black-box tests: the real daemon over HTTP and its command line, against a real Ceph and a real
//! Postgres that `tests/run.sh` starts. They assert what is stored, not only what is answered.

mod harness;
mod images;
mod layers;
