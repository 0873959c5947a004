//! One mount: made detached, given its attributes, then attached to a descriptor below the root.
//!
//! A mount is read-only, nosuid … before anybody can see it, and it lands on the inode that was looked at: between the
//! look and the attaching there is no path (CVE-2021-30465).

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_reconfigure, fsconfig_set_fd, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree,
};

use super::attributes::{replace_attributes, set_recursive_attributes};
use super::plan::{Data, MountPlan, MountSource, Origin};
use super::{bind, copy_up, host, overlay};
use crate::error::{Context, Error, Result};
use crate::spec::mount_options::{Bind, MountOptions, Propagation};
use crate::support::root::Root;
use crate::sys::mount::{Change, Reach, attr, mount_setattr};

/// Mode of directories and files that are made as places to mount on.
const MOUNT_POINT_MODE: Mode = Mode::from_raw_mode(0o755);

/// Makes one mount of the plan below `root`. Cgroup mounts are [`super::cgroup_mount`]'s.
///
/// Gives a mount that is to be made read-only at the end: later mounts, devices and links have their places in it.
pub fn mount(root: &Root, plan: &MountPlan, aid: &Aid<'_>) -> Result<Option<OwnedFd>> {
    act(root, plan, aid).with_context(|| plan.describe())
}

/// What a mount may need beside the root and its plan.
#[derive(Clone, Copy)]
pub struct Aid<'a> {
    /// The PID namespace that a procfs shows; without it, it is this process's own.
    pub processes: Option<BorrowedFd<'a>>,
    /// Maps the ids of a tree whose plan has [`MountPlan::maps_later`].
    pub map_ids: &'a dyn Fn(&OwnedFd) -> Result<()>,
}

impl Aid<'_> {
    /// Where there is none to be had.
    pub const NONE: Self =
        Self { processes: None, map_ids: &|_| Err(Error::unsupported("nobody is there to map the ids")) };
}

fn act(root: &Root, plan: &MountPlan, aid: &Aid<'_>) -> Result<Option<OwnedFd>> {
    let options = &plan.options;
    match &plan.source {
        MountSource::Bind { path, origin } => {
            if options.copies_symlink
                && let Some(target) = read_symlink(root, path, origin)?
            {
                return copy_symlink(root, &target, &plan.destination).map(|()| None);
            }
            let tree = match origin {
                Origin::Host => clone_tree(path, options)?,
                Origin::Parent(tree) => bind::take(tree)?,
                Origin::Root(inside) => clone_inside(root, inside, options)?,
            };
            if plan.maps_later.is_some() {
                (aid.map_ids)(&tree)?;
            }
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&tree)?.st_mode);
            if plan.covers_proc {
                host::require_proc(&tree)?;
            }
            let target = open_target(root, &plan.destination, kind, options)?;
            replace_attributes(&tree, options)?;
            set_recursive_attributes(&tree, options)?;
            attach(&tree, &target)?;
            set_propagation(&tree, options)?;
            Ok(None)
        }
        MountSource::New { kind, source, data } => mount_new(root, plan, kind, source, data, aid.processes),
        MountSource::Remount { data } => {
            let target = root.open_at(&plan.destination, OFlags::PATH, Mode::empty())?;
            if !data.is_empty() || !options.superblock.is_empty() {
                reconfigure(&target, data, options).context("change the file system's options")?;
            }
            replace_attributes(&target, options)?;
            set_recursive_attributes(&target, options)?;
            set_propagation(&target, options)?;
            Ok(None)
        }
        MountSource::Cgroup => Err(Error::unsupported("a cgroup mount is made elsewhere")),
    }
}

