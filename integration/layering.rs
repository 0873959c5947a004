//! The layers of src/lib.rs, checked against what the files use; and `unsafe`, which stays in src/sys/.
//!
//! A line is judged by what it names, `crate::module` or a `super` that leads there, not by what a compiler makes of it:
//! that is enough for code that is formatted, and needs no build.

use std::path::Path;

use anyhow::{Context, Result, bail};
use walkdir::WalkDir;

/// From the bottom. Modules of one row may use each other.
const LAYERS: [&[&str]; 8] = [
    &["error", "sys", "support"],
    &["spec"],
    &["cgroups", "namespaces", "rootfs", "seccomp"],
    &["runtime"],
    &["monitor"],
    &["image", "storage"],
    &["engine"],
    &["cli"],
];

#[test]
fn the_sources_keep_their_layers() -> Result<()> {
    check_sources()
}

fn check_sources() -> Result<()> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for entry in WalkDir::new(&src).sort_by_file_name() {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let relative = path.strip_prefix(&src)?.to_str().context("a path that is no text")?;
        wrong.extend(check_file(relative, &text));
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(())
}

/// Gives what is wrong in a file of src/, a line each.
fn check_file(path: &str, text: &str) -> Vec<String> {
    let module = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");
    let mut wrong = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if code.starts_with("//") {
            continue;
        }
        let place = format!("src/{path}:{}", number + 1);
        let is_unsafe =
            code.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').any(|word| word == "unsafe");
        if is_unsafe && module != "sys" {
            wrong.push(format!("{place}: unsafe outside src/sys"));
        }
        let Some(own) = layer(module) else { continue };
        for used in code.split("crate::").skip(1) {
            let used =
                used.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next().unwrap_or_default();
            if layer(used).is_some_and(|layer| layer > own) {
                wrong.push(format!("{place}: {module} uses {used}, which stands above it"));
            }
        }
    }
    wrong
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn what_is_wrong_is_found() {
    for (path, line, is_wrong) in [
        ("runtime/plan.rs", "use crate::engine::run;", true),
        ("runtime/plan.rs", "use crate::rootfs::plan;", false),
        ("runtime/plan.rs", "// use crate::engine::run;", false),
        ("sys/clone.rs", "let x = crate::spec::load::load();", true),
        ("sys/clone.rs", "unsafe { x() }", false),
        ("engine/run.rs", "unsafe { x() }", true),
        ("engine/run.rs", "#![expect(unsafe_code)]", false),
        ("main.rs", "husk::cli::main()", false),
        ("image/config.rs", "use crate::storage::store;", false),
        ("error.rs", "crate::sys::errno::describe(errno)", false),
    ] {
        assert_eq!(!check_file(path, line).is_empty(), is_wrong, "{path}: {line}");
    }
}
