//! What the kernel says of a namespace (ioctl_nsfs(2)).
#![expect(unsafe_code, reason = "no library has the ioctls of namespaces")]

use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

use rustix::io::Errno;

/// `NS_GET_PARENT` of linux/nsfs.h (Linux 4.9).
const GET_PARENT: u64 = 0xb702;

/// Opens the parent of a user or PID namespace; EPERM where that is none that the caller sees.
pub fn parent(namespace: impl AsFd) -> Result<OwnedFd, Errno> {
    // SAFETY: NS_GET_PARENT takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), GET_PARENT as libc::Ioctl) };
    if fd < 0 {
        return Err(super::last_errno());
    }
    // SAFETY: the kernel has just made this descriptor, close-on-exec, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn the_first_has_no_parent_that_anybody_sees() {
        let own = File::open("/proc/self/ns/user").unwrap();
        // Of the machine's first there is none; of a test's own, the parent is out of its sight.
        assert_eq!(parent(&own).err(), Some(Errno::PERM));
        assert_eq!(parent(File::open("/dev/null").unwrap()).err(), Some(Errno::NOTTY));
    }
}
