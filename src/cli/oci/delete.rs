//! `delete`: removes what is kept of a container.

use clap::Parser;

use super::{Invocation, Verb, chosen};
use crate::cli::status::Status;
use crate::error::Result;

/// Delete a container that has stopped
#[derive(Debug, Parser)]
#[command(name = "delete")]
pub(super) struct Delete {
    /// Kill the container first if it runs
    #[arg(long, short)]
    force: bool,
    /// Take the id for a regular expression, and delete all that match
    #[arg(long, short)]
    regex: bool,
    /// Container id
    id: String,
}

impl Verb for Delete {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { force, regex, id } = self;
        chosen::each(invocation, &id, regex, |id| invocation.runtime.delete(id, force))?;
        Ok(Status::Success)
    }
}
