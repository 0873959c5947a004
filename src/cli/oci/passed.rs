//! What the caller's service manager has left for the workload: descriptors, which `--preserve-fds` counts, too, and the
//! socket to be notified at. Opens none and passes none on.

use std::path::PathBuf;

use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::support::activation::passed_descriptors;
use crate::sys::process::is_open;

/// Descriptors of the caller's that the workload gets.
#[derive(Clone, Default)]
pub(super) struct Passed {
    /// All of them, from 3 on.
    pub(super) count: u32,
    /// Those that a socket-activating manager gave.
    pub(super) listening: u32,
    /// What the manager calls those, if it says so.
    pub(super) names: Option<String>,
}

impl Passed {
    /// Counts them, and refuses a number that is not open: by then it would be one of ours, and a way out of the
    /// container (CVE-2024-21626).
    pub(super) fn find(preserved: u32) -> Result<Self> {
        let listening = passed_descriptors();
        let names = std::env::var("LISTEN_FDNAMES").ok().filter(|_| listening > 0);
        Ok(Self { names, ..Self::count(preserved, listening)? })
    }

    /// Does so for a process that no socket-activating manager knows of: it is not the first of its container.
    pub(super) fn find_preserved(preserved: u32) -> Result<Self> {
        Self::count(preserved, 0)
    }

    fn count(preserved: u32, listening: u32) -> Result<Self> {
        let too_many = || Error::invalid(format!("--preserve-fds {preserved}: too many"));
        let count = preserved.checked_add(listening).ok_or_else(too_many)?;
        for (index, number) in (3..).take(count as usize).enumerate() {
            if !is_open(number) {
                // The words are runc's.
                let describe = match u32::try_from(index).unwrap_or(u32::MAX).checked_sub(listening) {
                    Some(index) => format!("unable to stat preserved-fd {index} (of {preserved})"),
                    None => format!("LISTEN_FDS: descriptor {number} of {listening}"),
                };
                return Err(Error::from(Errno::BADF).context(describe));
            }
        }
        Ok(Self { count, listening, names: None })
    }
}

/// The socket at which the caller's service manager is to be notified (sd_notify(3)).
pub(super) fn notify_socket() -> Option<PathBuf> {
    std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_are_not_open_are_not_passed_on() {
        assert_eq!(Passed::find(0).unwrap().count, 0);
        assert!(Passed::find(100_000).is_err());
        assert!(Passed::find(u32::MAX).is_err());
    }
}
