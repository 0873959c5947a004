//! Reads what a container uses. Parsers are pure, over the text of one file each.
//!
//! A file that is missing is a feature that this kernel or this cgroup lacks, and counts as zero.

use std::collections::BTreeMap;
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::file;
use super::handle::Cgroup;
use super::stats::{
    BlockIo, BlockIoEntry, Cpu, Cpuset, Hugetlb, Memory, MemoryUsage, Pids, Pressure, PressureShare, Stats,
};
use crate::error::{Context, Result};

/// `USER_HZ`, in which v1 counts processor time for people.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

impl Cgroup {
    /// Reads all figures.
    pub fn stats(&self) -> Result<Stats> {
        let mut stats = Stats::default();
        if let Some(directory) = &self.unified {
            let reader = Reader(&directory.path);
            if self.legacy.is_empty() {
                reader.unified(&mut stats)?;
            }
            // Pressure needs no controller, so that a hybrid host has it too.
            stats.cpu.psi = reader.pressure("cpu.pressure");
            stats.memory.psi = reader.pressure("memory.pressure");
            stats.blkio.psi = reader.pressure("io.pressure");
        }
        for controller in ["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb"] {
            if let Some(directory) = self.with(controller) {
                Reader(&directory.path).legacy(controller, &mut stats)?;
            }
        }
        Ok(stats)
    }

    /// Says what the OOM killer did, and for what: nothing where it did not strike, which takes one file to know.
    pub fn out_of_memory(&self) -> Result<Option<OutOfMemory>> {
        let (directory, is_unified) = match (self.with("memory"), &self.unified) {
            (Some(directory), _) => (directory, false),
            (None, Some(directory)) => (directory, true),
            (None, None) => return Ok(None),
        };
        let reader = Reader(&directory.path);
        let events = reader.text(if is_unified { "memory.events" } else { "memory.oom_control" })?.unwrap_or_default();
        let count = |wanted| parse_keyed(&events).find(|(key, _)| *key == wanted).map_or(0, |(_, count)| count);
        let kills = count("oom_kill");
        if kills == 0 {
            return Ok(None);
        }
        let (limit, peak) = if is_unified {
            ("memory.max", "memory.peak")
        } else {
            ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
        };
        let limit = Some(reader.number(limit)?).filter(|limit| 0 < *limit && *limit < UNLIMITED);
        let peak = Some(reader.number(peak)?).filter(|peak| *peak > 0);
        let is_full = limit.zip(peak).is_some_and(|(limit, peak)| peak.saturating_add(BATCH) >= limit);
        let is_own = is_full
            || if is_unified {
                count("oom") > 0
            } else {
                // With swap counted, that limit is met first.
                reader.number("memory.failcnt")? > 0 || reader.number("memory.memsw.failcnt")? > 0
            };
        Ok(Some(OutOfMemory { cgroup: directory.shown.clone(), kills, limit, is_own, peak }))
    }
}

/// What the OOM killer did in a cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutOfMemory {
    /// As `/proc/PID/cgroup` shows it.
    pub cgroup: String,
    /// How many processes it killed.
    pub kills: u64,
    /// The cgroup's own limit in bytes, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// That limit was reached; else a cgroup above it, or the machine, had no more.
    pub is_own: bool,
    /// The most that was ever used, in bytes (v2 has it from Linux 5.19 on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak: Option<u64>,
}

/// From here on a limit of v1 is none: it is the last page below 2^63, and pages have different sizes.
const UNLIMITED: u64 = 1 << 62;

/// Memory is charged in batches of pages (`MEMCG_CHARGE_BATCH`): so much may be missing when the limit is met.
const BATCH: u64 = 1 << 20;

/// Reads the files of one cgroup.
struct Reader<'a>(&'a Path);

