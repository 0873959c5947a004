//! `host:`, the image that needs none: the host's own root file system below a layer that is thrown away.
//!
//! [`plan`] is pure: from the mount table and a look at directories to the parts of a root file system, and to what has to
//! be made for them; [`Plan::prepare`] makes that. Mounts nothing.
//!
//! - With the rights of the host's root, one overlay lies over `/`. An overlay does not show what is mounted below its
//!   lower directory, so each local file system of the machine gets an overlay of its own at its place.
//! - An ordinary user may not lay an overlay over a directory that has mounts below: to show it without them would uncover
//!   what they hide, and the kernel has them locked (mount_namespaces(7)). So each top-level directory gets an overlay of
//!   its own; one with mounts below it is made anew, and its entries are taken one by one; links are made again; files are
//!   bound read-only, since there is no overlay of a file.
//! - As that user, the first write below a directory copies the directory up, which fails with EOVERFLOW if its owner has no
//!   id in the namespace, even where anybody may write ([`View::writable`]): those get their place in the layer beforehand.
//! - `/proc /sys /dev /run /tmp` are the container's own.
//! - Other file systems (network, FUSE, automounts, other containers' overlays, memory) are not touched, since a look may
//!   hang or uncover; their places are empty, and [`Plan::unseen`] names them.
//! - The store lies inside of what it shows, and the upper directories inside of their own lower ones. The kernel allows
//!   that and answers ELOOP where the two meet; husk masks the store as a whole, since what other containers wrote is not
//!   the machine's. (overlayfs.rst, "Sharing and copying layers"; tested below)

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::config::{Part, PartSource, RootFs};
use crate::error::{Context, Error, Result};
use crate::support::mountinfo::{self, Mount};

/// The container's own: nothing of the host's is shown there.
const OWN: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// File systems on the machine's own disks: what is on them is the machine.
const LOCAL: [&str; 16] = [
    "bcachefs", "btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "jfs", "ntfs3", "reiserfs",
    "squashfs", "udf", "xfs", "zfs",
];

/// What a root file system may itself be on, beyond that: a container's, an installer's, a test machine's.
const ROOT_ONLY: [&str; 3] = ["overlay", "ramfs", "tmpfs"];

/// A tree with more parts is no machine that was meant; each is a mount.
const PARTS: usize = 4096;

/// `/run` of the container.
const RUN_OPTIONS: &[&str] = &["nosuid", "nodev", "mode=755"];

/// What can be looked at of the host.
pub trait Tree {
    /// Lists a directory.
    fn entries(&self, directory: &Path) -> Result<Vec<Entry>>;

    /// Says what is at a path, not following a link at its end.
    fn kind(&self, path: &Path) -> Result<Kind>;
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    pub name: OsString,
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Directory,
    File,
    Link(PathBuf),
    /// A socket, a FIFO, a device.
    Other,
}

/// With whose rights the overlays are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Of the host's root, in a mount namespace whose mounts are not locked.
    Root,
    /// Of an ordinary user, inside a user namespace.
    User,
}

/// What a plan is made from.
pub struct View<'a> {
    pub mounts: &'a [Mount],
    pub tree: &'a dyn Tree,
    pub rights: Rights,
    /// Absolute path of the container's directory for its root file system.
    pub directory: &'a Path,
    /// husk's own directories, without links in their paths.
    pub hidden: &'a [&'a Path],
    /// Directories, without links in their paths, in which an ordinary user may write although others own them or what is
    /// above them: `/var/tmp`, and the user's home.
    pub writable: &'a [&'a Path],
}

/// How the host becomes a root file system.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    pub root: RootFs,
    /// On top of the root, parents first.
    pub parts: Vec<Part>,
    /// Paths of the container to be masked.
    pub masked_paths: Vec<String>,
    /// Mounts of the host that are not shown, with the kind of file system or the reason.
    pub unseen: Vec<(PathBuf, String)>,
    prepare: Vec<Step>,
}

