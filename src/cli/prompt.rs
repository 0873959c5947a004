//! Questions to a person at a terminal.
//!
//! A secret is read without echo, and the terminal is given back as it was on every way out, a signal's included. Asks and
//! reads one line; what the answer means is the command's.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};
use rustix::termios::{LocalModes, OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use crate::error::{Context, Error, Kind, Result};
use crate::image::registry::login::Secret;
use crate::sys::signal::{CHILD, Signals, URGENT, WINDOW};

/// What a terminal's line discipline takes as one line (termios(3)).
const LINE_BYTES: usize = 4096;

/// The caller's terminal.
pub(super) struct Terminal(OwnedFd);

impl Terminal {
    /// Opens it; `None` where standard input is none, since then nobody is there to answer.
    pub(super) fn of_caller() -> Option<Self> {
        if !isatty(rustix::stdio::stdin()) {
            return None;
        }
        rustix::fs::open("/dev/tty", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).ok().map(Self)
    }

    /// Asks a question and reads the answer.
    pub(super) fn ask(&self, question: &str) -> Result<String> {
        self.write(question)?;
        self.line()
    }

    /// Asks a question and reads an answer that is not shown.
    pub(super) fn ask_secretly(&self, question: &str) -> Result<Secret> {
        // From here on a signal is held back until the terminal echoes again.
        let signals = Signals::block_all().context("block signals")?;
        let mut modes = tcgetattr(&self.0).context("ask the terminal")?;
        let quiet = Quiet { terminal: &self.0, before: modes.clone() };
        modes.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&self.0, OptionalActions::Flush, &modes).context("set the terminal")?;
        self.write(question)?;
        let line = self.await_line(&signals).and_then(|()| self.line());
        drop(quiet);
        self.write("\n")?;
        // One that was held back ends husk here.
        signals.restore_mask().context("restore signals")?;
        line.map(Secret::new)
    }

    /// Waits for a line, or for a signal that would have ended or stopped the process.
    fn await_line(&self, signals: &Signals) -> Result<()> {
        loop {
            let mut fds =
                [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("wait for an answer"),
                Ok(_) if fds[1].revents().is_empty() => return Ok(()),
                Ok(_) => {}
            }
            let Some(arrived) = signals.next().context("read a signal")? else { continue };
            if ![CHILD, URGENT, WINDOW].contains(&arrived.number)
                && let Some(signal) = Signal::from_named_raw(arrived.number)
            {
                // It waits until signals are let in again, and then does what it would have done.
                kill_process(getpid(), signal).context("keep a signal")?;
                return Err(Error::new(Kind::Other, "the question was interrupted"));
            }
        }
    }

    fn line(&self) -> Result<String> {
        let mut bytes = Vec::new();
        loop {
            let mut part = [0; LINE_BYTES];
            match rustix::io::read(&self.0, &mut part) {
                Ok(0) => return Err(Error::invalid("there was no answer")),
                Ok(count) => bytes.extend_from_slice(&part[..count]),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("read from the terminal"),
            }
            if bytes.len() > LINE_BYTES {
                return Err(Error::invalid(format!("the answer is longer than {LINE_BYTES} bytes")));
            }
            if let Some(line) = bytes.strip_suffix(b"\n") {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return String::from_utf8(line.to_vec()).map_err(|_| Error::invalid("the answer is not UTF-8"));
            }
        }
    }

    fn write(&self, text: &str) -> Result<()> {
        rustix::io::write(&self.0, text.as_bytes()).context("write to the terminal")?;
        Ok(())
    }
}

/// A terminal that does not echo; it does again when this is dropped.
struct Quiet<'a> {
    terminal: &'a OwnedFd,
    before: Termios,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.before);
    }
}
