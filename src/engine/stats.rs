//! `stats`: what containers use, as their cgroups count it. Keeps nothing: a share of the processors is the caller's to work
//! out from two samples.

use std::time::Instant;

use super::engine::Engine;
use super::options::Network;
use super::processes;
use super::record::Record;
use crate::cgroups::stats::Stats;
use crate::error::{Kind, Result};
use crate::runtime::container::Runtime;

/// What one container has used until a moment.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    /// Processor time, in nanoseconds.
    pub cpu: u64,
    /// Memory without what is only cached, as docker counts it.
    pub memory: u64,
    /// Of the container, or of the machine where it has none.
    pub memory_limit: u64,
    pub pids: u64,
    /// Bytes read and written.
    pub blocks: (u64, u64),
    /// Bytes received and sent.
    pub network: (u64, u64),
}

/// Takes samples of any number of containers.
pub struct Sampler {
    runtime: Runtime,
    machine_memory: u64,
}

impl Sampler {
    pub fn new(engine: &Engine) -> Result<Self> {
        Ok(Self { runtime: engine.runtime(false)?, machine_memory: machine_memory() })
    }

    /// Samples a container; `None` of one that does not run.
    pub fn sample(&self, engine: &Engine, record: &Record) -> Result<Option<Sample>> {
        let id = record.id.as_str();
        let (stats, pid) = match self.runtime.usage(id) {
            Ok(found) => found,
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::State) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Stats { cpu, memory, pids, blkio, .. } = stats;
        // Docker's: pages of files that nobody has touched for a while are free for the asking.
        let cache = ["inactive_file", "total_inactive_file"].iter().find_map(|name| memory.raw.get(*name));
        let moved = |op: &str| {
            let entries = blkio.io_service_bytes_recursive.iter().filter(|entry| entry.op == op);
            entries.map(|entry| entry.value).sum()
        };
        let network = match record.options.network {
            // The host's counters are not the container's.
            Network::Host => (0, 0),
            _ => traffic(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default()),
        };
        // Nobody counts where there is no cgroup, but how many they are can be seen.
        let count = if pids.current == 0 { count(engine, record)? } else { pids.current };
        Ok(Some(Sample {
            at: Instant::now(),
            cpu: cpu.usage.total,
            memory: memory.usage.usage.saturating_sub(cache.copied().unwrap_or_default()),
            memory_limit: match memory.usage.limit {
                0 => self.machine_memory,
                limit => limit.min(self.machine_memory),
            },
            pids: count,
            blocks: (moved("Read"), moved("Write")),
            network,
        }))
    }
}

fn count(engine: &Engine, record: &Record) -> Result<u64> {
    let found = engine.containers()?.find(record.id.as_str());
    match found.and_then(|container| processes::processes(engine, &container)) {
        Ok(pids) => Ok(pids.len() as u64),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::State) => Ok(0),
        Err(error) => Err(error),
    }
}

/// The memory of the machine, in bytes.
pub fn machine_memory() -> u64 {
    let info = rustix::system::sysinfo();
    #[expect(clippy::useless_conversion, reason = "a word of the machine's width")]
    u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit)).max(1)
}

/// Adds up what has passed all devices but the loopback (proc_pid_net(5)).
fn traffic(table: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in table.lines() {
        let Some((name, figures)) = line.split_once(':') else { continue };
        let figures: Vec<u64> = figures.split_ascii_whitespace().filter_map(|figure| figure.parse().ok()).collect();
        if name.trim() != "lo" && figures.len() >= 9 {
            sum = (sum.0 + figures[0], sum.1 + figures[8]);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_devices_but_the_loopback() {
        let table = "Inter-|   Receive\n face |bytes packets\n    lo: 7 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n  eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n  eth1: 1 1 0 0 0 0 0 0 2 2 0 0 0 0 0 0\n";
        assert_eq!(traffic(table), (11, 22));
        assert_eq!(traffic(""), (0, 0));
    }
}
