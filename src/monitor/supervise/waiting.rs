//! What a monitor waits for: all of it at once, in one poll(2). Does nothing about what comes.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{Lifetime, Monitor};
use crate::error::{Context, Result};
use crate::monitor::Stream;
use crate::monitor::checking::Checking;
use crate::monitor::health::Checks;
use crate::monitor::log::Log;
use crate::monitor::streams::Streams;
use crate::sys::memory;

/// What comes within this time of each other finds memory as it was.
const BUSY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

enum Source {
    End,
    Newcomer,
    Member(usize),
    ClientHasRoom,
    LogHasRoom,
    Memory,
    Stream(Stream),
    Input,
    Check,
    CheckOutput,
    Relay,
    Names,
    Lifeline,
}

/// What a wait brought.
#[derive(Default)]
pub(super) struct Ready {
    pub(super) ended: bool,
    pub(super) newcomer: bool,
    pub(super) heard: Vec<usize>,
    pub(super) client_has_room: bool,
    pub(super) log_has_room: bool,
    pub(super) memory: bool,
    pub(super) streams: Vec<Stream>,
    pub(super) input: bool,
    pub(super) check: bool,
    pub(super) check_output: bool,
    pub(super) relay: bool,
    pub(super) names: bool,
    pub(super) lifeline: bool,
    pub(super) deadline_passed: bool,
}

impl Monitor<'_> {
    /// Waits for whatever comes first.
    pub(super) fn wait(&self, pidfd: Option<BorrowedFd<'_>>, streams: &Streams) -> Result<Ready> {
        let relay = self.job.relay.borrow();
        let mut sources = Vec::with_capacity(8);
        let mut fds = Vec::with_capacity(8);
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if let Some(pidfd) = pidfd {
            add(Source::End, pidfd, PollFlags::IN);
        }
        if let Some(listener) = self.audience.listener() {
            add(Source::Newcomer, listener, PollFlags::IN);
        }
        for (place, member) in self.audience.members() {
            // Its end is seen without asking; what it sends waits while the workload does not read.
            let wants =
                if member.has_sent_input && !streams.takes_input() { PollFlags::empty() } else { PollFlags::IN };
            add(Source::Member(place), member.link.as_fd(), wants);
        }
        if self.audience.is_full()
            && let Some(first) = &self.audience.first
        {
            add(Source::ClientHasRoom, first.link.as_fd(), PollFlags::OUT);
        }
        if let Some(outlet) = self.log.as_ref().and_then(Log::outlet) {
            add(Source::LogHasRoom, outlet, PollFlags::OUT);
        }
        if !self.is_full() {
            for (stream, fd) in streams.readable() {
                add(Source::Stream(stream), fd, PollFlags::IN);
            }
        }
        if let Some(memory) = self.memory.as_ref().filter(|_| pidfd.is_some()) {
            add(Source::Memory, memory.as_fd(), PollFlags::PRI);
        }
        if let Some(input) = streams.writable() {
            add(Source::Input, input, PollFlags::OUT);
        }
        if let Some(checking) = &self.checking {
            add(Source::Check, checking.pidfd(), PollFlags::IN);
            if let Some(output) = checking.output() {
                add(Source::CheckOutput, output, PollFlags::IN);
            }
        }
        for source in relay.sources() {
            add(Source::Relay, source, PollFlags::IN);
        }
        let names = self.job.names.links();
        for link in names.iter() {
            add(Source::Names, link.as_fd(), PollFlags::IN);
        }
        let ways = self.job.lifeline.links();
        for link in ways.iter() {
            add(Source::Lifeline, link.as_fd(), PollFlags::IN);
        }
        let due = self.checking.as_ref().and_then(Checking::deadline);
        let due = due.or_else(|| {
            self.checks.as_ref().and_then(Checks::due).filter(|_| pidfd.is_some() && self.checking.is_none())
        });
        let dues = [due, self.job.names.due(), self.job.lifeline.due()];
        let next = self.deadline.into_iter().chain(dues.into_iter().flatten()).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let polled = match self.lifetime {
            Lifetime::Command => poll(&mut fds, timeout.as_ref()),
            Lifetime::Own => poll_for_long(&mut fds, timeout),
        };
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
        let has_passed = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= Instant::now());
        let mut ready = Ready {
            deadline_passed: has_passed(self.deadline),
            names: has_passed(self.job.names.due()),
            lifeline: has_passed(self.job.lifeline.due()),
            ..Ready::default()
        };
        for (source, fd) in sources.into_iter().zip(&fds) {
            if fd.revents().is_empty() {
                continue;
            }
            match source {
                Source::End => ready.ended = true,
                Source::Newcomer => ready.newcomer = true,
                Source::Member(place) => ready.heard.push(place),
                Source::ClientHasRoom => ready.client_has_room = true,
                Source::LogHasRoom => ready.log_has_room = true,
                Source::Memory => ready.memory = true,
                Source::Stream(stream) => ready.streams.push(stream),
                Source::Input => ready.input = true,
                Source::Check => ready.check = true,
                Source::CheckOutput => ready.check_output = true,
                Source::Relay => ready.relay = true,
                Source::Names => ready.names = true,
                Source::Lifeline => ready.lifeline = true,
            }
        }
        // From the back, so that who goes does not change the places of the others.
        ready.heard.reverse();
        Ok(ready)
    }
}

/// Waits as poll(2) does; once nothing has come for a moment, with little memory.
fn poll_for_long(fds: &mut [PollFd<'_>], timeout: Option<Timespec>) -> Result<usize, Errno> {
    let is_soon = |timeout: &Timespec| (timeout.tv_sec, timeout.tv_nsec) <= (BUSY.tv_sec, BUSY.tv_nsec);
    if timeout.as_ref().is_some_and(is_soon) {
        return poll(fds, timeout.as_ref());
    }
    match poll(fds, Some(&BUSY))? {
        0 => memory::wait_released(fds, timeout.and_then(|timeout| timeout.checked_sub(BUSY)).as_ref()),
        count => Ok(count),
    }
}
