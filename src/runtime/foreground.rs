//! Waiting for a container in the foreground: signals go in, the terminal goes both ways, the exit status comes out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitIdStatus, waitid};

use super::console::{self, RawMode};
use crate::error::{Context, Error, Result};
use crate::sys::pidfd;
use crate::sys::signal::{self, Signals};

/// How a workload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(u8),
    /// By a signal.
    Signal(u8),
}

impl Exit {
    /// Gives the exit status as a shell shows it: the code, or 128 + signal.
    pub fn status(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.saturating_add(signal),
        }
    }

    /// Takes a wait status apart (wait(2)).
    fn of_status(status: i32) -> Self {
        let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        match status & 0x7f {
            0 => Self::Code(byte(status >> 8)),
            signal => Self::Signal(byte(signal)),
        }
    }

    fn new(status: &WaitIdStatus) -> Self {
        let byte = |number: i32| u8::try_from(number & 0xff).unwrap_or(u8::MAX);
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(byte(code)),
            (None, Some(signal)) => Self::Signal(byte(signal)),
            (None, None) => Self::Code(u8::MAX),
        }
    }
}

/// Takes the exit status of a child if it has ended, and reaps it.
pub fn try_wait(pidfd: impl AsFd) -> Result<Option<Exit>> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), options))
        .context("wait for the container")?;
    Ok(status.as_ref().map(Exit::new))
}

/// Waits for a child's end and reaps it.
pub fn wait(pidfd: impl AsFd) -> Result<Exit> {
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED))
        .context("wait for the container")?;
    Ok(status.as_ref().map_or(Exit::Code(u8::MAX), Exit::new))
}

/// Waits for a child's end for so long at most: one at a disk that does not answer, or in a frozen cgroup, has none.
pub fn wait_at_most(pidfd: impl AsFd, patience: Timespec) -> Result<Option<Exit>> {
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).context("wait for the container")?;
    try_wait(pidfd)
}

/// How a process ended that is nobody's child here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learnt {
    NotYet,
    Ended(Exit),
    /// It has ended, and the kernel does not say how.
    Unknown,
}

/// How long whoever a process was left to may take to reap it; process 1 of a container may never.
const REAPING_PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Finds out whether, and how, a process has ended whose parent is somebody else.
///
/// Once it was reaped its pidfd says how (Linux 6.15); where nobody reaps it, its entry in `/proc` does.
pub fn try_learn(pid: Pid, pidfd: BorrowedFd<'_>) -> Result<Learnt> {
    let look = |wanted: PollFlags, patience: Timespec| {
        let mut fds = [PollFd::from_borrowed_fd(pidfd, wanted)];
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&patience))).context("wait for the container")?;
        Ok::<_, Error>(fds[0].revents())
    };
    if look(PollFlags::IN, Timespec { tv_sec: 0, tv_nsec: 0 })?.is_empty() {
        return Ok(Learnt::NotYet);
    }
    // KERNEL(6.9): before that, POLLHUP of one that was reaped does not come.
    let is_reaped = look(PollFlags::empty(), REAPING_PATIENCE)?.contains(PollFlags::HUP);
    let status = match pidfd::wait_status(pidfd) {
        None if !is_reaped => super::state::zombie_status(pid.as_raw_nonzero().get())?,
        status => status,
    };
    Ok(status.map_or(Learnt::Unknown, |status| Learnt::Ended(Exit::of_status(status))))
}

/// What tells [`attend`] that the workload has ended.
pub enum End {
    /// Nothing yet.
    NotYet,
    /// It has, in this way.
    Now(Exit),
}

/// Forwards signals and relays the terminal until `ended` says so. `watch` becomes readable when it is worth asking.
pub fn attend(
    pidfd: BorrowedFd<'_>,
    terminal: Option<OwnedFd>,
    signals: &Signals,
    watch: BorrowedFd<'_>,
    mut ended: impl FnMut() -> Result<End>,
) -> Result<Exit> {
    let stdin = rustix::stdio::stdin();
    let mut relay = match terminal {
        Some(master) => Some(Relay::new(master, stdin)?),
        None => None,
    };
    let exit = loop {
        let mut fds = Vec::with_capacity(5);
        fds.push(PollFd::new(&watch, PollFlags::IN));
        fds.push(PollFd::new(signals, PollFlags::IN));
        if let Some(relay) = &relay {
            relay.add_interest(&mut fds);
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for events"),
        }
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        drop(fds);
        if let Some(relay) = &mut relay {
            relay.move_bytes(&events[2..]);
        }
        if !events[1].is_empty() {
            forward(signals, pidfd, relay.as_ref())?;
        }
        if !events[0].is_empty()
            && let End::Now(exit) = ended()?
        {
            break exit;
        }
    };
    if let Some(relay) = &mut relay {
        relay.drain();
    }
    Ok(exit)
}

