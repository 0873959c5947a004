//! `start`: lets the workload of a created container begin.

use clap::Parser;

use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::Result;

/// Start a created container
#[derive(Debug, Parser)]
#[command(name = "start")]
pub(super) struct Start {
    /// Container id
    id: String,
}

impl Verb for Start {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        invocation.runtime.start(&self.id).map(|()| Status::Success)
    }
}
