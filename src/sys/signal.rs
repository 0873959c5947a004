//! Signal masks, dispositions and `signalfd(2)`.
#![expect(unsafe_code, reason = "sigaction is unsafe in every library, since handlers are; only SIG_DFL is set here")]

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::io::Errno;

/// Blocked signals, read from a descriptor instead of being delivered.
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

/// A signal that arrived.
pub struct Arrived {
    /// Its number; real-time signals included.
    pub number: i32,
}

impl Signals {
    /// Blocks every signal that can be blocked and opens the descriptor to read them from.
    pub fn block_all() -> Result<Self, Errno> {
        let all = SigSet::all();
        let before = all.thread_swap_mask(SigmaskHow::SIG_SETMASK).map_err(errno)?;
        let fd = SignalFd::with_flags(&all, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(errno)?;
        Ok(Self { fd, before })
    }

    /// Reads the next signal that has arrived, if there is one.
    pub fn next(&self) -> Result<Option<Arrived>, Errno> {
        let info = self.fd.read_signal().map_err(errno)?;
        Ok(info.map(|info| Arrived { number: info.ssi_signo.cast_signed() }))
    }

    /// Sets the mask back to what it was. For the child, which inherits the blocked one.
    pub fn restore_mask(&self) -> Result<(), Errno> {
        self.before.thread_set_mask().map_err(errno)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Unblocks every signal in this process.
pub fn unblock_all() -> Result<(), Errno> {
    SigSet::empty().thread_set_mask().map_err(errno)
}

/// Gives every signal its default disposition again.
///
/// Handlers end with exec anyway; what an exec keeps is "ignored", which Rust's start-up sets for SIGPIPE and a shell or
/// `nohup` for others. A workload starts with nothing ignored.
pub fn reset_dispositions() {
    for signal in Signal::iterator() {
        if matches!(signal, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: SIG_DFL runs no code of ours.
        let _ = unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl) };
    }
}

fn errno(errno: nix::Error) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}
