//! Limits as flags give them, made into the specification's resources, with docker's meaning of what is left out.

use std::path::Path;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids, LinuxResources,
    LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};

use super::{Host, defaults};
use crate::engine::options::limits::{DeviceRate, Limits, SwapLimit};
use crate::error::{Error, Result};

/// Billionths of a processor in one.
const NANOS: u64 = 1_000_000_000;

/// The least that the kernel's CFS quota takes: a hundredth of a processor in the default period.
const NANO_CPUS_MINIMUM: u64 = NANOS / 100;

/// Weights of block I/O, as docker bounds them.
const BLKIO_WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// Makes them; `devices` are the rules on top of the default ones.
pub(super) fn build(limits: &Limits, host: &Host, devices: Vec<LinuxDeviceCgroup>) -> Result<LinuxResources> {
    let mut rules = default_devices();
    rules.extend(devices);
    let mut resources = LinuxResources::default();
    resources
        .set_devices(Some(rules))
        .set_unified((!limits.unified.is_empty()).then(|| limits.unified.clone().into_iter().collect()))
        .set_memory(memory(limits)?)
        .set_cpu(cpu(limits)?)
        .set_pids(pids(limits)?)
        .set_block_io(block_io(limits, host)?);
    Ok(resources)
}

fn default_devices() -> Vec<LinuxDeviceCgroup> {
    let mut rules = vec![device_rule(false, None, (None, None), "rwm")];
    rules.extend(defaults::DEVICE_RULES.iter().map(|(kind, major, minor, access)| {
        let kind = if *kind == 'b' { LinuxDeviceType::B } else { LinuxDeviceType::C };
        device_rule(true, Some(kind), (*major, *minor), access)
    }));
    rules
}

/// Makes a rule; `None` stands for all.
pub(super) fn device_rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    (major, minor): (Option<i64>, Option<i64>),
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(kind).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}

fn memory(limits: &Limits) -> Result<Option<LinuxMemory>> {
    let Limits { memory, memory_reservation, memory_swap, memory_swappiness, oom_kill_disable, .. } = limits;
    let swappiness = match memory_swappiness {
        None | Some(-1) => None,
        Some(share @ 0..=100) => Some(share.unsigned_abs()),
        Some(share) => return Err(Error::invalid(format!("memory-swappiness: {share} is not between 0 and 100"))),
    };
    // Docker's 0 is no limit.
    let memory = memory.filter(|bytes| *bytes > 0);
    let memory_reservation = memory_reservation.filter(|bytes| *bytes > 0);
    let memory_swap = memory_swap.filter(|limit| *limit != SwapLimit::Bytes(0));
    if (memory, memory_reservation, memory_swap, swappiness) == (None, None, None, None) && !oom_kill_disable {
        return Ok(None);
    }
    if memory.is_some_and(|bytes| bytes < defaults::MEMORY_MINIMUM) {
        let least = defaults::MEMORY_MINIMUM >> 20;
        return Err(Error::invalid(format!("memory: less than {least} MiB, with which no process starts")));
    }
    let swap = match (memory, memory_swap) {
        (_, Some(SwapLimit::Unlimited)) => Some(-1),
        (None, Some(SwapLimit::Bytes(_))) => {
            return Err(Error::invalid("memory-swap: needs a limit of memory, since it is both together"));
        }
        (Some(memory), Some(SwapLimit::Bytes(both))) if both < memory => {
            return Err(Error::invalid("memory-swap: smaller than memory, and it is memory and swap together"));
        }
        (Some(_), Some(SwapLimit::Bytes(both))) => Some(signed("memory-swap", both)?),
        // As much swap as memory.
        (Some(memory), None) => Some(signed("memory", memory.saturating_mul(2))?),
        (None, None) => None,
    };
    if let (Some(memory), Some(reservation)) = (memory, memory_reservation)
        && reservation > memory
    {
        return Err(Error::invalid("memory-reservation: larger than memory"));
    }
    let mut result = LinuxMemory::default();
    result
        .set_limit(memory.map(|bytes| signed("memory", bytes)).transpose()?)
        .set_reservation(memory_reservation.map(|bytes| signed("memory-reservation", bytes)).transpose()?)
        .set_swap(swap)
        .set_swappiness(swappiness)
        .set_disable_oom_killer(oom_kill_disable.then_some(true));
    Ok(Some(result))
}

fn signed(what: &str, bytes: u64) -> Result<i64> {
    i64::try_from(bytes).map_err(|_| Error::invalid(format!("{what}: larger than any memory")))
}

