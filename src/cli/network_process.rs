//! `husk internal network FOLDER`: the process that is the way out of the user's networks. Its standard input is the socket of
//! whoever started it. Nobody types it.

use std::path::PathBuf;

use clap::Args;

use super::status::Status;
use crate::error::{Context, Result};
use crate::network::rootless;

/// Be the way out of the networks of an ordinary user
#[derive(Debug, Args)]
pub(super) struct NetworkProcess {
    /// Folder of its socket and its lock
    folder: PathBuf,
}

/// Runs `internal network`.
pub(super) fn run(args: &NetworkProcess) -> Result<Status> {
    super::let_go_of_descriptors()?;
    let starter = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("take the starter's socket")?;
    super::take_no_input()?;
    rootless::become_process(&args.folder, &starter)?;
    Ok(Status::Success)
}
