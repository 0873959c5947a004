//! What an overlay's upper directory adds to the layers below it, changes and deletes: `docker diff`. Reads no contents.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::image::unpack::OverlayXattr;
use crate::support::root::Root;

use super::tree::{is_opaque, is_whiteout};
use super::walk::{Found, OPEN_DIRECTORY, join, walk};

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    Added,
    Changed,
    Deleted,
}

impl ChangeKind {
    /// Gives the letter that docker prints.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }

    /// Gives the number that docker's API has for it.
    pub fn number(self) -> u8 {
        match self {
            Self::Changed => 0,
            Self::Added => 1,
            Self::Deleted => 2,
        }
    }
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub kind: ChangeKind,
    /// From the root, with a slash at its beginning.
    pub path: Vec<u8>,
}

/// How changes are listed.
#[derive(Clone, Copy, Default)]
pub struct Listing<'a> {
    /// The tree is a whole one and not an overlay's upper directory: what it lacks is deleted, and a file in it counts only
    /// if its kind, mode, owner, size, device or time is another.
    pub is_whole: bool,
    /// Places, from the root without a slash before, that were made for something to be mounted on: nobody added them.
    pub mount_points: &'a [Vec<u8>],
}

/// Lists what the upper directory changes of these layers, the highest of them first. A directory comes before what is in
/// it, and that in the order of names.
///
/// A file that is in the upper directory counts as changed, whether its contents are others or not. A directory counts if
/// its mode, owner or time is another, or if something in it counts.
pub fn list_changes(upper: &Root, lowers: &[Root], overlay: OverlayXattr, listing: Listing<'_>) -> Result<Vec<Change>> {
    list_with_places(upper, lowers, overlay, listing).map(|(changes, _)| changes)
}

/// The same, and the places that were left out since they were made only for a mount; from the root without a slash before.
pub fn list_with_places(
    upper: &Root,
    lowers: &[Root],
    overlay: OverlayXattr,
    listing: Listing<'_>,
) -> Result<(Vec<Change>, Vec<Vec<u8>>)> {
    let mut lister =
        Lister { lowers, overlay, listing, levels: Vec::new(), changes: BTreeMap::new(), places: Vec::new() };
    let layers: Vec<usize> = (0..lowers.len()).collect();
    if listing.is_whole {
        let top = upper.open_at(Path::new("."), OPEN_DIRECTORY, Mode::empty()).context("open the directory")?;
        lister.record_missing(top.as_fd(), &[], &layers)?;
    }
    lister.levels.push(Level { path: Vec::new(), layers, hides: listing.is_whole });
    walk(upper, |found| lister.add(found))?;
    let Lister { changes, mut places, .. } = lister;
    // What has something in it counts by that.
    places.retain(|path| !changes.contains_key(path));
    let mut changes: Vec<_> = changes.into_iter().collect();
    changes.sort_by(|(one, _), (other, _)| one.split(|byte| *byte == b'/').cmp(other.split(|byte| *byte == b'/')));
    let changes = changes.into_iter().map(|(path, kind)| Change { kind, path: [b"/", path.as_slice()].concat() });
    Ok((changes.collect(), places))
}

/// A directory of the upper tree, and the layers in which it is the same directory.
struct Level {
    path: Vec<u8>,
    /// The highest first.
    layers: Vec<usize>,
    /// Nothing of the layers below is seen here or deeper.
    hides: bool,
}

struct Lister<'r> {
    lowers: &'r [Root],
    overlay: OverlayXattr,
    listing: Listing<'r>,
    levels: Vec<Level>,
    changes: BTreeMap<Vec<u8>, ChangeKind>,
    places: Vec<Vec<u8>>,
}

/// What the layers have at a path.
struct Below {
    stat: Option<Stat>,
    /// Those that have a part of the directory, if it is one.
    layers: Vec<usize>,
}

