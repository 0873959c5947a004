//! Who attends to a container: the command that started it, and whoever attached since.
//!
//! The command sets the pace: while it does not read, the workload's output waits, as in a pipeline. Others are dropped
//! where they do not keep up; what they may be behind is what their socket holds, so nothing grows here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::{Link, Sent, Wants};
use super::{Exit, Stream};

/// One that attends.
pub(super) struct Member {
    pub(super) link: Link,
    pub(super) wants: Wants,
    pub(super) has_sent_input: bool,
}

/// All of them.
pub(super) struct Audience {
    /// The command that started the container, at place 0.
    pub(super) first: Option<Member>,
    /// The others, from place 1 on.
    others: Vec<Member>,
    listener: Option<OwnedFd>,
    /// What the command has not had room for.
    waiting: Option<(Stream, Vec<u8>)>,
}

/// Who has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    FirstHasGone,
    OtherHasGone,
}

/// More than this at once is no use that anybody has.
const MOST: usize = 64;

impl Audience {
    /// The place of the command that started the container.
    pub(super) const FIRST: usize = 0;

    pub(super) fn new(client: Link, wants: Wants) -> Self {
        let first = Some(Member { link: client, wants, has_sent_input: false });
        Self { first, others: Vec::new(), listener: None, waiting: None }
    }

    pub(super) fn listen(&mut self, listener: OwnedFd) {
        self.listener = Some(listener);
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().filter(|_| self.others.len() < MOST).map(AsFd::as_fd)
    }

    pub(super) fn accept(&mut self) {
        if let Some(link) = self.listener().and_then(Link::accept) {
            self.others.push(Member { link, wants: Wants::default(), has_sent_input: false });
        }
    }

    /// Lets everybody in who waits.
    pub(super) fn accept_all(&mut self) {
        while self.listener().is_some_and(is_readable) {
            self.accept();
        }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (usize, &Member)> {
        let first = self.first.iter().map(|member| (Self::FIRST, member));
        first.chain(self.others.iter().enumerate().map(|(place, member)| (place + 1, member)))
    }

    /// All places there are, taken or not.
    pub(super) fn places(&self) -> std::ops::Range<usize> {
        0..self.others.len() + 1
    }

    pub(super) fn member(&mut self, place: usize) -> Option<&mut Member> {
        match place.checked_sub(1) {
            None => self.first.as_mut(),
            Some(place) => self.others.get_mut(place),
        }
    }

    /// Ends a conversation. Places behind it move up.
    pub(super) fn remove(&mut self, place: usize) -> Heard {
        match place.checked_sub(1) {
            None => {
                self.first = None;
                self.waiting = None;
                Heard::FirstHasGone
            }
            Some(place) => {
                if place < self.others.len() {
                    self.others.remove(place);
                }
                Heard::OtherHasGone
            }
        }
    }

    pub(super) fn warn(&self, text: &str) {
        if let Some(first) = &self.first {
            first.link.send_warning(text);
        }
    }

    /// Tells those who are here that the workload runs. Who connects is told when it says what it wants.
    pub(super) fn started(&self, pidfd: BorrowedFd<'_>, has_terminal: bool) {
        for (_, member) in self.members() {
            member.link.send_started(pidfd, has_terminal);
        }
    }

    /// Passes on what the workload wrote.
    pub(super) fn tell(&mut self, stream: Stream, bytes: &[u8]) {
        self.others.retain(|member| !member.wants.output || member.link.send_output(stream, bytes) == Sent::Yes);
        let Some(first) = self.first.as_ref().filter(|first| first.wants.output) else { return };
        match first.link.send_output(stream, bytes) {
            Sent::Full => self.waiting = Some((stream, bytes.to_vec())),
            // That one has gone is heard where its messages are read.
            Sent::Yes | Sent::Gone => {}
        }
    }

    /// Says whether the command has yet to take what it was told.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.is_some()
    }

    /// Tells the command what it had no room for.
    pub(super) fn flush(&mut self) {
        let (Some((stream, bytes)), Some(first)) = (&self.waiting, &self.first) else { return };
        if first.link.send_output(*stream, bytes) != Sent::Full {
            self.waiting = None;
        }
    }

    /// Waits until the command has room for more, or has gone.
    pub(super) fn wait_for_room(&mut self) {
        while self.is_full() {
            let Some(first) = &self.first else { return };
            let _ = poll(&mut [PollFd::new(&first.link, PollFlags::OUT)], None);
            self.flush();
        }
    }

    /// Says how it ended: the command waits for that, the others may have gone.
    pub(super) fn ended(&self, exit: Exit) {
        for (place, member) in self.members() {
            while member.link.send_ended(exit) == Sent::Full && place == Self::FIRST {
                let _ = poll(&mut [PollFd::new(&member.link, PollFlags::OUT)], None);
            }
        }
    }
}

impl Member {
    /// Says whether there is a message, or an end, to be read now.
    pub(super) fn has_news(&self) -> bool {
        is_readable(self.link.as_fd())
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
}
