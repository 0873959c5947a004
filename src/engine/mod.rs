//! Containers as people know them: records, image to spec, lifecycle.

pub mod commit;
pub mod config;
pub mod containers;
pub mod copy;
pub mod create;
pub mod defaults;
pub mod diff;
#[expect(clippy::module_inception, reason = "the engine itself, beside what it is made of")]
pub mod engine;
pub mod events;
pub mod exec;
pub mod export;
pub mod files;
pub mod health;
pub mod host;
pub mod images;
pub mod inspect;
pub mod joining;
pub mod list;
pub mod logs;
pub mod makeup;
pub mod options;
pub mod record;
pub mod remove;
pub mod seccomp_profile;
pub mod settings;
pub mod start;
pub mod stats;
pub mod stop;
pub mod system;
pub mod update;
pub mod userns;
pub mod view;
pub mod volume_option;
pub mod wait;
