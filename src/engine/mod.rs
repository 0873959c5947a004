//! Containers as people know them: records, image to spec, lifecycle.

pub mod settings;