/// Something to be made below the container's directory.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Directory {
        path: PathBuf,
        mode: u32,
    },
    /// With the mode, and where that is possible the owner, of a directory of the host.
    DirectoryLike {
        path: PathBuf,
        model: PathBuf,
    },
    Link {
        path: PathBuf,
        target: PathBuf,
    },
}

/// Makes the plan.
pub fn plan(view: &View<'_>) -> Result<Plan> {
    let visible = mountinfo::visible(view.mounts);
    let root = visible.first().ok_or_else(|| Error::invalid("mountinfo: no mount on /"))?;
    if !is_local(root) && !ROOT_ONLY.contains(&root.kind.as_str()) {
        return Err(Error::unsupported(format!(
            "host: the root file system is {}, which no overlay can lie over",
            root.kind
        )));
    }
    let mut planner = Planner { view, visible: &visible, plan: Plan::empty(), overlays: 0 };
    match view.rights {
        Rights::Root => planner.lay_over_everything()?,
        Rights::User => {
            planner.lay_over_each()?;
            planner.open_writable();
        }
    }
    planner.add_own();
    planner.mask_hidden()?;
    Ok(planner.plan)
}

fn is_local(mount: &Mount) -> bool {
    LOCAL.contains(&mount.kind.as_str())
}

fn is_own(path: &Path) -> bool {
    OWN.iter().any(|own| path.starts_with(own))
}

struct Planner<'a> {
    view: &'a View<'a>,
    visible: &'a [&'a Mount],
    plan: Plan,
    overlays: usize,
}

impl<'a> Planner<'a> {
    fn lay_over_everything(&mut self) -> Result<()> {
        let PartSource::Overlay { lower, upper, work, has_user_xattrs } = self.overlay(Path::new("/")) else {
            return Ok(());
        };
        let target = self.make_directory("rootfs", 0o755);
        self.plan.root = RootFs::Overlay { lower: vec![lower], upper, work, target, has_user_xattrs };
        for mount in self.visible.iter().skip(1) {
            if !self.is_shown(&mount.point) {
                continue;
            }
            if !is_local(mount) {
                self.leave_out(&mount.point, &mount.kind);
                continue;
            }
            match self.view.tree.kind(&mount.point)? {
                Kind::Directory => {
                    let source = self.overlay(&mount.point);
                    self.add(&mount.point, source)?;
                }
                _ => self.add(&mount.point, PartSource::ReadOnlyBind(mount.point.clone()))?,
            }
        }
        Ok(())
    }

    fn lay_over_each(&mut self) -> Result<()> {
        let path = self.make_directory("rootfs", 0o755);
        self.plan.root = RootFs::Directory { path, parts: Vec::new() };
        self.take_entries(Path::new("/"))
    }

