//! `features`: prints what this build can do.

use clap::Parser;

use super::{Invocation, Verb, json, print};
use crate::cli::status::Status;
use crate::error::Result;
use crate::runtime::features::features;

/// Print what this build supports, as the specification's features document
#[derive(Debug, Parser)]
#[command(name = "features")]
pub(super) struct Features {}

impl Verb for Features {
    fn run(self, _: &Invocation) -> Result<Status> {
        print(&format!("{}\n", json::indented(&features(), "    ")?))
    }
}
