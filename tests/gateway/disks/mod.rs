//! Disk images of other makers become the bytes of their disks: those that `qemu-img` and the compressors of Debian
//! make, and those that nobody should make.

mod unpack;
