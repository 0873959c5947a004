//! Small topics, one a file.

pub mod root;
