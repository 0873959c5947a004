//! System calls that rustix does not have, or not in the shape needed here: thin, safe wrappers. The only place with `unsafe`.

pub mod errno;
pub mod seccomp;
