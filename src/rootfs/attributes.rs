//! Attributes of a mount: those asked for, in place of those it has.
//!
//! A bind or a remount that asks for any flag gets the flags that it asks for and no others, as runc has it (and
//! `mount -o bind,…` does not). In a user namespace flags of the host's mounts are locked: they stay where nothing is
//! said of them, and are an error where they were to go.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::spec::mount_options::{ATTR_ATIME, ATTR_NODIRATIME, ATTR_NOSYMFOLLOW, MountAttributes, MountOptions};
use crate::sys::mount::{Change, Reach, attr, mount_setattr};

/// Sets what is asked for, and clears what is not; a mount of which nothing is asked keeps what it has.
pub fn replace_attributes(fd: &OwnedFd, options: &MountOptions) -> Result<()> {
    let asked = options.attributes;
    if asked.is_empty() && options.superblock.is_empty() {
        return Ok(());
    }
    match change_attributes(fd, asked.in_place_of_all(), Reach::One) {
        Err(Errno::PERM) => replace_unlocked(fd, asked),
        answer => answer.context("set mount attributes"),
    }
}

/// Sets what is asked of the mounts below, too (`rro` …).
pub fn set_recursive_attributes(fd: &OwnedFd, options: &MountOptions) -> Result<()> {
    change_attributes(fd, options.recursive_attributes, Reach::Tree).context("set recursive mount attributes")
}

/// Changes attributes, with no system call where there is nothing to change.
pub fn change_attributes(fd: &OwnedFd, attributes: MountAttributes, reach: Reach) -> Result<(), Errno> {
    if attributes.is_empty() {
        return Ok(());
    }
    mount_setattr(fd, reach, &Change { set: attributes.set, clear: attributes.clear, ..Change::default() })
}

/// What the kernel locks one by one: mount_namespaces(7).
const LOCKABLE: [(u64, &str); 4] =
    [(attr::RDONLY, "MS_RDONLY"), (attr::NOSUID, "MS_NOSUID"), (attr::NODEV, "MS_NODEV"), (attr::NOEXEC, "MS_NOEXEC")];

/// Leaves flags that the mount has and nothing is said of: they may be locked, which the kernel does not tell.
fn replace_unlocked(fd: &OwnedFd, asked: MountAttributes) -> Result<()> {
    let present = present_attributes(fd).context("inspect the mount")?;
    let refuse = |what: &str, names: &str| Error::from(Errno::PERM).context(format!("{what} {names}"));
    let kept: Vec<&str> =
        LOCKABLE.iter().filter(|(bit, _)| present & asked.clear & bit != 0).map(|(_, name)| *name).collect();
    if !kept.is_empty() {
        return Err(refuse("cannot clear locked flags", &kept.join("|")));
    }
    let times = ATTR_ATIME | ATTR_NODIRATIME;
    let change = asked.in_place_of_all();
    if change.clear & ATTR_ATIME != 0 && change.set & times != present & times {
        return Err(refuse("cannot change locked atime flags", show_times(present)));
    }
    let locked = LOCKABLE.iter().fold(0, |bits, (bit, _)| bits | bit);
    let change = MountAttributes { set: (asked.set | present & locked) & !times, clear: ATTR_NOSYMFOLLOW & !asked.set };
    change_attributes(fd, change, Reach::One).context("set mount attributes, with locked ones as they are")
}

fn show_times(attributes: u64) -> &'static str {
    match attributes & ATTR_ATIME {
        attr::NOATIME => "MS_NOATIME",
        attr::STRICTATIME => "MS_STRICTATIME",
        _ => "MS_RELATIME",
    }
}

/// The attributes of a mount, read from `f_flags` of statfs(2), whose bits are those of linux/statfs.h.
fn present_attributes(fd: &OwnedFd) -> Result<u64, Errno> {
    const FLAGS: [(u64, u64); 6] = [
        (0x1, attr::RDONLY),
        (0x2, attr::NOSUID),
        (0x4, attr::NODEV),
        (0x8, attr::NOEXEC),
        (0x800, attr::NODIRATIME),
        (0x2000, attr::NOSYMFOLLOW),
    ];
    const NOATIME: u64 = 0x400;
    const RELATIME: u64 = 0x1000;
    let flags = rustix::fs::fstatvfs(fd)?.f_flag.bits();
    let mode = match (flags & NOATIME != 0, flags & RELATIME != 0) {
        (true, _) => attr::NOATIME,
        (_, true) => attr::RELATIME,
        // Has no bit of its own.
        _ => attr::STRICTATIME,
    };
    Ok(FLAGS.iter().filter(|(bit, _)| flags & bit != 0).fold(mode, |bits, (_, attribute)| bits | attribute))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_mount_has_is_read() {
        let proc = OwnedFd::from(std::fs::File::open("/proc/self").unwrap());
        let flags = present_attributes(&proc).unwrap();
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let line = text.lines().rfind(|line| line.split(' ').nth(4) == Some("/proc")).unwrap();
        let options = line.split(' ').nth(5).unwrap();
        for (word, bit) in [("nosuid", attr::NOSUID), ("noexec", attr::NOEXEC), ("relatime", 0)] {
            let is_set = if word == "relatime" { flags & ATTR_ATIME == 0 } else { flags & bit != 0 };
            assert_eq!(options.split(',').any(|option| option == word), is_set, "{word} in {options}");
        }
    }
}
