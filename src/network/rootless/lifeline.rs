//! What a monitor knows of the network process that its container needs: that it has died, and when to look for another. Whoever
//! has lost it asks for it, and the first to have the lock starts one for all. One that dies again at once is asked for ever
//! more seldom.

use std::cell::{Cell, Ref, RefCell};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// What has lived for so long has died of something else than its beginning.
const SETTLED: Duration = Duration::from_mins(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// The lease of a network process, while there is one, and the next time to ask for one.
#[derive(Debug, Default)]
pub struct Lifeline {
    lease: RefCell<Option<OwnedFd>>,
    since: Cell<Option<Instant>>,
    due: Cell<Option<Instant>>,
    pause: Cell<Duration>,
}

impl Lifeline {
    /// There is a process again; `lease` becomes readable with its death.
    pub fn hold(&self, lease: OwnedFd, now: Instant) {
        self.lease.replace(Some(lease));
        self.since.set(Some(now));
        self.due.set(None);
    }

    /// What is to be watched.
    pub fn lease(&self) -> Ref<'_, Option<OwnedFd>> {
        self.lease.borrow()
    }

    /// When one is to be asked for.
    pub fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    /// The process has died, or could not be had. Who looks for another is to do so at once, if it had lived for long.
    pub fn lost(&self, now: Instant) {
        let had_settled = self.since.take().is_some_and(|since| now.duration_since(since) >= SETTLED);
        self.lease.replace(None);
        let pause = if had_settled { Duration::ZERO } else { self.pause.get() };
        self.pause.set((pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE));
        self.due.set(Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn what_dies_at_once_is_asked_for_ever_more_seldom() {
        let lifeline = Lifeline::default();
        let now = Instant::now();
        let pauses: Vec<u128> = (0..10)
            .map(|_| {
                lifeline.hold(lease(), now);
                assert!(lifeline.lease().is_some() && lifeline.due().is_none());
                lifeline.lost(now);
                (lifeline.due().unwrap() - now).as_millis()
            })
            .collect();
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        lifeline.lost(now);
        assert_eq!(lifeline.due().unwrap() - now, LONGEST_PAUSE, "nor could one be had");
        lifeline.hold(lease(), now);
        lifeline.lost(now + SETTLED);
        assert_eq!(lifeline.due(), Some(now + SETTLED));
    }
}
