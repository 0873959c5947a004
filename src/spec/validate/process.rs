//! Judges what is to be executed, for the first process of a container and for those of `exec`.

use oci_spec::runtime::{ExecCPUAffinity, LinuxSchedulerPolicy, Process, Scheduler};

use super::{bad, check_absolute, check_no_nul};
use crate::error::{Error, Result};
use crate::support::number_set::NumberSet;

/// The id that system calls take for "leave it as it is": a process asked to get it would stay root.
const NO_ID: u32 = u32::MAX;

/// Judges a process; fields are named as in config.json.
pub fn validate_process(process: &Process) -> Result<()> {
    // The words of these three are runc's.
    if process.cwd().as_os_str().is_empty() {
        return Err(Error::invalid("process.cwd: Cwd property must not be empty"));
    }
    if !process.cwd().is_absolute() {
        return Err(Error::invalid("process.cwd: Cwd must be an absolute path"));
    }
    check_absolute("process.cwd", process.cwd())?;
    let args = process.args().as_deref().unwrap_or_default();
    if args.is_empty() {
        return Err(Error::invalid("process.args: args must not be empty"));
    }
    for (index, text) in args.iter().enumerate() {
        check_no_nul(format_args!("process.args[{index}]"), text)?;
    }
    for (index, entry) in process.env().iter().flatten().enumerate() {
        check_variable(entry).map_err(|what| bad(format_args!("process.env[{index}]"), what))?;
    }
    check_user(process)?;
    if let Some(size) = process.console_size()
        && (size.height() > u64::from(u16::MAX) || size.width() > u64::from(u16::MAX))
    {
        return Err(bad("process.consoleSize", format_args!("{}x{} is too large", size.width(), size.height())));
    }
    check_limits(process)?;
    if let Some(adjustment) = process.oom_score_adj().filter(|value| !(-1000..=1000).contains(value)) {
        return Err(bad("process.oomScoreAdj", format_args!("{adjustment} is not from -1000 to 1000")));
    }
    if let Some(scheduler) = process.scheduler() {
        check_scheduler(scheduler)?;
    }
    if let Some(priority) = process.io_priority().map(|io| io.priority()).filter(|value| !(0..=7).contains(value)) {
        return Err(bad("process.ioPriority.priority", format_args!("{priority} is not from 0 to 7")));
    }
    if let Some(affinity) = process.exec_cpu_affinity() {
        check_affinity(affinity)?;
    }
    Ok(())
}

fn check_affinity(affinity: &ExecCPUAffinity) -> Result<()> {
    for (name, list) in [("initial", affinity.initial()), ("final", affinity.cpu_affinity_final())] {
        if let Err(cause) = NumberSet::parse(list.as_deref().unwrap_or_default()) {
            return Err(bad(format_args!("process.execCPUAffinity.{name}"), cause));
        }
    }
    Ok(())
}

/// An entry without `=` would be looked up in the caller's environment by some shells and engines (CVE-2026-57231).
fn check_variable(entry: &str) -> Result<(), String> {
    match entry.split_once('=') {
        _ if entry.contains('\0') => Err("contains a NUL byte".to_owned()),
        None => Err(format!("{entry:?} is not NAME=value")),
        Some(("", _)) => Err(format!("{entry:?} has an empty name")),
        Some(_) => Ok(()),
    }
}

fn check_user(process: &Process) -> Result<()> {
    let user = process.user();
    for (name, id) in [("uid", user.uid()), ("gid", user.gid())] {
        if id == NO_ID {
            return Err(bad(format_args!("process.user.{name}"), format_args!("{id} is not an id")));
        }
    }
    if user.additional_gids().iter().flatten().any(|gid| *gid == NO_ID) {
        return Err(bad("process.user.additionalGids", format_args!("{NO_ID} is not an id")));
    }
    if let Some(umask) = user.umask().filter(|umask| *umask > 0o777) {
        return Err(bad("process.user.umask", format_args!("{umask} is above 511 (0777)")));
    }
    Ok(())
}

