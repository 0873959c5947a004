//! What a monitor knows of processes that its container needs and is not the parent of, name servers and the way out of a user's
//! networks: that one has died, and when to look for another. All who need it see that at once, and the first to have its lock
//! starts it for all. What dies again at once is asked for ever more seldom.

use std::cell::{Cell, Ref, RefCell};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What has lived for so long has died of something else than its beginning.
const SETTLED: Duration = Duration::from_mins(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A process that dies has its sockets closed a moment before its locks are free.
const PAUSE_FOR_NAMES: Duration = Duration::from_millis(20);
/// With the way out go all of a user's connections, and to make it takes more.
const PAUSE_FOR_WAY_OUT: Duration = Duration::from_millis(500);

/// Connections to such processes, and the next time to ask for them anew.
#[derive(Debug)]
pub struct Watch {
    first_pause: Duration,
    links: RefCell<Vec<OwnedFd>>,
    since: Cell<Option<Instant>>,
    due: Cell<Option<Instant>>,
    pause: Cell<Duration>,
}

impl Watch {
    /// Of the name servers of a container's networks.
    pub fn of_names() -> Self {
        Self::new(PAUSE_FOR_NAMES)
    }

    /// Of the way out of an ordinary user's networks.
    pub fn of_way_out() -> Self {
        Self::new(PAUSE_FOR_WAY_OUT)
    }

    fn new(first_pause: Duration) -> Self {
        Self {
            first_pause,
            links: RefCell::default(),
            since: Cell::default(),
            due: Cell::default(),
            pause: Cell::default(),
        }
    }

    /// They are all there; each link becomes readable with the end of one. What is due stays so until it is done
    /// ([`Self::restored`]): whoever has found a process may have made nothing anew of what had died with the last.
    pub fn hold(&self, links: Vec<OwnedFd>, now: Instant) {
        self.links.replace(links);
        self.since.set(Some(now));
    }

    /// All that had died is there again.
    pub fn restored(&self) {
        self.due.set(None);
    }

    /// Nobody needs them any more.
    pub fn let_go(&self) {
        self.links.take();
        self.due.set(None);
    }

    /// What is to be watched.
    pub fn links(&self) -> Ref<'_, Vec<OwnedFd>> {
        self.links.borrow()
    }

    /// When they are to be asked for.
    pub fn due(&self) -> Option<Instant> {
        self.due.get()
    }

    /// Notes down if one has died, and says whether it is time to ask for another.
    pub fn is_due(&self, now: Instant) -> bool {
        if self.has_lost_one() {
            self.lost(now);
        }
        self.due.get().is_some_and(|due| due <= now)
    }

    fn has_lost_one(&self) -> bool {
        let links = self.links.borrow();
        let mut fds: Vec<PollFd<'_>> =
            links.iter().map(|link| PollFd::from_borrowed_fd(link.as_fd(), PollFlags::IN)).collect();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !fds.is_empty() && matches!(poll(&mut fds, Some(&now)), Ok(1..))
    }

    /// One has died, or could not be found: whoever asks for another is to do so at once, if it had lived for long.
    pub fn lost(&self, now: Instant) {
        let had_settled = self.since.take().is_some_and(|since| now.duration_since(since) >= SETTLED);
        self.links.take();
        let pause = if had_settled { Duration::ZERO } else { self.pause.get() };
        self.pause.set((pause * 2).clamp(self.first_pause, LONGEST_PAUSE));
        self.due.set(Some(now + pause));
    }

    /// Not all that had died could be made anew, or none be had: it is tried again. What there is stays watched.
    pub fn try_again(&self, now: Instant) {
        let pause = self.pause.get().max(self.first_pause);
        self.pause.set((pause * 2).min(LONGEST_PAUSE));
        self.due.set(Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fdpass::pair;

    #[test]
    fn what_dies_at_once_is_asked_for_ever_more_seldom() {
        let names = [0, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120];
        let way_out = [0, 500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000];
        for (watch, expected) in [(Watch::of_names(), names), (Watch::of_way_out(), way_out)] {
            let now = Instant::now();
            for pause in expected {
                let (link, other) = pair().unwrap();
                watch.hold(vec![link], now);
                watch.restored();
                assert!(!watch.is_due(now) && watch.due().is_none());
                drop(other);
                assert_eq!(watch.is_due(now), pause == 0);
                assert_eq!((watch.due().unwrap() - now).as_millis(), pause);
                assert!(watch.links().is_empty());
            }
        }
        let (watch, now) = (Watch::of_way_out(), Instant::now());
        watch.hold(Vec::new(), now);
        watch.lost(now + SETTLED);
        assert!(watch.is_due(now + SETTLED), "it had lived for long");
        // Whoever finds another process before that has not made anew what died with this one.
        watch.hold(Vec::new(), now + SETTLED);
        assert!(watch.due().is_some());
        watch.let_go();
        assert_eq!(watch.due(), None);
    }

    #[test]
    fn one_that_lives_is_watched_while_something_of_it_is_missing() {
        let (link, other) = pair().unwrap();
        let (watch, now) = (Watch::of_way_out(), Instant::now());
        watch.hold(vec![link], now);
        watch.try_again(now);
        assert_eq!(watch.due(), Some(now + PAUSE_FOR_WAY_OUT));
        assert!(!watch.is_due(now) && watch.links().len() == 1);
        drop(other);
        assert!(!watch.is_due(now) && watch.links().is_empty());
        for _ in 0..9 {
            watch.try_again(now);
        }
        assert_eq!(watch.due(), Some(now + LONGEST_PAUSE), "nor could one be had");
    }
}
