//! Packs the executable's relative relocations (350 KB of them), where the C library it is linked with can unpack them.
//!
//! A static position-independent executable relocates itself with code of the C library's; glibc can since 2.36. An older
//! one would start with all of its pointers wrong, so the library is asked, and not the linker.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let is_native = std::env::var("HOST") == std::env::var("TARGET");
    if is_native && is("CARGO_CFG_TARGET_ENV", "gnu") && is("PROFILE", "release") && glibc() >= Some((2, 36)) {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// The version of this machine's C library, by what `getconf` says: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
