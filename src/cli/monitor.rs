//! `husk internal monitor ID`: what a command becomes the monitor of a container by that outlived its own. The lock on that,
//! which whoever calls has taken, is the standard input. Nobody types it.

use clap::Parser;

use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::record::Supervision;
use crate::engine::{settings, start};
use crate::error::{Context, Result};

/// Look after a container that lost its monitor
#[derive(Debug, Parser)]
pub(super) struct Monitor {
    /// Id of the container
    container: String,
    /// Its name, for who looks at processes
    name: Option<String>,
}

/// Runs `internal monitor`.
pub(super) fn run(args: &Monitor) -> Result<Status> {
    super::let_go_of_descriptors()?;
    let lock = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).context("take the container's lock")?;
    super::take_no_input()?;
    let engine = Engine::open(settings::File::default())?;
    let container = engine.containers()?.find(&args.container)?;
    start::take_over(&engine, container, Supervision::from_fd(lock))?;
    Ok(Status::Success)
}
