//! Landlock (landlock(7), Linux 5.13): rules on files, ports and scopes that a process puts on itself. The numbers are
//! the kernel's; what they mean is nobody's business here, so that a newer kernel needs no newer husk.
#![expect(unsafe_code, reason = "no library of ours has the three system calls")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// What a ruleset decides: `struct landlock_ruleset_attr` of linux/landlock.h, as of ABI 6. Older kernels take it while
/// the fields that they lack are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// Rights on files that are denied unless a rule gives them (`LANDLOCK_ACCESS_FS_*`).
    pub fs: u64,
    /// The same for the network (`LANDLOCK_ACCESS_NET_*`, ABI 4).
    pub net: u64,
    /// What is kept inside (`LANDLOCK_SCOPE_*`, ABI 6).
    pub scoped: u64,
}

/// Gives the version of Landlock that this kernel has; ENOSYS where it is not built in, EOPNOTSUPP where it is off.
pub fn abi() -> Result<u32, Errno> {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: asked for the version, the kernel takes no attributes.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<()>(), 0, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(answer).map_err(|_| super::last_errno())
}

/// Makes an empty ruleset; the descriptor is close-on-exec.
pub fn create_ruleset(handled: &Handled) -> Result<OwnedFd, Errno> {
    // SAFETY: the structure is laid out as the kernel's, and it and its size outlive the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(handled), size_of::<Handled>(), 0)
    };
    let fd = i32::try_from(answer).map_err(|_| Errno::BADF)?;
    if fd < 0 {
        return Err(super::last_errno());
    }
    // SAFETY: the descriptor was made by this call, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Gives rights on a file, or on all files below a directory.
pub fn allow_path(ruleset: BorrowedFd<'_>, access: u64, path: BorrowedFd<'_>) -> Result<(), Errno> {
    const LANDLOCK_RULE_PATH_BENEATH: libc::c_int = 1;
    #[repr(C, packed)]
    struct PathBeneath {
        access: u64,
        parent: i32,
    }
    let rule = PathBeneath { access, parent: path.as_raw_fd() };
    add_rule(ruleset, LANDLOCK_RULE_PATH_BENEATH, (&raw const rule).cast())
}

/// Gives rights on a port (ABI 4).
pub fn allow_port(ruleset: BorrowedFd<'_>, access: u64, port: u64) -> Result<(), Errno> {
    const LANDLOCK_RULE_NET_PORT: libc::c_int = 2;
    #[repr(C)]
    struct NetPort {
        access: u64,
        port: u64,
    }
    let rule = NetPort { access, port };
    add_rule(ruleset, LANDLOCK_RULE_NET_PORT, (&raw const rule).cast())
}

fn add_rule(ruleset: BorrowedFd<'_>, kind: libc::c_int, rule: *const libc::c_void) -> Result<(), Errno> {
    // SAFETY: both callers pass the structure that the kind names, and it outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, rule, 0) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

/// Puts a ruleset on the calling thread, for good. Needs no_new_privs or CAP_SYS_ADMIN in its user namespace.
pub fn restrict_self(ruleset: BorrowedFd<'_>, flags: u32) -> Result<(), Errno> {
    // SAFETY: plain integers.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), flags) };
    if answer == 0 { Ok(()) } else { Err(super::last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// `LANDLOCK_ACCESS_FS_READ_FILE`.
    const READ_FILE: u64 = 1 << 2;

    #[test]
    fn wrong_numbers_are_refused() {
        let Ok(1..) = abi() else {
            assert!(create_ruleset(&Handled { fs: READ_FILE, ..Handled::default() }).is_err());
            return;
        };
        assert_eq!(create_ruleset(&Handled::default()).unwrap_err(), Errno::NOMSG);
        assert_eq!(create_ruleset(&Handled { fs: 1 << 63, ..Handled::default() }).unwrap_err(), Errno::INVAL);
        let ruleset = create_ruleset(&Handled { fs: READ_FILE, ..Handled::default() }).unwrap();
        let root = std::fs::File::open("/").unwrap();
        assert_eq!(allow_path(ruleset.as_fd(), 1 << 3, root.as_fd()), Err(Errno::INVAL));
        assert_eq!(allow_path(ruleset.as_fd(), READ_FILE, root.as_fd()), Ok(()));
        assert!(allow_port(ruleset.as_fd(), 1, 80).is_err());
        assert_eq!(restrict_self(root.as_fd(), 1 << 31), Err(Errno::INVAL));
    }
}
