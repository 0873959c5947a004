//! Makes the released executable smaller, and quicker to start, than the linker makes it by itself.
//!
//! - It has a fixed address. A static executable that may lie anywhere writes 350 KB of pointers at each start, before
//!   `main`: 85 pages that are then nobody else's, and a fifth of the time of a short verb (docs/performance.md). Stack, heap and maps
//!   lie anywhere still; the executable's own code does not, as in Debian's runc, podman and containerd.
//! - The tables for unwinding the stack are left out (1.1 MB): a release aborts on panic, so nothing ever reads them. The
//!   compiler can leave out its own, yet not those of the standard library, and in one LTO unit that decides for all.
//! - Functions of the same code are kept once. Only where the compiler's own linker, lld, is the default: GNU's refuses.

use std::path::Path;

/// Laid into the linker's own layout: what is named here goes nowhere.
const WITHOUT_UNWINDING: &str =
    "SECTIONS { /DISCARD/ : { *(.eh_frame .eh_frame.* .gcc_except_table .gcc_except_table.*) } } INSERT AFTER .text;\n";

#[expect(clippy::disallowed_methods, reason = "the build's own folder is made anew where a file in it is missing")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_ENV", "gnu") || !is("PROFILE", "release") {
        return;
    }
    // Behind the compiler's `-static-pie`; the last word counts.
    for word in ["-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bins={word}");
    }
    // `--profile profiling` is built by the same rules, and perf walks the stack by these tables.
    if is("DEBUG", "false") {
        let script = Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).join("no-unwinding.ld");
        std::fs::write(&script, WITHOUT_UNWINDING).expect("write into the build's own folder");
        pass_on(&format!("-T,{}", script.display()));
        pass_on("--no-eh-frame-hdr");
    }
    if is("CARGO_CFG_TARGET_ARCH", "x86_64") {
        pass_on("--icf=all");
    }
}

/// Hands arguments to the linker of the executable.
fn pass_on(arguments: &str) {
    println!("cargo:rustc-link-arg-bins=-Wl,{arguments}");
}
