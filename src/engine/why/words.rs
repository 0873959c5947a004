//! Signals and exit statuses, said in words.

use nix::sys::signal::Signal;

/// `SIGKILL`, or `signal 34`.
pub(super) fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}

/// What a signal that ends a process mostly means.
pub(super) fn signal_meaning(number: i32) -> Option<&'static str> {
    Some(match Signal::try_from(number).ok()? {
        Signal::SIGHUP => "its terminal was gone, or somebody sent it",
        Signal::SIGINT => "an interrupt, as Ctrl-C sends it",
        Signal::SIGQUIT => "a request to quit, as Ctrl-\\ sends it",
        Signal::SIGILL => {
            "it met an instruction that this processor does not have: often a build for a newer processor (x86-64-v3)"
        }
        Signal::SIGTRAP => "it met a breakpoint: some programs end themselves so after a failed check",
        Signal::SIGABRT => "it ended itself (abort(3)): a failed assertion, or a corrupt heap",
        Signal::SIGBUS => {
            "it touched a page that has no memory behind it: a file that was cut short, or /dev/shm that is full"
        }
        Signal::SIGFPE => "it calculated something that has no result, such as a division by zero",
        Signal::SIGKILL => "no process can catch it; the kernel and whoever has the rights send it",
        Signal::SIGSEGV => {
            "it touched memory that is not its own: a mistake in the program, or a library that does not fit"
        }
        Signal::SIGPIPE => "it wrote where nobody reads any more",
        Signal::SIGALRM => "a timer of its own ran out",
        Signal::SIGTERM => "a request to end",
        Signal::SIGXCPU => "it used all the processor time that it may (--ulimit cpu)",
        Signal::SIGXFSZ => "it wrote a file larger than it may (--ulimit fsize)",
        Signal::SIGSYS => "it called something of the kernel that its seccomp profile answers with death",
        _ => return None,
    })
}

/// The signal that a status above 128 stands for, as shells and `--init` pass it on.
pub(super) fn signal_of_status(status: u8) -> Option<i32> {
    (129..=192).contains(&status).then(|| i32::from(status) - 128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_stand_for_signals() {
        assert_eq!(signal_of_status(137), Some(9));
        assert_eq!(signal_of_status(128), None);
        assert_eq!(signal_of_status(255), None);
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(35), "signal 35");
    }
}
