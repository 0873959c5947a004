//! `rm` and `container prune`: containers with everything that they have of their own.

use super::containers::Containers;
use super::engine::Engine;
use super::events;
use super::mount;
use super::record::{Container, Status};
use super::stop;
use crate::error::{Error, Kind, Result};

/// What becomes of a container that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// It is an error.
    No,
    /// It is killed.
    Yes,
}

/// Removes a container.
pub fn remove(engine: &Engine, containers: &Containers, container: &Container, force: Force) -> Result<()> {
    match remove_once(engine, containers, container, force) {
        // With its end (`--rm`), or by somebody else, whenever that was: that is what was wanted.
        Err(error) if force == Force::Yes && is_gone(&error) => Ok(()),
        answer => answer,
    }
}

fn remove_once(engine: &Engine, containers: &Containers, container: &Container, force: Force) -> Result<()> {
    loop {
        let runs = matches!(container.status()?, Status::Running { .. } | Status::Restarting(_));
        if runs && force == Force::Yes {
            stop::end_now(engine, container)?;
        }
        // Of one that somebody starts meanwhile, the lock is not to be had.
        let is_removed = (!runs || force == Force::Yes) && remove_ended(engine, containers, container)?;
        if is_removed {
            return Ok(());
        }
        if force == Force::No {
            let name = container.record()?.name;
            return Err(Error::new(Kind::State, format!("cannot remove container {name}: it is running"))
                .with_hint("stop it first, or remove it with -f"));
        }
    }
}

fn is_gone(error: &Error) -> bool {
    error.kind() == Kind::NotFound || error.errno() == Some(rustix::io::Errno::NOENT)
}

/// Says whether it had ended.
fn remove_ended(engine: &Engine, containers: &Containers, container: &Container) -> Result<bool> {
    let Some(supervision) = container.supervise_soon()? else { return Ok(false) };
    if let Status::Lost { .. } = container.status_under(&supervision)? {
        // What it left of processes, cgroups and mounts.
        match engine.runtime(false)?.delete(container.id().as_str(), true) {
            Err(error) if error.kind() != Kind::NotFound => return Err(error),
            _ => {}
        }
    }
    let record = container.record();
    engine.remove(containers, container, &supervision)?;
    mount::forget(engine, container.id());
    if let Ok(record) = record {
        events::container(engine, &record, "destroy", &[]);
    }
    Ok(true)
}
