//! `delete`: removes what is kept of a container.

use clap::Parser;

use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::Result;

/// Delete a container that has stopped
#[derive(Debug, Parser)]
#[command(name = "delete")]
pub(super) struct Delete {
    /// Kill the container first if it runs
    #[arg(long, short)]
    force: bool,
    /// Container id
    id: String,
}

impl Verb for Delete {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { force, id } = self;
        invocation.runtime.delete(&id, force).map(|()| Status::Success)
    }
}
