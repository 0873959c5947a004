//! What `linux.resources` means for the controllers of v2.
//!
//! The fields were made for v1; where v2 counts otherwise, they are converted as runc and crun do, and what v2 has not
//! at all becomes a warning. Pure but for `current`, which answers what a file of the cgroup holds now: an update that
//! names one half of a pair must not lose the other.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::plan::Warning;
use super::setting::{Setting, Step};
use super::values::{self, Controller};
use crate::error::{Error, Result};

/// Answers what a file of the cgroup holds now; nothing for a cgroup that is yet to be made.
pub(super) type Current<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Gives the settings for one controller.
pub(super) fn steps(
    controller: Controller,
    resources: &LinuxResources,
    current: Current<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    match controller {
        Controller::Memory => {
            if let Some(limits) = resources.memory() {
                memory(limits, current, &mut steps, warnings)?;
            }
        }
        Controller::Cpu => {
            if let Some(limits) = resources.cpu() {
                cpu(limits, current, &mut steps, warnings);
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
                block_io(limits, &mut steps, warnings);
            }
        }
        Controller::Hugetlb => {
            for limit in resources.hugepage_limits().iter().flatten() {
                steps.extend(values::hugepages(limit, "max")?);
            }
        }
        Controller::Rdma => steps.extend(values::rdma(resources)?),
        Controller::NetClass => {
            if let Some(network) = resources.network() {
                warn(warnings, "network.classID", network.class_id().is_some_and(|class| class != 0));
            }
        }
        Controller::NetPriority => {
            if let Some(network) = resources.network() {
                let asked = network.priorities().as_ref().is_some_and(|list| !list.is_empty());
                warn(warnings, "network.priorities", asked);
            }
        }
    }
    Ok(steps)
}

/// Gives the settings of `linux.resources.unified`, which name files of v2 outright.
pub(super) fn named(resources: &LinuxResources) -> Result<Vec<Step>> {
    let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
    entries.sort_unstable();
    entries.into_iter().map(|(file, value)| check_named(file).map(|()| setting_named(file, value))).collect()
}

fn setting_named(file: &str, value: &str) -> Step {
    vec![Setting::new("unified", file.to_owned(), value.trim_end_matches('\n'))]
}

fn check_named(file: &str) -> Result<()> {
    let cause = if file.contains('/') || file.contains('\0') {
        "must be a file name (no slashes)"
    } else if !file.contains('.') || file.starts_with('.') {
        "must be in the form CONTROLLER.PARAMETER"
    } else if matches!(file, "cgroup.procs" | "cgroup.threads" | "cgroup.kill") {
        "is an action, not a limit"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("linux.resources.unified: `{}` {cause}", file.escape_debug())))
}

fn memory(
    limits: &LinuxMemory,
    current: Current<'_>,
    steps: &mut Vec<Step>,
    warnings: &mut Vec<Warning>,
) -> Result<()> {
    let limit = values::size("memory.limit", limits.limit())?;
    let swap = values::size("memory.swap", limits.swap())?;
    if limits.check_before_update() == Some(true) {
        check_usage(limit, swap, current)?;
    }
    let swap_alone = match (limit, swap) {
        // v1 lifts both together.
        (Some(-1), None) | (_, Some(-1)) => Some(-1),
        (_, None) => None,
        (limit, Some(total)) => {
            let limit = match limit {
                Some(limit) => Some(limit),
                None => current("memory.max").and_then(|text| if text == "max" { Some(-1) } else { text.parse().ok() }),
            };
            match limit {
                Some(-1) => Some(total),
                Some(limit) if total >= limit => Some(total - limit),
                Some(_) => {
                    return Err(Error::invalid(
                        "linux.resources.memory.swap: less than memory.limit, which it includes",
                    ));
                }
                None => {
                    return Err(Error::invalid(
                        "linux.resources.memory.swap: unable to set swap limit without memory limit",
                    ));
                }
            }
        }
    };
    if let Some(swap) = swap_alone {
        let setting = Setting::new("memory.swap", "memory.swap.max", or_max(swap));
        // A kernel that does not count swap has none to limit, or no way to limit it.
        steps.push(vec![if matches!(swap, -1 | 0) { setting.or_skip() } else { setting }]);
    }
    if let Some(limit) = limit {
        steps.push(vec![Setting::new("memory.limit", "memory.max", or_max(limit))]);
    }
    if let Some(reservation) = values::size("memory.reservation", limits.reservation())? {
        steps.push(vec![Setting::new("memory.reservation", "memory.low", or_max(reservation))]);
    }
    values::warn_of_kernel_memory(limits, warnings);
    warn(warnings, "memory.swappiness", limits.swappiness().is_some_and(|value| value != u64::MAX));
    warn(warnings, "memory.disableOOMKiller", limits.disable_oom_killer() == Some(true));
    Ok(())
}

/// Refuses a limit below what is in use, which would end in the OOM killer.
fn check_usage(limit: Option<i64>, swap: Option<i64>, current: Current<'_>) -> Result<()> {
    let Some(usage) = current("memory.current").and_then(|text| text.parse::<i64>().ok()) else { return Ok(()) };
    // runc's words.
    for (name, limit) in [("memory+swap", swap), ("memory", limit)] {
        if let Some(limit @ 0..) = limit
            && limit <= usage
        {
            return Err(Error::invalid(format!("rejecting {name} limit {limit} <= usage {usage}")));
        }
    }
    Ok(())
}

