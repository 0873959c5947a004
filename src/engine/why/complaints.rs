//! What programs write when something is amiss, and what that mostly is. Says nothing for certain: it is the program's word.

use super::Cause;

/// A complaint that many programs have in common, most of them by way of strerror(3).
pub(super) struct Complaint {
    /// In lower case.
    text: &'static str,
    pub(super) cause: Cause,
    /// Goes after "most likely".
    pub(super) meaning: &'static str,
    pub(super) remedy: &'static str,
}

/// In the order of precedence: the more special first.
const COMPLAINTS: &[Complaint] = &[
    Complaint {
        text: "address already in use",
        cause: Cause::PortTaken,
        meaning: "another process listens at the port that it wants",
        remedy: "find it with `ss -ltnp`, or have this one listen elsewhere",
    },
    Complaint {
        text: "error while loading shared libraries",
        cause: Cause::LibraryMissing,
        meaning: "a library that its program needs is not in the image",
        remedy: "install the library in the image, or take a program that is statically linked",
    },
    Complaint {
        text: "error loading shared library",
        cause: Cause::LibraryMissing,
        meaning: "a library that its program needs is not in the image",
        remedy: "install the library in the image, or take a program that is statically linked",
    },
    Complaint {
        text: "version `glibc_",
        cause: Cause::LibraryMissing,
        meaning: "its program was built for a newer C library than the image has",
        remedy: "build it on a system as old as the image, or take a newer image",
    },
    Complaint {
        text: "exec format error",
        cause: Cause::WrongArchitecture,
        meaning: "it started a program of another architecture, or a script without `#!`",
        remedy: "look at the program with `file`, in the image",
    },
    Complaint {
        text: "no space left on device",
        cause: Cause::DiskFull,
        meaning: "a file system is full: the data root's, a volume's, or a tmpfs such as /dev/shm",
        remedy: "see `husk system df` and `husk doctor`; --shm-size makes /dev/shm larger",
    },
    Complaint {
        text: "read-only file system",
        cause: Cause::ReadOnly,
        meaning: "it wrote to what is read-only here",
        remedy: "give it a volume or a --tmpfs at that place, or leave --read-only and :ro out",
    },
    Complaint {
        text: "too many open files",
        cause: Cause::OpenFiles,
        meaning: "it has as many files open as it may",
        remedy: "raise the limit: --ulimit nofile=SOFT:HARD",
    },
    Complaint {
        text: "can't fork",
        cause: Cause::Processes,
        meaning: "it has as many processes as it may",
        remedy: "raise the limit: --pids-limit",
    },
    Complaint {
        text: "cannot fork",
        cause: Cause::Processes,
        meaning: "it has as many processes as it may",
        remedy: "raise the limit: --pids-limit",
    },
    Complaint {
        text: "resource temporarily unavailable",
        cause: Cause::Processes,
        meaning: "it has as many processes or threads as it may",
        remedy: "raise the limit: --pids-limit, --ulimit nproc",
    },
    Complaint {
        text: "cannot allocate memory",
        cause: Cause::OutOfMemory,
        meaning: "it asked for memory that it did not get",
        remedy: "give it more: -m, --ulimit as",
    },
    Complaint {
        text: "network is unreachable",
        cause: Cause::Network,
        meaning: "it has no way to where it wants",
        remedy: "without --network a container has its loopback device alone: --network bridge, or host",
    },
    Complaint {
        text: "temporary failure in name resolution",
        cause: Cause::Network,
        meaning: "it reached nobody who knows names",
        remedy: "without --network a container has its loopback device alone: --network bridge, or host",
    },
    Complaint {
        text: "could not resolve host",
        cause: Cause::Network,
        meaning: "it reached nobody who knows names",
        remedy: "without --network a container has its loopback device alone: --network bridge, or host",
    },
    Complaint {
        text: "bad address '",
        cause: Cause::Network,
        meaning: "it reached nobody who knows names",
        remedy: "without --network a container has its loopback device alone: --network bridge, or host",
    },
    Complaint {
        text: "permission denied",
        cause: Cause::Permission,
        meaning: "its user may not do with a file what it wants to",
        remedy: "run it as the files' owner (-u), or give the files to its user",
    },
    Complaint {
        text: "operation not permitted",
        cause: Cause::NotPermitted,
        meaning: "it wants what takes a capability that it lacks, or a system call that its seccomp profile refuses",
        remedy: "to tell them apart, run it once with --security-opt seccomp=unconfined, once with --cap-add",
    },
];

/// Finds the complaint that the last lines of a log hold, and the line.
pub(super) fn find(lines: &[String]) -> Option<(&'static Complaint, &str)> {
    let lower: Vec<String> = lines.iter().map(|line| line.to_ascii_lowercase()).collect();
    COMPLAINTS.iter().find_map(|complaint| {
        let place = lower.iter().rposition(|line| line.contains(complaint.text))?;
        Some((complaint, lines[place].as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_special_complaint_wins() {
        let lines =
            ["bind: Permission denied", "listen tcp :80: bind: Address already in use", "bye"].map(str::to_owned);
        let (complaint, line) = find(&lines).unwrap();
        assert_eq!((complaint.cause, line), (Cause::PortTaken, lines[1].as_str()));
        assert!(find(&["all is well".to_owned()]).is_none());
    }

    #[test]
    fn texts_are_in_lower_case() {
        for complaint in COMPLAINTS {
            assert_eq!(complaint.text, complaint.text.to_ascii_lowercase());
        }
    }
}