fn forward(signals: &Signals, pidfd: BorrowedFd<'_>, relay: Option<&Relay<'_>>) -> Result<()> {
    while let Some(arrived) = signals.next().context("read signals")? {
        match arrived.number {
            // About our own children, pipes and terminal (and SIGURG, which Go programs send between their threads): not
            // the workload's business.
            signal::CHILD | signal::PIPE | signal::URGENT | signal::TTY_INPUT | signal::TTY_OUTPUT => {}
            signal::WINDOW => {
                if let Some(relay) = relay {
                    console::copy_size(rustix::stdio::stdin(), &relay.master);
                }
            }
            number => match signal::send(pidfd, number) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).with_context(|| format!("send signal {number}")),
            },
        }
    }
    Ok(())
}

/// Bytes on their way in one direction.
struct Buffer {
    bytes: Box<[u8; BUFFER_SIZE]>,
    start: usize,
    end: usize,
}

/// A pipe that polls writable takes this much without blocking (`PIPE_BUF`, pipe(7)), so that a reader who is slow never
/// keeps us from the signals.
const BUFFER_SIZE: usize = 4096;

impl Buffer {
    fn new() -> Self {
        Self { bytes: Box::new([0; BUFFER_SIZE]), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn clear(&mut self) {
        self.start = self.end;
    }

    /// Reads when empty; `false` at the end of the source.
    fn fill(&mut self, from: impl AsFd) -> bool {
        match rustix::io::read(from, &mut self.bytes[..]) {
            Ok(0) => false,
            Ok(count) => {
                (self.start, self.end) = (0, count);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            // EIO: the last slave of a terminal was closed.
            Err(_) => false,
        }
    }

    /// Writes what it holds; `false` when nobody takes it any more.
    fn flush(&mut self, to: impl AsFd) -> bool {
        match rustix::io::write(to, &self.bytes[self.start..self.end]) {
            Ok(count) => {
                self.start += count;
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }
}

/// Both directions between the caller's standard streams and a terminal's master.
struct Relay<'a> {
    master: OwnedFd,
    _raw: Option<RawMode<'a>>,
    input: Buffer,
    output: Buffer,
    has_input: bool,
    has_output: bool,
}

impl<'a> Relay<'a> {
    fn new(master: OwnedFd, stdin: BorrowedFd<'a>) -> Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&master).context("set up the terminal")?;
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK).context("set up the terminal")?;
        console::copy_size(stdin, &master);
        let raw = RawMode::set(stdin).context("set raw mode")?;
        Ok(Self { master, _raw: raw, input: Buffer::new(), output: Buffer::new(), has_input: true, has_output: true })
    }

    /// Says what is of interest: standard input, the master, standard output.
    ///
    /// A closed side polls as hung up for ever, whatever is asked of it: what is not of interest stays out of the set.
    fn interest(&self) -> [PollFlags; 3] {
        let wants = |wanted: bool, flag: PollFlags| if wanted { flag } else { PollFlags::empty() };
        [
            wants(self.has_input && self.input.is_empty(), PollFlags::IN),
            wants(self.has_output && self.output.is_empty(), PollFlags::IN)
                | wants(self.has_output && !self.input.is_empty(), PollFlags::OUT),
            wants(!self.output.is_empty(), PollFlags::OUT),
        ]
    }

    /// Adds what is of interest, in the order of [`Self::interest`].
    fn add_interest<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        let all = [rustix::stdio::stdin(), self.master.as_fd(), rustix::stdio::stdout()];
        for (fd, flags) in all.into_iter().zip(self.interest()) {
            if !flags.is_empty() {
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
        }
    }

    /// Takes the answers to [`Self::add_interest`].
    fn move_bytes(&mut self, events: &[PollFlags]) {
        let mut events = events.iter().copied();
        let [input, master, output] = self
            .interest()
            .map(|flags| if flags.is_empty() { flags } else { events.next().unwrap_or(PollFlags::empty()) });
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        if self.has_input && self.input.is_empty() && input.intersects(readable) {
            self.has_input = self.input.fill(rustix::stdio::stdin());
        }
        if !self.input.is_empty() && master.contains(PollFlags::OUT) && !self.input.flush(&self.master) {
            self.input.clear();
            self.has_input = false;
        }
        if self.has_output && self.output.is_empty() && master.intersects(readable) {
            self.has_output = self.output.fill(&self.master);
        }
        if !self.output.is_empty() && !output.is_empty() && !self.output.flush(rustix::stdio::stdout()) {
            self.output.clear();
            self.has_output = false;
        }
    }

    /// Passes on what the workload wrote before it ended.
    fn drain(&mut self) {
        while !self.output.is_empty() {
            if !self.output.flush(rustix::stdio::stdout()) {
                return;
            }
        }
        while self.has_output {
            self.has_output = self.output.fill(&self.master) && !self.output.is_empty();
            while !self.output.is_empty() {
                if !self.output.flush(rustix::stdio::stdout()) {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_closed_is_not_waited_for() {
        let (master, other) = rustix::pipe::pipe().unwrap();
        let mut relay = Relay {
            master,
            _raw: None,
            input: Buffer::new(),
            output: Buffer::new(),
            has_input: false,
            has_output: true,
        };
        let mut fds = Vec::new();
        relay.add_interest(&mut fds);
        assert_eq!(fds.len(), 1, "the master alone");
        drop(fds);
        drop(other);
        relay.move_bytes(&[PollFlags::HUP]);
        let mut fds = Vec::new();
        relay.add_interest(&mut fds);
        assert!(fds.is_empty());
    }
}
