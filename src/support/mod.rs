//! Small topics, one a file.

pub mod passwd;
pub mod root;
