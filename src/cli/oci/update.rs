//! `update`: changes the limits of a container, named one by one or in a document.

use std::path::{Path, PathBuf};

use clap::Parser;
use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value, json};

use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::{Context, Error, Result};
use crate::runtime::update::Update as Change;
use crate::support::units::parse_size;

/// Change the resource limits of a container
#[derive(Debug, Parser)]
#[command(name = "update", allow_negative_numbers = true)]
pub(super) struct Update {
    /// File with the limits to change as JSON (linux.resources of config.json), or - for standard input; the other options
    /// are ignored
    #[arg(long, short, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period that the CPU quota is for, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<String>,
    /// CPU time in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_quota: Option<String>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<String>,
    /// CPU shares, relative to others
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<String>,
    /// Period that the realtime CPU limit is for, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<String>,
    /// Realtime CPU time in a period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<String>,
    /// CPUs to use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Whether to run only when nobody else does: 0 or 1
    #[arg(long, value_name = "0|1")]
    cpu_idle: Option<String>,
    /// Memory, in bytes or with a unit
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory that is left alone when the host runs short
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<String>,
    /// Memory and swap together; -1 for as much swap as there is
    #[arg(long, value_name = "SIZE")]
    memory_swap: Option<String>,
    /// Number of processes; -1 for as many as there may be
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<i64>,
    /// Schema of the L3 cache (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Schema of the memory bandwidth (Intel RDT)
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// Ignored: kernel memory has no limit of its own any more
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory: Option<String>,
    /// Ignored, as well
    #[arg(long, value_name = "SIZE", hide = true)]
    kernel_memory_tcp: Option<String>,
    /// Container id
    id: String,
}

impl Verb for Update {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let id = self.id.clone();
        let change = Change {
            resources: match &self.resources {
                Some(file) => read(file)?,
                None => self.named()?,
            },
            l3_cache_schema: self.l3_cache_schema,
            memory_bandwidth_schema: self.mem_bw_schema,
        };
        let mut warnings: Vec<String> =
            invocation.runtime.update(&id, change)?.iter().map(ToString::to_string).collect();
        if self.kernel_memory.is_some() || self.kernel_memory_tcp.is_some() {
            warnings.push("Kernel memory settings are ignored and will be removed".to_owned());
        }
        invocation.log.warnings(&warnings);
        Ok(Status::Success)
    }
}

impl Update {
    /// Puts the options into the shape of `linux.resources`, so that there is one way into the cgroups.
    fn named(&self) -> Result<LinuxResources> {
        let (mut cpu, mut memory, mut resources) = (Map::new(), Map::new(), Map::new());
        for (option, value, field) in [
            ("cpu-period", &self.cpu_period, "period"),
            ("cpu-quota", &self.cpu_quota, "quota"),
            ("cpu-burst", &self.cpu_burst, "burst"),
            ("cpu-share", &self.cpu_share, "shares"),
            ("cpu-rt-period", &self.cpu_rt_period, "realtimePeriod"),
            ("cpu-rt-runtime", &self.cpu_rt_runtime, "realtimeRuntime"),
            ("cpu-idle", &self.cpu_idle, "idle"),
        ] {
            if let Some(text) = given(value.as_ref()) {
                let is_signed = matches!(field, "quota" | "realtimeRuntime" | "idle");
                let number =
                    if is_signed { text.parse().map(|n: i64| json!(n)) } else { text.parse().map(|n: u64| json!(n)) };
                cpu.insert(field.into(), number.with_context(|| format!("invalid value for {option}: {text:?}"))?);
            }
        }
        for (value, field) in [(&self.cpuset_cpus, "cpus"), (&self.cpuset_mems, "mems")] {
            if let Some(text) = given(value.as_ref()) {
                cpu.insert(field.into(), json!(text));
            }
        }
        for (option, value, field) in [
            ("memory", &self.memory, "limit"),
            ("memory-reservation", &self.memory_reservation, "reservation"),
            ("memory-swap", &self.memory_swap, "swap"),
        ] {
            if let Some(text) = given(value.as_ref()) {
                let size = match text {
                    "-1" => json!(-1),
                    text => json!(parse_size(text).with_context(|| format!("invalid value for {option}"))?),
                };
                memory.insert(field.into(), size);
            }
        }
        for (field, values) in [("cpu", cpu), ("memory", memory)] {
            if !values.is_empty() {
                resources.insert(field.into(), Value::Object(values));
            }
        }
        if let Some(limit) = self.pids_limit {
            resources.insert("pids".into(), json!({ "limit": limit }));
        }
        if let Some(weight) = self.blkio_weight.filter(|weight| *weight != 0) {
            resources.insert("blockIO".into(), json!({ "weight": weight }));
        }
        Ok(serde_json::from_value(Value::Object(resources))?)
    }
}

/// An empty value is none: callers' scripts pass what they have.
fn given(value: Option<&String>) -> Option<&str> {
    value.map(String::as_str).filter(|text| !text.is_empty())
}

fn read(file: &Path) -> Result<LinuxResources> {
    let describe = || format!("read resources from {}", file.display());
    let text = if file == Path::new("-") {
        std::io::read_to_string(std::io::stdin()).with_context(describe)?
    } else {
        std::fs::read_to_string(file).with_context(describe)?
    };
    let is_blank = text.trim().is_empty();
    if is_blank {
        return Err(Error::invalid("it is empty").context(describe()));
    }
    serde_json::from_str(&text).with_context(describe)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(words: &[&str]) -> Result<Value> {
        let update = Update::try_parse_from([&["update"], words, &["x"]].concat()).unwrap();
        Ok(serde_json::to_value(update.named()?).unwrap())
    }

    #[test]
    fn options_take_the_shape_of_the_configuration() {
        let table: &[(&[&str], Value)] = &[
            (&[], json!({})),
            (&["--memory", "50M", "--memory-swap", "-1"], json!({"memory": {"limit": 52_428_800, "swap": -1}})),
            (&["--memory=-1"], json!({"memory": {"limit": -1}})),
            (&["--cpu-quota", "-1", "--cpu-period", "1000"], json!({"cpu": {"quota": -1, "period": 1000}})),
            (&["--cpu-share", "1024", "--cpuset-cpus", "0-1"], json!({"cpu": {"shares": 1024, "cpus": "0-1"}})),
            (&["--cpu-idle", "1", "--cpu-burst", "0"], json!({"cpu": {"idle": 1, "burst": 0}})),
            (&["--pids-limit", "-1"], json!({"pids": {"limit": -1}})),
            (&["--pids-limit", "0", "--blkio-weight", "0"], json!({"pids": {"limit": 0}})),
            (&["--blkio-weight", "500", "--memory-reservation", "1g"], {
                json!({"blockIO": {"weight": 500}, "memory": {"reservation": 1_073_741_824}})
            }),
            (&["--kernel-memory", "1g", "--cpuset-mems", ""], json!({})),
        ];
        for (words, expected) in table {
            assert_eq!(named(words).unwrap(), *expected, "{words:?}");
        }
    }

    #[test]
    fn a_wrong_value_is_named() {
        let error = named(&["--cpu-quota", "much"]).unwrap_err().report();
        assert!(error.starts_with("invalid value for cpu-quota: \"much\""), "{error}");
        assert!(named(&["--memory", "much"]).unwrap_err().report().starts_with("invalid value for memory: "));
    }
}
