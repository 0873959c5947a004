//! Who attends to a container: the command that started it, and whoever attached since.
//!
//! The command sets the pace: while it does not read, the workload's output waits, as in a pipeline. Others are dropped
//! where they do not keep up; what they may be behind is what their socket holds, so nothing grows here.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::{Link, Sent, Wants};
use super::{Exit, Stream};
use crate::error::{Error, Kind, Result};

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
    /// What the command has not had room for, the oldest first: little while the workload runs, for it waits then.
    waiting: VecDeque<Waiting>,
}

/// What is yet to be said to the command.
enum Waiting {
    Started { pidfd: OwnedFd, has_terminal: bool },
    Output(Stream, Vec<u8>),
    Warning(String),
}

/// Who has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    FirstHasGone,
    OtherHasGone,
}

/// So many others may read the output.
const MOST_READERS: usize = 64;

/// So many others there may be at all: each costs a descriptor, of which a process usually has 1024.
const MOST: usize = 512;

impl Audience {
    /// The place of the command that started the container.
    pub(super) const FIRST: usize = 0;

    pub(super) fn new(client: Link, wants: Wants) -> Self {
        let first = Some(Member { link: client, wants, has_sent_input: false });
        Self { first, others: Vec::new(), listener: None, waiting: VecDeque::new() }
    }

    pub(super) fn listen(&mut self, listener: OwnedFd) {
        self.listener = Some(listener);
    }

    pub(super) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// Lets one in, whoever is here: it may be the one who ends it all. Where there is no room, the one goes who has waited
    /// longest, and may come back.
    pub(super) fn accept(&mut self) {
        let link = self.listener().and_then(Link::accept);
        if link.is_none() || self.others.len() >= MOST {
            let longest = self.others.iter().position(|member| !member.wants.output).unwrap_or(0);
            if longest < self.others.len() {
                self.others.remove(longest);
            }
        }
        if let Some(link) = link {
            self.others.push(Member { link, wants: Wants::default(), has_sent_input: false });
        }
    }

    /// Lets everybody in who waits.
    pub(super) fn accept_all(&mut self) {
        for _ in 0..MOST {
            if !self.listener().is_some_and(is_readable) {
                return;
            }
            self.accept();
        }
    }

    /// Takes what a member wants, unless too many want that already.
    pub(super) fn admit(&mut self, place: usize, wants: Wants) -> Result<()> {
        let readers = self.others.iter().filter(|member| member.wants.output).count();
        if wants.output && readers >= MOST_READERS {
            return Err(Error::new(Kind::State, format!("{readers} commands are attached to the container already")));
        }
        if let Some(member) = self.member(place) {
            member.wants = wants;
        }
        Ok(())
    }

    /// Answers a member; one of the others who does not read goes.
    pub(super) fn answer(&mut self, place: usize, say: impl FnOnce(&Link) -> Sent) {
        let sent = self.member(place).map(|member| say(&member.link));
        if place != Self::FIRST && sent.is_some_and(|sent| sent != Sent::Yes) {
            self.remove(place);
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
                self.waiting.clear();
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

    /// Tells the command of what did not succeed.
    pub(super) fn warn(&mut self, text: &str) {
        let Some(first) = &self.first else { return };
        if self.is_full() || first.link.send_warning(text) == Sent::Full {
            self.waiting.push_back(Waiting::Warning(text.to_owned()));
        }
    }

    /// Tells those who are here that the workload runs. Who connects is told when it says what it wants.
    pub(super) fn started(&mut self, pidfd: BorrowedFd<'_>, has_terminal: bool) {
        self.others.retain(|member| member.link.send_started(pidfd, has_terminal) == Sent::Yes);
        let Some(first) = &self.first else { return };
        if (self.is_full() || first.link.send_started(pidfd, has_terminal) == Sent::Full)
            && let Ok(pidfd) = pidfd.try_clone_to_owned()
        {
            self.waiting.push_back(Waiting::Started { pidfd, has_terminal });
        }
    }

    /// Passes on what the workload wrote.
    pub(super) fn tell(&mut self, stream: Stream, bytes: &[u8]) {
        self.others.retain(|member| !member.wants.output || member.link.send_output(stream, bytes) == Sent::Yes);
        let Some(first) = self.first.as_ref().filter(|first| first.wants.output) else { return };
        // That one has gone is heard where its messages are read.
        if self.is_full() || first.link.send_output(stream, bytes) == Sent::Full {
            self.waiting.push_back(Waiting::Output(stream, bytes.to_vec()));
        }
    }

    /// Says whether the command has yet to take what it was told.
    pub(super) fn is_full(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Tells the command what it had no room for.
    pub(super) fn flush(&mut self) {
        let Some(first) = &self.first else { return };
        while let Some(next) = self.waiting.front() {
            let sent = match next {
                Waiting::Started { pidfd, has_terminal } => first.link.send_started(pidfd.as_fd(), *has_terminal),
                Waiting::Output(stream, bytes) => first.link.send_output(*stream, bytes),
                Waiting::Warning(text) => first.link.send_warning(text),
            };
            if sent == Sent::Full {
                return;
            }
            self.waiting.pop_front();
        }
    }

    /// Tells the others how it ended, if it ran, and hears nobody from here on.
    pub(super) fn dismiss(&mut self, exit: Option<Exit>) {
        for member in self.others.drain(..) {
            if let Some(exit) = exit {
                let _ = member.link.send_ended(exit);
            }
        }
        self.listener = None;
    }

    /// Says the last word to the command, after all that it has not read yet, and waits for as long as that takes.
    pub(super) fn tell_last(&mut self, say: impl Fn(&Link) -> Sent) {
        loop {
            self.flush();
            let Some(first) = &self.first else { return };
            if !self.is_full() && say(&first.link) != Sent::Full {
                return;
            }
            let _ = poll(&mut [PollFd::new(&first.link, PollFlags::OUT)], None);
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
