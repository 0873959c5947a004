//! One handle over cgroup v1, hybrid and v2 hierarchies.

mod devices;
mod file;
mod layout;

pub use layout::{Hierarchy, Layout, Mode};
