//! Limits and device rules as properties of a unit (systemd.resource-control(5), org.freedesktop.systemd1(5)).
//!
//! The table starts from the files that the limits are for, so that what `linux.resources` says and what its `unified`
//! map says come out alike. What systemd has no property for is left out here: the file is written in any case.

use super::super::devices::{Access, Devices, Kind, Rules};
use super::super::setting::{Setting, Step};
use super::wire::Value;
use crate::error::{Error, Result};

/// Properties with their values, in the order in which they are set.
pub(in crate::cgroups) type Properties = Vec<(String, Value)>;

/// Answers what a file of the cgroup holds now; nothing for a cgroup that is yet to be made.
type Current<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The kernel's period of CPU time, for v1 and v2.
const USUAL_PERIOD_MICROSECONDS: u64 = 100_000;

/// Of a CPU, systemd hands out whole percents.
const PERCENT_MICROSECONDS: u64 = 10_000;

/// No limit, to systemd.
const INFINITY: u64 = u64::MAX;

// The releases that brought a property. Before them it is an error to name it.
const CPU_QUOTA_PERIOD: u32 = 242;
const CPUSET: u32 = 244;
const CPU_IDLE: u32 = 252;
const SCOPE_OOM_POLICY: u32 = 253;
const ZSWAP: u32 = 253;

/// Gives the properties for limits that are about to be written into files.
///
/// A CPU quota that systemd would round up is rounded in `steps` as well, so that the file and the unit agree.
pub(in crate::cgroups) fn limits(steps: &mut [Step], version: u32, current: Current<'_>) -> Result<Properties> {
    let mut properties = Properties::new();
    for step in steps {
        cpu_time(step, version, current, &mut properties)?;
        for setting in step.iter() {
            limit(setting, version, &mut properties)?;
        }
    }
    // A weight of nothing is how systemd is told of an idle group, beside which there is no other weight.
    if properties.contains(&("CPUWeight".into(), Value::Uint64(0))) {
        properties.retain(|(name, value)| name != "CPUWeight" || *value == Value::Uint64(0));
    }
    Ok(properties)
}

fn limit(setting: &Setting, version: u32, properties: &mut Properties) -> Result<()> {
    let value = &*setting.value;
    let mut add = |name: &str, value: Value| properties.push((name.to_owned(), value));
    let size = || number(setting, value).map(Value::Uint64);
    match &*setting.file {
        "memory.min" => add("MemoryMin", size()?),
        "memory.low" => add("MemoryLow", size()?),
        "memory.high" => add("MemoryHigh", size()?),
        "memory.max" => add("MemoryMax", size()?),
        "memory.swap.max" => add("MemorySwapMax", size()?),
        "memory.zswap.max" if version >= ZSWAP => add("MemoryZSwapMax", size()?),
        "memory.oom.group" if version >= SCOPE_OOM_POLICY => match value {
            "0" => add("OOMPolicy", Value::text("continue")),
            "1" => add("OOMPolicy", Value::text("kill")),
            _ => {}
        },
        "memory.limit_in_bytes" => add("MemoryLimit", size()?),
        "cpu.weight" => add("CPUWeight", size()?),
        "cpu.idle" if value == "1" && version >= CPU_IDLE => add("CPUWeight", Value::Uint64(0)),
        "cpu.shares" => add("CPUShares", size()?),
        "cpuset.cpus" if version >= CPUSET => add("AllowedCPUs", mask(setting)?),
        "cpuset.mems" if version >= CPUSET => add("AllowedMemoryNodes", mask(setting)?),
        // systemd takes no 0, with which nobody could even enter.
        "pids.max" => add("TasksMax", Value::Uint64(number(setting, value)?.max(1))),
        "io.weight" => io_weights(setting, |weight| weight, properties)?,
        "io.bfq.weight" => io_weights(setting, weight_of_bfq, properties)?,
        "io.max" => io_max(setting, properties)?,
        "blkio.weight" => add("BlockIOWeight", size()?),
        "blkio.throttle.read_bps_device" => throttle("BlockIOReadBandwidth", setting, properties)?,
        "blkio.throttle.write_bps_device" => throttle("BlockIOWriteBandwidth", setting, properties)?,
        _ => {}
    }
    Ok(())
}

