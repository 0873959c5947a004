//! Which namespaces to create and which to join, in what order; id maps.

pub mod enter;
pub mod idmap;
pub mod net_device;
pub mod plan;
pub mod rootless;
