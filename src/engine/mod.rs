//! Containers as people know them: records, image to spec, lifecycle.

pub mod config;
pub mod containers;
pub mod defaults;
#[expect(clippy::module_inception, reason = "the engine itself, beside what it is made of")]
pub mod engine;
pub mod files;
pub mod host;
pub mod images;
pub mod joining;
pub mod options;
pub mod record;
pub mod run;
pub mod seccomp_profile;
pub mod settings;
pub mod system;
pub mod userns;
pub mod volume_option;
