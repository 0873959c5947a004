//! The data root as a whole: whether it is sound, what is in it, what can go.

pub mod check;
pub mod prune;
pub mod usage;