fn mount_new(
    root: &Root,
    plan: &MountPlan,
    kind: &CString,
    source: &CString,
    data: &Data,
    processes: Option<BorrowedFd<'_>>,
) -> Result<Option<OwnedFd>> {
    let options = &plan.options;
    let is_tmpfs = kind.to_bytes() == b"tmpfs";
    let wants_mode = is_tmpfs && !data.iter().any(|(key, _)| key.to_bytes() == b"mode");
    let was_there = wants_mode && root.open_at(&plan.destination, OFlags::PATH, Mode::empty()).is_ok();
    let target = if is_kernel_file_system(kind.to_bytes()) {
        open_plain_directory(root, &plan.destination)?
    } else {
        open_target(root, &plan.destination, FileType::Directory, options)?
    };
    // Without a mode it has that of the directory below; where there was none, the file system's own, 1777.
    let inherited_mode = if was_there { Some(rustix::fs::fstat(&target)?.st_mode & 0o7777) } else { None };
    let waits = options.attributes.set & attr::RDONLY != 0 && (is_tmpfs || plan.destination == Path::new("/dev"));
    let attributes = if waits { options.attributes.set & !attr::RDONLY } else { options.attributes.set };
    let processes = processes.filter(|_| kind.to_bytes() == b"proc");
    let fs = new_file_system(kind, source, data, options, attributes, inherited_mode, processes)?;
    if options.copies_up && is_tmpfs {
        copy_up::copy(target.as_fd(), fs.as_fd())?;
    }
    attach(&fs, &target)?;
    if let Some(label) = &plan.label {
        let directory = root.open_at(&plan.destination, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::fsetxattr(&directory, c"security.selinux", label.to_bytes(), flags).context("label it")?;
    }
    set_recursive_attributes(&fs, options)?;
    set_propagation(&fs, options)?;
    Ok(waits.then_some(fs))
}

/// Hands options to a file system that is mounted already: what `mount -o remount` does beside the flags of the mount.
fn reconfigure(target: &OwnedFd, data: &Data, options: &MountOptions) -> Result<()> {
    let context = fspick(target.as_fd(), c"", FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH)?;
    for flag in options.superblock.as_fsconfig_flags() {
        fsconfig_set_flag(context.as_fd(), flag).with_context(|| format!("set option {flag}"))?;
    }
    set_options(&context, data)?;
    Ok(fsconfig_reconfigure(context.as_fd())?)
}

/// Makes a detached copy of a tree of the host's mounts.
pub fn clone_tree(path: &Path, options: &MountOptions) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.bind == Bind::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if options.keeps_source_link {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    open_tree(CWD, path, flags).map_err(|errno| explain_source(path, errno))
}

/// Makes a detached copy of a tree that lies in the root file system, with what is mounted in it by now.
///
/// Its symlinks lead nowhere else, whoever wrote them: followed on the host, they would make a bind of any file there.
fn clone_inside(root: &Root, path: &Path, options: &MountOptions) -> Result<OwnedFd> {
    let mut flags = OFlags::PATH;
    flags.set(OFlags::NOFOLLOW, options.keeps_source_link);
    let describe = || format!("open {} in the root file system", path.display());
    let source = root.open_at(path, flags, Mode::empty()).with_context(describe)?;
    let reach = if options.bind == Bind::Recursive { Reach::Tree } else { Reach::One };
    clone_fd(&source, reach).map_err(|errno| explain_source(path, errno))
}

/// A missing source and a locked tree are what people meet; both have a way out.
fn explain_source(path: &Path, errno: Errno) -> Error {
    let error = Error::from(errno).context(format!("open {}", path.display()));
    match errno {
        Errno::INVAL => error
            .with_hint("use `rbind`: a part of the tree is mounted over, and the kernel shows it whole or not at all"),
        _ => error,
    }
}

/// Makes a new instance of a file system, detached, with these `MOUNT_ATTR_*` bits.
pub fn new_file_system(
    kind: &CString,
    source: &CString,
    data: &Data,
    options: &MountOptions,
    attributes: u64,
    mode: Option<u32>,
    processes: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd> {
    let name = kind.to_string_lossy();
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).with_context(|| format!("open file system {name}"))?;
    fsconfig_set_string(context.as_fd(), c"source", source).context("set source")?;
    for flag in options.superblock.as_fsconfig_flags() {
        fsconfig_set_flag(context.as_fd(), flag).with_context(|| format!("set option {flag}"))?;
    }
    if attributes & attr::RDONLY != 0 && !is_made_by_the_kernel(kind.to_bytes()) {
        // What lies on a read-only device or has nowhere to write is refused otherwise.
        fsconfig_set_flag(context.as_fd(), c"ro").context("set option ro")?;
    }
    if let Some(processes) = processes {
        fsconfig_set_fd(context.as_fd(), c"pidns", processes).context("set option pidns")?;
    }
    if let Some(mode) = mode {
        fsconfig_set_string(context.as_fd(), c"mode", format!("{mode:o}")).context("set option mode")?;
    }
    match data.iter().position(|(key, _)| kind.as_c_str() == c"overlay" && key.as_c_str() == c"lowerdir") {
        Some(at) => {
            set_options(&context, &data[..at])?;
            overlay::set_lower_directories(&context, data[at].1.as_deref().unwrap_or_default())?;
            set_options(&context, &data[at + 1..])?;
        }
        None => set_options(&context, data)?,
    }
    fsconfig_create(context.as_fd()).context("create")?;
    let attributes = MountAttrFlags::from_bits_retain(u32::try_from(attributes).unwrap_or(0));
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn set_options(context: &OwnedFd, data: &Data) -> Result<()> {
    for (key, value) in data {
        let answer = match value {
            Some(value) => fsconfig_set_string(context.as_fd(), key, value),
            None => fsconfig_set_flag(context.as_fd(), key),
        };
        answer.with_context(|| format!("set option {}", show_option(key, value.as_ref())))?;
    }
    Ok(())
}

/// File systems without a store, where being read-only is for the mount alone: some have one instance for the machine.
fn is_made_by_the_kernel(kind: &[u8]) -> bool {
    matches!(kind, b"proc" | b"sysfs" | b"cgroup" | b"cgroup2" | b"tmpfs" | b"devpts" | b"mqueue")
}

/// Says whether a procfs can be made for another PID namespace than one's own (kernel 6.17), and this one be its subject.
pub fn can_show_processes_of(namespace: BorrowedFd<'_>) -> bool {
    fsopen(c"proc", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|context| fsconfig_set_fd(context.as_fd(), c"pidns", namespace))
        .is_ok()
}

fn show_option(key: &CString, value: Option<&CString>) -> String {
    match value {
        Some(value) => format!("{}={}", key.to_string_lossy(), value.to_string_lossy()),
        None => key.to_string_lossy().into_owned(),
    }
}

/// Attaches a detached tree to what `target` stands on.
pub fn attach(tree: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree.as_fd(), c"", target.as_fd(), c"", flags)
}

/// Copies what `fd` stands on, with or without the mounts below it, as a detached tree.
pub fn clone_fd(fd: impl AsFd, reach: Reach) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if reach == Reach::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(fd.as_fd(), c"", flags)
}

