//! `run`: makes a container, starts it, and stays with it until it ends, unless `--detach` says otherwise.

use clap::Parser;

use super::create::{Making, make};
use super::passed::Passed;
use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::{Context, Result};
use crate::runtime::container::Mode;
use crate::sys::signal::Signals;

/// Create a container and start it
#[derive(Debug, Parser)]
#[command(name = "run")]
pub(super) struct Run {
    #[command(flatten)]
    making: Making,
    /// Return once the container runs
    #[arg(long, short)]
    detach: bool,
    /// Leave the container's state when it has ended
    #[arg(long)]
    keep: bool,
    /// Leave the container's orphans to the system
    #[arg(long)]
    no_subreaper: bool,
}

impl Verb for Run {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { making, detach, keep, no_subreaper } = self;
        // Before anything of ours is open.
        let fds = Passed::find(making.preserve_fds)?;
        if detach {
            make(invocation, &making, Mode::Detached, fds)?;
            return Ok(Status::Success);
        }
        if !no_subreaper {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("become a subreaper")?;
        }
        let signals = Signals::block_all().context("block signals")?;
        let mut running = make(invocation, &making, Mode::Foreground, fds)?;
        let exit = running.attend(&signals)?;
        if !keep {
            running.remove()?;
        }
        Ok(Status::Workload(exit.status()))
    }
}
