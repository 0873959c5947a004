//! Signal masks, dispositions and `signalfd(2)`.
#![expect(unsafe_code, reason = "sigaction is unsafe in every library, since handlers are; ours but end the process")]

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
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
    /// Blocks every signal that can be blocked, but for those that stop a background process at its terminal, and opens the descriptor to read them from.
    pub fn block_all() -> Result<Self, Errno> {
        let mut all = SigSet::all();
        // Blocked, they would let a background job change the terminal's settings under the shell's hands (tcsetattr(3)).
        all.remove(Signal::SIGTTIN);
        all.remove(Signal::SIGTTOU);
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

/// Ends a process, whatever it says.
pub const KILL: i32 = libc::SIGKILL;
/// What ends a process that has nothing to say to it, and that people and engines send to end one.
pub const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];
/// What asks a process to end.
pub const TERMINATE: i32 = libc::SIGTERM;
/// A system call that is none, or that a filter forbids.
pub const BAD_CALL: i32 = libc::SIGSYS;
/// A child has changed its state.
pub const CHILD: i32 = libc::SIGCHLD;
/// A pipe has no reader.
pub const PIPE: i32 = libc::SIGPIPE;
/// A background process wants to read its terminal.
pub const TTY_INPUT: i32 = libc::SIGTTIN;
/// A background process wants to write to its terminal.
pub const TTY_OUTPUT: i32 = libc::SIGTTOU;
/// Urgent data on a socket.
pub const URGENT: i32 = libc::SIGURG;
/// The terminal's window has another size.
pub const WINDOW: i32 = libc::SIGWINCH;
/// The last signal number of Linux, real-time signals included.
pub const LAST: i32 = 64;

/// Sends a signal by number, which may be a real-time one, to the process that `pidfd` stands for (kernel 5.1).
pub fn send(pidfd: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // SAFETY: the descriptor is borrowed; a null siginfo means one like kill(2)'s.
    let answer = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Gives the number of a signal by name, with or without `SIG`, or by number.
pub fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (0..=LAST).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    if let Some(number) = real_time(name) {
        return Some(number);
    }
    Signal::iterator().find(|signal| signal.as_str().strip_prefix("SIG") == Some(name)).map(|signal| signal as i32)
}

/// `RTMIN`, `RTMIN+3`, `RTMAX-2`, as kill(1) numbers them.
fn real_time(name: &str) -> Option<i32> {
    let (base, rest, sign) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (34, rest.strip_prefix('+').unwrap_or(rest), 1)
    } else {
        let rest = name.strip_prefix("RTMAX")?;
        (LAST, rest.strip_prefix('-').unwrap_or(rest), -1)
    };
    let offset =
        if rest.is_empty() { 0 } else { rest.parse::<i32>().ok().filter(|offset| (0..=30).contains(offset))? };
    Some(base + sign * offset)
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
    /// A struct sigaction of the kernel's with SIG_DFL, no flags and an empty mask is all zeros, and not longer than this.
    const DEFAULT: [u64; 4] = [0; 4];
    const MASK_LENGTH: libc::c_long = 8;
    for number in (1..=LAST).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
        // SAFETY: DEFAULT outlives the call and is as long as the kernel reads; the old disposition is not asked for. Made
        // directly, since the C library keeps signals 32 and 33 to itself.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), std::ptr::null::<()>(), MASK_LENGTH) };
    }
}

/// Ends this process at a signal of [`ENDING`], with the status that a shell gives for it, until the next exec.
///
/// To the first process of a PID namespace the kernel sends none that has no handler (pid_namespaces(7)).
pub fn end_at_ending() -> Result<(), Errno> {
    extern "C" fn end(number: libc::c_int) {
        super::process::exit_now(128 + number);
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for number in ENDING {
        let signal = Signal::try_from(number).map_err(errno)?;
        // SAFETY: the handler makes one system call and never returns, so it may run at any moment.
        unsafe { sigaction(signal, &action) }.map_err(errno)?;
    }
    Ok(())
}

fn errno(errno: nix::Error) -> Errno {
    Errno::from_raw_os_error(errno as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("TERM", Some(15)),
            ("SIGTERM", Some(15)),
            ("sigkill", Some(9)),
            ("0", Some(0)),
            ("64", Some(64)),
            ("65", None),
            ("-1", None),
            ("RTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMIN+31", None),
            ("NOPE", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }
}
