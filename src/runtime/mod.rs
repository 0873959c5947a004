//! The OCI verbs: plan, parent, child, init, exec, state. Knows no image and no network name.

pub mod attributes;
pub mod capability;
mod cgroup_view;
pub mod checkpoint;
mod child;
pub mod console;
pub mod container;
pub mod criu;
pub mod events;
pub mod exec;
pub mod features;
pub mod foreground;
pub mod hooks;
mod init;
mod label;
pub mod landlock;
mod listener;
mod parent;
mod pause;
mod pid_file;
pub mod plan;
pub mod protocol;
pub mod restore;
pub mod state;
mod tape;
pub mod update;
mod workload;
