//! Flags of what a container may use.

use clap::Args;

use crate::engine::options::limits::{DeviceRate, DeviceWeight, Limits, SwapLimit, Ulimit};
use crate::engine::options::{self, RunOptions};
use crate::error::{Error, Result};
use crate::support::units;

/// What it may use.
#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Memory limit, with a suffix b, k, m or g
    #[arg(long, short, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Memory that stays where others want it
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    memory_reservation: Option<u64>,
    /// Limit of memory and swap together; -1 for none on swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<SwapLimit>,
    /// How readily memory is swapped, from 0 to 100; cgroup v1
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Do not kill where memory runs out; cgroup v1
    #[arg(long)]
    oom_kill_disable: bool,
    /// How readily its processes are killed where the machine runs out of memory
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = units::parse_cpus)]
    cpus: Option<u64>,
    /// Relative weight of processor time
    #[arg(long, short = 'c', value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Period of the processor quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Processor time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Period of realtime processor time, in microseconds; cgroup v1
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Realtime processor time in each period, in microseconds; cgroup v1
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// Processors to run on, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Relative weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// The same for one device
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<DeviceWeight>,
    /// Most bytes a second that are read from a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_bps: Vec<DeviceRate>,
    /// Most bytes a second that are written to a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_bps: Vec<DeviceRate>,
    /// Most reads a second from a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_read_iops: Vec<DeviceRate>,
    /// Most writes a second to a device
    #[arg(long, value_name = "DEVICE:RATE")]
    device_write_iops: Vec<DeviceRate>,
    /// Write to a file of the container's cgroup; cgroup v2
    #[arg(long, value_name = "FILE=VALUE", value_parser = options::parse_pair)]
    cgroup_conf: Vec<(String, String)>,
    /// Cgroup, or slice of systemd, to make the container's in
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    shm_size: Option<u64>,
    /// Limit of each process; host for the caller's
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Set a parameter of the kernel that the container has of its own
    #[arg(long, value_name = "NAME=VALUE", value_parser = options::parse_pair)]
    sysctl: Vec<(String, String)>,
    /// Fail where a limit cannot be set, instead of warning
    #[arg(long)]
    require_limits: bool,
}

impl LimitArgs {
    pub(super) fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self {
            memory,
            memory_reservation,
            memory_swap,
            memory_swappiness,
            oom_kill_disable,
            oom_score_adj,
            cpus,
            cpu_shares,
            cpu_period,
            cpu_quota,
            cpu_rt_period,
            cpu_rt_runtime,
            cpuset_cpus,
            cpuset_mems,
            pids_limit,
            blkio_weight,
            blkio_weight_device,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
            cgroup_conf,
            cgroup_parent,
            shm_size,
            ulimit,
            sysctl,
            require_limits,
        } = self;
        options.limits = Limits {
            memory,
            memory_reservation,
            memory_swap,
            memory_swappiness,
            oom_kill_disable,
            nano_cpus: cpus,
            cpu_shares,
            cpu_period,
            cpu_quota,
            cpu_realtime_period: cpu_rt_period,
            cpu_realtime_runtime: cpu_rt_runtime,
            cpuset_cpus,
            cpuset_mems,
            pids: pids_limit,
            blkio_weight,
            blkio_weight_devices: blkio_weight_device,
            device_read_bps,
            device_write_bps,
            device_read_iops,
            device_write_iops,
            unified: cgroup_conf.into_iter().collect(),
        };
        if let Some(score) = oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(Error::invalid(format!("oom-score-adj: {score} is not between -1000 and 1000")));
        }
        options.oom_score_adj = oom_score_adj;
        options.cgroup_parent = cgroup_parent.filter(|parent| !parent.is_empty());
        options.shm_size = shm_size.filter(|size| *size > 0);
        // What is not given is the caller's anyway.
        let named = ulimit.iter().filter(|word| *word != "host");
        options.ulimits = named.map(|word| word.parse::<Ulimit>()).collect::<Result<_>>()?;
        options.sysctls = sysctl.into_iter().collect();
        options.require_limits = require_limits;
        Ok(())
    }
}
