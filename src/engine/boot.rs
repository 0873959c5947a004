//! What comes back with the machine: the containers whose restart policy says so. Starts none itself.

use super::engine::Engine;
use super::record::{Record, Status};
use crate::error::{Error, Result};
use crate::monitor::RestartPolicy;

/// What is to be started, and what could not be read.
#[derive(Default)]
pub struct Boot {
    /// The oldest first, as others may have been made to follow it.
    pub containers: Vec<Record>,
    pub failures: Vec<Error>,
}

/// Finds the containers that are to be started once the machine is up. What the machine's end has cut off is settled first.
pub fn containers(engine: &Engine) -> Result<Boot> {
    let mut failures = engine.clear_remains()?;
    let mut listing = engine.containers()?.list()?;
    failures.append(&mut listing.unreadable);
    let mut containers: Vec<Record> = listing
        .containers
        .into_iter()
        .filter(|(record, status)| comes_back(record.options.restart, status))
        .map(|(record, _)| record)
        .collect();
    containers.reverse();
    Ok(Boot { containers, failures })
}

/// Docker's rules: those of a daemon that has just been started.
fn comes_back(policy: RestartPolicy, status: &Status) -> bool {
    match status {
        Status::Created | Status::Running { .. } | Status::Restarting(_) => false,
        Status::Lost { .. } => policy != RestartPolicy::No,
        Status::Exited(exit) => match policy {
            RestartPolicy::No => false,
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !exit.was_stopped,
            RestartPolicy::OnFailure { .. } => exit.code != 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::ExitRecord;

    #[test]
    fn who_comes_back() {
        let exited = |code, was_stopped| Status::Exited(ExitRecord { code, was_stopped, ..ExitRecord::default() });
        let on_failure = RestartPolicy::OnFailure { most: Some(1) };
        let (no, always, unless) = (RestartPolicy::No, RestartPolicy::Always, RestartPolicy::UnlessStopped);
        for (policy, status, expected) in [
            (no, Status::Lost { started: 1 }, false),
            (no, exited(1, false), false),
            (always, Status::Created, false),
            (always, Status::Running { started: None, restarts: 0 }, false),
            (always, Status::Lost { started: 1 }, true),
            (always, exited(0, true), true),
            (unless, exited(0, false), true),
            (unless, exited(0, true), false),
            (unless, Status::Lost { started: 1 }, true),
            (on_failure, exited(0, false), false),
            (on_failure, exited(3, false), true),
            (on_failure, Status::Lost { started: 1 }, true),
        ] {
            assert_eq!(comes_back(policy, &status), expected, "{policy:?} {status:?}");
        }
    }
}
