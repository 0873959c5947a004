//! The layer's directory while it is filled.
//!
//! Every entry is reached by descriptor. The directories from the root down to the one last used stay open as a chain;
//! the next entry reuses as much of it as its own path shares. This equals resolving anew, for each link of the chain
//! is a real directory opened by one name without following, and an entry can only change a name in the directory at the
//! chain's end: a name that is itself a link of the chain is cut off before anything is done to it. As soon as a path
//! goes through a symlink, the chain is given up and `openat2(2)` resolves the path inside the root.
//!
//! The tree is in a staging directory that no other process touches. Links and `..` in the archive are the enemy here.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, XattrFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::image::tar::{Entry, EntryKind, Reader, Skip};
use crate::support::remove::remove_tree;
use crate::support::root::Root;

use super::attributes;
use super::names::{self, Meaning};
use super::{Form, Ownership};

/// How many directories stay open. Deeper ones are resolved from the root each time.
const CHAIN: usize = 64;

const OPEN_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

/// A directory that is being filled.
struct Open {
    name: Vec<u8>,
    fd: OwnedFd,
    /// What its time of modification was before we changed its contents; none if nobody has said.
    mtime: Option<Timespec>,
    changed: bool,
}

impl Open {
    /// Takes an existing directory, to leave it as old as it is.
    fn existing(name: &[u8], fd: OwnedFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        let mtime = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0) };
        Ok(Self { name: name.to_vec(), fd, mtime: Some(mtime), changed: false })
    }

    fn close(self) -> Result<()> {
        match self.mtime {
            Some(mtime) if self.changed => attributes::set_mtime(self.fd.as_fd(), mtime),
            _ => Ok(()),
        }
    }
}

/// What stands at a name.
enum Standing {
    Nothing,
    Whiteout,
    Directory,
    Symlink,
    Other,
}

/// What the archive is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    /// A layer: `.wh.` names hide what is below, and so does what takes the place of a whiteout.
    Layer,
    /// Files, and nothing below: a name means itself.
    Files,
}

/// The tree of one layer.
pub(super) struct Tree {
    root: Root,
    contents: Contents,
    /// The first is the layer's root.
    chain: Vec<Open>,
    /// A directory reached through a symlink, or too deep for the chain.
    aside: Option<Open>,
    form: Form,
    /// Whiteouts could not be made as devices and are files with an attribute (Linux 6.7).
    whiteouts_are_files: bool,
    /// The layer hides everything below it, which overlayfs does not read from a layer's root.
    pub(super) is_opaque: bool,
}

impl Tree {
    /// Takes a directory, which is empty for a layer.
    pub(super) fn new(directory: OwnedFd, contents: Contents, form: Form) -> Result<Self> {
        let root = Root::from_fd(rustix::fs::openat(&directory, ".", OPEN_DIRECTORY, Mode::empty())?);
        if contents == Contents::Layer {
            // What an image without an entry for its root gets.
            rustix::fs::fchmod(&directory, IMPLIED_MODE)?;
        }
        let top = Open { name: Vec::new(), fd: directory, mtime: None, changed: false };
        Ok(Self { root, contents, chain: vec![top], aside: None, form, whiteouts_are_files: false, is_opaque: false })
    }

