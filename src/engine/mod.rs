//! Containers as people know them: records, image to spec, lifecycle.

pub mod config;
pub mod containers;
pub mod defaults;
pub mod diff;
#[expect(clippy::module_inception, reason = "the engine itself, beside what it is made of")]
pub mod engine;
pub mod export;
pub mod files;
pub mod host;
pub mod images;
pub mod makeup;
pub mod options;
pub mod record;
pub mod run;
pub mod settings;
pub mod system;
pub mod userns;
pub mod view;
pub mod volume_option;