/// CPU time is two numbers: on v2 in one file, on v1 in two.
fn cpu_time(step: &mut Step, version: u32, current: Current<'_>, properties: &mut Properties) -> Result<()> {
    let mut quota: Option<u64> = None;
    let mut period: Option<u64> = None;
    let mut is_unified = false;
    for setting in step.iter() {
        match &*setting.file {
            "cpu.max" => {
                let mut words = setting.value.split_whitespace();
                quota = words.next().map(|word| number(setting, word)).transpose()?;
                period = words.next().map(|word| number(setting, word)).transpose()?;
                is_unified = true;
            }
            "cpu.cfs_quota_us" => quota = Some(number(setting, &setting.value)?),
            "cpu.cfs_period_us" => period = Some(number(setting, &setting.value)?),
            _ => {}
        }
    }
    if quota.is_none() && period.is_none() {
        return Ok(());
    }
    if let (Some(period), true) = (period, version >= CPU_QUOTA_PERIOD) {
        properties.push(("CPUQuotaPeriodUSec".into(), Value::Uint64(period)));
    }
    // A new period alone leaves the quota of v1 as it is, and v2's file always has both.
    let quota = match quota {
        Some(quota) => quota,
        None => match current("cpu.cfs_quota_us").and_then(|text| text.parse::<i64>().ok()) {
            Some(quota @ 1..) => quota.cast_unsigned(),
            _ => INFINITY,
        },
    };
    if quota == INFINITY || quota == 0 {
        properties.push(("CPUQuotaPerSecUSec".into(), Value::Uint64(INFINITY)));
        return Ok(());
    }
    let period_in_force = || {
        let text = current(if is_unified { "cpu.max" } else { "cpu.cfs_period_us" })?;
        text.split_whitespace().last()?.parse().ok()
    };
    let period = period.or_else(period_in_force).unwrap_or(USUAL_PERIOD_MICROSECONDS).max(1);
    let per_second = u128::from(quota) * 1_000_000 / u128::from(period);
    let per_second = u64::try_from(per_second).unwrap_or(INFINITY / 2).next_multiple_of(PERCENT_MICROSECONDS);
    let rounded = u64::try_from(u128::from(per_second) * u128::from(period) / 1_000_000).unwrap_or(quota);
    properties.push(("CPUQuotaPerSecUSec".into(), Value::Uint64(per_second)));
    for setting in step.iter_mut().filter(|setting| setting.field != "unified") {
        match &*setting.file {
            "cpu.max" => {
                let period = setting.value.split_once(' ').map(|(_, period)| format!(" {period}")).unwrap_or_default();
                setting.value = format!("{rounded}{period}");
            }
            "cpu.cfs_quota_us" => setting.value = rounded.to_string(),
            _ => {}
        }
    }
    Ok(())
}

/// Reads a number of a file; `max` and v1's -1 are no limit.
fn number(setting: &Setting, text: &str) -> Result<u64> {
    match text.trim() {
        "max" | "-1" => Ok(INFINITY),
        text => text.parse().map_err(|_| {
            Error::invalid(format!("linux.resources.{}: {}: `{}` is not a number", setting.field, setting.file, text))
        }),
    }
}

/// Turns a list of CPUs or memory nodes (`0-2,7`) into the bytes of a mask, the lowest first.
fn mask(setting: &Setting) -> Result<Value> {
    // Of the kernel's own limits (CONFIG_NR_CPUS) this is far beyond the highest.
    const MOST: usize = 1 << 16;
    let wrong = || {
        Error::invalid(format!(
            "linux.resources.{}: {}: `{}` is not a list of numbers and ranges",
            setting.field, setting.file, setting.value
        ))
    };
    let mut bytes: Vec<u8> = Vec::new();
    for part in setting.value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let parse = |text: &str| text.trim().parse::<usize>().ok().filter(|number| *number < MOST).ok_or_else(wrong);
        let (first, last) = (parse(first)?, parse(last)?);
        if first > last {
            return Err(wrong());
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        for number in first..=last {
            bytes[number / 8] |= 1 << (number % 8);
        }
    }
    if bytes.is_empty() { Err(wrong()) } else { Ok(Value::bytes(bytes)) }
}

