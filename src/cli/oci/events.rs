//! `events`: prints what a container uses and when the OOM killer strikes, one JSON document a line.

use clap::Parser;
use serde::Serialize;

use super::{Invocation, Verb, json};
use crate::cli::printer;
use crate::cli::status::Status;
use crate::error::{Error, Result};
use crate::support::units::parse_duration;

/// Print events of a container: what it uses, and when it runs out of memory
#[derive(Debug, Parser)]
#[command(name = "events")]
pub(super) struct Events {
    /// Time between two readings of what is used
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    interval: String,
    /// Print what is used now, and end
    #[arg(long)]
    stats: bool,
    /// Container id
    id: String,
}

impl Verb for Events {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { interval, stats, id } = self;
        let interval = parse_duration(&interval)?;
        let events = invocation.runtime.events(&id)?;
        if interval.is_zero() {
            return Err(Error::invalid("duration interval must be greater than 0"));
        }
        if stats {
            print_line(&events.stats()?)?;
        } else {
            events.follow(interval, print_line)?;
        }
        Ok(Status::Success)
    }
}

fn print_line(event: &impl Serialize) -> Result<()> {
    printer::print(&format!("{}\n", json::compact(event)?))
}