fn check_limits(process: &Process) -> Result<()> {
    let limits = process.rlimits().as_deref().unwrap_or_default();
    for (index, limit) in limits.iter().enumerate() {
        if limits[..index].iter().any(|earlier| earlier.typ() == limit.typ()) {
            return Err(bad(format_args!("process.rlimits[{index}]"), format_args!("a second {}", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            let what = format!("{}: the soft limit {} is above the hard {}", limit.typ(), limit.soft(), limit.hard());
            return Err(bad(format_args!("process.rlimits[{index}]"), what));
        }
    }
    Ok(())
}

/// The rules of sched(7).
fn check_scheduler(scheduler: &Scheduler) -> Result<()> {
    let policy = *scheduler.policy();
    let nice = scheduler.nice().unwrap_or_default();
    let is_fair = matches!(policy, LinuxSchedulerPolicy::SchedOther | LinuxSchedulerPolicy::SchedBatch);
    // runc's suite gives one to SCHED_DEADLINE; the other policies know none, and the kernel passes it over.
    if is_fair && !(-20..=19).contains(&nice) {
        return Err(bad("process.scheduler.nice", format_args!("{nice} is not possible with {policy}")));
    }
    let priority = scheduler.priority().unwrap_or_default();
    let is_realtime = matches!(policy, LinuxSchedulerPolicy::SchedFifo | LinuxSchedulerPolicy::SchedRr);
    let priorities = if is_realtime { 1..=99 } else { 0..=0 };
    if !priorities.contains(&priority) {
        return Err(bad("process.scheduler.priority", format_args!("{priority} is not possible with {policy}")));
    }
    let times = [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|time| time.unwrap_or_default());
    let [runtime, deadline, period] = times;
    if policy == LinuxSchedulerPolicy::SchedDeadline {
        if runtime == 0 || runtime > deadline || period != 0 && deadline > period {
            return Err(bad("process.scheduler", "SCHED_DEADLINE needs 0 < runtime <= deadline <= period"));
        }
    } else if times != [0; 3] {
        return Err(bad(
            "process.scheduler",
            format_args!("runtime, deadline and period are not possible with {policy}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::refusal;
    use serde_json::json;

    #[test]
    fn wrong_processes_are_refused_by_field() {
        let limit = |soft: u64, hard: u64| json!({"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard});
        let rows = [
            ("process.cwd", json!(""), "process.cwd: Cwd property must not be empty"),
            ("process.cwd", json!("tmp"), "process.cwd: Cwd must be an absolute path"),
            ("process.cwd", json!("/a\0"), "process.cwd: contains a NUL byte"),
            ("process.args", json!([]), "process.args: args must not be empty"),
            ("process.args", json!(["a", "b\0"]), "process.args[1]: contains a NUL byte"),
            ("process.env", json!(["A=1", "FOO"]), "process.env[1]: \"FOO\" is not NAME=value"),
            ("process.env", json!(["=x"]), "process.env[0]: \"=x\" has an empty name"),
            ("process.env", json!(["A=\0"]), "process.env[0]: contains a NUL byte"),
            ("process.env", json!(["*"]), "process.env[0]: "),
            ("process.user.uid", json!(4_294_967_295_u32), "process.user.uid: 4294967295 is not an id"),
            ("process.user.gid", json!(4_294_967_295_u32), "process.user.gid: 4294967295 is not an id"),
            ("process.user.additionalGids", json!([4_294_967_295_u32]), "process.user.additionalGids: "),
            ("process.user.umask", json!(512), "process.user.umask: 512"),
            ("process.consoleSize", json!({"height": 65536, "width": 1}), "process.consoleSize: "),
            ("process.rlimits", json!([limit(1, 1), limit(1, 1)]), "process.rlimits[1]: a second RLIMIT_NOFILE"),
            ("process.rlimits", json!([limit(2, 1)]), "process.rlimits[0]: RLIMIT_NOFILE: the soft limit 2"),
            ("process.oomScoreAdj", json!(1001), "process.oomScoreAdj: 1001"),
            ("process.scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice: 20"),
            ("process.scheduler", json!({"policy": "SCHED_FIFO"}), "process.scheduler.priority: 0"),
            (
                "process.scheduler",
                json!({"policy": "SCHED_DEADLINE", "runtime": 2, "deadline": 1}),
                "process.scheduler: ",
            ),
            ("process.scheduler", json!({"policy": "SCHED_IDLE", "period": 1}), "process.scheduler: "),
            (
                "process.ioPriority",
                json!({"class": "IOPRIO_CLASS_BE", "priority": 8}),
                "process.ioPriority.priority: 8",
            ),
            (
                "process.execCPUAffinity",
                json!({"initial": "0-3", "final": "0,x"}),
                "config.json: process.execCPUAffinity.final: Invalid execCPUAffinity format: 0,x",
            ),
            (
                "process.execCPUAffinity",
                json!({"initial": "3-0"}),
                "process.execCPUAffinity.initial: \"3-0\" ends before it begins",
            ),
        ];
        for (pointer, value, expected) in rows {
            let report = refusal(pointer, &value);
            assert!(report.starts_with(expected), "{pointer} = {value}: {report:?} does not begin with {expected:?}");
        }
    }

    #[test]
    fn odd_and_right_processes_pass() {
        let rows = [
            ("process.env", json!(["A=", "B==", "C=ä b\n", "A=again"])),
            ("process.rlimits", json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 18_446_744_073_709_551_615_u64}])),
            ("process.user", json!({"uid": 65534, "additionalGids": [0, 1, 1], "umask": 18})),
            ("process.consoleSize", json!({"height": 0, "width": 0})),
            ("process.scheduler", json!({"policy": "SCHED_DEADLINE", "nice": 19, "runtime": 1, "deadline": 1})),
            ("process.execCPUAffinity", json!({"initial": "", "final": "0-3, 7"})),
            ("process.apparmorProfile", json!("")),
            ("process.selinuxLabel", json!("")),
        ];
        for (pointer, value) in rows {
            assert_eq!(refusal(pointer, &value), "", "{pointer} = {value}");
        }
    }
}
