//! Containers as people know them: records, image to spec, lifecycle.

pub mod containers;
pub mod record;
pub mod settings;
