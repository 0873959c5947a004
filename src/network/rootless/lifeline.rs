//! What a monitor knows of the network process that its container needs: that it has died, and when to look for another. Whoever
//! has lost it asks for it, and the first to have the lock starts one for all. One that dies again at once is asked for ever
//! more seldom.

use std::cell::{Cell, Ref, RefCell};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
    /// There is a process again; `lease` becomes readable with its death. What is due stays so until it is done
    /// ([`Self::restored`]): whoever has found the process may have made nothing anew of what had died with the last.
    pub fn hold(&self, lease: OwnedFd, now: Instant) {
        self.lease.replace(Some(lease));
        self.since.set(Some(now));
    }

    /// All that had died is there again.
    pub fn restored(&self) {
        self.due.set(None);
    }

    /// Says whether the process has died that was held last.
    pub fn has_ended(&self) -> bool {
        let lease = self.lease.borrow();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        lease.as_ref().is_some_and(|lease| {
            let mut fds = [PollFd::from_borrowed_fd(lease.as_fd(), PollFlags::IN)];
            matches!(poll(&mut fds, Some(&now)), Ok(1))
        })
    }

    /// What is to be watched.
    pub fn lease(&self) -> Ref<'_, Option<OwnedFd>> {
        self.lease.borrow()
    }

    /// When one is to be asked for.
    pub fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    /// The process has died. Who looks for another is to do so at once, if it had lived for long.
    pub fn lost(&self, now: Instant) {
        let had_settled = self.since.take().is_some_and(|since| now.duration_since(since) >= SETTLED);
        self.lease.replace(None);
        let pause = if had_settled { Duration::ZERO } else { self.pause.get() };
        self.pause.set((pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE));
        self.due.set(Some(now + pause));
    }

    /// Not all that had died could be made anew, or no process be had: it is tried again. A process that there is stays watched.
    pub fn try_again(&self, now: Instant) {
        let pause = self.pause.get().max(FIRST_PAUSE);
        self.pause.set((pause * 2).min(LONGEST_PAUSE));
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
                lifeline.restored();
                assert!(lifeline.lease().is_some() && lifeline.due().is_none());
                lifeline.lost(now);
                (lifeline.due().unwrap() - now).as_millis()
            })
            .collect();
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        lifeline.try_again(now);
        assert_eq!(lifeline.due().unwrap() - now, LONGEST_PAUSE, "nor could one be had");
        lifeline.hold(lease(), now);
        lifeline.lost(now + SETTLED);
        assert_eq!(lifeline.due(), Some(now + SETTLED));
        // Whoever finds another process before that has not made anew what died with this one.
        lifeline.hold(lease(), now + SETTLED);
        assert!(lifeline.due().is_some());
    }

    #[test]
    fn one_that_lives_is_watched_while_something_of_it_is_missing() {
        let (lease, other) = crate::sys::fdpass::pair().unwrap();
        let (lifeline, now) = (Lifeline::default(), Instant::now());
        lifeline.hold(lease, now);
        lifeline.try_again(now);
        assert_eq!(lifeline.due(), Some(now + FIRST_PAUSE));
        assert!(lifeline.lease().is_some() && !lifeline.has_ended());
        drop(other);
        assert!(lifeline.has_ended());
        lifeline.lost(now);
        assert!(!lifeline.has_ended());
    }
}