    /// Makes what one entry says.
    pub(super) fn add<R: Skip>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let components = names::split(&entry.path)?;
        let (parents, meaning) = match self.contents {
            Contents::Layer => names::read(&components)?,
            Contents::Files => names::read_plainly(&components),
        };
        if meaning == Meaning::Skip {
            return Ok(());
        }
        self.enter(parents)?;
        match meaning {
            Meaning::Make { name } => self.make(name, entry, reader),
            Meaning::Root if entry.kind == EntryKind::Directory => self.adopt_root(entry),
            Meaning::Root => Err(Error::invalid("the layer's root is not a directory")),
            Meaning::Whiteout { name } => self.hide(name).context("whiteout"),
            Meaning::Opaque if parents.is_empty() => {
                self.is_opaque = true;
                self.sweep(self.here())
            }
            Meaning::Opaque => self.set_opaque(self.here()).context("opaque directory"),
            Meaning::Skip => Ok(()),
        }
    }

    /// Closes what is open and settles the times of directories.
    pub(super) fn finish(mut self) -> Result<()> {
        self.leave_aside()?;
        self.cut(0)
    }

    // Where we are.

    fn here(&self) -> BorrowedFd<'_> {
        match (&self.aside, self.chain.last()) {
            (Some(open), _) | (None, Some(open)) => open.fd.as_fd(),
            (None, None) => self.root.as_fd(),
        }
    }

    fn touch(&mut self) {
        if let Some(open) = self.aside.as_mut().or(self.chain.last_mut()) {
            open.changed = true;
        }
    }

    fn cut(&mut self, length: usize) -> Result<()> {
        while self.chain.len() > length {
            if let Some(open) = self.chain.pop() {
                open.close()?;
            }
        }
        Ok(())
    }

    fn leave_aside(&mut self) -> Result<()> {
        self.aside.take().map_or(Ok(()), Open::close)
    }

    /// Goes to the directory with these names, making what is missing.
    fn enter(&mut self, parents: &[&[u8]]) -> Result<()> {
        self.leave_aside()?;
        let shared = self.chain[1..].iter().zip(parents).take_while(|(open, name)| open.name == **name).count();
        self.cut(1 + shared)?;
        for name in &parents[shared..] {
            if self.chain.len() > CHAIN {
                return self.enter_aside(parents);
            }
            let here = self.here();
            let open = match rustix::fs::openat(here, *name, OPEN_DIRECTORY, Mode::empty()) {
                Ok(fd) => Open::existing(name, fd)?,
                Err(Errno::NOENT) => {
                    self.touch();
                    self.make_implied(self.here(), name, false)?
                }
                Err(Errno::NOTDIR | Errno::LOOP) => match self.standing(here, name)?.0 {
                    Standing::Symlink => return self.enter_aside(parents),
                    Standing::Whiteout => {
                        self.touch();
                        self.make_implied(self.here(), name, true)?
                    }
                    _ => return Err(Error::invalid(format!("{} is not a directory", shown(name)))),
                },
                Err(error) => return Err(error).with_context(|| format!("open directory {}", shown(name))),
            };
            self.chain.push(open);
        }
        Ok(())
    }

    /// Goes there from the root, through symlinks that cannot leave it.
    fn enter_aside(&mut self, parents: &[&[u8]]) -> Result<()> {
        self.cut(1)?;
        let flags = OPEN_DIRECTORY.difference(OFlags::NOFOLLOW);
        let open = |path: &Path| self.root.open_at(path, flags, Mode::empty());
        let whole: PathBuf = parents.iter().map(|name| OsStr::from_bytes(name)).collect();
        match open(&whole) {
            Ok(fd) => {
                self.aside = Some(Open::existing(b"", fd)?);
                return Ok(());
            }
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(error) => return Err(error).context("open the directory"),
        }
        let mut path = PathBuf::from(".");
        let mut directory = Open::existing(b"", open(&path)?)?;
        for name in parents {
            path.push(OsStr::from_bytes(name));
            let next = match open(&path) {
                Ok(fd) => Open::existing(b"", fd)?,
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    let whiteout = match self.standing(directory.fd.as_fd(), name)?.0 {
                        Standing::Nothing => false,
                        Standing::Whiteout => true,
                        Standing::Symlink => {
                            return Err(Error::invalid(format!(
                                "{} is a symlink to no directory of this layer",
                                shown(name)
                            )));
                        }
                        _ => return Err(Error::invalid(format!("{} is not a directory", shown(name)))),
                    };
                    directory.changed = true;
                    self.make_implied(directory.fd.as_fd(), name, whiteout)?
                }
                Err(error) => return Err(error).with_context(|| format!("open directory {}", shown(name))),
            };
            std::mem::replace(&mut directory, next).close()?;
        }
        self.aside = Some(directory);
        Ok(())
    }

    /// Makes a directory that the archive uses and does not list.
    fn make_implied(&self, parent: BorrowedFd<'_>, name: &[u8], replaces_whiteout: bool) -> Result<Open> {
        if replaces_whiteout {
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        }
        rustix::fs::mkdirat(parent, name, IMPLIED_MODE).with_context(|| format!("make directory {}", shown(name)))?;
        let fd = rustix::fs::openat(parent, name, OPEN_DIRECTORY, Mode::empty())?;
        // The umask is the caller's.
        rustix::fs::fchmod(&fd, IMPLIED_MODE)?;
        if replaces_whiteout {
            self.set_opaque(fd.as_fd())?;
        }
        Ok(Open { name: name.to_vec(), fd, mtime: None, changed: false })
    }

    // What entries make.

    fn make<R: Skip>(&mut self, name: &[u8], entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        self.touch();
        let is_char_zero = entry.kind == EntryKind::Character && (entry.major, entry.minor) == (0, 0);
        match entry.kind {
            EntryKind::Directory => self.make_directory(name, entry),
            EntryKind::Regular => self.make_file(name, entry, reader),
            EntryKind::Symlink => self.make_symlink(name, entry),
            EntryKind::HardLink => self.make_hard_link(name, entry),
            EntryKind::Fifo => self.make_node(name, entry, FileType::Fifo).map(|_| ()),
            // On overlayfs that node is a whiteout, and only a `.wh.` entry may make one.
            EntryKind::Character | EntryKind::Block if is_char_zero => self.make_stand_in(name, entry),
            EntryKind::Character | EntryKind::Block => {
                let kind =
                    if entry.kind == EntryKind::Block { FileType::BlockDevice } else { FileType::CharacterDevice };
                if self.form.ownership == Ownership::Keep && self.make_node(name, entry, kind)? {
                    return Ok(());
                }
                self.make_stand_in(name, entry)
            }
        }
    }

    fn adopt_root(&mut self, entry: &Entry) -> Result<()> {
        let top = &mut self.chain[0];
        attributes::apply(top.fd.as_fd(), entry, self.form.ownership, false)?;
        top.mtime = Some(attributes::timespec(entry.mtime));
        top.changed = true;
        Ok(())
    }

    fn make_directory(&mut self, name: &[u8], entry: &Entry) -> Result<()> {
        let here = self.here();
        let mut replaced = false;
        match rustix::fs::mkdirat(here, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                if !matches!(self.standing(here, name)?.0, Standing::Directory) {
                    // What stood there hid the layers below, and so must the directory.
                    replaced = self.contents == Contents::Layer;
                    rustix::fs::unlinkat(here, name, AtFlags::empty())?;
                    rustix::fs::mkdirat(here, name, Mode::RWXU).context("make the directory")?;
                }
            }
            answer => answer.context("make the directory")?,
        }
        let fd = rustix::fs::openat(here, name, OPEN_DIRECTORY, Mode::empty()).context("open the directory")?;
        if replaced {
            self.set_opaque(fd.as_fd())?;
        }
        attributes::apply(fd.as_fd(), entry, self.form.ownership, false)?;
        if self.aside.is_none() && self.chain.len() <= CHAIN {
            // Most archives go on with its contents.
            let mtime = Some(attributes::timespec(entry.mtime));
            self.chain.push(Open { name: name.to_vec(), fd, mtime, changed: false });
        }
        Ok(())
    }

    fn create(&self, name: &[u8]) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replacing(name, || rustix::fs::openat(self.here(), name, flags, Mode::RUSR | Mode::WUSR))
            .context("make the file")
    }

    fn make_file<R: Skip>(&mut self, name: &[u8], entry: &Entry, reader: &mut Reader<R>) -> Result<()> {
        let fd = self.create(name)?;
        let mut end = 0;
        reader.for_each_chunk(entry.sparse.as_deref(), |mut offset, mut bytes| {
            end = offset + bytes.len() as u64;
            while !bytes.is_empty() {
                match rustix::io::pwrite(&fd, bytes, offset) {
                    Ok(0) => return Err(Errno::IO).context("write"),
                    Ok(length) => {
                        offset += length as u64;
                        bytes = &bytes[length..];
                    }
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error).context("write"),
                }
            }
            Ok(())
        })?;
        if end < entry.size {
            rustix::fs::ftruncate(&fd, entry.size).context("write")?;
        }
        attributes::apply(fd.as_fd(), entry, self.form.ownership, false)
    }

    fn make_symlink(&self, name: &[u8], entry: &Entry) -> Result<()> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(Error::invalid("a symlink without a target, or with a NUL in it"));
        }
        let here = self.here();
        self.replacing(name, || rustix::fs::symlinkat(entry.link.as_slice(), here, name))
            .context("make the symlink")?;
        attributes::apply_at(here, name, entry, self.form.ownership)
    }

    /// Links to what an earlier entry of this layer made. A symlink is linked to itself, not to what it points at.
    fn make_hard_link(&self, name: &[u8], entry: &Entry) -> Result<()> {
        let link = || {
            let components = names::split(&entry.link)?;
            let Some((target, parents)) = components.split_last() else {
                return Err(Error::invalid("it is the layer's root"));
            };
            let path: PathBuf = parents.iter().map(|name| OsStr::from_bytes(name)).collect();
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let parent = match self.root.open_at(&path, flags, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR) => return Err(Error::invalid("it is not in this layer")),
                answer => answer?,
            };
            let (standing, stat) = self.standing(parent.as_fd(), target)?;
            match standing {
                Standing::Nothing | Standing::Whiteout => return Err(Error::invalid("it is not in this layer")),
                Standing::Directory => return Err(Error::invalid("it is a directory")),
                Standing::Symlink | Standing::Other => {}
            }
            let here = self.here();
            // Linking a file to itself would remove it first.
            if let (Some(old), Some(new)) = (stat, self.standing(here, name)?.1)
                && (old.st_dev, old.st_ino) == (new.st_dev, new.st_ino)
            {
                return Ok(());
            }
            self.replacing(name, || rustix::fs::linkat(&parent, *target, here, name, AtFlags::empty()))
        };
        link().with_context(|| format!("hard link to {}", shown(&entry.link)))
    }

    /// Makes a device node or a FIFO. False where the kernel reserves that to the host's root.
    fn make_node(&self, name: &[u8], entry: &Entry, kind: FileType) -> Result<bool> {
        let here = self.here();
        let device = rustix::fs::makedev(entry.major, entry.minor);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let made = self.replacing(name, || rustix::fs::mknodat(here, name, kind, mode, device));
        match made {
            Err(error) if error.errno() == Some(Errno::PERM) && kind != FileType::Fifo => Ok(false),
            answer => {
                answer.context("make the node")?;
                attributes::apply_at(here, name, entry, self.form.ownership)?;
                Ok(true)
            }
        }
    }

    /// Makes an empty file that only records the node it stands for.
    fn make_stand_in(&self, name: &[u8], entry: &Entry) -> Result<()> {
        let fd = self.create(name)?;
        attributes::apply(fd.as_fd(), entry, self.form.ownership, true)
    }

    // What stands in the way.

    /// Looks at a name without following it.
    fn standing(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<(Standing, Option<Stat>)> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok((Standing::Nothing, None)),
            answer => answer.with_context(|| format!("look at {}", shown(name)))?,
        };
        let standing = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Standing::Directory,
            FileType::Symlink => Standing::Symlink,
            FileType::CharacterDevice if stat.st_rdev == 0 && self.contents == Contents::Layer => Standing::Whiteout,
            FileType::RegularFile
                if self.whiteouts_are_files && stat.st_size == 0 && self.is_whiteout_file(directory, name)? =>
            {
                Standing::Whiteout
            }
            _ => Standing::Other,
        };
        Ok((standing, Some(stat)))
    }

    fn is_whiteout_file(&self, directory: BorrowedFd<'_>, name: &[u8]) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        has_xattr(fd.as_fd(), self.form.overlay.whiteout())
    }

    /// Makes something at a name, in place of whatever an earlier entry of this layer made there.
    fn replacing<T>(&self, name: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            answer => return Ok(answer?),
        }
        remove_tree(self.here(), OsStr::from_bytes(name))?;
        Ok(make()?)
    }

    // What is hidden of the layers below.

    /// Hides a name of the layers below. What this layer itself has there stays, but on its own.
    fn hide(&mut self, name: &[u8]) -> Result<()> {
        self.touch();
        let here = self.here();
        // In an opaque directory there is nothing to hide, and the node would be listed there.
        if self.aside.is_none() {
            for open in &self.chain {
                if self.hides_below(open.fd.as_fd())? {
                    return Ok(());
                }
            }
        } else if self.hides_below(here)? {
            return Ok(());
        }
        match self.standing(here, name)?.0 {
            Standing::Nothing => self.make_whiteout(name),
            Standing::Directory => {
                let fd = rustix::fs::openat(here, name, OPEN_DIRECTORY, Mode::empty())?;
                self.set_opaque(fd.as_fd())
            }
            Standing::Whiteout | Standing::Symlink | Standing::Other => Ok(()),
        }
    }

    fn make_whiteout(&mut self, name: &[u8]) -> Result<()> {
        if !self.whiteouts_are_files {
            // Linux lets anyone make this one node since 5.8.
            match rustix::fs::mknodat(self.here(), name, FileType::CharacterDevice, Mode::empty(), 0) {
                Err(Errno::PERM | Errno::ACCESS) => self.whiteouts_are_files = true,
                answer => return Ok(answer?),
            }
        }
        // Since 6.7 an empty file with an attribute does as well, in a directory that announces it.
        let fd = self.create(name)?;
        set_xattr(fd.as_fd(), self.form.overlay.whiteout(), b"y")?;
        set_xattr(self.here(), self.form.overlay.opaque(), b"x")
    }

    fn set_opaque(&self, directory: BorrowedFd<'_>) -> Result<()> {
        set_xattr(directory, self.form.overlay.opaque(), b"y")?;
        self.sweep(directory)
    }

    fn hides_below(&self, directory: BorrowedFd<'_>) -> Result<bool> {
        let mut value = [0; 2];
        match rustix::fs::fgetxattr(directory, self.form.overlay.opaque(), &mut value) {
            Ok(length) => Ok(&value[..length] == b"y"),
            // Longer than `y` is not `y`.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes whiteouts from a directory that hides everything anyway: overlayfs would list them there.
    fn sweep(&self, directory: BorrowedFd<'_>) -> Result<()> {
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let kind = entry.file_type();
            let may_be = kind == FileType::CharacterDevice
                || kind == FileType::Unknown
                || (kind == FileType::RegularFile && self.whiteouts_are_files);
            let name = entry.file_name().to_bytes();
            if may_be && matches!(self.standing(directory, name)?.0, Standing::Whiteout) {
                rustix::fs::unlinkat(directory, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

fn set_xattr(fd: BorrowedFd<'_>, name: &str, value: &[u8]) -> Result<()> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()).with_context(|| format!("set attribute {name}"))
}

fn has_xattr(fd: BorrowedFd<'_>, name: &str) -> Result<bool> {
    match rustix::fs::fgetxattr_query(fd, name) {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A name in a form that is safe to print.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).escape_debug().to_string()
}
