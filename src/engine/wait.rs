//! `wait`: until a container has ended. Ends none.

use super::engine::Engine;
use super::record::{Container, Status};
use super::start::connect;
use crate::error::Result;
use crate::monitor::Wants;

/// Waits until a container does not run, and gives its exit status: 0 of one that was never started.
pub fn wait(engine: &Engine, container: &Container) -> Result<u8> {
    loop {
        match container.status()? {
            Status::Exited(exit) => return Ok(exit.code),
            Status::Created => return Ok(0),
            Status::Lost { .. } => {
                engine.look_after(container)?;
                continue;
            }
            Status::Running { .. } | Status::Restarting(_) => {}
        }
        // The monitor tells it also of a container that is gone with its end (`--rm`).
        if let Some(client) = connect(container, Wants::default())?
            && let Some(exit) = client.wait()?
        {
            return Ok(exit.status());
        }
        container.wait_for_supervisor()?;
        // Its monitor was killed, or has more than it can talk to.
        std::thread::sleep(PAUSE);
    }
}

const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);
