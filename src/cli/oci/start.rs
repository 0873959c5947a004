//! `start`: lets the workload of a created container begin.

use clap::Parser;

use super::passed::notify_socket;
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
        let warning = invocation.runtime.start(&self.id, notify_socket().as_deref())?;
        invocation.log.warnings(warning.as_slice());
        Ok(Status::Success)
    }
}