impl Reader<'_> {
    /// Reads a file; nothing if there is none.
    fn text(&self, name: &str) -> Result<Option<String>> {
        let path = self.0.join(name);
        match file::read_value(&path) {
            Ok(text) => Ok(Some(text)),
            Err(Errno::NOENT | Errno::NODEV | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno).with_context(|| format!("read {}", path.display())),
        }
    }

    fn number(&self, name: &str) -> Result<u64> {
        Ok(self.text(name)?.map_or(0, |text| parse_number(&text)))
    }

    fn keyed(&self, name: &str, key: &str) -> Result<u64> {
        Ok(self
            .text(name)?
            .map_or(0, |text| parse_keyed(&text).find(|entry| entry.0 == key).map_or(0, |entry| entry.1)))
    }

    fn pressure(&self, name: &str) -> Option<Pressure> {
        // Switched off, it cannot be read (ENOTSUP); that is no reason to have no other figures.
        self.text(name).ok().flatten().map(|text| parse_pressure(&text))
    }

    fn unified(&self, stats: &mut Stats) -> Result<()> {
        if let Some(text) = self.text("cpu.stat")? {
            stats.cpu = parse_cpu(&text);
        }
        self.pids(stats)?;
        self.unified_memory(&mut stats.memory)?;
        stats.oom_kills = self.keyed("memory.events", "oom_kill")?;
        if let Some(text) = self.text("io.stat")? {
            stats.blkio = parse_io(&text);
        }
        for size in hugepage_sizes() {
            let prefix = format!("hugetlb.{size}");
            let reserved = self.text(&format!("{prefix}.rsvd.current"))?;
            let usage = match reserved {
                Some(text) => parse_number(&text),
                None => self.number(&format!("{prefix}.current"))?,
            };
            let failcnt = self.keyed(&format!("{prefix}.events"), "max")?;
            stats.hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt });
        }
        Ok(())
    }

    fn unified_memory(&self, memory: &mut Memory) -> Result<()> {
        let Some(text) = self.text("memory.stat")? else { return Ok(()) };
        memory.raw = parse_keyed(&text).map(|(key, value)| (key.to_owned(), value)).collect();
        memory.cache = memory.raw.get("file").copied().unwrap_or_default();
        memory.usage = MemoryUsage {
            limit: self.number("memory.max")?,
            usage: self.number("memory.current")?,
            max: self.number("memory.peak")?,
            failcnt: 0,
        };
        if let Some(swap) = self.text("memory.swap.current")? {
            // v1 counts both together, and so does everybody who reads this.
            memory.swap = MemoryUsage {
                limit: self.number("memory.swap.max")?.saturating_add(memory.usage.limit),
                usage: parse_number(&swap).saturating_add(memory.usage.usage),
                max: 0,
                failcnt: 0,
            };
        }
        Ok(())
    }

    fn pids(&self, stats: &mut Stats) -> Result<()> {
        let limit = self.number("pids.max")?;
        stats.pids = Pids { current: self.number("pids.current")?, limit: if limit == u64::MAX { 0 } else { limit } };
        Ok(())
    }

    fn legacy(&self, controller: &str, stats: &mut Stats) -> Result<()> {
        match controller {
            "cpu" => self.legacy_throttling(stats),
            "cpuacct" => self.legacy_cpu(stats),
            "cpuset" => self.legacy_cpuset(stats),
            "memory" => self.legacy_memory(stats),
            "pids" => self.pids(stats),
            "blkio" => self.legacy_block_io(stats),
            "hugetlb" => self.legacy_hugetlb(stats),
            _ => Ok(()),
        }
    }

    fn legacy_throttling(&self, stats: &mut Stats) -> Result<()> {
        if let Some(text) = self.text("cpu.stat")? {
            stats.cpu.throttling = parse_cpu(&text).throttling;
        }
        Ok(())
    }

    fn legacy_cpu(&self, stats: &mut Stats) -> Result<()> {
        let usage = &mut stats.cpu.usage;
        usage.total = self.number("cpuacct.usage")?;
        usage.user = self.keyed("cpuacct.stat", "user")?.saturating_mul(NANOSECONDS_PER_TICK);
        usage.kernel = self.keyed("cpuacct.stat", "system")?.saturating_mul(NANOSECONDS_PER_TICK);
        let text = self.text("cpuacct.usage_percpu")?.unwrap_or_default();
        usage.percpu = text.split_whitespace().map(parse_number).collect();
        // cpu user system, after a line that says so
        let text = self.text("cpuacct.usage_all")?.unwrap_or_default();
        for line in text.lines().skip(1) {
            let mut fields = line.split(' ').skip(1).map(parse_number);
            usage.percpu_user.push(fields.next().unwrap_or_default());
            usage.percpu_kernel.push(fields.next().unwrap_or_default());
        }
        Ok(())
    }

    fn legacy_cpuset(&self, stats: &mut Stats) -> Result<()> {
        let flag = |name: &str| self.number(&format!("cpuset.{name}"));
        stats.cpuset = Cpuset {
            cpus: parse_list(&self.text("cpuset.cpus")?.unwrap_or_default()),
            cpu_exclusive: flag("cpu_exclusive")?,
            mems: parse_list(&self.text("cpuset.mems")?.unwrap_or_default()),
            mem_hardwall: flag("mem_hardwall")?,
            mem_exclusive: flag("mem_exclusive")?,
            memory_migrate: flag("memory_migrate")?,
            memory_spread_page: flag("memory_spread_page")?,
            memory_spread_slab: flag("memory_spread_slab")?,
            memory_pressure: flag("memory_pressure")?,
            sched_load_balance: flag("sched_load_balance")?,
            sched_relax_domain_level: self
                .text("cpuset.sched_relax_domain_level")?
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
        };
        Ok(())
    }

    fn legacy_memory(&self, stats: &mut Stats) -> Result<()> {
        let memory = &mut stats.memory;
        if let Some(text) = self.text("memory.stat")? {
            memory.raw = parse_keyed(&text).map(|(key, value)| (key.to_owned(), value)).collect();
            memory.cache = memory.raw.get("cache").copied().unwrap_or_default();
        }
        memory.usage = self.legacy_memory_usage("memory")?;
        memory.swap = self.legacy_memory_usage("memory.memsw")?;
        memory.kernel = self.legacy_memory_usage("memory.kmem")?;
        memory.kernel_tcp = self.legacy_memory_usage("memory.kmem.tcp")?;
        stats.oom_kills = self.keyed("memory.oom_control", "oom_kill")?;
        Ok(())
    }

    fn legacy_memory_usage(&self, kind: &str) -> Result<MemoryUsage> {
        Ok(MemoryUsage {
            limit: self.number(&format!("{kind}.limit_in_bytes"))?,
            usage: self.number(&format!("{kind}.usage_in_bytes"))?,
            max: self.number(&format!("{kind}.max_usage_in_bytes"))?,
            failcnt: self.number(&format!("{kind}.failcnt"))?,
        })
    }

    fn legacy_block_io(&self, stats: &mut Stats) -> Result<()> {
        // The first scheduler that has counted anything: BFQ, CFQ before 5.0, and throttling, which sees all but counts
        // only bytes and requests.
        let table = |name: &str, throttled: bool| -> Result<Vec<BlockIoEntry>> {
            let of_schedulers = [format!("blkio.bfq.{name}_recursive"), format!("blkio.{name}_recursive")];
            let of_throttling = [format!("blkio.throttle.{name}_recursive"), format!("blkio.throttle.{name}")];
            let more = if throttled { &of_throttling[..] } else { &[] };
            for file in of_schedulers.iter().chain(more) {
                let entries = self.text(file)?.map(|text| parse_legacy_io(&text)).unwrap_or_default();
                if !entries.is_empty() {
                    return Ok(entries);
                }
            }
            Ok(Vec::new())
        };
        stats.blkio = BlockIo {
            io_service_bytes_recursive: table("io_service_bytes", true)?,
            io_serviced_recursive: table("io_serviced", true)?,
            io_queued_recursive: table("io_queued", false)?,
            io_service_time_recursive: table("io_service_time", false)?,
            io_wait_time_recursive: table("io_wait_time", false)?,
            io_merged_recursive: table("io_merged", false)?,
            io_time_recursive: table("time", false)?,
            sectors_recursive: table("sectors", false)?,
            psi: stats.blkio.psi.take(),
        };
        Ok(())
    }

    fn legacy_hugetlb(&self, stats: &mut Stats) -> Result<()> {
        for size in hugepage_sizes() {
            let mut prefix = format!("hugetlb.{size}.rsvd");
            if self.text(&format!("{prefix}.usage_in_bytes"))?.is_none() {
                prefix = format!("hugetlb.{size}");
            }
            let usage = self.number(&format!("{prefix}.usage_in_bytes"))?;
            let max = self.number(&format!("{prefix}.max_usage_in_bytes"))?;
            let failcnt = self.number(&format!("{prefix}.failcnt"))?;
            stats.hugetlb.insert(size, Hugetlb { usage, max, failcnt });
        }
        Ok(())
    }
}

