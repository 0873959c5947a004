//! What a process is beside its ids and rights: how it is scheduled, its I/O priority, where its memory comes from, its
//! execution domain. Turns the words of a configuration into numbers, and sets them; each costs one call, and none if
//! it is not asked for.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler, Spec,
};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{Context, Error, Kind, Result};
use crate::support::number_set::NumberSet;
use crate::sys::schedule;

/// The attributes of one process, ready to be set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    scheduler: Option<schedule::Scheduler>,
    /// Whether the container has processors of its own, which some schedulers do not go with.
    has_own_processors: bool,
    io_priority: Option<u16>,
    memory_policy: Option<(u32, NumberSet)>,
    personality: Option<u32>,
}

impl Attributes {
    /// Takes the attributes of a process of a container. One that `exec` starts has those of the container's own process
    /// where it says nothing else.
    pub fn of(process: &Process, container: &Spec) -> Result<Self> {
        let first = container.process().as_ref();
        let linux = container.linux().as_ref();
        let scheduler = process.scheduler().as_ref().or_else(|| first?.scheduler().as_ref());
        let io_priority = process.io_priority().as_ref().or_else(|| first?.io_priority().as_ref());
        let memory_policy = linux.and_then(|linux| linux.memory_policy().as_ref());
        let cpu = linux.and_then(|linux| linux.resources().as_ref()?.cpu().as_ref());
        Ok(Self {
            scheduler: scheduler.map(scheduler_numbers),
            has_own_processors: cpu.is_some_and(|cpu| cpu.cpus().as_ref().is_some_and(|cpus| !cpus.is_empty())),
            io_priority: io_priority.map(io_priority_number),
            memory_policy: memory_policy.map(memory_policy_numbers).transpose()?,
            personality: linux.and_then(|linux| linux.personality().as_ref()).map(|one| domain(one.domain())),
        })
    }

    /// Sets them on the calling process, which must be in its cgroups and still have its rights.
    pub(super) fn apply(&self) -> Result<()> {
        if let Some(scheduler) = &self.scheduler {
            schedule::set_scheduler(scheduler).map_err(|errno| self.explain_scheduler(errno))?;
        }
        if let Some(priority) = self.io_priority {
            schedule::set_io_priority(priority).context("process.ioPriority: set the I/O priority")?;
        }
        if let Some(domain) = self.personality {
            schedule::set_personality(domain).context("linux.personality: set the execution domain")?;
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            schedule::set_memory_policy(*mode, nodes.words()).map_err(explain_memory_policy)?;
        }
        Ok(())
    }

    /// Says whether a child has them, too (sched(7)): none is born to SCHED_DEADLINE, and some schedulers are reset at a
    /// fork.
    pub(super) fn are_inherited(&self) -> bool {
        self.scheduler.as_ref().is_none_or(|one| one.policy != DEADLINE && one.flags & RESET_ON_FORK == 0)
    }

    fn explain_scheduler(&self, errno: Errno) -> Error {
        if errno == Errno::PERM && self.has_own_processors {
            // The words are runc's. sched_setattr(2) gives EPERM for SCHED_DEADLINE on a part of the processors.
            return Error::new(Kind::System(errno), "process scheduler can't be used together with AllowedCPUs");
        }
        let error = Error::from(errno).context("process.scheduler: set the scheduler");
        match errno {
            Errno::PERM => error.with_hint(
                "a real-time scheduler or a negative nice value needs CAP_SYS_NICE on the host, or the resource limits \
                 RLIMIT_RTPRIO and RLIMIT_NICE",
            ),
            Errno::BUSY => error.with_hint("SCHED_DEADLINE tasks together would take more time than there is"),
            _ => error,
        }
    }
}

fn explain_memory_policy(errno: Errno) -> Error {
    let error = Error::from(errno).context("linux.memoryPolicy: set the memory policy");
    match errno {
        Errno::NOSYS => error.with_hint("this kernel is built without NUMA (CONFIG_NUMA)"),
        Errno::INVAL => error.with_hint(
            "a node that the machine or the container's cpuset does not have, or a mode or flag newer than this kernel",
        ),
        _ => error,
    }
}

/// The processors that a process of `exec` runs on before and after it enters the container's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAffinity {
    initial: NumberSet,
    last: NumberSet,
}

impl ExecAffinity {
    /// Reads both lists of `process.execCPUAffinity`; as in [`Attributes::of`], those of the container's process are the
    /// fallback.
    pub fn of(process: &Process, container: &Spec) -> Result<Self> {
        let first = container.process().as_ref();
        match process.exec_cpu_affinity().as_ref().or_else(|| first?.exec_cpu_affinity().as_ref()) {
            Some(affinity) => Self::parse(affinity),
            None => Ok(Self::default()),
        }
    }

    fn parse(affinity: &ExecCPUAffinity) -> Result<Self> {
        let list = |field: &str, text: &Option<String>| {
            NumberSet::parse(text.as_deref().unwrap_or_default())
                .map_err(|cause| Error::invalid(format!("process.execCPUAffinity.{field}: {cause}")))
        };
        Ok(Self { initial: list("initial", affinity.initial())?, last: list("final", affinity.cpu_affinity_final())? })
    }

    /// Sets the first list, on a thread or the calling one. No call if it is empty.
    pub fn set_initial(&self, thread: Option<Pid>) -> Result<()> {
        set_affinity("initial", &self.initial, thread)
    }

    /// Sets the second list, once the calling thread is in the container's cgroup. With no list at all, it gets every
    /// processor of the cgroup; the first alone stays as it is.
    pub fn set_final(&self) -> Result<()> {
        if self.initial.is_empty() && self.last.is_empty() {
            take_every_processor();
            return Ok(());
        }
        set_affinity("final", &self.last, None)
    }
}

