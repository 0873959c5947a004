//! A terminal for a command: a pty whose other side the test holds, to send keys, change the size and look at the modes.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::pty::OpenptFlags;
use rustix::termios::{LocalModes, Termios, Winsize};

use super::husk::{Invocation, Running};
use super::launch::Step;

/// Generous: only a program that never gets there may meet it.
const ECHO_LIMIT: Duration = Duration::from_secs(30);

/// The test's side of a terminal.
pub(crate) struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Terminal {
    /// Opens a terminal of a size.
    pub(crate) fn open(rows: u16, columns: u16) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = rustix::pty::openpt(flags).expect("open a pty");
        rustix::pty::unlockpt(&ours).expect("unlock the pty");
        let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags).expect("open the pty's other side");
        let terminal = Self { ours, theirs };
        terminal.resize(rows, columns);
        terminal
    }

    /// Starts a command with the terminal as its standard files and controlling terminal.
    pub(crate) fn start<'a>(&self, command: &mut Invocation<'a>) -> Running<'a> {
        let side = || self.theirs.try_clone().expect("duplicate a descriptor").into();
        command.step(Step::ControllingTerminal);
        let mut running = command.start_with(side(), side(), side());
        let duplicate = |fd: &OwnedFd| fd.try_clone().expect("duplicate a descriptor");
        running.read_terminal(duplicate(&self.ours), duplicate(&self.theirs));
        running
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.ours, size).expect("resize the terminal");
    }

    /// Types.
    pub(crate) fn send(&self, keys: &str) {
        let written = rustix::io::write(&self.ours, keys.as_bytes()).expect("type into the terminal");
        assert_eq!(written, keys.len(), "a few keys fit into the terminal's queue");
    }

    /// The modes as a program on the terminal sees them, in a form that compares.
    pub(crate) fn modes(&self) -> String {
        let modes: Termios = rustix::termios::tcgetattr(&self.theirs).expect("read the terminal's modes");
        format!(
            "input {:?} output {:?} control {:?} local {:?}",
            modes.input_modes, modes.output_modes, modes.control_modes, modes.local_modes
        )
    }

    /// Waits until a program has turned the echo on or off. Nothing tells of it, so that this looks again and again.
    pub(crate) fn await_echo(&self, echoes: bool) {
        let deadline = Instant::now() + ECHO_LIMIT;
        let modes = || rustix::termios::tcgetattr(&self.theirs).expect("read the terminal's modes").local_modes;
        while modes().contains(LocalModes::ECHO) != echoes {
            assert!(Instant::now() < deadline, "the terminal's echo stays as it is: {}", self.modes());
            std::thread::yield_now();
        }
    }

    pub(crate) fn is_raw(&self) -> bool {
        let modes = rustix::termios::tcgetattr(&self.theirs).expect("read the terminal's modes");
        !modes.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }
}
