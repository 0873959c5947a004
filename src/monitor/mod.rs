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
//! same by pidfd. When the monitor is killed alone, or both at once, the workload gets SIGKILL by its parent's death,
//! unless it changed its user meanwhile; then the next command finds the container's lock free and clears it.

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
pub use streams::Serving;
pub use supervise::{Ending, Job, Lifetime, Outcome};

/// The socket in a container's folder at which its monitor listens.
pub const ATTACH: &str = "attach";
