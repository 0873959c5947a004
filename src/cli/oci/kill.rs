//! `kill`: sends a signal to a container.

use clap::Parser;

use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::{Error, Result};
use crate::sys::signal;

/// Send a signal to a container
#[derive(Debug, Parser)]
#[command(name = "kill")]
pub(super) struct Kill {
    /// Signal also the processes that the first one left behind
    #[arg(long, short)]
    all: bool,
    /// Container id
    id: String,
    /// Name or number of the signal
    #[arg(default_value = "TERM")]
    signal: String,
}

impl Verb for Kill {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { all, id, signal } = self;
        let number = signal::parse(&signal).ok_or_else(|| Error::invalid(format!("unknown signal {signal:?}")))?;
        invocation.runtime.kill(&id, number, all).map(|()| Status::Success)
    }
}
