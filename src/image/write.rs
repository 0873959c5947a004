//! A directory becomes a layer's packed bytes, in one pass.
//!
//! `files -> tar -> hash -> compress -> hash -> out`. The same tree gives the same bytes wherever and whenever it is
//! written: entries are sorted, owners have no names, times have whole seconds (unless asked) and can be bounded by
//! `SOURCE_DATE_EPOCH` (<https://reproducible-builds.org/specs/source-date-epoch/>), and neither gzip nor tar tells who
//! wrote it.
//!
//! The tree may be somebody else's: every file is reached by descriptor and no symlink is followed. Nothing here knows
//! what a container is; whoever calls sees to it that the tree is quiet, or says what is to become of files that change.

mod changes;
mod pack;
pub mod place;
pub mod tar;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
mod tests;
mod tree;
pub(crate) mod walk;

use std::io::Write;

use crate::error::{Error, Result};
use crate::support::root::Root;

use super::digest::Algorithm;
use super::media::Compression;
use super::unpack::{OverlayXattr, Ownership};

pub use changes::{Change, ChangeKind, Listing, list_changes, list_with_places};
pub use pack::{Level, Packed, Packer};

/// How a tree is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub compression: Compression,
    /// Of both digests.
    pub algorithm: Algorithm,
    /// [`Ownership::Record`]: owners, set-id bits and devices are written down in
    /// [`OWNER_XATTR`](super::unpack::OWNER_XATTR), and a file without it is 0:0.
    pub ownership: Ownership,
    /// No entry is younger than this, in seconds since 1970: [`source_date_epoch`].
    pub latest: Option<i64>,
    /// Times keep their nanoseconds, in PAX headers.
    pub with_fractions: bool,
    pub changing: Changing,
}

/// What becomes of a file that shrinks or grows while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changing {
    /// It is an error that names it.
    Refuse,
    /// It is as long as it was at first: cut off, or filled up with zeros, as GNU tar does.
    Fill,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    pub packed: Packed,
    /// Entries of the tar.
    pub entries: u64,
    /// Sockets, which a tar cannot hold. Paths from the tree's root.
    pub left_out: Vec<Vec<u8>>,
}

/// Writes a whole tree, as `export` does. The root itself has no entry.
///
/// Fails for a name that does not fit into [`limits`](super::limits), or for a file that cannot be read; messages name it.
pub fn write_tree<W: Write>(root: &Root, settings: &Settings, out: W) -> Result<(W, Written)> {
    tree::write(root, None, &[], settings, out)
}

/// Writes what an overlay's upper directory changes as a layer: whiteouts and opaque directories become `.wh.` entries.
///
/// Fails for what a layer cannot say: a directory that was renamed by reference (`redirect_dir`), a file whose contents are
/// below (`metacopy`), and a file whose own name begins with `.wh.`.
///
/// `passed_over` is not written: empty files and directories, by their paths, that nobody wants in the layer.
pub fn write_layer<W: Write>(
    upper: &Root,
    overlay: OverlayXattr,
    passed_over: &[Vec<u8>],
    settings: &Settings,
    out: W,
) -> Result<(W, Written)> {
    tree::write(upper, Some(overlay), passed_over, settings, out)
}

/// Reads the value of `SOURCE_DATE_EPOCH`, which is seconds since 1970. An empty one is none.
pub fn source_date_epoch(value: &str) -> Result<Option<i64>> {
    if value.is_empty() {
        return Ok(None);
    }
    let seconds = value.parse().ok().filter(|seconds| *seconds >= 0 && !value.starts_with('+'));
    seconds
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("SOURCE_DATE_EPOCH={value:?}: not a number of seconds since 1970")))
}
