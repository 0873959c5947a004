//! `husk internal dns NETWORK`: what becomes the name server of a network. The lock on that, which whoever calls has taken, is
//! the standard input, and the network's folder the working directory. Nobody types it.

use clap::Parser;
use rustix::fs::{Mode, OFlags};

use super::status::Status;
use crate::error::{Context, Result};
use crate::network::dns;
use crate::support::lock::Lock;

/// Answer the questions for names in a network
#[derive(Debug, Parser)]
pub(super) struct Dns {
    /// Name of the network, for who looks at processes
    network: String,
}

/// Runs `internal dns`.
pub(super) fn run(_: &Dns) -> Result<Status> {
    super::let_go_of_descriptors()?;
    let lock = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("take the name server's lock")?;
    super::take_no_input()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(c".", flags, Mode::empty()).context("open the network's folder")?;
    dns::serve(&Lock::from_fd(lock), folder)?;
    Ok(Status::Success)
}