/// Opens the place for a mount inside the root, making it where it is missing: a directory for a directory, else a file.
///
/// A symlink of the root file system may lead there, but not into `/proc`: [`crate::spec::validate`] has judged the
/// destination by its words, and what the words hide is judged here (CVE-2019-16884).
pub fn open_target(root: &Root, path: &Path, kind: FileType, options: &MountOptions) -> Result<OwnedFd> {
    let describe = || format!("open {} in the root file system", path.display());
    if options.keeps_destination_link {
        let open = || {
            let (parent, name) = root.open_parent(path)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, &name, flags, Mode::empty())
        };
        return match open() {
            Err(Errno::NOENT) => make_target(root, path, kind),
            answer => answer.with_context(describe),
        };
    }
    let is_missing = match root.open_without_symlinks(path, OFlags::PATH, Mode::empty()) {
        Ok(target) => return Ok(target),
        Err(Errno::NOENT) => true,
        Err(Errno::LOOP | Errno::NOTDIR) => false,
        Err(errno) => return Err(errno).with_context(describe),
    };
    let followed = root.follow_missing(path).with_context(describe)?;
    if is_missing && followed == path {
        return make_target(root, path, kind);
    }
    if followed != path && (followed.starts_with("/proc") || followed == Path::new("/")) {
        let place = if followed == Path::new("/") { "is the top of the root file system" } else { "is inside /proc" };
        return Err(Error::invalid(format!("{:?} cannot be mounted because it {place}", path.display().to_string())));
    }
    match root.open_without_symlinks(&followed, OFlags::PATH, Mode::empty()) {
        Err(Errno::NOENT) => make_target(root, &followed, kind),
        answer => answer.with_context(describe),
    }
}

