//! The supervisor of one container: its parent, its reaper, who serves its streams and writes its log, who starts it again,
//! and who clears up after it.
//!
//! Every container of the engine has a monitor, forked from the command that started it. In the foreground that command is
//! its first client, and its end is the container's; detached, the monitor is all that stays. So the workload's parent is
//! the same process either way, and a command that detaches only has to go.
//!
//! ```text
//!  command (client)             monitor                     workload
//!    │ ───── clone3 ──────────────▶ │
//!    │                              │ ───── runtime::launch ───▶ │
//!    │ ◀──── Started + pidfd ────── │                            │
//!    │ ───── signals, by pidfd ────────────────────────────────▶ │
//!    │ ◀──── Output ─────────────── │ ◀──── pipes, or terminal ─ │
//!    │                              │ ───── log                  │
//!  attach, wait, stop ────────────▶ │
//!    │                              │ ◀───── exit ────────────── │
//!    │                              │ clears cgroup, state, files
//!    │ ◀──── Ended {exit} ───────── │
//! ```
//!
//! Who dies first is seen by the others, whatever the workload does to its credentials: the monitor sees the end of the
//! client's socket and kills the container, unless it is detached; the client sees the end of the monitor's and does the
//! same by pidfd. When the monitor is killed alone, or both at once, the workload gets SIGKILL by its parent's death. One that
//! was detached from the start and has no terminal does not: the next command finds the container's lock free, and starts
//! another monitor, which takes it over ([`Beginning::TakeOver`]).

mod audience;
mod checking;
mod client;
pub mod health;
mod keys;
mod link;
pub mod log;
mod restart;
mod streams;
mod supervise;

use crate::runtime::foreground::Exit;

pub use checking::HealthJob;
pub use client::{Attending, Client, Ended, connect, start};
pub use keys::Keys;
pub use link::{Stop, Stream, Wants};
pub use restart::RestartPolicy;
pub use streams::{Input, Serving, has_fifos};
pub use supervise::{Beginning, Ending, Job, Lifetime, Outcome};

/// Brings what a monitor that was killed has left into the log of a container that has ended.
pub fn settle(folder: std::os::fd::BorrowedFd<'_>, options: log::LogOptions) {
    if options.format.keeps_files() && options.buffer_bytes.is_none() {
        log::Log::resume(folder, options, b"").finish();
    }
    streams::remove_fifos(folder);
}

/// The socket in a container's folder at which its monitor listens.
pub const ATTACH: &str = "attach";
