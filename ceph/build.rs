//! Tells the linker about the two C libraries. The declarations are checked in (`src/sys.rs`), so that a
//! build needs librbd-dev and no clang.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-lib=rbd");
    println!("cargo:rustc-link-lib=rados");
}
