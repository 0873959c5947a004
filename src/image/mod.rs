//! Images: where they come from, what they say, and how their layers become directories.
//!
//! `source` reads the words typed; `resolve` finds the manifest and its configuration through a `layout`, an `archive`
//! or a `docker_archive`, and `collection` opens all that are in one place; `stream` proves a layer's bytes while it
//! unpacks them from gzip or zstd; `tar` reads entries and `unpack` makes files of them. All input is hostile. Nothing here knows where layers are kept: that is `storage`.

pub(crate) mod archive;
pub mod collection;
pub mod config;
pub mod digest;
pub(crate) mod docker_archive;
pub(crate) mod layout;
pub mod limits;
pub(crate) mod manifest;
pub mod media;
pub mod platform;
pub mod policy;
pub mod reference;
pub mod registry;
pub mod resolve;
pub mod sigstore;
pub mod source;
pub(crate) mod stream;
pub(crate) mod tar;
pub mod unpack;
pub mod write;

#[cfg(test)]
#[path = "fixtures/image.rs"]
pub(crate) mod image_builder;
#[cfg(test)]
#[path = "fixtures/tar.rs"]
pub(crate) mod tar_builder;
#[cfg(test)]
#[expect(clippy::print_stdout, reason = "a test that cannot run says why")]
#[path = "fixtures/tree.rs"]
pub(crate) mod trees;
