//! `husk export`: the files of a container as a tar.

use std::path::PathBuf;

use super::output;
use super::report;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::export::Export;
use crate::engine::settings;
use crate::error::Result;

/// Write the root file system of a container as a tar
///
/// Whether it runs or not; what is mounted in it (volumes, /proc, /dev) is not part of it. The same files give the same bytes,
/// sorted by name; SOURCE_DATE_EPOCH bounds their times.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write; standard output if it is left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `export`.
pub(super) fn run(args: &Args) -> Result<Status> {
    output::refuse_terminal("export", args.output.as_deref())?;
    let engine = Engine::open(settings::File::default())?;
    let latest = output::latest()?;
    let found = Export::find(&engine, &args.container)?;
    let sockets = output::write(args.output.as_deref(), |file| found.write(latest, file))?;
    for path in sockets {
        report::note(&format!("/{}: a socket is not exported", String::from_utf8_lossy(&path)));
    }
    Ok(Status::Success)
}
