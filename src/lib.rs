//! husk runs containers without a daemon: an OCI runtime and an engine in one static executable.
//!
//! The layers, from the top. A module may use what stands below it and nothing above; `integration/layering.rs` checks.
//!
//! | layer | holds |
//! |---|---|
//! | [`fuzzing`] | what the readers of foreign bytes promise; not in a release |
//! | [`cli`] | words typed, words printed |
//! | [`engine`] | containers as people know them: records, image to spec, lifecycle |
//! | [`image`], [`storage`] | contents: images, layers, root file systems |
//! | [`monitor`] | the supervisor of one container |
//! | [`network`] | the containers' networks: links, addresses, rules |
//! | [`runtime`] | the OCI verbs: plan, parent, child, init, state |
//! | [`rootfs`], [`namespaces`], [`cgroups`], [`seccomp`] | what a container is made of |
//! | [`spec`] | config.json: load, validate, defaults |
//! | [`support`] | small topics, one a file |
//! | [`error`] | the error type of all of the above |
//! | [`sys`] | system calls; the only place with `unsafe` |

pub mod sys;

pub mod error;

pub mod support;

pub mod spec;

pub mod cgroups;
pub mod namespaces;
pub mod rootfs;
pub mod seccomp;

pub mod runtime;

pub mod monitor;

pub mod network;

pub mod image;
pub mod storage;

pub mod engine;

pub mod cli;

#[cfg(any(test, fuzzing))]
pub mod fuzzing;