/// Makes a place that is missing, at a path that has no symlinks, and opens it.
fn make_target(root: &Root, path: &Path, kind: FileType) -> Result<OwnedFd> {
    let describe = || format!("make {} in the root file system", path.display());
    if kind == FileType::Directory {
        return root.make_directories(path, MOUNT_POINT_MODE).with_context(describe);
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().ok_or(Errno::INVAL).with_context(describe)?;
    let directory = root.make_directories(parent, MOUNT_POINT_MODE).with_context(describe)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
    match rustix::fs::openat(&directory, name, flags, MOUNT_POINT_MODE) {
        Ok(_) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).with_context(describe),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(&directory, name, flags, Mode::empty()).with_context(describe)
}

/// File systems that show the kernel's state: over a symlink they would land elsewhere than the rest of the runtime,
/// and the masks, believe (CVE-2019-19921, CVE-2023-27561).
fn is_kernel_file_system(kind: &[u8]) -> bool {
    matches!(kind, b"proc" | b"sysfs" | b"cgroup" | b"cgroup2")
}

/// Opens a directory that no symlink leads to, making it where it is missing.
pub fn open_plain_directory(root: &Root, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let open = || root.open_without_symlinks(path, flags, Mode::empty());
    let answer = match open() {
        Err(Errno::NOENT) => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            match root.open_without_symlinks(parent, flags, Mode::empty()) {
                Ok(_) | Err(Errno::NOENT) => {
                    root.make_directories(path, MOUNT_POINT_MODE)?;
                    open()
                }
                Err(errno) => Err(errno),
            }
        }
        answer => answer,
    };
    answer.map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => {
            // The words that runc's callers look for.
            Error::invalid(format!("{} must be mounted on ordinary directory", path.display()))
        }
        errno => errno.into(),
    })
}

fn set_propagation(fd: &OwnedFd, options: &MountOptions) -> Result<()> {
    for propagation in &options.propagation {
        let reach = if propagation.is_recursive { Reach::Tree } else { Reach::One };
        let mode = u64::from(Propagation { is_recursive: false, ..*propagation }.as_mount_flags());
        mount_setattr(fd, reach, &Change { propagation: mode, ..Change::default() }).context("set propagation")?;
    }
    Ok(())
}

/// Makes what `fd` stands on read-only, by binding it onto itself.
pub fn make_readonly(fd: &OwnedFd) -> Result<(), Errno> {
    let tree = clone_fd(fd, Reach::Tree)?;
    let change = Change { set: attr::RDONLY, ..Change::default() };
    mount_setattr(&tree, Reach::Tree, &change)?;
    attach(&tree, fd)
}

/// Gives a detached tree the id maps of a user namespace (kernel 5.12).
pub fn map_ids(tree: &OwnedFd, namespace: &OwnedFd, is_recursive: bool) -> Result<()> {
    let reach = if is_recursive { Reach::Tree } else { Reach::One };
    let change = Change { set: attr::IDMAP, userns: Some(namespace.as_fd()), ..Change::default() };
    mount_setattr(tree, reach, &change).map_err(|errno| {
        let error = Error::from(errno).context("map the ids of the mount");
        match errno {
            Errno::INVAL => error.with_hint("the file system below does not support idmapped mounts"),
            _ => error,
        }
    })
}

/// Recreates a symlink of the host in the container (`copy-symlink`).
fn copy_symlink(root: &Root, target: &CStr, destination: &Path) -> Result<()> {
    let parent = destination.parent().unwrap_or(Path::new("/"));
    let name = destination.file_name().ok_or(Errno::INVAL)?;
    let directory = root.make_directories(parent, MOUNT_POINT_MODE)?;
    match rustix::fs::symlinkat(target, &directory, name) {
        Err(Errno::EXIST) if rustix::fs::readlinkat(&directory, name, Vec::new()).as_deref() == Ok(target) => Ok(()),
        answer => Ok(answer?),
    }
}

/// Gives what a source says if it is a symlink, without opening what it names.
fn read_symlink(root: &Root, path: &Path, origin: &Origin) -> Result<Option<CString>, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let source = match origin {
        Origin::Root(inside) => root.open_at(inside, flags, Mode::empty())?,
        Origin::Host | Origin::Parent(_) => rustix::fs::open(path, flags, Mode::empty())?,
    };
    let is_symlink = FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode) == FileType::Symlink;
    is_symlink.then(|| rustix::fs::readlinkat(&source, c"", Vec::new())).transpose()
}
