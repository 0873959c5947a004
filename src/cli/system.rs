//! `system`: the store's soundness.

use clap::{Args, Subcommand};
use serde_json::json;

use super::printer;
use super::report;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::settings;
use crate::engine::system::check::{self, Checked};
use crate::error::{Error, Result};
use crate::storage::check::Depth;

/// `husk system …`
#[derive(Debug, Subcommand)]
pub(super) enum System {
    Check(Check),
}

/// Prove the store against its digests
///
/// Prints a line for each thing that is not as it should be. The status is 0 where the store is sound, and 1 where it is not
/// (with --repair: where something is left).
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Mend it: make layers again, delete what is damaged, forget images that have lost a part
    #[arg(long, short)]
    repair: bool,
    /// Look at names and sizes, and read no blob
    #[arg(long, short)]
    quick: bool,
    /// `json` for an object a line
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs `system`.
pub(super) fn run(system: System) -> Result<Status> {
    match system {
        System::Check(args) => check(&args),
    }
}

fn check(args: &Check) -> Result<Status> {
    let Check { repair, quick, format } = args;
    let is_json = match format.as_deref() {
        None | Some("") => false,
        Some("json") => true,
        Some(other) => return Err(Error::invalid(format!("--format {other}: `json` or nothing"))),
    };
    let engine = Engine::open(settings::File::default())?;
    let depth = if *quick { Depth::Sizes } else { Depth::Digests };
    let Checked { found, left } = if *repair { check::repair(&engine, depth)? } else { check::check(&engine, depth)? };
    // What a repair itself brings to light is told as well.
    let new = left.iter().filter(|finding| !found.contains(finding));
    let mut text = String::new();
    for finding in found.iter().chain(new) {
        let is_mended = !left.contains(finding);
        if is_json {
            let line = json!({ "path": finding.path, "problem": finding.problem, "mended": is_mended });
            text.push_str(&format!("{line}\n"));
        } else {
            let end = if is_mended { " (mended)" } else { "" };
            text.push_str(&format!("{}: {}{end}\n", finding.path, finding.problem));
        }
    }
    printer::print(&text)?;
    if left.is_empty() {
        return Ok(Status::Success);
    }
    if !repair {
        report::note("`husk system check --repair` mends what can be mended");
    }
    Ok(Status::Failure)
}
