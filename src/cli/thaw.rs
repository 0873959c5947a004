//! `husk internal thaw ID`: ends the freeze of a container when its standard input does, whatever became of the command that
//! froze it. Nobody types it.

use clap::Args;

use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::{settings, stop};
use crate::error::{Context, Result};

/// Thaw a container at the end of the standard input
#[derive(Debug, Args)]
pub(super) struct Thaw {
    /// Id of the container
    container: String,
}

/// Runs `internal thaw`.
pub(super) fn run(args: &Thaw) -> Result<Status> {
    super::let_go_of_descriptors()?;
    let mut said = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut said).context("wait for the command")?;
    if said.is_empty() {
        let engine = Engine::open(settings::File::default())?;
        stop::unpause(&engine, &engine.containers()?.find(&args.container)?)?;
    }
    Ok(Status::Success)
}
