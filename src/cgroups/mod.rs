//! One handle over cgroup v1, hybrid and v2 hierarchies.
//!
//! ```text
//! Layout::probe ─┐
//! Request ───────┴─ plan ─ Plan::begin ─ (clone) ─ Begun::finish ─ keep ─ Cgroup ─ record … open
//!                   pure   v2 directory           v1 directories     entrances, freeze, update, delete
//! ```
//!
//! With systemd there is nothing to begin with, since a scope starts with a process in it: the clone comes first, and
//! `Begun::adopt` has the scope made around it while it waits.
//!
//! | file | holds |
//! |---|---|
//! | `layout` | where the hierarchies are |
//! | `plan` | which cgroups, and what is wrong with a request |
//! | `legacy`, `unified`, `values` | `linux.resources` as settings for v1, for v2, and for both |
//! | `devices` | device rules: model, v1 lists, v2 program |
//! | `setting` | a value on its way into a file |
//! | `create` | mkdir and the limits |
//! | `adopt` | the same for a process that is there already, with systemd |
//! | `systemd` | scopes over D-Bus |
//! | `handle` | entering, finding again, updating, removing |
//! | `refuge` | a place for processes that are no container's |
//! | `freezer` | freezing, thawing, killing |
//! | `oom` | hearing of the OOM killer |
//! | `stats`, `usage` | what a container uses: the figures, reading them |
//! | `resctrl`, `resctrl_usage` | caches and memory bandwidth, in a tree of their own; the figures of it |
//! | `tree` | walks below a cgroup |
//! | `file` | reading and writing |

mod adopt;
mod create;
mod devices;
mod file;
mod freezer;
mod handle;
mod layout;
mod legacy;
mod memory_watch;
mod oom;
mod plan;
mod refuge;
pub mod resctrl;
mod resctrl_usage;
mod setting;
pub mod stats;
mod systemd;
#[cfg(test)]
mod testing;
mod tree;
mod unified;
mod usage;
mod values;

pub use create::Begun;
pub use handle::{Cgroup, Directory, Entrances, Hierarchies, Record};
pub use layout::{Hierarchy, Layout, Mode};
pub use memory_watch::MemoryWatch;
pub use oom::OomWatch;
pub use plan::{Driver, Plan, Request, Tolerance, Warning, plan};
pub use refuge::{Home, Refuge};
pub use resctrl_usage::ResctrlStats;
#[cfg(any(test, fuzzing))]
pub use systemd::count_values;
pub use systemd::{Owner, Scope, is_reachable as systemd_is_reachable};
pub use usage::OutOfMemory;
