//! One health check while it runs: a process in the container, and the beginning of what it writes. Judges nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::health::{CheckResult, HealthCheck, KEPT_OUTPUT};
use super::streams::{capture, let_go};
use crate::error::{Error, Result};
use crate::runtime::exec::Execution;
use crate::runtime::foreground::try_wait;
use crate::sys::signal;

/// How a container's health is looked after.
pub struct HealthJob<'a> {
    pub check: &'a HealthCheck,
    /// Starts the check's command in the container, with this process's standard streams.
    pub start: &'a dyn Fn() -> Result<Execution>,
}

/// A check that is under way.
pub(super) struct Checking {
    execution: Execution,
    output: Option<OwnedFd>,
    read: Vec<u8>,
    start: jiff::Timestamp,
    /// None once it was given up.
    deadline: Option<Instant>,
    timeout: Duration,
}

impl Checking {
    pub(super) fn start(job: &HealthJob<'_>, now: Instant) -> Result<Self> {
        let output = capture()?;
        let execution = (job.start)();
        // Its ends are its own now.
        let_go()?;
        let timeout = job.check.timeout;
        let (start, deadline) = (jiff::Timestamp::now(), Some(now + timeout));
        Ok(Self { execution: execution?, output: Some(output), read: Vec::new(), start, deadline, timeout })
    }

    pub(super) fn pidfd(&self) -> BorrowedFd<'_> {
        self.execution.init.pidfd.as_fd()
    }

    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// It has not run out of time: it was frozen.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.deadline = Some(now + self.timeout);
    }

    /// Says whether it was given up, and has ended by now.
    pub(super) fn is_gone(&self) -> Result<bool> {
        Ok(self.deadline.is_none() && try_wait(self.pidfd())?.is_some())
    }

    pub(super) fn was_given_up(&self) -> bool {
        self.deadline.is_none()
    }

    /// Reads what there is; what goes beyond the bound is read, and forgotten.
    pub(super) fn read_output(&mut self) {
        let mut bytes = [0; KEPT_OUTPUT];
        let Some(output) = &self.output else { return };
        match rustix::io::read(output, &mut bytes) {
            Ok(0) => self.output = None,
            Ok(count) => {
                let room = KEPT_OUTPUT - self.read.len();
                self.read.extend_from_slice(&bytes[..count.min(room)]);
            }
            Err(_) => {}
        }
    }

    /// Takes the result; one that has not ended is given up.
    pub(super) fn finish(&mut self) -> Result<CheckResult> {
        let exit = try_wait(self.pidfd())?;
        self.read_output();
        if exit.is_none() {
            self.abandon();
        }
        let output = match exit {
            Some(_) => String::from_utf8_lossy(&self.read).into_owned(),
            // Docker's words.
            None => format!("Health check exceeded timeout ({:?})", self.timeout),
        };
        let exit_code = exit.map_or(-1, |exit| i32::from(exit.status()));
        let end = jiff::Timestamp::now().to_string();
        Ok(CheckResult { start: self.start.to_string(), end, exit_code, output })
    }

    /// Ends it, if its container has not done that, and does not wait for its end: a process that is frozen, or at a disk that
    /// does not answer, has none.
    pub(super) fn abandon(&mut self) {
        let _ = signal::send(self.pidfd(), signal::KILL);
        (self.deadline, self.output) = (None, None);
    }
}

impl CheckResult {
    /// The result of a check that could not be started.
    pub(super) fn not_started(error: &Error) -> Self {
        let now = jiff::Timestamp::now().to_string();
        Self { start: now.clone(), end: now, exit_code: -1, output: error.report() }
    }
}
