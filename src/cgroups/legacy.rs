//! What `linux.resources` means for the controllers of v1.
//!
//! Pure: turns limits into settings, in runc's reading of them (zero and empty mean unset). Devices have a file of
//! their own.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::plan::Warning;
use super::setting::{Setting, Step};
use super::values::{self, Controller};
use crate::error::{Error, Result};

/// Gives the settings for one controller.
pub(super) fn steps(
    controller: Controller,
    resources: &LinuxResources,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    match controller {
        Controller::Memory => {
            if let Some(limits) = resources.memory() {
                memory(limits, &mut steps, warnings)?;
            }
        }
        Controller::Cpu => {
            if let Some(limits) = resources.cpu() {
                cpu(limits, &mut steps)?;
            }
        }
        Controller::Cpuset => {
            if let Some(limits) = resources.cpu() {
                steps.extend(values::cpuset(limits));
            }
        }
        Controller::Pids => steps.extend(values::pids(resources)),
        Controller::Io => {
            if let Some(limits) = resources.block_io() {
                block_io(limits, &mut steps);
            }
        }
        Controller::Hugetlb => {
            for limit in resources.hugepage_limits().iter().flatten() {
                steps.extend(values::hugepages(limit, "limit_in_bytes")?);
            }
        }
        Controller::Rdma => steps.extend(values::rdma(resources)?),
        Controller::NetClass => {
            let class = resources.network().as_ref().and_then(oci_spec::runtime::LinuxNetwork::class_id);
            if let Some(class) = class.filter(|class| *class != 0) {
                steps.push(vec![Setting::new("network.classID", "net_cls.classid", class)]);
            }
        }
        Controller::NetPriority => {
            let priorities = resources.network().as_ref().and_then(|network| network.priorities().as_ref());
            let mut lines = String::new();
            for priority in priorities.into_iter().flatten() {
                values::check_word("network.priorities[].name", priority.name())?;
                values::push_line(&mut lines, format_args!("{} {}", priority.name(), priority.priority()));
            }
            if !lines.is_empty() {
                steps.push(vec![Setting::new("network.priorities", "net_prio.ifpriomap", lines)]);
            }
        }
    }
    Ok(steps)
}

fn memory(limits: &LinuxMemory, steps: &mut Vec<Step>, warnings: &mut Vec<Warning>) -> Result<()> {
    let limit = values::size("memory.limit", limits.limit())?;
    let swap = values::size("memory.swap", limits.swap())?;
    let mut together = Step::new();
    if let Some(limit) = limit {
        together.push(Setting::new("memory.limit", "memory.limit_in_bytes", limit));
    }
    match (limit, swap) {
        (_, Some(swap)) => together.push(Setting::new("memory.swap", "memory.memsw.limit_in_bytes", swap)),
        // No limit on memory has to lift the one on memory plus swap too, where the kernel counts swap at all.
        (Some(-1), None) => {
            together.push(Setting::new("memory.limit", "memory.memsw.limit_in_bytes", -1).or_skip());
        }
        _ => {}
    }
    if !together.is_empty() {
        steps.push(together);
    }
    if let Some(reservation) = values::size("memory.reservation", limits.reservation())? {
        steps.push(vec![Setting::new("memory.reservation", "memory.soft_limit_in_bytes", reservation)]);
    }
    if limits.disable_oom_killer() == Some(true) {
        steps.push(vec![Setting::new("memory.disableOOMKiller", "memory.oom_control", 1)]);
    }
    match limits.swappiness() {
        // All ones is -1 in the clothes of the config's type: unset.
        None | Some(u64::MAX) => {}
        Some(swappiness @ 0..=100) => {
            steps.push(vec![Setting::new("memory.swappiness", "memory.swappiness", swappiness)]);
        }
        Some(other) => {
            return Err(Error::invalid(format!("linux.resources.memory.swappiness: {other} is not between 0 and 100")));
        }
    }
    values::warn_of_kernel_memory(limits, warnings);
    Ok(())
}

