//! The OCI verbs: plan, parent, child, init, state. Knows no image and no network name.

pub mod capability;
pub mod console;
pub mod hooks;
pub mod protocol;
