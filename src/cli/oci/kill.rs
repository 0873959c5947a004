//! `kill`: sends a signal to a container.

use clap::Parser;

use super::{Invocation, Manners, Verb, chosen};
use crate::cli::status::Status;
use crate::error::{Error, Result};
use crate::runtime::container::KillScope;
use crate::sys::signal;

/// Send a signal to a container
#[derive(Debug, Parser)]
#[command(name = "kill")]
pub(super) struct Kill {
    /// Signal every process of the container (named runc: only do not fail when it has stopped)
    #[arg(long, short)]
    all: bool,
    /// Take the id for a regular expression, and signal all that match
    #[arg(long, short)]
    regex: bool,
    /// Container id
    id: String,
    /// Name or number of the signal
    #[arg(default_value = "SIGTERM", allow_negative_numbers = true)]
    signal: String,
}

impl Verb for Kill {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { all, regex, id, signal } = self;
        let number = signal::parse(&signal).ok_or_else(|| Error::invalid(format!("unknown signal {signal:?}")))?;
        // runc has made its flag obsolete (1.2): SIGKILL reaches everybody without it, and no other signal does with it.
        let scope = match invocation.manners {
            Manners::Husk | Manners::Crun if all => KillScope::Everyone,
            _ => KillScope::Init,
        };
        chosen::each(invocation, &id, regex, |id| match invocation.runtime.kill(id, number, scope) {
            Err(error) if all && error.report() == NOT_RUNNING => Ok(()),
            answer => answer,
        })?;
        Ok(Status::Success)
    }
}

const NOT_RUNNING: &str = "container not running";
