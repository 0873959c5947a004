//! Small topics, one a file.

pub mod atomic;
pub mod id;
pub mod lock;
pub mod mountinfo;
pub mod passwd;
pub mod root;
pub mod tree;
pub mod units;