fn cpu(limits: &LinuxCpu, steps: &mut Vec<Step>) -> Result<()> {
    if let Some(shares) = limits.shares().filter(|shares| *shares != 0) {
        // The kernel clamps in silence; runc reads back and says so in these words.
        let (least, most) = (2, 262_144);
        if shares < least || shares > most {
            let (word, bound) = if shares < least { ("minimum", least) } else { ("maximum", most) };
            let text = format!("linux.resources.cpu.shares: the {word} allowed cpu-shares is {bound}");
            return Err(Error::invalid(text));
        }
        steps.push(vec![Setting::new("cpu.shares", "cpu.shares", shares)]);
    }
    let mut bandwidth = Step::new();
    if let Some(period) = limits.period().filter(|period| *period != 0) {
        bandwidth.push(Setting::new("cpu.period", "cpu.cfs_period_us", period));
    }
    if let Some(quota) = limits.quota().filter(|quota| *quota != 0) {
        bandwidth.push(Setting::new("cpu.quota", "cpu.cfs_quota_us", quota));
    }
    if let Some(burst) = limits.burst() {
        // Since 5.14; without it nothing can burst.
        let setting = Setting::new("cpu.burst", "cpu.cfs_burst_us", burst);
        bandwidth.push(if burst == 0 { setting.or_skip() } else { setting });
    }
    if !bandwidth.is_empty() {
        steps.push(bandwidth);
    }
    if let Some(idle) = limits.idle() {
        let setting = Setting::new("cpu.idle", "cpu.idle", idle);
        steps.push(vec![if idle == 0 { setting.or_skip() } else { setting }]);
    }
    let mut realtime = Step::new();
    if let Some(period) = limits.realtime_period().filter(|period| *period != 0) {
        realtime.push(Setting::new("cpu.realtimePeriod", "cpu.rt_period_us", period));
    }
    if let Some(runtime) = limits.realtime_runtime().filter(|runtime| *runtime != 0) {
        realtime.push(Setting::new("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime));
    }
    if !realtime.is_empty() {
        steps.push(realtime);
    }
    Ok(())
}

fn block_io(limits: &LinuxBlockIo, steps: &mut Vec<Step>) {
    // The weights are those of the BFQ scheduler since CFQ went away in 5.0.
    if let Some(weight) = limits.weight().filter(|weight| *weight != 0) {
        steps.push(vec![Setting::new("blockIO.weight", "blkio.weight", weight).or("blkio.bfq.weight", weight)]);
    }
    if let Some(weight) = limits.leaf_weight().filter(|weight| *weight != 0) {
        steps.push(vec![Setting::new("blockIO.leafWeight", "blkio.leaf_weight", weight)]);
    }
    let (mut weights, mut leaf_weights) = (String::new(), String::new());
    for device in limits.weight_device().iter().flatten() {
        let (major, minor) = (device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            values::push_line(&mut weights, format_args!("{major}:{minor} {weight}"));
        }
        if let Some(weight) = device.leaf_weight().filter(|weight| *weight != 0) {
            values::push_line(&mut leaf_weights, format_args!("{major}:{minor} {weight}"));
        }
    }
    if !weights.is_empty() {
        let setting = Setting::new("blockIO.weightDevice", "blkio.weight_device", &weights);
        steps.push(vec![setting.or("blkio.bfq.weight_device", &weights)]);
    }
    if !leaf_weights.is_empty() {
        steps.push(vec![Setting::new("blockIO.weightDevice[].leafWeight", "blkio.leaf_weight_device", leaf_weights)]);
    }
    for (field, file, devices) in [
        ("blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", limits.throttle_read_bps_device()),
        ("blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", limits.throttle_write_bps_device()),
        ("blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", limits.throttle_read_iops_device()),
        ("blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", limits.throttle_write_iops_device()),
    ] {
        let mut lines = String::new();
        for device in devices.iter().flatten() {
            values::push_line(&mut lines, format_args!("{}:{} {}", device.major(), device.minor(), device.rate()));
        }
        if !lines.is_empty() {
            steps.push(vec![Setting::new(field, file, lines)]);
        }
    }
}
