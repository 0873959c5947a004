//! Images as people know them: by name, by id, from a registry.
//!
//! `remote` decides how a registry is spoken to, `pull` brings an image here from there and `load` from files, both through
//! `keep`; `import` and the engine's `commit` make one by `make`; `push` and `save` take it elsewhere; `find` says which one a word means, and `remove` takes it away again.

pub mod find;
pub mod import;
pub mod index;
pub mod inspect;
pub mod instruction;
mod keep;
pub mod load;
pub mod make;
pub mod mount;
pub mod pull;
pub mod push;
pub mod referrers;
pub mod remote;
pub mod remove;
pub mod repack;
pub mod save;
pub mod search;
pub mod tag;
pub mod tree;
