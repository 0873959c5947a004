//! The root file system of a container: mounts, devices, masked paths, the pivot.
//!
//! [`plan`] computes everything before the clone; [`setup`] runs in init and only acts. Every path inside the container is
//! resolved by descriptor below the root, before the pivot, and mounts are attached to descriptors.

pub mod attributes;
pub mod bind;
pub mod cgroup_mount;
pub mod copy_up;
pub mod device;
pub mod host;
pub mod label;
pub mod mask;
pub mod mount;
pub mod overlay;
pub mod pivot;
pub mod plan;
pub mod secrets;
pub mod setup;
