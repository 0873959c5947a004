//! `state`: prints what is known of a container, as the specification's state document.

use clap::Parser;

use super::{Invocation, Verb, print};
use crate::cli::status::Status;
use crate::error::Result;

/// Print the state of a container
#[derive(Debug, Parser)]
#[command(name = "state")]
pub(super) struct State {
    /// Container id
    id: String,
}

impl Verb for State {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let document = invocation.runtime.state(&self.id)?;
        print(&serde_json::to_string_pretty(&document)?)
    }
}
