//! Secrets as files: a tmpfs of the container's own, filled while nobody is there to see it, then read-only.
//!
//! What is written here comes from the parent's memory and goes to memory: no secret is ever in a file of the host's that
//! is not its store, nor in the container's layer, nor in any description of the container.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::mount::{attach, clone_fd, new_file_system, open_target};
use crate::error::{Context, Error, Result};
use crate::spec::mount_options::MountOptions;
use crate::support::root::Root;
use crate::sys::mount::{Change, Reach, attr, mount_setattr};

/// Where secrets are, unless their targets say otherwise.
pub const DIRECTORY: &str = "/run/secrets";

/// A secret as a file. It has no `Debug`: what it holds is for the container alone.
#[derive(Clone)]
pub struct SecretFile {
    /// Absolute and clean; below [`DIRECTORY`], or of a file anywhere in the container.
    pub destination: PathBuf,
    pub content: Vec<u8>,
    /// As ids of the container.
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// Mounts the secrets in the root file system, over whatever other mounts have brought.
pub fn deliver(root: &Root, files: &[SecretFile]) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let options = MountOptions::default();
    let memory = memory(&options).context("mount a tmpfs for secrets")?;
    let target = open_target(root, Path::new(DIRECTORY), FileType::Directory, &options)?;
    attach(&memory, &target).with_context(|| format!("mount secrets on {DIRECTORY}"))?;
    let tree = Root::from_fd(rustix::fs::openat(&memory, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    for file in files {
        let deliver = || match file.destination.strip_prefix(DIRECTORY) {
            Ok(path) => write(&tree, path, file).map(drop),
            Err(_) => bind(root, &tree, file, &options),
        };
        deliver().with_context(|| format!("secret {}", file.destination.display()))?;
    }
    seal(&memory)
}

/// Makes the file system, detached. Its pages stay out of the swap where the kernel (6.4) lets it be said, which is to the
/// host's root.
fn memory(options: &MountOptions) -> Result<OwnedFd> {
    let attributes = attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let mode = (c"mode".to_owned(), Some(c"0755".to_owned()));
    let new =
        |data: &[_]| new_file_system(&c"tmpfs".to_owned(), &c"tmpfs".to_owned(), data, options, attributes, None, None);
    match new(&[mode.clone(), (c"noswap".to_owned(), None)]) {
        Err(error) if error.errno() == Some(Errno::INVAL) => new(&[mode]),
        answer => answer,
    }
}

fn write(tree: &Root, path: &Path, file: &SecretFile) -> Result<OwnedFd> {
    let name = path.file_name().ok_or(Errno::INVAL)?;
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = tree.make_directories(parent, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    let mut rest = file.content.as_slice();
    while !rest.is_empty() {
        rest = &rest[rustix::io::retry_on_intr(|| rustix::io::write(&opened, rest))?..];
    }
    let owner = (Uid::from_raw(file.uid), Gid::from_raw(file.gid));
    rustix::fs::fchown(&opened, Some(owner.0), Some(owner.1)).map_err(|errno| match errno {
        Errno::INVAL => Error::from(errno).context(format!("{}:{} is no owner in this container", file.uid, file.gid)),
        _ => errno.into(),
    })?;
    rustix::fs::fchmod(&opened, Mode::from_raw_mode(file.mode))?;
    Ok(opened)
}

/// Binds a secret to a place of its own: a file of the same tmpfs that has lost its name.
fn bind(root: &Root, tree: &Root, file: &SecretFile, options: &MountOptions) -> Result<()> {
    const PASSING: &str = ".husk";
    let opened = write(tree, Path::new(PASSING), file)?;
    let copy = clone_fd(&opened, Reach::One)?;
    seal(&copy)?;
    attach(&copy, open_target(root, &file.destination, FileType::RegularFile, options)?)?;
    Ok(rustix::fs::unlinkat(tree.as_fd(), PASSING, AtFlags::empty())?)
}

fn seal(mount: &OwnedFd) -> Result<()> {
    let change = Change { set: attr::RDONLY, ..Change::default() };
    mount_setattr(mount, Reach::One, &change).context("make it read-only")
}
