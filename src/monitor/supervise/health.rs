//! A container's health checks: when one is due, and what becomes of a container that is ill. How a check is judged is for
//! [`Checks`](crate::monitor::health::Checks).

use std::time::Instant;

use super::{Ending, Monitor};
use crate::error::Result;
use crate::monitor::Stop;
use crate::monitor::checking::Checking;
use crate::monitor::health::{CheckResult, OnFailure};
use crate::sys::signal;

/// How long a container that is stopped for its health may take to end.
const STOP_PATIENCE_SECONDS: u32 = 10;

impl Monitor<'_> {
    /// Begins a check that is due, and ends one that has ended or takes too long.
    pub(super) fn look_after_health(&mut self, has_ended: bool) -> Result<()> {
        self.forget_check(has_ended)?;
        let (Some(job), Some(checks)) = (&self.job.health, &mut self.checks) else { return Ok(()) };
        let now = Instant::now();
        let is_frozen = || self.job.runtime.is_paused(self.job.request.id);
        let result = match &mut self.checking {
            None if checks.due().is_some_and(|due| due <= now) => {
                if is_frozen() {
                    checks.postpone(now);
                    return Ok(());
                }
                checks.begun();
                match Checking::start(job, now) {
                    Ok(checking) => {
                        self.checking = Some(checking);
                        return Ok(());
                    }
                    // It was paused this moment.
                    Err(_) if is_frozen() => {
                        checks.postpone(now);
                        return Ok(());
                    }
                    Err(error) => CheckResult::not_started(&error),
                }
            }
            Some(checking) if checking.was_given_up() => return Ok(()),
            Some(checking) if has_ended => checking.finish()?,
            Some(checking) if checking.deadline().is_some_and(|deadline| deadline <= now) => {
                if is_frozen() {
                    checking.excuse(now);
                    return Ok(());
                }
                checking.finish()?
            }
            _ => return Ok(()),
        };
        if self.checking.as_ref().is_some_and(|checking| !checking.was_given_up()) {
            self.checking = None;
        }
        let is_ill = checks.take(result, now);
        self.save_health();
        if is_ill {
            if job.check.on_failure != OnFailure::None {
                self.ending = Some(Ending::Unhealthy);
            }
            match job.check.on_failure {
                OnFailure::None => {}
                OnFailure::Kill => self.send(signal::KILL)?,
                OnFailure::Restart => {
                    self.is_to_restart = true;
                    self.send(signal::KILL)?;
                }
                OnFailure::Stop => {
                    let patience_seconds = Some(STOP_PATIENCE_SECONDS);
                    self.stop(Stop { signal: signal::TERMINATE, patience_seconds, is_kept: false }, true)?;
                    self.ending = Some(Ending::Unhealthy);
                }
            }
        }
        Ok(())
    }

    /// Lets go of a check that was given up, once it has ended; until then there is no other.
    pub(super) fn forget_check(&mut self, has_ended: bool) -> Result<()> {
        if has_ended && self.checking.as_ref().map_or(Ok(false), Checking::is_gone)? {
            self.checking = None;
        }
        Ok(())
    }

    /// What cannot be written down is known by nobody; the container goes on.
    pub(super) fn save_health(&self) {
        if let Some(checks) = &self.checks {
            let _ = checks.save(self.job.folder);
        }
    }
}
