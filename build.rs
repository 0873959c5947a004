//! Makes the released executable smaller than the linker makes it by itself.
//!
//! - Relative relocations are packed (350 KB less), where the C library can unpack them: a static position-independent
//!   executable relocates itself with code of the C library's, and glibc can since 2.36. An older one would start with
//!   all of its pointers wrong, so the library is asked, and not the linker.
//! - The tables for unwinding the stack are left out (1.1 MB): a release aborts on panic, so nothing ever reads them. The
//!   compiler can leave out its own, yet not those of the standard library, and in one LTO unit that decides for all.
//! - Functions of the same code are kept once. Only where the compiler's own linker, lld, is the default: GNU's refuses.

use std::path::Path;
use std::process::Command;

/// Laid into the linker's own layout: what is named here goes nowhere.
const WITHOUT_UNWINDING: &str =
    "SECTIONS { /DISCARD/ : { *(.eh_frame .eh_frame.* .gcc_except_table .gcc_except_table.*) } } INSERT AFTER .text;\n";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let is_native = std::env::var("HOST") == std::env::var("TARGET");
    if !is_native || !is("CARGO_CFG_TARGET_ENV", "gnu") || !is("PROFILE", "release") {
        return;
    }
    if glibc() >= Some((2, 36)) {
        argument("-z,pack-relative-relocs");
    }
    // `--profile profiling` is built by the same rules, and perf walks the stack by these tables.
    if is("DEBUG", "false") {
        let script = Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).join("no-unwinding.ld");
        std::fs::write(&script, WITHOUT_UNWINDING).expect("write into the build's own folder");
        argument(&format!("-T,{}", script.display()));
        argument("--no-eh-frame-hdr");
    }
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        argument("--icf=all");
    }
}

/// Hands one argument to the linker of the executable.
fn argument(argument: &str) {
    println!("cargo:rustc-link-arg-bins=-Wl,{argument}");
}

/// The version of this machine's C library, by what `getconf` says: `glibc 2.36`.
fn glibc() -> Option<(u32, u32)> {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