/// Gives the page sizes of this host as cgroup files spell them: `2MB`.
fn hugepage_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    entries.filter_map(|entry| hugepage_size(entry.file_name().to_str()?)).collect()
}

/// Turns `hugepages-2048kB` into `2MB`.
fn hugepage_size(name: &str) -> Option<String> {
    let size: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match size {
        0x10_0000.. => format!("{}GB", size >> 20),
        0x400.. => format!("{}MB", size >> 10),
        _ => format!("{size}KB"),
    })
}

/// Reads a number; `max` is all ones, and so is what does not fit.
fn parse_number(text: &str) -> u64 {
    match text.trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or_default(),
    }
}

fn parse_keyed(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(key, value)| (key, parse_number(value)))
}

/// Reads `cpu.stat`: v2 counts in microseconds, v1 has only throttling, in nanoseconds.
fn parse_cpu(text: &str) -> Cpu {
    let mut cpu = Cpu::default();
    for (key, value) in parse_keyed(text) {
        match key {
            "usage_usec" => cpu.usage.total = value.saturating_mul(1000),
            "user_usec" => cpu.usage.user = value.saturating_mul(1000),
            "system_usec" => cpu.usage.kernel = value.saturating_mul(1000),
            "nr_periods" => cpu.throttling.periods = value,
            "nr_throttled" => cpu.throttling.throttled_periods = value,
            "throttled_usec" => cpu.throttling.throttled_time = value.saturating_mul(1000),
            "throttled_time" => cpu.throttling.throttled_time = value,
            _ => {}
        }
    }
    cpu
}