impl Lister<'_> {
    fn add(&mut self, found: &Found<'_>) -> Result<()> {
        let parent = found.path[..found.path.len() - found.name.len()].strip_suffix(b"/").unwrap_or_default();
        while self.levels.last().is_some_and(|level| level.path != parent) {
            self.levels.pop();
        }
        let Some(level) = self.levels.last() else { return Ok(()) };
        let hides = level.hides;
        let below = self.below(&level.layers, parent, found.name)?;
        if !self.listing.is_whole && self.is_deletion(found)? {
            if below.stat.is_some() {
                self.record(found.path, ChangeKind::Deleted);
            }
            return Ok(());
        }
        let was_directory =
            below.stat.as_ref().is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        match (&below.stat, found.opened) {
            (None, _) if self.is_mount_point(found) => self.places.push(found.path.to_vec()),
            (None, _) => self.record(found.path, ChangeKind::Added),
            (Some(stat), Some(_)) if was_directory && is_same(stat, &found.stat) => {}
            // Only the time is another, which making a place for a mount has changed.
            (Some(stat), Some(_)) if was_directory && is_like(stat, &found.stat) && self.holds_place(found) => {}
            (Some(stat), None) if self.listing.is_whole && is_same_file(stat, &found.stat) => {}
            (Some(_), _) => self.record(found.path, ChangeKind::Changed),
        }
        if let Some(opened) = found.opened {
            let hides = hides || is_opaque(opened, self.overlay)?;
            if hides {
                self.record_missing(opened, found.path, &below.layers)?;
            }
            self.levels.push(Level { path: found.path.to_vec(), layers: below.layers, hides });
        }
        Ok(())
    }

    /// Says whether something was made only for a mount to lie on it.
    fn is_mount_point(&self, found: &Found<'_>) -> bool {
        let is_empty = found.opened.is_some() || found.kind() == FileType::RegularFile && found.stat.st_size == 0;
        is_empty && self.listing.mount_points.iter().any(|path| path == found.path)
    }

    /// Says whether something is to be mounted right in a directory.
    fn holds_place(&self, found: &Found<'_>) -> bool {
        let parent = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/').map(|at| path[..at].to_vec());
        self.listing.mount_points.iter().any(|path| parent(path).as_deref() == Some(found.path))
    }

    fn is_deletion(&self, found: &Found<'_>) -> Result<bool> {
        match found.kind() {
            FileType::CharacterDevice => Ok(found.stat.st_rdev == 0),
            FileType::RegularFile if found.stat.st_size == 0 => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(found.directory, found.name, flags, Mode::empty()).context("open")?;
                is_whiteout(fd.as_fd(), 0, self.overlay)
            }
            _ => Ok(false),
        }
    }

    /// Records what a directory of the layers has and the one that hides it does not.
    fn record_missing(&mut self, opened: BorrowedFd<'_>, path: &[u8], layers: &[usize]) -> Result<()> {
        let mut names = Vec::new();
        for layer in layers {
            let Some(directory) = self.open(*layer, path)? else { continue };
            for entry in Dir::read_from(&directory).context("list directory")? {
                let entry = entry.context("list directory")?;
                if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    names.push(entry.file_name().to_bytes().to_vec());
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        for name in names {
            let is_missing = match rustix::fs::statat(opened, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => true,
                answer => answer.map(|_| false)?,
            };
            if is_missing && self.below(layers, path, &name)?.stat.is_some() {
                self.record(&join(path, &name), ChangeKind::Deleted);
            }
        }
        Ok(())
    }

    /// Looks for a name in the layers, as overlayfs merges them.
    fn below(&self, layers: &[usize], directory: &[u8], name: &[u8]) -> Result<Below> {
        let mut below = Below { stat: None, layers: Vec::new() };
        for layer in layers {
            let Some(directory) = self.open(*layer, directory)? else { continue };
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                answer => answer.context("look at the layers")?,
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let found = Found { directory: directory.as_fd(), name, path: name, stat, opened: None };
            // A whiteout or a file ends what is seen of the layers; so does a directory that hides those below it.
            if kind != FileType::Directory {
                if below.stat.is_none() && !self.is_deletion(&found)? {
                    below.stat = Some(stat);
                }
                break;
            }
            below.stat.get_or_insert(stat);
            below.layers.push(*layer);
            let opened = rustix::fs::openat(&directory, name, OPEN_DIRECTORY, Mode::empty())?;
            if is_opaque(opened.as_fd(), self.overlay)? {
                break;
            }
        }
        Ok(below)
    }

    fn open(&self, layer: usize, directory: &[u8]) -> Result<Option<OwnedFd>> {
        let path = if directory.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(directory)) };
        match self.lowers[layer].open_without_symlinks(path, OPEN_DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            answer => answer.map(Some).context("open a layer's directory"),
        }
    }

    /// Records a change, and that the directories above are touched by it.
    fn record(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.insert(path.to_vec(), kind);
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.changes.entry(path[..at].to_vec()).or_insert(ChangeKind::Changed);
        }
    }
}

fn is_same_file(below: &Stat, above: &Stat) -> bool {
    is_same(below, above) && (below.st_size, below.st_rdev) == (above.st_size, above.st_rdev)
}

fn is_same(below: &Stat, above: &Stat) -> bool {
    is_like(below, above) && (below.st_mtime, below.st_mtime_nsec) == (above.st_mtime, above.st_mtime_nsec)
}

fn is_like(below: &Stat, above: &Stat) -> bool {
    let facts = |stat: &Stat| (stat.st_mode, stat.st_uid, stat.st_gid);
    facts(below) == facts(above)
}
