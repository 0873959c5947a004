//! Restart policies: whether a workload that has ended is started again, and after how long. Starts nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Kind;

/// When a container is started again (docker's `--restart`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    /// When its exit status is not 0, so often at most.
    OnFailure {
        most: Option<u32>,
    },
    Always,
    /// Always, and after a reboot unless it was stopped before.
    UnlessStopped,
}

impl RestartPolicy {
    /// Says whether a workload that ended with this status after so many restarts is started again.
    pub fn wants_restart(self, status: u8, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure { most } => status != 0 && most.is_none_or(|most| restarts < most),
            Self::Always | Self::UnlessStopped => true,
        }
    }
}

/// The pauses between restarts, as docker has them: 100 ms, doubled each time up to a minute; a run of ten seconds starts
/// over.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    last: Option<Duration>,
}

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_mins(1);
const GOOD_RUN: Duration = Duration::from_secs(10);

impl BackOff {
    /// Gives the pause after a run that took `ran`.
    pub(super) fn next(&mut self, ran: Duration) -> Duration {
        let pause = match self.last {
            Some(last) if ran < GOOD_RUN => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        self.last = Some(pause);
        pause
    }
}

/// Restarts in a row that could not begin. A network, a lock or a process that could not be had at one moment may be there at the
/// next: a policy does not end with one look.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u32,
    back_off: BackOff,
}

/// Three seconds' worth, beside what the tries take.
const MOST_FAILURES: u32 = 5;

impl Failures {
    /// Gives the pause until it is tried again, if that makes sense.
    pub(super) fn next(&mut self, kind: Kind) -> Option<Duration> {
        let is_final =
            matches!(kind, Kind::ExecutableNotFound | Kind::NotExecutable | Kind::Invalid | Kind::Unsupported);
        self.count += 1;
        (!is_final && self.count <= MOST_FAILURES).then(|| self.back_off.next(Duration::ZERO))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        let on_failure = |most| RestartPolicy::OnFailure { most };
        for (policy, status, restarts, expected) in [
            (RestartPolicy::No, 1, 0, false),
            (RestartPolicy::Always, 0, 1000, true),
            (RestartPolicy::UnlessStopped, 0, 0, true),
            (on_failure(None), 0, 0, false),
            (on_failure(None), 1, 1000, true),
            (on_failure(Some(2)), 1, 1, true),
            (on_failure(Some(2)), 1, 2, false),
        ] {
            assert_eq!(policy.wants_restart(status, restarts), expected, "{policy:?} {status} {restarts}");
        }
    }

    #[test]
    fn pauses_double_until_a_good_run() {
        let mut back_off = BackOff::default();
        let short = Duration::from_secs(1);
        let pauses: Vec<u128> = (0..12).map(|_| back_off.next(short).as_millis()).collect();
        assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
        assert_eq!(pauses[11], 60_000);
        assert_eq!(back_off.next(GOOD_RUN), FIRST);
    }

    #[test]
    fn one_failed_look_is_not_the_last() {
        let mut failures = Failures::default();
        let pauses: Vec<_> = (0..6).map(|_| failures.next(Kind::Other).map(|pause| pause.as_millis())).collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(400), Some(800), Some(1600), None]);
        assert_eq!(Failures::default().next(Kind::ExecutableNotFound), None, "nor will there be one");
    }
}
