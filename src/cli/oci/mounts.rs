//! `mounts`: crun's verb, which adds mounts to a container that runs and removes them.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use oci_spec::runtime::Mount;

use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::{Context, Error, Result};
use crate::runtime::mounts::MountChange;

/// Longest list of mounts that is read.
const FILE_LIMIT_BYTES: u64 = 16 << 20;

/// Add mounts to a running container, or remove them
#[derive(Debug, Parser)]
#[command(name = "mounts")]
pub(super) struct Mounts {
    /// What to do
    #[arg(value_enum)]
    action: Action,
    /// Container id
    id: String,
    /// File with a JSON list of mounts, as in `config.json`
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Action {
    Add,
    Remove,
}

impl Verb for Mounts {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { action, id, file } = self;
        let change = match action {
            Action::Add => MountChange::Add,
            Action::Remove => MountChange::Remove,
        };
        let mounts = read(&file).with_context(|| format!("read {}", file.display()))?;
        invocation.runtime.change_mounts(&id, mounts, change).map(|()| Status::Success)
    }
}

fn read(file: &std::path::Path) -> Result<Vec<Mount>> {
    let mut text = String::new();
    let opened = std::fs::File::open(file)?;
    std::io::Read::read_to_string(&mut std::io::Read::take(opened, FILE_LIMIT_BYTES), &mut text)?;
    serde_json::from_str(&text).map_err(|error| Error::invalid(format!("mounts must be an array of mounts: {error}")))
}
