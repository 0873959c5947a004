//! Small reads and writes on the way to a container: users in layers that are not mounted yet, the first contents of
//! volumes.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::config::{AnonymousVolume, Built, OwnFile};
use crate::error::{Context, Error, Result};
use crate::rootfs::copy_up;
use crate::support::id::ContainerId;
use crate::support::passwd::{Identity, UserDatabase};
use crate::support::root::Root;

/// Most that is read of a passwd or group file.
const FILE_BYTES: usize = 10 << 20;

/// Opens a directory below another one.
pub fn open_below(directory: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::empty()).with_context(|| format!("open {name}"))
}

/// Reads the users and groups of an image from its layers, lowest first, as the overlay will show them.
pub fn user_database(layers: &[PathBuf]) -> Result<UserDatabase> {
    if let [only] = layers {
        return UserDatabase::read(&Root::open(only)?);
    }
    Ok(UserDatabase::from_bytes(read_topmost(layers, "etc/passwd")?, read_topmost(layers, "etc/group")?))
}

/// Reads a file from the highest layer that has it or hides it; a symlink is passed by, since it leads to other layers.
fn read_topmost(layers: &[PathBuf], path: &str) -> Result<Vec<u8>> {
    for layer in layers.iter().rev() {
        let root = Root::open(layer)?;
        match root.open_without_symlinks(Path::new(path), OFlags::PATH, Mode::empty()) {
            Ok(fd) => {
                let stat = rustix::fs::fstat(&fd)?;
                if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                    return Ok(Vec::new());
                }
                return root.read(Path::new(path), FILE_BYTES).with_context(|| format!("read /{path} of the image"));
            }
            Err(Errno::NOENT | Errno::LOOP) => {}
            // `etc` is hidden, or no directory.
            Err(Errno::NOTDIR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno).with_context(|| format!("read /{path} of the image")),
        }
        if hides_below(&root, "etc") {
            return Ok(Vec::new());
        }
    }
    Ok(Vec::new())
}

/// Says whether a directory of a layer is opaque.
fn hides_below(root: &Root, directory: &str) -> bool {
    let Ok(fd) = root.open_without_symlinks(Path::new(directory), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
    else {
        return false;
    };
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 1];
        rustix::fs::fgetxattr(&fd, *name, &mut value[..]).is_ok_and(|length| value[..length] == *b"y")
    })
}

fn take_owner_and_mode(source: &OwnedFd, volume: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(source)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    match rustix::fs::chown(volume, Some(uid), Some(gid)) {
        // An owner that the user namespace has no id for stays ours.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(errno),
    }
    rustix::fs::chmod(volume, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

/// Writes a container's own files into its new folder, which is no container yet: nothing of it needs to be atomic.
pub fn write_own(directory: BorrowedFd<'_>, files: &[OwnFile]) -> Result<()> {
    for OwnFile { name, content } in files {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        // Whoever runs in the container may read them.
        let file = rustix::fs::openat(directory, *name, flags, Mode::from_raw_mode(0o644));
        let written = file.map_err(Error::from).and_then(|file| Ok(File::from(file).write_all(content.as_bytes())?));
        written.with_context(|| format!("write the container's {name}"))?;
    }
    Ok(())
}

/// Writes a container's id to a file that is not there yet (`--cidfile`).
pub fn write_id(path: &Path, id: &ContainerId) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let write = || {
        let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?;
        Ok::<_, Error>(File::from(file).write_all(id.as_str().as_bytes())?)
    };
    write().with_context(|| format!("write the container's id to {}", path.display()))
}

/// Says whether there is anything to prepare.
pub fn are_wanted(built: &Built) -> bool {
    !(built.volumes.is_empty() && built.directories.is_empty() && built.given.is_empty())
}

/// Makes what a configuration needs of directories: volumes with what the image has there, layers over volumes; and gives
/// what is to be the container's user's to that user. Runs where the container's ids are ids.
pub fn prepare(built: &Built, layers: &[PathBuf], identity: &Identity) -> Result<()> {
    fill_volumes(&built.volumes, layers)?;
    for directory in &built.directories {
        rustix::fs::mkdir(directory, Mode::from_raw_mode(0o755))
            .with_context(|| format!("make {}", directory.display()))?;
    }
    for path in &built.given {
        give(path, identity).with_context(|| format!("give {} to the container's user", path.display()))?;
    }
    Ok(())
}

/// Changes the owner of a tree, by descriptor and without following a link: what is in it may be changed meanwhile by a
/// container that has it, too.
fn give(path: &Path, identity: &Identity) -> Result<()> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(identity.uid), rustix::fs::Gid::from_raw(identity.gid));
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let top = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut directories = Vec::new();
    rustix::fs::chownat(&top, c"", Some(uid), Some(gid), rustix::fs::AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(rustix::fs::fstat(&top)?.st_mode) == FileType::Directory {
        directories.push(top);
    }
    while let Some(directory) = directories.pop() {
        let flags_open = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let listed = rustix::fs::openat(&directory, c".", flags_open, Mode::empty())?;
        for entry in rustix::fs::Dir::read_from(&listed)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match rustix::fs::chownat(&listed, name, Some(uid), Some(gid), flags) {
                Ok(()) => {}
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno.into()),
            }
            match rustix::fs::openat(&listed, name, flags_open, Mode::empty()) {
                Ok(below) => directories.push(below),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// Makes a container's anonymous volumes, each with what the image has at its destination.
fn fill_volumes(volumes: &[AnonymousVolume], layers: &[PathBuf]) -> Result<()> {
    for volume in volumes {
        rustix::fs::mkdir(&volume.directory, Mode::from_raw_mode(0o755))
            .with_context(|| format!("make the volume for {}", volume.destination))?;
        fill(&volume.directory, &volume.destination, layers)?;
    }
    Ok(())
}

/// Copies what the image has at a destination into an empty directory, with its owner and mode (CVE-2022-23648: by
/// descriptor).
pub fn fill(directory: &Path, destination: &str, layers: &[PathBuf]) -> Result<()> {
    let describe = || format!("make the volume for {destination}");
    let target = Root::open(directory)?;
    for layer in layers {
        let root = Root::open(layer)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let source = match root.open_without_symlinks(Path::new(destination), flags, Mode::empty()) {
            Ok(source) => source,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(errno) => return Err(errno).with_context(describe),
        };
        copy_up::copy(source.as_fd(), target.as_fd()).with_context(describe)?;
        take_owner_and_mode(&source, directory).with_context(describe)?;
    }
    Ok(())
}