    /// Takes the entries of a directory one by one.
    fn take_entries(&mut self, directory: &Path) -> Result<()> {
        let mut entries = match self.view.tree.entries(directory) {
            Ok(entries) => entries,
            Err(error) if error.errno() == Some(Errno::ACCESS) => {
                self.leave_out(directory, "may not be listed, and has mounts below");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        entries.sort();
        for Entry { name, kind } in entries {
            let path = directory.join(name);
            if !self.is_shown(&path) {
                continue;
            }
            match kind {
                Kind::Directory => self.take_directory(&path)?,
                Kind::File => self.take_file(&path)?,
                Kind::Link(target) => self.plan.prepare.push(Step::Link { path: below("rootfs", &path), target }),
                Kind::Other => {}
            }
        }
        Ok(())
    }

    fn take_directory(&mut self, path: &Path) -> Result<()> {
        if let Some(mount) = self.mount_at(path)
            && !is_local(mount)
        {
            self.leave_out(path, &mount.kind);
            self.plan.prepare.push(Step::Directory { path: below("rootfs", path), mode: 0o755 });
            // What is mounted further below would have to be reached through it.
            return Ok(());
        }
        let has_mounts = self.visible.iter().any(|mount| mount.point != path && mount.point.starts_with(path));
        if !has_mounts {
            let source = self.overlay(path);
            return self.add(path, source);
        }
        self.plan.prepare.push(Step::DirectoryLike { path: below("rootfs", path), model: path.to_owned() });
        self.take_entries(path)
    }

    fn take_file(&mut self, path: &Path) -> Result<()> {
        if let Some(mount) = self.mount_at(path)
            && !is_local(mount)
        {
            self.leave_out(path, &mount.kind);
            return Ok(());
        }
        self.add(path, PartSource::ReadOnlyBind(path.to_owned()))
    }

    /// Makes the writable directories in the layers, with those above them: there they are the user's, and nothing has to be
    /// copied up that would need another owner.
    fn open_writable(&mut self) {
        for path in self.view.writable {
            let part = self.plan.parts.iter().find(|part| path.starts_with(&part.destination));
            let Some(Part { destination, source: PartSource::Overlay { lower, upper, .. } }) = part else { continue };
            let mut model = lower.clone();
            let mut place = upper.strip_prefix(self.view.directory).unwrap_or(upper).to_owned();
            for name in path.strip_prefix(destination).unwrap_or(path) {
                model.push(name);
                place.push(name);
                // A link, or nothing, is to stay what it is.
                if !matches!(self.view.tree.kind(&model), Ok(Kind::Directory)) {
                    break;
                }
                let step = Step::DirectoryLike { path: place.clone(), model: model.clone() };
                if !self.plan.prepare.contains(&step) {
                    self.plan.prepare.push(step);
                }
            }
        }
    }

    fn mount_at(&self, path: &Path) -> Option<&'a Mount> {
        self.visible.iter().find(|mount| mount.point == path).copied()
    }

    /// Says whether a mount belongs to what is shown at all.
    fn is_shown(&self, point: &Path) -> bool {
        !is_own(point) && !self.view.hidden.iter().any(|hidden| point.starts_with(hidden))
    }

    fn leave_out(&mut self, path: &Path, why: &str) {
        if self.is_shown(path) {
            self.plan.unseen.push((path.to_owned(), why.to_owned()));
        }
    }

    /// Plans the upper and work directories of an overlay over `lower`.
    fn overlay(&mut self, lower: &Path) -> PartSource {
        let prefix = if lower == Path::new("/") {
            String::new()
        } else {
            if self.overlays == 0 {
                self.make_directory("parts", 0o700);
            }
            self.overlays += 1;
            format!("parts/{}.", self.overlays)
        };
        let upper = PathBuf::from(format!("{prefix}upper"));
        // What the container sees as the directory's own mode is the upper one's.
        self.plan.prepare.push(Step::DirectoryLike { path: upper.clone(), model: lower.to_owned() });
        let work = self.make_directory(&format!("{prefix}work"), 0o700);
        PartSource::Overlay {
            lower: lower.to_owned(),
            upper: self.view.directory.join(upper),
            work,
            has_user_xattrs: self.view.rights == Rights::User,
        }
    }

    fn make_directory(&mut self, name: &str, mode: u32) -> PathBuf {
        self.plan.prepare.push(Step::Directory { path: name.into(), mode });
        self.view.directory.join(name)
    }

    fn add(&mut self, destination: &Path, source: PartSource) -> Result<()> {
        if self.plan.parts.len() == PARTS {
            return Err(Error::unsupported(format!("host: more than {PARTS} mounts would be needed")));
        }
        self.plan.parts.push(Part { destination: destination.to_owned(), source });
        Ok(())
    }

    /// `/proc`, `/sys` and `/dev` every container has; here come the other two. What is written to `/tmp` may be large,
    /// so that is on disk.
    fn add_own(&mut self) {
        let tmp = self.make_directory("tmp", 0o1777);
        for (destination, source) in [("/run", PartSource::Tmpfs(RUN_OPTIONS)), ("/tmp", PartSource::Bind(tmp))] {
            self.plan.parts.push(Part { destination: destination.into(), source });
        }
    }

    fn mask_hidden(&mut self) -> Result<()> {
        for path in self.view.hidden.iter().filter(|path| !is_own(path)) {
            let is_clean = path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
            match path.to_str().filter(|_| is_clean && path.parent().is_some()) {
                Some(path) => self.plan.masked_paths.push(path.to_owned()),
                None => return Err(Error::invalid(format!("host: {} cannot be hidden", path.display()))),
            }
        }
        Ok(())
    }
}

/// Puts an absolute path of the container below a directory.
fn below(directory: &str, path: &Path) -> PathBuf {
    Path::new(directory).join(path.strip_prefix("/").unwrap_or(path))
}

impl Plan {
    fn empty() -> Self {
        Self {
            root: RootFs::Directory { path: PathBuf::new(), parts: Vec::new() },
            parts: Vec::new(),
            masked_paths: Vec::new(),
            unseen: Vec::new(),
            prepare: Vec::new(),
        }
    }

