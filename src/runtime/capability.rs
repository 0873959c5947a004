//! Capability sets: the spec's names turned into kernel masks before the clone, and the calls that set them in init.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::error::{Context, Result};

/// What loading a seccomp filter wants of a process without no_new_privs (seccomp(2)).
pub const SYS_ADMIN: u64 = 1 << 21;

/// The five sets of capabilities(7), each a mask of bits numbered as in linux/capability.h.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Masks {
    /// What can ever be gained by exec.
    pub bounding: u64,
    /// What is in force.
    pub effective: u64,
    /// What a file's inheritable set can let through.
    pub inheritable: u64,
    /// What can be made effective.
    pub permitted: u64,
    /// What a program without file capabilities keeps over exec (kernel 4.3).
    pub ambient: u64,
}

impl Masks {
    /// Takes the sets of `process.capabilities`; a set that is absent is empty.
    pub fn from_spec(sets: &LinuxCapabilities) -> Self {
        Self {
            bounding: mask(sets.bounding().as_ref()),
            effective: mask(sets.effective().as_ref()),
            inheritable: mask(sets.inheritable().as_ref()),
            permitted: mask(sets.permitted().as_ref()),
            ambient: mask(sets.ambient().as_ref()),
        }
    }

    /// Removes from every set what is not in `allowed`, and gives the bits that were lost.
    ///
    /// Engines ask for "all" on hosts that have less; what cannot be given is left out and said.
    pub fn limit(&mut self, allowed: u64) -> u64 {
        let wanted = self.bounding | self.effective | self.inheritable | self.permitted | self.ambient;
        for set in
            [&mut self.bounding, &mut self.effective, &mut self.inheritable, &mut self.permitted, &mut self.ambient]
        {
            *set &= allowed;
        }
        wanted & !allowed
    }

    /// Adds what the process is to keep for itself over the exec of a program of ours.
    #[must_use]
    pub fn with(&self, kept: u64) -> Self {
        Self {
            bounding: self.bounding,
            effective: self.effective | kept,
            inheritable: self.inheritable | kept,
            permitted: self.permitted | kept,
            ambient: self.ambient | kept,
        }
    }

    /// Gives the sets that are left of these once their owner has executed a program without file capabilities
    /// (capabilities(7), "Transformation of capabilities during execve()").
    #[must_use]
    pub fn after_exec(&self, uid: u32) -> Self {
        let ambient = self.ambient & !self.unraisable();
        let permitted = if uid == 0 { self.bounding | self.inheritable } else { ambient };
        Self { effective: permitted, permitted, ambient, ..*self }
    }

    /// Drops from the bounding set what is not in the plan's. Wants CAP_SETPCAP, so it comes before the user changes.
    pub fn apply_bounding(&self) -> Result<()> {
        for bit in 0..u64::BITS {
            let one = 1u64 << bit;
            if self.bounding & one != 0 {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(one)) {
                Ok(()) => {}
                // Past the last capability that this kernel knows.
                Err(Errno::INVAL) => break,
                Err(errno) => return Err(errno).context("drop capabilities from the bounding set"),
            }
        }
        Ok(())
    }

    /// Gives the ambient ones that the kernel will not raise: they are not permitted, or not inheritable.
    pub fn unraisable(&self) -> u64 {
        self.ambient & !(self.permitted & self.inheritable)
    }

    /// Sets the other four. Ambient capabilities must be permitted and inheritable first.
    pub fn apply(&self) -> Result<()> {
        let sets = CapabilitySets {
            effective: CapabilitySet::from_bits_retain(self.effective),
            permitted: CapabilitySet::from_bits_retain(self.permitted),
            inheritable: CapabilitySet::from_bits_retain(self.inheritable),
        };
        rustix::thread::set_capabilities(None, sets).context("set capabilities")?;
        rustix::thread::clear_ambient_capability_set().context("clear ambient capabilities")?;
        for bit in bits(self.ambient) {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            match rustix::thread::configure_capability_in_ambient_set(one, true) {
                // Not permitted or not inheritable: the kernel's rule, and what the other runtimes pass over too.
                Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
                Err(errno) => return Err(errno).context("raise ambient capabilities"),
            }
        }
        Ok(())
    }
}

/// Makes some of what this process holds inheritable, which it must be before the bounding set loses it (capset(2)).
pub fn make_inheritable(mask: u64) -> Result<()> {
    let mut sets = rustix::thread::capabilities(None).context("read capabilities")?;
    sets.inheritable |= CapabilitySet::from_bits_retain(mask);
    rustix::thread::set_capabilities(None, sets).context("keep a capability for the seccomp filter")
}

/// Names every capability that is understood, sorted.
pub fn known() -> Vec<String> {
    let mut names: Vec<String> = caps::all().into_iter().map(|capability| capability.to_string()).collect();
    names.sort_unstable();
    names
}

/// Names the capabilities of a mask, for messages.
pub fn names(mask: u64) -> String {
    let mut names: Vec<String> = caps::all()
        .into_iter()
        .filter(|capability| mask & capability.bitmask() != 0)
        .map(|capability| capability.to_string())
        .collect();
    names.sort_unstable();
    names.join(" ")
}

