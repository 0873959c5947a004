//! Device nodes and the links that every `/dev` has, by descriptor of the directory that holds them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use super::mount::{attach, clone_fd, open_target};
use super::plan::DevicePlan;
use crate::error::{Context, Result};
use crate::spec::mount_options::MountOptions;
use crate::support::root::Root;
use crate::sys::mount::Reach;

/// The links of runtime-spec config-linux.md, "Dev symbolic links".
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Makes the links in `/dev`, with `ptmx` as a link to the container's own instance of devpts.
pub fn make_links(root: &Root) -> Result<()> {
    let dev = root.make_directories(Path::new("/dev"), Mode::from_raw_mode(0o755)).context("open /dev")?;
    for (name, target) in LINKS {
        link(&dev, name, target)?;
    }
    // A node that the image brought would lead to the host's devpts. Removed by name below a descriptor of our own
    // resolving, so that an image whose /dev is a symlink changes nothing outside (CVE-2026-41579).
    match rustix::fs::unlinkat(&dev, "ptmx", AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).context("remove /dev/ptmx"),
    }
    link(&dev, "ptmx", "pts/ptmx")
}

fn link(dev: &OwnedFd, name: &str, target: &str) -> Result<()> {
    match rustix::fs::symlinkat(target, dev, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("link /dev/{name}")),
    }
}

/// Makes the nodes. The caller's umask is 0, so that modes are as the spec says.
pub fn make_nodes(root: &Root, devices: &[DevicePlan], binds: bool) -> Result<()> {
    for device in devices {
        let answer = if binds { bind(root, device) } else { make_node(root, device) };
        answer.with_context(|| format!("make device {}", device.path.display()))?;
    }
    Ok(())
}

fn make_node(root: &Root, device: &DevicePlan) -> Result<()> {
    let (parent, name) = match root.open_parent(&device.path) {
        Err(Errno::NOENT) => {
            root.make_directories(device.path.parent().unwrap_or(Path::new("/")), Mode::from_raw_mode(0o755))?;
            root.open_parent(&device.path)?
        }
        answer => answer?,
    };
    match rustix::fs::mknodat(&parent, &name, device.kind, Mode::from_raw_mode(device.mode), device.device) {
        Ok(()) if (device.uid, device.gid) == (0, 0) => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            Ok(rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
        }
        Err(Errno::EXIST) => Ok(()),
        // Inside another container the device may be there and still not ours to make.
        Err(Errno::PERM) => bind(root, device),
        Err(errno) => Err(errno.into()),
    }
}

/// Binds the host's node of the same path, where mknod(2) is not for us.
fn bind(root: &Root, device: &DevicePlan) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let node = rustix::fs::open(&device.path, flags, Mode::empty()).context("open the host's device")?;
    let target = open_target(root, &device.path, FileType::CharacterDevice, &MountOptions::default())?;
    let tree = clone_fd(node.as_fd(), Reach::One).context("copy the host's device")?;
    Ok(attach(&tree, &target)?)
}
