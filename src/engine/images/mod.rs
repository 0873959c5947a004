//! Images as people know them: by name, by id, from a registry.
//!
//! `remote` decides how a registry is spoken to, `pull` brings an image here, `find` says which one a word means, and
//! `remove` takes it away again.

pub mod find;
pub mod index;
pub mod pull;
pub mod push;
pub mod remote;
pub mod remove;
pub mod tag;
