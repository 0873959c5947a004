//! Health checks: when the next one is due, what its result means, and what is known of a container's health. Runs none.
//!
//! The rules are docker's: a check begins an interval after the one before has ended; in the start period failures do not count
//! until the first success; so many failures in a row make a container unhealthy, one success makes it healthy.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::support::atomic;

/// The file in a container's folder that says how it is.
pub const FILE: &str = "health.json";

/// How many results are kept, and how much of the output of each, as docker has it.
const KEPT_RESULTS: usize = 5;
pub(super) const KEPT_OUTPUT: usize = 4096;

/// What is checked, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command and its arguments.
    pub command: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    /// Between checks in the start period.
    pub start_interval: Duration,
    pub retries: u32,
    pub on_failure: OnFailure,
}

/// What is done about a container that has become unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    #[default]
    None,
    Kill,
    Restart,
    Stop,
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    /// Gives docker's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of a container's health: docker's document of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    pub status: Status,
    pub failing_streak: u32,
    pub log: Vec<CheckResult>,
}

/// One check that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CheckResult {
    /// RFC 3339, UTC.
    pub start: String,
    pub end: String,
    /// -1 where it took too long, or could not be started.
    pub exit_code: i32,
    pub output: String,
}

impl Health {
    /// Reads what a monitor wrote; `None` where there is no check.
    pub fn read(folder: BorrowedFd<'_>) -> Result<Option<Self>> {
        Self::read_at(folder, FILE)
    }

    /// The same, of the file that `path` leads to.
    pub fn read_at(folder: BorrowedFd<'_>, path: &str) -> Result<Option<Self>> {
        let bytes = atomic::read(folder, path, 1 << 20)?.filter(|bytes| !bytes.is_empty());
        bytes.map(|bytes| serde_json::from_slice(&bytes).context(FILE)).transpose()
    }
}

/// The checks of one run.
pub(super) struct Checks<'a> {
    check: &'a HealthCheck,
    health: Health,
    begun: Instant,
    /// When the next one is due; none while one is under way.
    due: Option<Instant>,
}

impl<'a> Checks<'a> {
    /// Begins with a container that has just been started.
    pub(super) fn begin(check: &'a HealthCheck, now: Instant) -> Self {
        let health = Health { status: Status::Starting, failing_streak: 0, log: Vec::new() };
        let mut checks = Self { check, health, begun: now, due: None };
        checks.due = Some(now + checks.pause(now));
        checks
    }

    /// Goes on with what the monitor before wrote down. How long the start period is over is not, so that begins anew.
    pub(super) fn resume(check: &'a HealthCheck, folder: BorrowedFd<'_>, now: Instant) -> Self {
        let mut checks = Self::begin(check, now);
        if let Ok(Some(health)) = Health::read(folder) {
            checks.health = health;
        }
        checks.due = Some(now + checks.pause(now));
        checks
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A check is under way.
    pub(super) fn begun(&mut self) {
        self.due = None;
    }

    /// Nothing is found out of a container that is frozen.
    pub(super) fn postpone(&mut self, now: Instant) {
        self.due = Some(now + self.pause(now));
    }

    fn is_starting(&self, now: Instant) -> bool {
        self.health.status == Status::Starting && now.duration_since(self.begun) < self.check.start_period
    }

    fn pause(&self, now: Instant) -> Duration {
        if self.is_starting(now) { self.check.start_interval } else { self.check.interval }
    }

    /// Takes a result. Says whether the container has become unhealthy by it.
    pub(super) fn take(&mut self, result: CheckResult, now: Instant) -> bool {
        let before = self.health.status;
        let is_starting = self.is_starting(now);
        if result.exit_code == 0 {
            self.health.failing_streak = 0;
            self.health.status = Status::Healthy;
        } else if !is_starting {
            self.health.failing_streak += 1;
            if self.health.failing_streak >= self.check.retries {
                self.health.status = Status::Unhealthy;
            }
        }
        self.health.log.push(result);
        let over = self.health.log.len().saturating_sub(KEPT_RESULTS);
        self.health.log.drain(..over);
        self.due = Some(now + self.pause(now));
        before != Status::Unhealthy && self.health.status == Status::Unhealthy
    }

    /// Writes down what is known.
    pub(super) fn save(&self, folder: BorrowedFd<'_>) -> Result<()> {
        atomic::replace(folder, FILE, &serde_json::to_vec(&self.health)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start_period: u64, retries: u32) -> HealthCheck {
        HealthCheck {
            command: vec!["true".to_owned()],
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(start_period),
            start_interval: Duration::from_secs(5),
            retries,
            on_failure: OnFailure::None,
        }
    }

    fn result(exit_code: i32) -> CheckResult {
        CheckResult { start: String::new(), end: String::new(), exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let (check, now) = (check(0, 3), Instant::now());
        let mut checks = Checks::begin(&check, now);
        assert_eq!(checks.due(), Some(now + check.interval));
        let mut after = |codes: &[i32]| {
            let changes: Vec<bool> = codes.iter().map(|code| checks.take(result(*code), now)).collect();
            (checks.health.status, checks.health.failing_streak, changes.contains(&true))
        };
        assert_eq!(after(&[1, 1]), (Status::Starting, 2, false));
        assert_eq!(after(&[1]), (Status::Unhealthy, 3, true));
        assert_eq!(after(&[1]), (Status::Unhealthy, 4, false), "it was already");
        assert_eq!(after(&[0]), (Status::Healthy, 0, false));
        assert_eq!(after(&[1, 1, 0, 1, 1]), (Status::Healthy, 2, false));
        assert_eq!(checks.health.log.len(), KEPT_RESULTS);
    }

    #[test]
    fn the_start_period_forgives() {
        let (check, now) = (check(60, 1), Instant::now());
        let mut checks = Checks::begin(&check, now);
        assert_eq!(checks.due(), Some(now + check.start_interval));
        assert!(!checks.take(result(1), now + Duration::from_secs(10)));
        assert_eq!((checks.health.status, checks.health.failing_streak), (Status::Starting, 0));
        assert!(!checks.take(result(0), now + Duration::from_secs(20)));
        assert_eq!(checks.due(), Some(now + Duration::from_secs(20) + check.interval), "over with the first success");
        assert!(checks.take(result(1), now + Duration::from_secs(30)), "it counts from then on");
        let mut late = Checks::begin(&check, now);
        assert!(late.take(result(1), now + Duration::from_mins(1)));
    }

    #[test]
    fn the_document_is_dockers() {
        let check = check(0, 1);
        let mut checks = Checks::begin(&check, Instant::now());
        checks.take(CheckResult { output: "oh".to_owned(), ..result(1) }, Instant::now());
        let text = serde_json::to_string(&checks.health).unwrap();
        let expected =
            r#"{"Status":"unhealthy","FailingStreak":1,"Log":[{"Start":"","End":"","ExitCode":1,"Output":"oh"}]}"#;
        assert_eq!(text, expected);
    }
}