    /// Makes the directories and links of the plan below `directory`, the container's own for its root file system. What is
    /// there already, from a start before, stays as the container left it.
    pub fn prepare(&self, directory: BorrowedFd<'_>) -> Result<()> {
        for step in &self.prepare {
            let (Step::Directory { path, .. } | Step::DirectoryLike { path, .. } | Step::Link { path, .. }) = step;
            match make(directory, step) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).with_context(|| format!("host: make {}", path.display())),
            }
        }
        Ok(())
    }
}

fn make(directory: BorrowedFd<'_>, step: &Step) -> Result<(), Errno> {
    match step {
        Step::Link { path, target } => rustix::fs::symlinkat(target, directory, path),
        Step::Directory { path, mode } => {
            rustix::fs::mkdirat(directory, path, Mode::RWXU)?;
            // The umask takes from what mkdir is given, and 1777 is meant.
            rustix::fs::chmodat(directory, path, Mode::from_raw_mode(*mode), AtFlags::empty())
        }
        Step::DirectoryLike { path, model } => {
            rustix::fs::mkdirat(directory, path, Mode::RWXU)?;
            let model = rustix::fs::lstat(model)?;
            let (uid, gid) = (Uid::from_raw(model.st_uid), Gid::from_raw(model.st_gid));
            match rustix::fs::chownat(directory, path, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
                // An ordinary user's: then it is theirs.
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
            let mut mode = Mode::from_raw_mode(model.st_mode & 0o7777);
            if rustix::process::geteuid().as_raw() != model.st_uid {
                // Its owner must be able to use it, whoever that has become.
                mode |= Mode::RWXU;
            }
            rustix::fs::chmodat(directory, path, mode, AtFlags::empty())
        }
    }
}

/// The file system itself.
pub struct Files;

impl Tree for Files {
    fn entries(&self, directory: &Path) -> Result<Vec<Entry>> {
        let read = || {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd: OwnedFd = rustix::fs::open(directory, flags, Mode::empty())?;
            let mut entries = Vec::new();
            for entry in rustix::fs::Dir::read_from(&fd)? {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                // What the directory says of an entry is told without a look at what is mounted there, which may hang; and
                // only like can be mounted on like.
                let kind = match entry.file_type() {
                    FileType::Unknown => FileType::from_raw_mode(
                        rustix::fs::statat(&fd, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)?.st_mode,
                    ),
                    kind => kind,
                };
                let kind = kind_of(fd.as_fd(), name, kind)?;
                entries.push(Entry { name: OsString::from_vec(name.to_bytes().to_vec()), kind });
            }
            Ok::<_, Errno>(entries)
        };
        read().with_context(|| format!("host: list {}", directory.display()))
    }

    fn kind(&self, path: &Path) -> Result<Kind> {
        let look = || {
            let stat = rustix::fs::statat(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)?;
            kind_of(rustix::fs::CWD, path, FileType::from_raw_mode(stat.st_mode))
        };
        look().with_context(|| format!("host: look at {}", path.display()))
    }
}

fn kind_of(directory: BorrowedFd<'_>, name: impl rustix::path::Arg, kind: FileType) -> Result<Kind, Errno> {
    Ok(match kind {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
            Kind::Link(PathBuf::from(std::ffi::OsStr::from_bytes(target.to_bytes())))
        }
        _ => Kind::Other,
    })
}

#[cfg(test)]
mod tests;
