//! What the kernel's log says about a container's end: the OOM killer's victims, system calls that a filter ended, programs
//! that crashed. Read where it may be: root alone, mostly (`kernel.dmesg_restrict`).
//!
//! Its lines are the kernel's, but names in them are the workload's: each is read field by field, and bounded.

use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::{Context, Result};

/// A record of `/dev/kmsg` is no longer (`CONSOLE_EXT_LOG_MAX`; `PRINTKRB_RECORD_MAX` + prefix).
const RECORD_SIZE: usize = 8192;

/// As many records as a log of a few MiB holds.
const MOST_RECORDS: usize = 100_000;

/// How far the times of a run and of the log may differ: different clocks read them.
const TOLERANCE: Duration = Duration::from_secs(2);

/// Something that the kernel did to a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// The line without its prefix.
    pub(super) line: String,
    pub(super) kind: EventKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EventKind {
    /// `oom-kill:`
    OutOfMemory {
        /// The cgroup of the victim.
        victim_cgroup: String,
        /// The cgroup whose limit it was; none for the machine's own end.
        limit_cgroup: Option<String>,
        process: String,
    },
    /// `audit: type=1326`: a filter did something other than to answer with an error.
    Seccomp { command: String, system_call: i64, architecture: u32, signal: i32 },
    /// `segfault at`, `trap invalid opcode`, `general protection fault`.
    Crash { command: String },
}

/// Reads what was logged between two times (nanoseconds since 1970).
pub(super) fn read(from: u64, to: u64) -> Result<Vec<Event>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let log = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).context("open /dev/kmsg")?;
    let boot = boot_time();
    let tolerance = u64::try_from(TOLERANCE.as_nanos()).unwrap_or_default();
    let (from, to) = (from.saturating_sub(tolerance), to.saturating_add(tolerance));
    let mut events = Vec::new();
    let mut record = vec![0; RECORD_SIZE];
    for _ in 0..MOST_RECORDS {
        match rustix::io::read(&log, &mut record[..]) {
            Ok(0) | Err(Errno::AGAIN) => break,
            Ok(length) => {
                let text = String::from_utf8_lossy(&record[..length]);
                let Some((microseconds, line)) = parse(&text) else { continue };
                let time = boot.saturating_add(microseconds.saturating_mul(1000));
                if (from..=to).contains(&time) {
                    events.extend(event(line).map(|kind| Event { line: line.to_owned(), kind }));
                }
            }
            // Overwritten while it was read (Documentation/ABI/testing/dev-kmsg): the next read goes on.
            Err(Errno::PIPE | Errno::INTR) => {}
            Err(errno) => return Err(errno).context("read /dev/kmsg"),
        }
    }
    Ok(events)
}

/// When the log's clock was at 0, in nanoseconds since 1970. It stands still while the machine sleeps.
fn boot_time() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let since = Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default());
    super::super::record::now().saturating_sub(u64::try_from(since.as_nanos()).unwrap_or_default())
}

/// `6,339,5140900,-;text`, with lines of a dictionary after it.
fn parse(record: &str) -> Option<(u64, &str)> {
    let (prefix, text) = record.split_once(';')?;
    let time = prefix.split(',').nth(2)?.parse().ok()?;
    text.lines().next().map(|line| (time, line))
}

fn event(line: &str) -> Option<EventKind> {
    if let Some(fields) = line.strip_prefix("oom-kill:") {
        let field = |key: &str| fields.split(',').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        return Some(EventKind::OutOfMemory {
            victim_cgroup: field("task_memcg")?.to_owned(),
            limit_cgroup: field("oom_memcg").map(str::to_owned),
            process: field("task").unwrap_or_default().to_owned(),
        });
    }
    if line.starts_with("audit: type=1326 ") {
        let field = |key: &str| line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
        return Some(EventKind::Seccomp {
            command: field("comm")?.trim_matches('"').to_owned(),
            system_call: field("syscall")?.parse().ok()?,
            architecture: u32::from_str_radix(field("arch")?, 16).ok()?,
            signal: field("sig")?.parse().ok()?,
        });
    }
    // `name[pid]: segfault at …` and `traps: name[pid] general protection fault …`.
    let rest = line.strip_prefix("traps: ").unwrap_or(line);
    let (command, rest) = rest.split_once('[')?;
    let (pid, rest) = rest.split_once(']')?;
    let is_crash = pid.bytes().all(|byte| byte.is_ascii_digit())
        && ["segfault at ", "general protection", "trap "]
            .iter()
            .any(|word| rest.trim_start_matches([':', ' ']).starts_with(word));
    is_crash.then(|| EventKind::Crash { command: command.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read() {
        let record = "6,1234,5140900,-;audit: type=1326 x\n SUBSYSTEM=y\n";
        assert_eq!(parse(record), Some((5_140_900, "audit: type=1326 x")));
        assert_eq!(parse("no record"), None);
    }

    #[test]
    fn lines_are_the_kernels() {
        let oom = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,\
            oom_memcg=/husk/abc,task_memcg=/husk/abc,task=python,pid=77,uid=0";
        assert_eq!(
            event(oom),
            Some(EventKind::OutOfMemory {
                victim_cgroup: "/husk/abc".into(),
                limit_cgroup: Some("/husk/abc".into()),
                process: "python".into()
            })
        );
        let global = "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,task_memcg=/husk/abc,task=x,pid=7";
        assert!(matches!(event(global), Some(EventKind::OutOfMemory { limit_cgroup: None, .. })));
        let audit = "audit: type=1326 audit(1700000000.123:45): auid=0 uid=0 gid=0 ses=1 pid=9 comm=\"sh\" \
            exe=\"/bin/busybox\" sig=31 arch=c000003e syscall=165 compat=0 ip=0x7f code=0x80000000";
        assert_eq!(
            event(audit),
            Some(EventKind::Seccomp { command: "sh".into(), system_call: 165, architecture: 0xc000_003e, signal: 31 })
        );
        for line in [
            "crash[123]: segfault at 0 ip 000 sp 000 error 4 in crash[400000+1000]",
            "traps: crash[7] general protection fault ip:0 sp:0 error:0",
            "traps: crash[7] trap invalid opcode ip:0 sp:0 error:0 in crash",
        ] {
            assert_eq!(event(line), Some(EventKind::Crash { command: "crash".into() }), "{line}");
        }
        assert_eq!(event("usb 1-1: new device"), None);
        assert_eq!(event("systemd[1]: trapping nobody"), None);
    }
}
