//! Containers as people know them: records, image to spec, lifecycle.

pub mod config;
pub mod containers;
pub mod defaults;
pub mod host;
pub mod options;
pub mod record;
pub mod settings;
pub mod volume_option;
