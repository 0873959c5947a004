//! The supervisor of one container: its parent, its reaper, and who clears up after it.
//!
//! Every container of the engine has a monitor, forked from the command that started it; a foreground command is its
//! client. So the workload's parent is the same process in the foreground and in the background, and a command that
//! detaches only has to go.
//!
//! ```text
//!  command (client)             monitor                     workload
//!    │ ───── clone3 ──────────────▶ │
//!    │                              │ ───── runtime::launch ───▶ │
//!    │ ◀──── Started + pidfd ────── │                            │
//!    │ ◀──── Terminal + master ──── │                            │
//!    │ ───── signals, by pidfd ────────────────────────────────▶ │
//!    │                              │ ◀───── exit ────────────── │
//!    │                              │ clears cgroup, state, files
//!    │ ◀──── Ended {exit} ───────── │
//! ```
//!
//! Who dies first is seen by the others, whatever the workload does to its credentials: the monitor sees the end of the
//! client's socket and kills the container; the client sees the end of the monitor's and does the same by pidfd. When
//! both are killed at once, the workload gets SIGKILL by its parent's death, unless it changed its user meanwhile; then
//! the next command finds the container's lock free and clears it.

mod client;
mod link;
mod supervise;

pub use client::{Client, start};
pub use supervise::{Input, Job, Outcome};
