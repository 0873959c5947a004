//! Goes through a tree in the order of names, a directory before what is in it. Opens directories; looks at no file.
//!
//! Every directory is opened below the one before it by a single name, without following. Not too many are open at once:
//! those far above are closed, and found again from the root without symlinks when their turn comes, as the same directory
//! or not at all.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::image::limits;
use crate::support::root::Root;

pub(super) const OPEN_DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How many directories stay open.
const OPEN: usize = 32;

/// Something in the tree.
pub(crate) struct Found<'w> {
    /// The directory that it is in.
    pub(crate) directory: BorrowedFd<'w>,
    pub(crate) name: &'w [u8],
    /// From the root, without a slash at either end.
    pub(crate) path: &'w [u8],
    pub(crate) stat: Stat,
    /// Open to be read, if it is a directory.
    pub(crate) opened: Option<BorrowedFd<'w>>,
}

impl Found<'_> {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// A directory that we are in.
struct Level {
    path: Vec<u8>,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    /// Names not visited yet, the next one last.
    names: Vec<Vec<u8>>,
}

/// What is to become of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Into,
    Over,
}

/// Visits everything below the root. What is gone by the time it is looked at was never there.
pub(super) fn walk(root: &Root, mut visit: impl FnMut(&Found<'_>) -> Result<()>) -> Result<()> {
    walk_some(root, |found| visit(found).map(|()| Step::Into))
}

/// The same, without what is in directories that are stepped over.
pub(crate) fn walk_some(root: &Root, mut visit: impl FnMut(&Found<'_>) -> Result<Step>) -> Result<()> {
    let top = root.open_at(Path::new("."), OPEN_DIRECTORY, Mode::empty()).context("open the directory")?;
    let mut levels = vec![Level::new(Vec::new(), top)?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let path = join(&level.path, &name);
        let opened = visit_one(root, level, &name, &path, &mut visit)
            .with_context(|| String::from_utf8_lossy(&path).escape_debug().to_string())?;
        if let Some(fd) = opened {
            let level = Level::new(path, fd)?;
            levels.push(level);
            if let Some(far) = levels.len().checked_sub(OPEN + 1) {
                levels[far].fd = None;
            }
        }
    }
    Ok(())
}

fn visit_one(
    root: &Root,
    level: &mut Level,
    name: &[u8],
    path: &[u8],
    visit: &mut impl FnMut(&Found<'_>) -> Result<Step>,
) -> Result<Option<OwnedFd>> {
    if path.len() > limits::PATH_BYTES {
        return Err(Error::invalid(format!("limit: the name is longer than {} bytes", limits::PATH_BYTES)));
    }
    let directory = level.open(root)?;
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(None),
        answer => answer.context("look at it")?,
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        visit(&Found { directory, name, path, stat, opened: None })?;
        return Ok(None);
    }
    let opened = rustix::fs::openat(directory, name, OPEN_DIRECTORY, Mode::empty()).context("open directory")?;
    let stat = rustix::fs::fstat(&opened)?;
    let step = visit(&Found { directory, name, path, stat, opened: Some(opened.as_fd()) })?;
    Ok((step == Step::Into).then_some(opened))
}

impl Level {
    fn new(path: Vec<u8>, fd: OwnedFd) -> Result<Self> {
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { path, identity: (stat.st_dev, stat.st_ino), names: names(fd.as_fd())?, fd: Some(fd) })
    }

    /// Gives the directory, opened again if it was closed meanwhile.
    fn open(&mut self, root: &Root) -> Result<BorrowedFd<'_>> {
        let fd = if let Some(fd) = self.fd.take() {
            fd
        } else {
            let path = if self.path.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.path)) };
            let fd = root.open_without_symlinks(path, OPEN_DIRECTORY, Mode::empty()).context("open it again")?;
            let stat = rustix::fs::fstat(&fd)?;
            if (stat.st_dev, stat.st_ino) != self.identity {
                return Err(Error::invalid("its directory was replaced while the tree was read"));
            }
            fd
        };
        let fd: &OwnedFd = self.fd.insert(fd);
        Ok(fd.as_fd())
    }
}

/// Lists a directory, sorted backwards.
fn names(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory).context("list directory")? {
        let entry = entry.context("list directory")?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    names.sort_unstable_by(|one, other| other.cmp(one));
    Ok(names)
}

pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
