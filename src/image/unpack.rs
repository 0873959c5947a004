//! A layer's packed bytes become a directory, in one pass.
//!
//! `read -> hash -> inflate -> hash -> tar -> files`. The directory is worth nothing until [`unpack_layer`] has
//! returned: size, digest and diff id are known only at the end, so its caller unpacks where nobody looks and renames.
//!
//! In the user namespace of a rootless caller this code runs like any other; it asks for no privilege and makes no
//! namespace. What the caller's ids allow is said by [`Form`].

mod attributes;
mod confine;
mod names;
mod tree;

pub(in crate::image) use attributes::is_wanted;
pub use confine::without_rights;

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::error::{Context, Error, Kind, Result};

use super::limits::LayerLimits;
use super::resolve::Layer;
use super::stream::{self, BLOCK_BYTES, Inflater, LayerStream};
use super::tar::{Entry, EntryKind, Reader, Skip};
use tree::{Contents, Tree};

/// What becomes of owners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Files get the owners that the image says: by the host's root, or with a full map of ids.
    Keep,
    /// There is one id, and every file is its own. An owner other than 0:0, set-id bits (which would be set-id for the
    /// host's user) and devices (which become empty files) are written down in [`OWNER_XATTR`].
    Record,
}

/// Whose attributes overlayfs will read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayXattr {
    /// `trusted.overlay.`: mounted by the host's root.
    Trusted,
    /// `user.overlay.`: mounted with `userxattr`, in a user namespace (Linux 5.11).
    User,
}

impl OverlayXattr {
    /// Gives the name of the attribute of a directory that hides what is below it.
    pub fn opaque(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.opaque",
            Self::User => "user.overlay.opaque",
        }
    }

    /// Gives the name of the attribute of a directory that has its lower contents under another name (`redirect_dir`).
    pub fn redirect(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.redirect",
            Self::User => "user.overlay.redirect",
        }
    }

    /// Gives the name of the attribute of a file whose contents are still below (`metacopy`).
    pub fn metacopy(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.metacopy",
            Self::User => "user.overlay.metacopy",
        }
    }

    /// Gives the name of the attribute of a file that is a whiteout.
    pub fn whiteout(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.whiteout",
            Self::User => "user.overlay.whiteout",
        }
    }
}

/// Where an owner is written down: `uid:gid:mode`, decimal and octal, and for a device `:c` or `:b`, major and minor.
/// A file without it is 0:0 with the mode that it has.
pub const OWNER_XATTR: &str = "user.husk.owner";

/// How a layer lies on disk. The same layer in another form is another directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    pub ownership: Ownership,
    pub overlay: OverlayXattr,
}

impl Form {
    /// Gives the name under which layers of this form are kept.
    pub fn name(self) -> &'static str {
        match (self.ownership, self.overlay) {
            (Ownership::Keep, OverlayXattr::Trusted) => "keep.trusted",
            (Ownership::Keep, OverlayXattr::User) => "keep.user",
            (Ownership::Record, OverlayXattr::Trusted) => "record.trusted",
            (Ownership::Record, OverlayXattr::User) => "record.user",
        }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    pub entries: u64,
    /// Bytes of its regular files.
    pub bytes: u64,
    /// The layer hides all layers below it. Overlayfs does not see that on a layer's root: its user must.
    pub is_opaque: bool,
}

/// Unpacks a layer into an empty directory, and verifies it.
///
/// One thread reads and inflates, another reads the archive and makes files; each may do nothing else ([`confine`]).
pub fn unpack_layer(
    packed: Box<dyn Read + Send + '_>,
    layer: &Layer,
    directory: OwnedFd,
    form: Form,
    limits: LayerLimits,
) -> Result<Unpacked> {
    let (stream, run) = LayerStream::ahead(layer.diff_id);
    let (files, packed) = (Mutex::new(Some((stream, directory))), Mutex::new(Some(packed)));
    let take = || files.lock().unwrap_or_else(PoisonError::into_inner).take();
    let inflater = || match packed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(packed) => Inflater::new(packed, layer, limits.bytes),
        None => Err(Error::new(Kind::Other, "a layer is read once")),
    };
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().name("files".to_owned()).spawn_scoped(scope, || {
            let Some((stream, directory)) = take() else { return Err(Error::new(Kind::Other, "nothing to unpack")) };
            confine::confine(directory.as_fd(), form)?;
            unpack_stream(stream, directory, form, limits)
        });
        match spawned {
            Ok(thread) => {
                // What goes wrong with the bytes is told by the stream.
                let read = without_rights(|| {
                    run(&inflater);
                    Ok(())
                });
                let unpacked = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                read.and(unpacked)
            }
            // A limit on processes: this thread does it all, and cannot be confined, since it lives on.
            Err(_) => match take() {
                Some((_, directory)) => {
                    unpack_stream(LayerStream::inline(inflater()?, layer.diff_id), directory, form, limits)
                }
                None => Err(Error::new(Kind::Other, "a thread that failed to start has run")),
            },
        }
    })
}

/// Unpacks a tar of files, also one that is packed, into a directory over what is in it, in a confined thread. Nothing vouches
/// for the tar, and no name in it means anything but itself.
pub fn unpack_files(packed: &File, directory: OwnedFd, form: Form, limits: LayerLimits) -> Result<Unpacked> {
    std::thread::scope(|scope| {
        let work = || {
            confine::confine(directory.as_fd(), form)?;
            let packed = BufReader::with_capacity(BLOCK_BYTES, packed);
            let unpacked = BufReader::with_capacity(BLOCK_BYTES, stream::Unpacked::new(packed, None, limits.bytes)?);
            let tree = Tree::new(directory, Contents::Files, form)?;
            unpack_entries(&mut Reader::new(unpacked), tree, limits)
        };
        // Without a thread it is left: this one lives on, and cannot be confined.
        let thread = std::thread::Builder::new().name("files".to_owned()).spawn_scoped(scope, work);
        thread.context("start a thread")?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn unpack_stream(stream: LayerStream<'_>, directory: OwnedFd, form: Form, limits: LayerLimits) -> Result<Unpacked> {
    let mut reader = Reader::new(stream);
    let tree = Tree::new(directory, Contents::Layer, form);
    match tree.and_then(|tree| unpack_entries(&mut reader, tree, limits)) {
        Ok(unpacked) => reader.into_inner().finish().map(|()| unpacked),
        Err(error) => Err(reader.into_inner().explain(error)),
    }
}

fn unpack_entries<R: Skip>(reader: &mut Reader<R>, mut tree: Tree, limits: LayerLimits) -> Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    let mut entry = Entry::default();
    while reader.next(&mut entry)? {
        unpacked.entries += 1;
        if unpacked.entries > limits.entries {
            return Err(Error::invalid(format!("limit: more than {} entries", limits.entries)));
        }
        if entry.size > limits.bytes {
            return Err(Error::invalid(format!("entry {}: limit: larger than the quota", entry.name())));
        }
        if entry.kind == EntryKind::Regular {
            unpacked.bytes = unpacked.bytes.saturating_add(entry.size);
        }
        #[cfg(test)]
        tests::act_up(&entry).with_context(|| format!("entry {}", entry.name()))?;
        tree.add(&entry, reader).with_context(|| format!("entry {}", entry.name()))?;
    }
    unpacked.is_opaque = tree.is_opaque;
    tree.finish()?;
    Ok(unpacked)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files of a test need not survive a crash")]
#[expect(clippy::print_stdout, reason = "a test that cannot run says why")]
mod tests;
