//! Black-box tests of the daemon.
