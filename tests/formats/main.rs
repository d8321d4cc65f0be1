//! Disks in foreign formats, as the library reads them and as `qemu-img` does: the same bytes, or a refusal that
//! says why. Without `qemu-img` (package qemu-utils) or a compressor what needs it counts as skipped.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; helpers are tests, too")]

mod harness;
mod others;
mod qcow2;
mod qcow2_model;
mod stream;
mod unpack;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;
mod vmware;
