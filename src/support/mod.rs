//! Small topics, one a file.

pub mod remove;
pub mod root;