fn cpu(limits: &LinuxCpu, current: Current<'_>, steps: &mut Vec<Step>, warnings: &mut Vec<Warning>) {
    // An idle cgroup has no weight of its own: the kernel refuses one.
    let mut share = Step::new();
    if let Some(shares) = limits.shares().filter(|shares| *shares != 0) {
        share.push(Setting::new("cpu.shares", "cpu.weight", weight_of_shares(shares)));
    }
    if let Some(idle) = limits.idle() {
        let setting = Setting::new("cpu.idle", "cpu.idle", idle);
        share.push(if idle == 0 { setting.or_skip() } else { setting });
    }
    if !share.is_empty() {
        steps.push(share);
    }
    let quota = limits.quota().filter(|quota| *quota != 0);
    let period = limits.period().filter(|period| *period != 0);
    let mut bandwidth = Step::new();
    let quota_text = quota.map(|quota| if quota > 0 { quota.to_string() } else { "max".into() });
    match (quota_text, period) {
        // The kernel keeps the period that it has, 100 ms at first.
        (Some(quota), None) => bandwidth.push(Setting::new("cpu.quota", "cpu.max", quota)),
        (Some(quota), Some(period)) => {
            bandwidth.push(Setting::new("cpu.quota", "cpu.max", format_args!("{quota} {period}")));
        }
        (None, Some(period)) => {
            let now = current("cpu.max");
            let quota = now.as_deref().and_then(|text| text.split(' ').next()).unwrap_or("max");
            bandwidth.push(Setting::new("cpu.period", "cpu.max", format_args!("{quota} {period}")));
        }
        (None, None) => {}
    }
    if let Some(burst) = limits.burst() {
        let setting = Setting::new("cpu.burst", "cpu.max.burst", burst);
        bandwidth.push(if burst == 0 { setting.or_skip() } else { setting });
    }
    if !bandwidth.is_empty() {
        steps.push(bandwidth);
    }
    warn(warnings, "cpu.realtimeRuntime", limits.realtime_runtime().is_some_and(|value| value != 0));
    warn(warnings, "cpu.realtimePeriod", limits.realtime_period().is_some_and(|value| value != 0));
}

/// Converts shares (2 to 262144, usually 1024) to a weight (1 to 10000, usually 100).
///
/// A parabola in the logarithms through the two ends and the usual value, agreed on by runc and crun in 2025
/// (kubernetes issue 131216): the straight line of before gave 39 for 1024.
fn weight_of_shares(shares: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "below 2^18")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000")]
    let between = |shares: u64| {
        let log = (shares as f64).log2();
        let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
        10_f64.powf(exponent).ceil() as u64
    };
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        shares => between(shares),
    }
}

fn block_io(limits: &LinuxBlockIo, steps: &mut Vec<Step>, warnings: &mut Vec<Warning>) {
    // BFQ takes the same numbers as on v1; io.weight, of the iocost controller, has another scale.
    if let Some(weight) = limits.weight().filter(|weight| *weight != 0) {
        let setting = Setting::new("blockIO.weight", "io.bfq.weight", weight);
        steps.push(vec![setting.or("io.weight", weight_of_block_io(weight))]);
    }
    let (mut bfq, mut cost) = (String::new(), String::new());
    for device in limits.weight_device().iter().flatten() {
        let (major, minor) = (device.major(), device.minor());
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            values::push_line(&mut bfq, format_args!("{major}:{minor} {weight}"));
            values::push_line(&mut cost, format_args!("{major}:{minor} {}", weight_of_block_io(weight)));
        }
        warn(warnings, "blockIO.weightDevice[].leafWeight", device.leaf_weight().is_some_and(|weight| weight != 0));
    }
    if !bfq.is_empty() {
        steps.push(vec![Setting::new("blockIO.weightDevice", "io.bfq.weight", bfq).or("io.weight", cost)]);
    }
    for (field, key, devices) in [
        ("blockIO.throttleReadBpsDevice", "rbps", limits.throttle_read_bps_device()),
        ("blockIO.throttleWriteBpsDevice", "wbps", limits.throttle_write_bps_device()),
        ("blockIO.throttleReadIOPSDevice", "riops", limits.throttle_read_iops_device()),
        ("blockIO.throttleWriteIOPSDevice", "wiops", limits.throttle_write_iops_device()),
    ] {
        steps.extend(throttle(field, key, devices.as_deref().unwrap_or_default()));
    }
    warn(warnings, "blockIO.leafWeight", limits.leaf_weight().is_some_and(|weight| weight != 0));
}

fn throttle(field: &'static str, key: &str, devices: &[LinuxThrottleDevice]) -> Option<Step> {
    let mut lines = String::new();
    for device in devices {
        let (major, minor) = (device.major(), device.minor());
        match device.rate() {
            // v1's way to take a limit away; v2 refuses the number.
            0 => values::push_line(&mut lines, format_args!("{major}:{minor} {key}=max")),
            rate => values::push_line(&mut lines, format_args!("{major}:{minor} {key}={rate}")),
        }
    }
    (!lines.is_empty()).then(|| vec![Setting::new(field, "io.max", lines)])
}

/// Stretches 10..=1000 to 1..=10000.
fn weight_of_block_io(weight: u16) -> u64 {
    1 + u64::from(weight).saturating_sub(10) * 9999 / 990
}

fn or_max(size: i64) -> String {
    if size == -1 { "max".into() } else { size.to_string() }
}

fn warn(warnings: &mut Vec<Warning>, field: &str, asked: bool) {
    if asked {
        warnings.push(Warning::new(format!("linux.resources.{field} is ignored: cgroup v2 has nothing like it")));
    }
}