/// Gives this process's permitted set: what it can hand on.
pub fn permitted() -> Result<u64> {
    Ok(rustix::thread::capabilities(None).context("read capabilities")?.permitted.bits())
}

fn mask(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |mask, &capability| mask | kernel(capability).bitmask())
}

/// Numbers of the capabilities in a mask.
pub fn bits(mask: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| mask & (1 << bit) != 0)
}

/// The kernel's capability for the spec's name.
fn kernel(capability: Capability) -> caps::Capability {
    match capability {
        Capability::WakeAlarm => caps::Capability::CAP_WAKE_ALARM,
        Capability::AuditControl => caps::Capability::CAP_AUDIT_CONTROL,
        Capability::AuditRead => caps::Capability::CAP_AUDIT_READ,
        Capability::AuditWrite => caps::Capability::CAP_AUDIT_WRITE,
        Capability::BlockSuspend => caps::Capability::CAP_BLOCK_SUSPEND,
        Capability::Bpf => caps::Capability::CAP_BPF,
        Capability::CheckpointRestore => caps::Capability::CAP_CHECKPOINT_RESTORE,
        Capability::Chown => caps::Capability::CAP_CHOWN,
        Capability::DacOverride => caps::Capability::CAP_DAC_OVERRIDE,
        Capability::DacReadSearch => caps::Capability::CAP_DAC_READ_SEARCH,
        Capability::Fowner => caps::Capability::CAP_FOWNER,
        Capability::Fsetid => caps::Capability::CAP_FSETID,
        Capability::IpcLock => caps::Capability::CAP_IPC_LOCK,
        Capability::IpcOwner => caps::Capability::CAP_IPC_OWNER,
        Capability::Kill => caps::Capability::CAP_KILL,
        Capability::Lease => caps::Capability::CAP_LEASE,
        Capability::LinuxImmutable => caps::Capability::CAP_LINUX_IMMUTABLE,
        Capability::MacAdmin => caps::Capability::CAP_MAC_ADMIN,
        Capability::MacOverride => caps::Capability::CAP_MAC_OVERRIDE,
        Capability::Mknod => caps::Capability::CAP_MKNOD,
        Capability::NetAdmin => caps::Capability::CAP_NET_ADMIN,
        Capability::NetBindService => caps::Capability::CAP_NET_BIND_SERVICE,
        Capability::NetBroadcast => caps::Capability::CAP_NET_BROADCAST,
        Capability::NetRaw => caps::Capability::CAP_NET_RAW,
        Capability::Perfmon => caps::Capability::CAP_PERFMON,
        Capability::Setgid => caps::Capability::CAP_SETGID,
        Capability::Setfcap => caps::Capability::CAP_SETFCAP,
        Capability::Setpcap => caps::Capability::CAP_SETPCAP,
        Capability::Setuid => caps::Capability::CAP_SETUID,
        Capability::SysAdmin => caps::Capability::CAP_SYS_ADMIN,
        Capability::SysBoot => caps::Capability::CAP_SYS_BOOT,
        Capability::SysChroot => caps::Capability::CAP_SYS_CHROOT,
        Capability::SysModule => caps::Capability::CAP_SYS_MODULE,
        Capability::SysNice => caps::Capability::CAP_SYS_NICE,
        Capability::SysPacct => caps::Capability::CAP_SYS_PACCT,
        Capability::SysPtrace => caps::Capability::CAP_SYS_PTRACE,
        Capability::SysRawio => caps::Capability::CAP_SYS_RAWIO,
        Capability::SysResource => caps::Capability::CAP_SYS_RESOURCE,
        Capability::SysTime => caps::Capability::CAP_SYS_TIME,
        Capability::SysTtyConfig => caps::Capability::CAP_SYS_TTY_CONFIG,
        Capability::Syslog => caps::Capability::CAP_SYSLOG,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_kernels_bits() {
        let sets: LinuxCapabilities =
            serde_json::from_str(r#"{"bounding":["CAP_CHOWN","CAP_KILL"],"ambient":["CAP_CHECKPOINT_RESTORE"]}"#)
                .unwrap();
        let masks = Masks::from_spec(&sets);
        assert_eq!((masks.bounding, masks.ambient, masks.permitted), (1 | 1 << 5, 1 << 40, 0));
    }

    #[test]
    fn an_exec_leaves_what_the_kernel_says() {
        let masks = Masks { bounding: 0b111, effective: 0b1, inheritable: 0b1010, permitted: 0b11, ambient: 0b110 };
        let root = masks.after_exec(0);
        assert_eq!((root.permitted, root.effective, root.inheritable), (0b1111, 0b1111, 0b1010));
        let user = masks.after_exec(1);
        assert_eq!((user.permitted, user.effective, user.ambient, user.bounding), (0b10, 0b10, 0b10, 0b111));
        assert_eq!(masks.with(1 << 4).after_exec(1).permitted, 0b10 | 1 << 4);
    }

    #[test]
    fn what_the_host_lacks_is_left_out_and_said() {
        let mut masks = Masks { bounding: 0b111, permitted: 0b101, ..Masks::default() };
        assert_eq!(masks.limit(0b011), 0b100);
        assert_eq!((masks.bounding, masks.permitted), (0b011, 0b001));
        assert_eq!(names(1 << 24 | 1), "CAP_CHOWN CAP_SYS_RESOURCE");
    }
}
