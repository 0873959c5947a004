//! How a process gets the processor, the disk and memory: scheduler, I/O priority, CPU affinity, NUMA policy, and the
//! execution domain. Decides no value.
#![expect(
    unsafe_code,
    reason = "rustix and nix have none of these but the affinity, and that for 1024 processors only"
)]

use rustix::io::Errno;
use rustix::process::Pid;

/// How a thread is scheduled; see sched(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduler {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// From -20 to 19.
    pub nice: i32,
    /// From 1 to 99, for the two real-time policies.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    /// See `runtime`.
    pub deadline: u64,
    /// See `runtime`.
    pub period: u64,
}

/// `struct sched_attr` of linux/sched/types.h as of Linux 5.3; older kernels take it, since its last two fields are 0.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    utilisation_min: u32,
    utilisation_max: u32,
}

/// Sets how the calling thread is scheduled (sched_setattr(2), Linux 3.14).
pub fn set_scheduler(scheduler: &Scheduler) -> Result<(), Errno> {
    let Scheduler { policy, flags, nice, priority, runtime, deadline, period } = *scheduler;
    let size = u32::try_from(size_of::<SchedAttr>()).map_err(|_| Errno::INVAL)?;
    let (utilisation_min, utilisation_max) = (0, 0);
    let attributes =
        SchedAttr { size, policy, flags, nice, priority, runtime, deadline, period, utilisation_min, utilisation_max };
    // SAFETY: `attributes` is laid out as the kernel's structure, says its own size, and outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    outcome(answer)
}

/// Sets the I/O priority of the calling thread (ioprio_set(2)): the class in the bits from 13 on, the level below.
pub fn set_io_priority(priority: u16) -> Result<(), Errno> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: plain integers.
    outcome(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(priority)) })
}

/// Sets where the calling thread's memory comes from (set_mempolicy(2)); each bit of `nodes` is a node.
pub fn set_memory_policy(mode: u32, nodes: &[u64]) -> Result<(), Errno> {
    // The kernel takes one off before it looks (mm/mempolicy.c, `get_nodes`).
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the kernel reads `bits` - 1 bits from the slice, which has as many and outlives the call.
    outcome(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) })
}

/// Sets the processors that a thread may run on, the calling one where none is given (sched_setaffinity(2)); each bit of
/// `processors` is one. Those that the machine or the cpuset lacks are passed over by the kernel.
pub fn set_affinity(thread: Option<Pid>, processors: &[u64]) -> Result<(), Errno> {
    let thread = Pid::as_raw(thread);
    // SAFETY: the kernel reads as many bytes as the slice has, and the slice outlives the call.
    outcome(unsafe { libc::syscall(libc::SYS_sched_setaffinity, thread, size_of_val(processors), processors.as_ptr()) })
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(domain: u32) -> Result<(), Errno> {
    // SAFETY: a plain integer.
    outcome(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) })
}

fn outcome(answer: libc::c_long) -> Result<(), Errno> {
    if answer < 0 { Err(super::last_errno()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_the_kernel_lacks_are_refused() {
        assert_eq!(set_scheduler(&Scheduler { policy: 99, ..Scheduler::default() }), Err(Errno::INVAL));
        assert_eq!(set_io_priority(7 << 13), Err(Errno::INVAL));
        assert_eq!(set_memory_policy(99, &[1]), Err(Errno::INVAL));
        assert_eq!(set_affinity(None, &[0]), Err(Errno::INVAL));
    }

    #[test]
    fn what_a_thread_has_can_be_set_again() {
        std::thread::spawn(|| {
            set_scheduler(&Scheduler::default()).unwrap();
            set_io_priority(2 << 13 | 4).unwrap();
            set_memory_policy(0, &[]).unwrap();
            set_affinity(None, &[u64::MAX; 16]).unwrap();
            set_personality(0).unwrap();
        })
        .join()
        .unwrap();
    }
}
