//! Layers on disk, and the directories of a container's root file system.
//!
//! ```text
//! STORE/                                  0700
//!   layers/FORM/ALGORITHM/HEX/diff/       an unpacked layer, named by its diff id; complete because it is there
//!   layers/FORM/ALGORITHM/HEX/opaque/     the same, of a layer that hides everything below it
//!   tmp/KEY.lock                          held (flock) by the process that unpacks the layer KEY = FORM.ALGORITHM.HEX
//!   tmp/KEY/                              its staging directory; without a holder of the lock it is rubbish
//! ```
//!
//! A layer is unpacked once, whatever images have it. FORM ([`crate::image::unpack::Form`]) keeps apart what differs on
//! disk. A layer never changes once it is in place: containers write above it. `store` makes layers; `root` makes a
//! container's directories; `additional` reads the stores of other data roots; `copy` merges layers into one tree where
//! overlayfs cannot be had. Nothing here mounts.

pub mod additional;
pub mod blobs;
pub mod check;
pub mod copy;
pub mod images;
pub mod lock;
pub mod root;
pub mod store;
pub mod sweep;