/// Reads a list of ranges: `0-2,5`.
fn parse_list(text: &str) -> Vec<u16> {
    let mut numbers = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            numbers.extend(first..=last);
        }
    }
    numbers
}

/// Reads `io.stat` of v2 into the tables of v1: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0`.
fn parse_io(text: &str) -> BlockIo {
    let mut tables = BlockIo::default();
    for line in text.lines() {
        let Some((device, figures)) = line.split_once(' ') else { continue };
        let Some((major, minor)) = parse_device(device) else { continue };
        for (key, value) in figures.split(' ').filter_map(|figure| figure.split_once('=')) {
            let (table, op) = match key {
                "rbytes" => (&mut tables.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut tables.io_service_bytes_recursive, "Write"),
                "rios" => (&mut tables.io_serviced_recursive, "Read"),
                "wios" => (&mut tables.io_serviced_recursive, "Write"),
                _ => continue,
            };
            table.push(BlockIoEntry { major, minor, op: op.to_owned(), value: parse_number(value) });
        }
    }
    tables
}

/// Reads a table of v1: `8:0 Read 42` or `8:0 42`, with a total at the end.
fn parse_legacy_io(text: &str) -> Vec<BlockIoEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = parse_device(fields.next()?)?;
        let (op, value) = match (fields.next()?, fields.next()) {
            (op, Some(value)) => (op.to_owned(), value),
            (value, None) => (String::new(), value),
        };
        Some(BlockIoEntry { major, minor, op, value: parse_number(value) })
    };
    text.lines().filter_map(entry).collect()
}

