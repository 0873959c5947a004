//! `pause` and `resume`: stops all processes of a container and lets them go on.

use clap::Parser;

use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::Result;

/// Suspend all processes inside a container
#[derive(Debug, Parser)]
#[command(name = "pause")]
pub(super) struct Pause {
    /// Container id
    id: String,
}

impl Verb for Pause {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        invocation.runtime.pause(&self.id).map(|()| Status::Success)
    }
}

/// Let all processes that were paused go on
#[derive(Debug, Parser)]
#[command(name = "resume")]
pub(super) struct Resume {
    /// Container id
    id: String,
}

impl Verb for Resume {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        invocation.runtime.resume(&self.id).map(|()| Status::Success)
    }
}