/// Undoes what systemd does to a weight on its way into `io.bfq.weight`, so that the number asked for gets there.
fn weight_of_bfq(weight: u64) -> u64 {
    // Both scales have their usual value at 100; BFQ's ends at 1000, that of io.weight at 10000.
    match weight {
        ..=100 => 100 - (100 - weight),
        _ => 100 + (weight.min(1000) - 100) * (10_000 - 100) / (1000 - 100),
    }
}

/// Reads lines of `WEIGHT`, `default WEIGHT` and `MAJOR:MINOR WEIGHT`.
fn io_weights(setting: &Setting, convert: fn(u64) -> u64, properties: &mut Properties) -> Result<()> {
    for line in setting.value.lines() {
        let (device, weight) = line.trim().split_once(' ').unwrap_or(("default", line));
        let weight = convert(number(setting, weight)?);
        if device == "default" {
            properties.push(("IOWeight".into(), Value::Uint64(weight)));
        } else {
            properties.push(("IODeviceWeight".into(), by_device(device, weight)));
        }
    }
    Ok(())
}

/// Reads lines of `MAJOR:MINOR KEY=LIMIT…`.
fn io_max(setting: &Setting, properties: &mut Properties) -> Result<()> {
    for line in setting.value.lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next() else { continue };
        for word in words {
            let (key, limit) = word.split_once('=').unwrap_or((word, ""));
            let name = match key {
                "rbps" => "IOReadBandwidthMax",
                "wbps" => "IOWriteBandwidthMax",
                "riops" => "IOReadIOPSMax",
                "wiops" => "IOWriteIOPSMax",
                _ => continue,
            };
            properties.push((name.into(), by_device(device, number(setting, limit)?)));
        }
    }
    Ok(())
}

/// Reads lines of `MAJOR:MINOR LIMIT`.
fn throttle(name: &str, setting: &Setting, properties: &mut Properties) -> Result<()> {
    for line in setting.value.lines() {
        if let Some((device, limit)) = line.split_once(' ') {
            properties.push((name.into(), by_device(device, number(setting, limit)?)));
        }
    }
    Ok(())
}

/// systemd wants the path of a node; udev keeps one for every number. One entry a property: further ones are added.
fn by_device(number: &str, value: u64) -> Value {
    let pair = Value::Tuple(vec![Value::text(format!("/dev/block/{number}")), Value::Uint64(value)]);
    Value::Array("(st)".into(), vec![pair])
}

/// Gives the properties for device rules.
///
/// systemd knows what is allowed and nothing else. Rules that say more than that, and ones about a minor number of any
/// major, it can't be told, and is told that everything goes; on v2 husk's own filter, which is exact, holds either way.
/// With `must_deny`, for v1, where systemd and husk write the same list, those devices are left out instead.
pub(in crate::cgroups) fn devices(rules: &Rules, must_deny: bool) -> Properties {
    let list = match rules.exceptions() {
        Ok(list) if !rules.allow_by_default => Some(list),
        _ => None,
    };
    let list = list.and_then(|list| {
        let entries = list.iter().filter_map(|(devices, access)| Some((device_name(*devices)?, letters(*access))));
        let entries: Vec<(String, String)> = entries.collect();
        (must_deny || entries.len() == list.len()).then_some(entries)
    });
    let policy = if list.is_some() { "strict" } else { "auto" };
    let pairs = list.into_iter().flatten();
    let pairs = pairs.map(|(name, access)| Value::Tuple(vec![Value::Text(name), Value::Text(access)])).collect();
    vec![("DevicePolicy".into(), Value::text(policy)), ("DeviceAllow".into(), Value::Array("(ss)".into(), pairs))]
}

fn letters(access: Access) -> String {
    access.letters().collect()
}

fn device_name(devices: Devices) -> Option<String> {
    let kind = match devices.kind {
        Kind::Character => "char",
        Kind::Block => "block",
    };
    match (devices.major, devices.minor) {
        (None, None) => Some(format!("{kind}-*")),
        (Some(major), None) => Some(format!("{kind}-{major}")),
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (None, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests;