/// Gives the calling thread the processors of its cgroup, now that it is in it, and not those that husk was started on.
///
/// Before Linux 6.2 the cgroup did so itself; since then what sched_setaffinity(2) once said of the caller is kept
/// (commit da019032819a). Processors that are added to the cgroup later count, too.
pub fn take_every_processor() {
    /// As many as a kernel of x86-64 can be built for; others are built for fewer.
    const PROCESSORS: usize = 8192;
    // A host that forbids the call leaves the caller's.
    let _ = schedule::set_affinity(None, &[u64::MAX; PROCESSORS / 64]);
}

fn set_affinity(field: &str, processors: &NumberSet, thread: Option<Pid>) -> Result<()> {
    if processors.is_empty() {
        return Ok(());
    }
    schedule::set_affinity(thread, processors.words()).map_err(|errno| {
        let error = Error::from(errno).context(format!("process.execCPUAffinity.{field}: set the CPU affinity"));
        if errno == Errno::INVAL { error.with_hint("none of these processors may be used here") } else { error }
    })
}

/// `SCHED_DEADLINE` and `SCHED_FLAG_RESET_ON_FORK` of linux/sched.h.
const DEADLINE: u32 = 6;
const RESET_ON_FORK: u64 = 0x01;

/// The numbers of linux/sched.h.
fn scheduler_numbers(scheduler: &Scheduler) -> schedule::Scheduler {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => DEADLINE,
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => RESET_ON_FORK,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    schedule::Scheduler {
        policy,
        flags: scheduler.flags().iter().flatten().map(flag).fold(0, |all, one| all | one),
        nice: scheduler.nice().unwrap_or(0),
        priority: scheduler.priority().unwrap_or(0).unsigned_abs(),
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    }
}

/// The numbers of linux/ioprio.h.
fn io_priority_number(priority: &LinuxIOPriority) -> u16 {
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    // Validated to be from 0 to 7.
    class << 13 | u16::try_from(priority.priority()).unwrap_or(0)
}

/// The numbers of linux/mempolicy.h.
fn memory_policy_numbers(policy: &LinuxMemoryPolicy) -> Result<(u32, NumberSet)> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flag = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
        MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
    };
    let nodes = NumberSet::parse(policy.nodes().as_deref().unwrap_or_default())
        .map_err(|cause| Error::invalid(format!("linux.memoryPolicy.nodes: {cause}")))?;
    Ok((policy.flags().iter().flatten().map(flag).fold(mode, |all, one| all | one), nodes))
}

/// The numbers of linux/personality.h.
fn domain(domain: LinuxPersonalityDomain) -> u32 {
    match domain {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(process: &Value, linux: &Value) -> Spec {
        let mut first = json!({"user": {}, "cwd": "/", "args": ["x"]});
        first.as_object_mut().unwrap().extend(process.as_object().unwrap().clone());
        serde_json::from_value(json!({"ociVersion": "1.3.0", "process": first, "linux": linux})).unwrap()
    }

    fn attributes(process: &Value, linux: &Value) -> Attributes {
        let spec = spec(process, linux);
        Attributes::of(spec.process().as_ref().unwrap(), &spec).unwrap()
    }

    #[test]
    fn nothing_asked_is_nothing_done() {
        assert_eq!(attributes(&json!({}), &json!({})), Attributes::default());
    }

    #[test]
    fn words_become_the_kernels_numbers() {
        let all = attributes(
            &json!({
                "scheduler": {"policy": "SCHED_DEADLINE", "nice": 19, "runtime": 42, "deadline": 100, "period": 1000,
                    "flags": ["SCHED_RESET_ON_FORK", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_D_L_OVERRUN"]},
                "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            }),
            &json!({
                "memoryPolicy": {"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0-1,3", "flags": ["MPOL_F_STATIC_NODES"]},
                "personality": {"domain": "LINUX32"},
                "resources": {"cpu": {"cpus": "0"}},
            }),
        );
        let scheduler = schedule::Scheduler {
            policy: 6,
            flags: 7,
            nice: 19,
            runtime: 42,
            deadline: 100,
            period: 1000,
            ..schedule::Scheduler::default()
        };
        assert_eq!(all.scheduler, Some(scheduler));
        assert_eq!(all.io_priority, Some(0x4004));
        assert_eq!(all.memory_policy, Some((0x8006, NumberSet::parse("0,1,3").unwrap())));
        assert_eq!((all.personality, all.has_own_processors), (Some(8), true));
        assert_eq!(
            all.explain_scheduler(Errno::PERM).report(),
            "process scheduler can't be used together with AllowedCPUs"
        );
    }

    #[test]
    fn exec_has_what_the_container_has_where_it_says_nothing() {
        let container = spec(
            &json!({
                "scheduler": {"policy": "SCHED_BATCH"},
                "ioPriority": {"class": "IOPRIO_CLASS_RT"},
                "execCPUAffinity": {"initial": "0", "final": "1"},
            }),
            &json!({}),
        );
        let process: Process = serde_json::from_value(
            json!({"user": {}, "cwd": "/", "args": ["x"], "ioPriority": {"class": "IOPRIO_CLASS_IDLE"}}),
        )
        .unwrap();
        let attributes = Attributes::of(&process, &container).unwrap();
        assert_eq!(attributes.scheduler.map(|scheduler| scheduler.policy), Some(3));
        assert_eq!(attributes.io_priority, Some(3 << 13));
        let affinity = ExecAffinity::of(&process, &container).unwrap();
        assert_eq!((affinity.initial.words(), affinity.last.words()), (&[1_u64][..], &[2_u64][..]));
    }
}
