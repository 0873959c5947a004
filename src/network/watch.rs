//! What a monitor knows of processes that its container needs and is not the parent of: that one has died, and when to look for
//! another. All who need it see that at once, and the first to have its lock starts it for all. What dies again at once is asked
//! for ever more seldom.

use std::cell::{Cell, Ref, RefCell};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// What has lived for so long has died of something else than its beginning.
const SETTLED: Duration = Duration::from_mins(1);
/// A process that dies has its sockets closed a moment before its locks are free.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Connections to such processes, and the next time to ask for them anew.
#[derive(Debug, Default)]
pub struct Watch {
    links: RefCell<Vec<OwnedFd>>,
    since: Cell<Option<Instant>>,
    due: Cell<Option<Instant>>,
    pause: Cell<Duration>,
}

impl Watch {
    /// They are all there; each link becomes readable with the end of one.
    pub fn hold(&self, links: Vec<OwnedFd>, now: Instant) {
        self.links.replace(links);
        self.since.set(Some(now));
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

    /// One has died, or could not be had: says whether it is time to ask for another.
    pub fn is_due(&self, now: Instant) -> bool {
        if self.due.get().is_none() {
            self.lost(now);
        }
        self.due.get().is_some_and(|due| due <= now)
    }

    /// None could be had, or one has died: whoever asks for another is to do so at once, if it had lived for long.
    pub fn lost(&self, now: Instant) {
        let had_settled = self.since.take().is_some_and(|since| now.duration_since(since) >= SETTLED);
        self.links.take();
        let pause = if had_settled { Duration::ZERO } else { self.pause.get() };
        self.pause.set((pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE));
        self.due.set(Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_dies_at_once_is_asked_for_ever_more_seldom() {
        let watch = Watch::default();
        let now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..9 {
            watch.hold(vec![std::fs::File::open("/dev/null").unwrap().into()], now);
            assert!(watch.links().len() == 1 && watch.due().is_none());
            pauses.push((watch.is_due(now), (watch.due().unwrap() - now).as_millis()));
        }
        let expected = [0, 20, 40, 80, 160, 320, 640, 1280, 2560];
        assert_eq!(pauses, expected.map(|pause| (pause == 0, pause)));
        assert!(watch.is_due(now + LONGEST_PAUSE));
        watch.hold(Vec::new(), now);
        assert!(watch.is_due(now + SETTLED), "it had lived for long");
        watch.let_go();
        assert_eq!(watch.due(), None);
    }
}
