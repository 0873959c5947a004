//! `bpf(2)` for one kind of program: the device filter of a v2 cgroup.
//!
//! Loads, attaches, finds and detaches. It writes no programs: `cgroups::devices` does.
#![expect(unsafe_code, reason = "bpf(2) has no wrapper in rustix or nix")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

/// One eBPF instruction, laid out as `struct bpf_insn`: opcode, two registers, jump offset, constant.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    /// The destination in the low four bits, the source in the high four (the layout on little-endian machines).
    pub registers: u8,
    pub offset: i16,
    pub constant: i32,
}

/// `union bpf_attr`, always handed over whole and zeroed.
///
/// Linux 6.17 to 7.1 write `query.revision` (bytes 56 to 64) whatever size the caller gave, past the end of a shorter
/// buffer; longer ones are fine on every kernel as long as the rest is zero.
#[repr(C, align(8))]
struct Attributes([u8; 256]);

impl Attributes {
    fn new() -> Self {
        Self([0; 256])
    }

    fn set_u32(&mut self, offset: usize, value: u32) {
        self.0[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn set_fd(&mut self, offset: usize, fd: BorrowedFd<'_>) {
        self.0[offset..offset + 4].copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
    }

    fn set_address<T>(&mut self, offset: usize, address: *const T) {
        self.0[offset..offset + 8].copy_from_slice(&(address as u64).to_ne_bytes());
    }

    fn u32(&self, offset: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[offset..offset + 4]);
        u32::from_ne_bytes(bytes)
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// The kernel lets at most this many programs of one kind sit on a cgroup.
const PROGRAMS_PER_CGROUP: u32 = 64;

/// The verifier gives up with EAGAIN when a signal arrives (since 4.20).
const LOAD_TRIES: usize = 32;

/// Has the kernel verify a device filter and gives its descriptor.
pub fn load_device_filter(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let answer = load(program);
    // Before 5.11 programs count as locked memory, of which the default limit allows very little.
    // KERNEL(5.11): drop this. The old limit comes back at once, since what is cloned next would inherit the new one.
    if answer.as_ref().is_err_and(|error| *error == Errno::PERM) {
        let before = rustix::process::getrlimit(Resource::Memlock);
        let unlimited = Rlimit { current: None, maximum: None };
        if rustix::process::setrlimit(Resource::Memlock, unlimited).is_ok() {
            let answer = load(program);
            rustix::process::setrlimit(Resource::Memlock, before)?;
            return answer;
        }
    }
    answer
}

fn load(program: &[Instruction]) -> Result<OwnedFd, Errno> {
    let license = c"Apache-2.0";
    let count = u32::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let mut attributes = Attributes::new();
    attributes.set_u32(0, BPF_PROG_TYPE_CGROUP_DEVICE);
    attributes.set_u32(4, count);
    attributes.set_address(8, program.as_ptr());
    attributes.set_address(16, license.as_ptr());
    attributes.0[48..60].copy_from_slice(b"husk_devices"); // prog_name, shown by bpftool
    let mut answer = Err(Errno::AGAIN);
    for _ in 0..LOAD_TRIES {
        answer = bpf(BPF_PROG_LOAD, &mut attributes);
        if !matches!(answer, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    answer.map(own)
}

/// Puts a filter on a cgroup. With `replaced`, it takes that one's place in one step (since 5.6, EINVAL before).
///
/// Filters of one cgroup and of those above it all have to agree, so that adding one can only take away.
pub fn attach_device_filter(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut attributes = Attributes::new();
    attributes.set_fd(0, cgroup);
    attributes.set_fd(4, program);
    attributes.set_u32(8, BPF_CGROUP_DEVICE);
    let mut flags = BPF_F_ALLOW_MULTI;
    if let Some(replaced) = replaced {
        flags |= BPF_F_REPLACE;
        attributes.set_fd(16, replaced);
    }
    attributes.set_u32(12, flags);
    bpf(BPF_PROG_ATTACH, &mut attributes).map(drop)
}

/// Takes a filter off a cgroup.
pub fn detach_device_filter(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut attributes = Attributes::new();
    attributes.set_fd(0, cgroup);
    attributes.set_fd(4, program);
    attributes.set_u32(8, BPF_CGROUP_DEVICE);
    bpf(BPF_PROG_DETACH, &mut attributes).map(drop)
}

/// Gives the filters that sit on a cgroup itself, not those above it.
///
/// One that this process may not open (a security module's label, say) is left out: it can only take away.
pub fn device_filters(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut ids = [0_u32; PROGRAMS_PER_CGROUP as usize];
    let mut attributes = Attributes::new();
    attributes.set_fd(0, cgroup);
    attributes.set_u32(4, BPF_CGROUP_DEVICE);
    attributes.set_address(16, ids.as_mut_ptr());
    attributes.set_u32(24, PROGRAMS_PER_CGROUP);
    bpf(BPF_PROG_QUERY, &mut attributes)?;
    let count = attributes.u32(24).min(PROGRAMS_PER_CGROUP) as usize;
    let mut filters = Vec::with_capacity(count);
    for id in &ids[..count] {
        let mut attributes = Attributes::new();
        attributes.set_u32(0, *id);
        match bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes) {
            Ok(fd) => filters.push(own(fd)),
            Err(Errno::PERM | Errno::ACCESS | Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filters)
}

fn bpf(command: libc::c_int, attributes: &mut Attributes) -> Result<RawFd, Errno> {
    let address = attributes.0.as_mut_ptr();
    let size = attributes.0.len();
    // SAFETY: `address` points to `size` writable bytes that live across the call; every address inside was set by a
    // caller in this file from a slice or C string that it still borrows.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, address, size) };
    if answer < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    RawFd::try_from(answer).map_err(|_| Errno::BADF)
}

/// Takes a descriptor that `bpf(2)` has just made; they are close-on-exec from birth.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: `fd` was returned by BPF_PROG_LOAD or BPF_PROG_GET_FD_BY_ID a moment ago, so it is open and nobody's.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    const ALLOW: [Instruction; 2] = [
        Instruction { code: 0xb7, registers: 0, offset: 0, constant: 1 },
        Instruction { code: 0x95, registers: 0, offset: 0, constant: 0 },
    ];

    #[test]
    fn attributes_reach_past_the_revision_field() {
        assert!(size_of::<Attributes>() >= 64 + 8);
        assert_eq!(size_of::<Instruction>(), 8);
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "says why it does not run")]
    fn a_bad_program_is_refused_and_a_good_one_loads() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: loading a program needs CAP_BPF");
            return;
        }
        // Falls off the end.
        assert_eq!(load_device_filter(&ALLOW[..1]).unwrap_err(), Errno::INVAL);
        let program = load_device_filter(&ALLOW).unwrap();
        assert!(rustix::io::fcntl_getfd(&program).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn only_a_cgroup_takes_a_filter() {
        let directory = std::fs::File::open("/").unwrap();
        assert!(device_filters(directory.as_fd()).is_err());
        assert!(attach_device_filter(directory.as_fd(), directory.as_fd(), None).is_err());
        assert!(detach_device_filter(directory.as_fd(), directory.as_fd()).is_err());
    }
}