fn parse_device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Reads `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` and the line for `full`.
fn parse_pressure(text: &str) -> Pressure {
    let mut shares = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split(' ');
        let kind = fields.next().unwrap_or_default();
        let mut share = PressureShare::default();
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            match key {
                "avg10" => share.avg10 = value.parse().unwrap_or_default(),
                "avg60" => share.avg60 = value.parse().unwrap_or_default(),
                "avg300" => share.avg300 = value.parse().unwrap_or_default(),
                "total" => share.total = parse_number(value),
                _ => {}
            }
        }
        shares.insert(kind, share);
    }
    Pressure { some: shares.remove("some").unwrap_or_default(), full: shares.remove("full").unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Sleeper, Top, resources};
    use super::super::{Hierarchies, Record};
    use super::*;
    use serde_json::json;

    #[test]
    fn figures_of_v2_take_the_shape_of_v1() {
        let tree = tempfile::tempdir().unwrap();
        for (name, text) in [
            (
                "cpu.stat",
                "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("memory.stat", "anon 1000\nfile 500\n"),
            ("memory.current", "2000\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "3000\n"),
            ("memory.swap.current", "10\n"),
            ("memory.swap.max", "20\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            (
                "cpu.pressure",
                "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
            ),
        ] {
            let path = tree.path().join(name);
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
            let fd = rustix::fs::open(path, flags, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
            file::write(fd, text.as_bytes()).unwrap();
        }
        let record: Record =
            serde_json::from_value(json!({"directories": [{"controllers": "", "path": tree.path(), "shown": "/box"}]}))
                .unwrap();
        let cgroup = Cgroup::open(record).unwrap();
        let mut stats = cgroup.stats().unwrap();
        stats.hugetlb.clear();
        assert_eq!(stats.oom_kills, 2);
        let expected = json!({"cgroup": "/box", "kills": 2, "is_own": true, "peak": 3000});
        assert_eq!(serde_json::to_value(cgroup.out_of_memory().unwrap()).unwrap(), expected);
        assert_eq!(
            serde_json::to_value(&stats).unwrap(),
            json!({
                "cpu": {
                    "usage": {"total": 30000, "kernel": 10000, "user": 20000},
                    "throttling": {"periods": 4, "throttledPeriods": 2, "throttledTime": 7000},
                    "psi": {"some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 9}},
                },
                "cpuset": {
                    "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0,
                    "memory_spread_page": 0, "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0,
                    "sched_relax_domain_level": 0,
                },
                "memory": {
                    "cache": 500,
                    "usage": {"limit": u64::MAX, "usage": 2000, "max": 3000, "failcnt": 0},
                    "swap": {"limit": u64::MAX, "usage": 2010, "failcnt": 0},
                    "raw": {"anon": 1000, "file": 500},
                },
                "pids": {"current": 3},
                "blkio": {
                    "ioServiceBytesRecursive": [
                        {"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write", "value": 2},
                    ],
                    "ioServicedRecursive": [
                        {"major": 8, "op": "Read", "value": 3}, {"major": 8, "op": "Write", "value": 4},
                    ],
                },
                "hugetlb": {},
            })
        );
    }

    #[test]
    fn figures_of_v1_are_read_from_this_kernel() {
        let Some(top) = Top::on_v1() else { return };
        let limits = resources(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": 9}}));
        let (cgroup, _) = top.plan(Some(&limits)).create().unwrap();
        let mut sleeper = Sleeper::start();
        cgroup.join(sleeper.pid(), Hierarchies::Every).unwrap();
        let stats = cgroup.stats().unwrap();
        assert_eq!(stats.pids, Pids { current: 1, limit: 9 });
        assert_eq!(stats.memory.usage.limit, 67_108_864);
        assert!(stats.memory.raw.contains_key("rss"));
        let cpus = stats.cpuset.cpus.len();
        assert!(cpus > 0 && stats.cpu.usage.percpu.len() >= cpus && stats.cpu.usage.percpu_user.len() >= cpus);
        assert_eq!(cgroup.out_of_memory().unwrap(), None);
        cgroup.kill_all().unwrap();
        sleeper.wait();
        cgroup.delete().unwrap();
    }

    #[test]
    fn tables_and_lists() {
        assert_eq!(parse_list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list(""), [0_u16; 0]);
        let table = parse_legacy_io("8:0 Read 5\n8:0 7\nTotal 12\n");
        assert_eq!(table.len(), 2);
        assert_eq!((&*table[0].op, table[0].value, table[1].value), ("Read", 5, 7));
        for (name, size) in [("2048kB", "2MB"), ("1048576kB", "1GB"), ("64kB", "64KB")] {
            assert_eq!(hugepage_size(&format!("hugepages-{name}")).as_deref(), Some(size));
        }
        assert_eq!(hugepage_size("hugepages-2048"), None);
    }
}
