//! The directories of one container's root file system: what overlayfs needs, made and named, but not mounted.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// What a container's overlay is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRoot {
    /// Where the container's writes land.
    pub upper: PathBuf,
    /// Overlayfs's own, on the same file system as `upper`.
    pub work: PathBuf,
    /// Read only, highest first, as overlayfs takes them; never empty.
    pub lower: Vec<PathBuf>,
    /// Where the overlay, or the copy that stands in for it, is put.
    pub target: PathBuf,
}

impl ContainerRoot {
    /// Makes `upper`, `work` and `rootfs` in a container's directory. `layers` are lowest first.
    ///
    /// The root directory that the container will see is `upper`, so it gets the mode and owner of the highest layer's.
    pub fn prepare(directory: &Path, layers: &[PathBuf]) -> Result<Self> {
        let prepare = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(directory, flags, Mode::empty())?;
            for name in ["work", "rootfs"] {
                make(&fd, name, Mode::RWXU)?;
            }
            let mut lower: Vec<PathBuf> = layers.iter().rev().cloned().collect();
            if let Some(highest) = lower.first() {
                make_like(&fd, "upper", highest)?;
            } else {
                // Overlayfs wants a lower directory, even where the image has no layer.
                make(&fd, "empty", Mode::from_raw_mode(0o755))?;
                make(&fd, "upper", Mode::from_raw_mode(0o755))?;
                lower.push(directory.join("empty"));
            }
            let [upper, work, target] = ["upper", "work", "rootfs"].map(|name| directory.join(name));
            Ok(Self { upper, work, lower, target })
        };
        prepare().map_err(|error: crate::error::Error| {
            error.context(format!("prepare the root file system in {}", directory.display()))
        })
    }
}

fn make(directory: &OwnedFd, name: &str, mode: Mode) -> Result<()> {
    match rustix::fs::mkdirat(directory, name, mode) {
        // A restart meets what is there, and must leave it as the container left it.
        Err(Errno::EXIST) => Ok(()),
        answer => answer
            .and_then(|()| rustix::fs::chmodat(directory, name, mode, AtFlags::empty()))
            .with_context(|| format!("make directory {name}")),
    }
}

fn make_like(directory: &OwnedFd, name: &str, model: &Path) -> Result<()> {
    match rustix::fs::mkdirat(directory, name, Mode::RWXU) {
        Err(Errno::EXIST) => return Ok(()),
        answer => answer.with_context(|| format!("make directory {name}"))?,
    }
    let stat = rustix::fs::stat(model).with_context(|| format!("look at {}", model.display()))?;
    let ours = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (ours.st_uid, ours.st_gid) != (stat.st_uid, stat.st_gid) {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        match rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            // Of a tree that is somebody else's, whom this user cannot give files to: it is the caller's then.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(errno) => return Err(errno).with_context(|| format!("chown directory {name}")),
        }
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    rustix::fs::chmodat(directory, name, mode, AtFlags::empty()).with_context(|| format!("chmod directory {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn upper_looks_like_the_highest_layer() {
        let place = tempfile::tempdir().unwrap();
        let layers = ["low", "high"].map(|name| place.path().join(name));
        let container = place.path().join("container");
        for path in layers.iter().chain([&container]) {
            std::fs::create_dir(path).unwrap();
        }
        std::fs::set_permissions(&layers[1], std::fs::Permissions::from_mode(0o1711)).unwrap();
        let root = ContainerRoot::prepare(&container, &layers).unwrap();
        assert_eq!(root.lower, [layers[1].clone(), layers[0].clone()]);
        assert_eq!((mode(&root.upper), mode(&root.work)), (0o1711, 0o700));
        std::fs::set_permissions(&root.upper, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(ContainerRoot::prepare(&container, &layers).unwrap(), root);
        assert_eq!(mode(&root.upper), 0o700, "a second start changed the container's root");
    }

    #[test]
    fn an_image_without_layers_has_a_lower_directory() {
        let place = tempfile::tempdir().unwrap();
        let root = ContainerRoot::prepare(place.path(), &[]).unwrap();
        assert_eq!(root.lower.len(), 1);
        assert_eq!((mode(&root.upper), std::fs::read_dir(&root.lower[0]).unwrap().count()), (0o755, 0));
    }
}