fn cpu(limits: &Limits) -> Result<Option<LinuxCpu>> {
    let Limits { nano_cpus, cpu_shares, cpu_period, cpu_quota, cpuset_cpus, cpuset_mems, .. } = limits;
    let Limits { cpu_realtime_period, cpu_realtime_runtime, .. } = limits;
    // Docker's 0 is "not given", and so is an empty list.
    let nano_cpus = nano_cpus.filter(|nanos| *nanos > 0);
    let (cpu_period, cpu_quota) = (cpu_period.filter(|period| *period > 0), cpu_quota.filter(|quota| *quota != 0));
    let given = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    let (cpuset_cpus, cpuset_mems) = (given(cpuset_cpus), given(cpuset_mems));
    let (period, quota) = match nano_cpus {
        Some(_) if cpu_period.is_some() || cpu_quota.is_some() => {
            return Err(Error::invalid("cpus: cannot be given together with cpu-period or cpu-quota"));
        }
        Some(nanos) if nanos < NANO_CPUS_MINIMUM => return Err(Error::invalid("cpus: less than 0.01")),
        Some(nanos) => {
            let quota = u128::from(nanos) * u128::from(defaults::CPU_PERIOD) / u128::from(NANOS);
            let quota = i64::try_from(quota).map_err(|_| Error::invalid("cpus: more than any machine has"))?;
            (Some(defaults::CPU_PERIOD), Some(quota))
        }
        None => (cpu_period, cpu_quota),
    };
    // 0 is "not given", 1 is less than the kernel takes.
    let shares = cpu_shares.filter(|shares| *shares > 0).map(|shares| shares.max(2));
    for (what, list) in [("cpuset-cpus", &cpuset_cpus), ("cpuset-mems", &cpuset_mems)] {
        if let Some(list) = list {
            check_list(what, list)?;
        }
    }
    let has_realtime = cpu_realtime_period.is_some() || cpu_realtime_runtime.is_some();
    if (period, quota, shares) == (None, None, None) && (&cpuset_cpus, &cpuset_mems) == (&None, &None) && !has_realtime
    {
        return Ok(None);
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_period(period)
        .set_quota(quota)
        .set_shares(shares)
        .set_realtime_period(*cpu_realtime_period)
        .set_realtime_runtime(*cpu_realtime_runtime)
        .set_cpus(cpuset_cpus)
        .set_mems(cpuset_mems);
    Ok(Some(cpu))
}

/// Makes sure that a list is one: `0-2,4`. It is written into a file of the kernel's.
fn check_list(what: &str, list: &str) -> Result<()> {
    let number =
        |text: &str| (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<u32>());
    let is_range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((number(first), number(last)), (Some(Ok(first)), Some(Ok(last))) if first <= last)
    };
    if list.split(',').all(is_range) {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} {list:?}: not a list of numbers and ranges, such as 0-2,4")))
}

fn pids(limits: &Limits) -> Result<Option<LinuxPids>> {
    match limits.pids {
        // Docker's words for no limit. To the runtime 0 is a limit, which nothing would start under.
        None | Some(0 | -1) => Ok(None),
        Some(count) if count < 0 => Err(Error::invalid(format!("pids-limit: {count} is no number of processes"))),
        Some(count) => {
            let mut pids = LinuxPids::default();
            pids.set_limit(count);
            Ok(Some(pids))
        }
    }
}

fn block_io(limits: &Limits, host: &Host) -> Result<Option<LinuxBlockIo>> {
    let Limits { blkio_weight, blkio_weight_devices, .. } = limits;
    let Limits { device_read_bps, device_write_bps, device_read_iops, device_write_iops, .. } = limits;
    let weight = match blkio_weight {
        None | Some(0) => None,
        Some(weight) if BLKIO_WEIGHTS.contains(weight) => Some(*weight),
        Some(weight) => return Err(Error::invalid(format!("blkio-weight: {weight} is not between 10 and 1000"))),
    };
    let number = |device: &Path| {
        let number = host.block_devices.get(device).copied();
        number.ok_or_else(|| Error::invalid(format!("{} is not a block device", device.display())))
    };
    let mut weights = Vec::new();
    for entry in blkio_weight_devices {
        let (major, minor) = number(&entry.device)?;
        let device = LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(entry.weight);
        weights.push(device.build().expect("all fields are set"));
    }
    let throttles = |rates: &[DeviceRate]| -> Result<Option<Vec<LinuxThrottleDevice>>> {
        let mut throttles = Vec::with_capacity(rates.len());
        for entry in rates {
            let (major, minor) = number(&entry.device)?;
            let throttle = LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(entry.rate);
            throttles.push(throttle.build().expect("all fields are set"));
        }
        Ok((!throttles.is_empty()).then_some(throttles))
    };
    let mut block_io = LinuxBlockIo::default();
    block_io
        .set_weight(weight)
        .set_weight_device((!weights.is_empty()).then_some(weights))
        .set_throttle_read_bps_device(throttles(device_read_bps)?)
        .set_throttle_write_bps_device(throttles(device_write_bps)?)
        .set_throttle_read_iops_device(throttles(device_read_iops)?)
        .set_throttle_write_iops_device(throttles(device_write_iops)?);
    Ok((block_io != LinuxBlockIo::default()).then_some(block_io))
}
