//! What a container uses, in the shape that runc prints as the data of `events`.
//!
//! Types alone: `usage` fills them. The two parts of that shape that are no cgroup's business (`intel_rdt`,
//! `network_interfaces`) are left to the caller.

use std::collections::BTreeMap;

use serde::Serialize;

/// All figures. What the kernel does not offer is zero, as in runc.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: BlockIo,
    /// By page size, `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// How often the OOM killer struck; not printed by `events`.
    #[serde(skip)]
    pub oom_kills: u64,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: CpuUsage,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "is_zero")]
    pub psi: Option<Pressure>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// The settings of a v1 cpuset, which runc counts among the figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "is_zero")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: MemoryUsage,
    /// Memory and swap together.
    #[serde(skip_serializing_if = "is_zero")]
    pub swap: MemoryUsage,
    #[serde(skip_serializing_if = "is_zero")]
    pub kernel: MemoryUsage,
    #[serde(rename = "kernelTCP", skip_serializing_if = "is_zero")]
    pub kernel_tcp: MemoryUsage,
    /// `memory.stat` as it is.
    #[serde(skip_serializing_if = "is_zero")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub psi: Option<Pressure>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryUsage {
    /// All ones is no limit.
    pub limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The peak.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// Zero is no limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Input and output of block devices, one table a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockIo {
    #[serde(skip_serializing_if = "is_zero")]
    pub io_service_bytes_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "is_zero")]
    pub io_serviced_recursive: Vec<BlockIoEntry>,
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "is_zero")]
    pub io_queued_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "is_zero")]
    pub io_service_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "is_zero")]
    pub io_wait_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "is_zero")]
    pub io_merged_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "is_zero")]
    pub io_time_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "is_zero")]
    pub sectors_recursive: Vec<BlockIoEntry>,
    #[serde(skip_serializing_if = "is_zero")]
    pub psi: Option<Pressure>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BlockIoEntry {
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub op: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    pub failcnt: u64,
}

/// How much of the time tasks wait for something: some of them, and all of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    #[serde(skip_serializing_if = "is_zero")]
    pub some: PressureShare,
    #[serde(skip_serializing_if = "is_zero")]
    pub full: PressureShare,
}

/// Percentages over 10, 60 and 300 seconds, and a total in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PressureShare {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
