//! A reader of tar archives that takes no liberties.
//!
//! Where two widespread readers disagree about an archive (whose size counts, what a malformed extension means, which of
//! two long names wins), this one refuses it: what was scanned elsewhere is then what is unpacked here (CVE-2025-62518).
//! It understands ustar, star and GNU headers, PAX and GNU long names, base-256 numbers, and sparse files in all four forms.
//! It reads; it never writes to a file system.

mod header;
mod pax;
mod reader;
mod sparse;

pub(crate) use reader::{Entry, EntryKind, Reader, Skip, Time, Xattr};

/// Everything in a tar comes in blocks of this size.
pub(crate) const BLOCK: usize = 512;
