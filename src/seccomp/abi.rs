//! The system call ABIs that a filter can meet, and what tells them apart. Knows no rule.

use oci_spec::runtime::Arch;

/// A set of system call numbers and the size of their arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Abi {
    X86_64,
    I386,
    X32,
    Aarch64,
    Arm,
    Riscv64,
}

/// How much of an argument is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Low32,
    All64,
}

/// A system call that carries the number of another one in its first argument.
pub(super) struct Multiplexer {
    pub(super) name: &'static str,
    /// What of the first argument is the number.
    pub(super) mask: u64,
    /// The hidden calls.
    pub(super) calls: &'static [(u64, &'static str)],
}

impl Abi {
    /// The ABIs that a kernel of this machine runs, the native one first.
    #[cfg(target_arch = "x86_64")]
    pub(super) const OF_THIS_MACHINE: &'static [Self] = &[Self::X86_64, Self::I386, Self::X32];
    /// The ABIs that a kernel of this machine runs, the native one first.
    #[cfg(target_arch = "aarch64")]
    pub(super) const OF_THIS_MACHINE: &'static [Self] = &[Self::Aarch64, Self::Arm];
    /// The ABIs that a kernel of this machine runs, the native one first.
    #[cfg(target_arch = "riscv64")]
    pub(super) const OF_THIS_MACHINE: &'static [Self] = &[Self::Riscv64];

    /// Gives the ABI that an OCI architecture names, if there is a table for it.
    ///
    /// The others (mips, ppc, s390 …) are ABIs of machines that husk isn't built for, so their calls never reach a filter.
    pub(super) fn from_oci(arch: Arch, native: Self) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Some(native),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::I386),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            Arch::ScmpArchRiscv64 => Some(Self::Riscv64),
            _ => None,
        }
    }

    /// Gives the OCI name.
    pub(super) fn to_oci(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::I386 => Arch::ScmpArchX86,
            Self::X32 => Arch::ScmpArchX32,
            Self::Aarch64 => Arch::ScmpArchAarch64,
            Self::Arm => Arch::ScmpArchArm,
            Self::Riscv64 => Arch::ScmpArchRiscv64,
        }
    }

    /// Gives the column of the table.
    pub(super) fn column(self) -> usize {
        self as usize
    }

    /// Gives the architecture that the kernel reports for a call (linux/audit.h); x86_64 and x32 have the same.
    pub(super) fn audit_architecture(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// Gives the number that is added to those of the table: `__X32_SYSCALL_BIT`.
    pub(super) fn first_number(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }

    /// Gives how much of an argument this ABI passes.
    pub(super) fn width(self) -> Width {
        match self {
            Self::X86_64 | Self::Aarch64 | Self::Riscv64 => Width::All64,
            Self::I386 | Self::X32 | Self::Arm => Width::Low32,
        }
    }

    /// Gives the calls that hide others.
    pub(super) fn multiplexers(self) -> &'static [Multiplexer] {
        if self == Self::I386 { &I386_MULTIPLEXERS } else { &[] }
    }
}

/// Set in the numbers of x32 calls, which are otherwise those of x86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Only i386 has them among our ABIs; EABI arm dropped both. (linux/net.h, linux/ipc.h)
static I386_MULTIPLEXERS: [Multiplexer; 2] = [
    Multiplexer {
        name: "socketcall",
        mask: 0xffff_ffff,
        calls: &[
            (1, "socket"),
            (2, "bind"),
            (3, "connect"),
            (4, "listen"),
            (5, "accept"),
            (6, "getsockname"),
            (7, "getpeername"),
            (8, "socketpair"),
            (9, "send"),
            (10, "recv"),
            (11, "sendto"),
            (12, "recvfrom"),
            (13, "shutdown"),
            (14, "setsockopt"),
            (15, "getsockopt"),
            (16, "sendmsg"),
            (17, "recvmsg"),
            (18, "accept4"),
            (19, "recvmmsg"),
            (20, "sendmmsg"),
        ],
    },
    Multiplexer {
        name: "ipc",
        // The high half is a version.
        mask: 0xffff,
        calls: &[
            (1, "semop"),
            (2, "semget"),
            (3, "semctl"),
            (4, "semtimedop"),
            (11, "msgsnd"),
            (12, "msgrcv"),
            (13, "msgget"),
            (14, "msgctl"),
            (21, "shmat"),
            (22, "shmdt"),
            (23, "shmget"),
            (24, "shmctl"),
        ],
    },
];
