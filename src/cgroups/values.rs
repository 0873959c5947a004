//! What v1 and v2 read alike in `linux.resources`, and the checks on what goes into file names and lines.

use std::fmt::{Arguments, Write as _};

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use super::plan::Warning;
use super::setting::{Setting, Step};
use crate::error::{Error, Result};

/// A controller that takes limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    // A process can't enter a v1 cpuset without CPUs, so it comes first.
    Cpuset,
    Memory,
    Cpu,
    Pids,
    Io,
    Hugetlb,
    Rdma,
    NetClass,
    NetPriority,
}

impl Controller {
    pub(super) const ALL: [Self; 9] = [
        Self::Cpuset,
        Self::Memory,
        Self::Cpu,
        Self::Pids,
        Self::Io,
        Self::Hugetlb,
        Self::Rdma,
        Self::NetClass,
        Self::NetPriority,
    ];

    pub(super) fn legacy_name(self) -> &'static str {
        match self {
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "blkio",
            Self::Hugetlb => "hugetlb",
            Self::Rdma => "rdma",
            Self::NetClass => "net_cls",
            Self::NetPriority => "net_prio",
        }
    }

    /// Says whether v2 has such a controller.
    pub(super) fn is_on_unified(self) -> bool {
        !matches!(self, Self::NetClass | Self::NetPriority)
    }
}

/// Reads a size: zero and nothing are unset, -1 is no limit.
pub(super) fn size(field: &str, value: Option<i64>) -> Result<Option<i64>> {
    match value {
        None | Some(0) => Ok(None),
        Some(..=-2) => Err(Error::invalid(format!("linux.resources.{field}: neither a size nor -1"))),
        value => Ok(value),
    }
}

pub(super) fn cpuset(limits: &LinuxCpu) -> impl Iterator<Item = Step> {
    let files = [("cpu.cpus", "cpuset.cpus", limits.cpus()), ("cpu.mems", "cpuset.mems", limits.mems())];
    files.into_iter().filter_map(|(field, file, value)| {
        let value = value.as_ref().filter(|value| !value.is_empty())?;
        Some(vec![Setting::new(field, file, value)])
    })
}

pub(super) fn pids(resources: &LinuxResources) -> Option<Step> {
    let limit = resources.pids().as_ref()?.limit();
    let setting = match limit {
        ..0 => Setting::new("pids.limit", "pids.max", "max"),
        // One task and none are the same to those inside, but with none clone3(2) into the cgroup fails.
        0 => Setting::new("pids.limit", "pids.max", 1),
        limit => Setting::new("pids.limit", "pids.max", limit),
    };
    Some(vec![setting])
}

pub(super) fn hugepages(limit: &LinuxHugepageLimit, suffix: &str) -> Result<[Step; 2]> {
    let size = limit.page_size();
    // The size becomes part of a file name.
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
    if digits.is_empty() || digits.starts_with('0') || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(Error::invalid(format!(
            "linux.resources.hugepageLimits[].pageSize: `{size}` is not a number followed by KB, MB or GB"
        )));
    }
    // The type of the field is signed, that of the specification is not.
    let value = limit.limit().cast_unsigned();
    let field = "hugepageLimits";
    Ok([
        vec![Setting::new(field, format!("hugetlb.{size}.{suffix}"), value)],
        // Reservations are counted since 5.7.
        vec![Setting::new(field, format!("hugetlb.{size}.rsvd.{suffix}"), value).or_skip()],
    ])
}

pub(super) fn rdma(resources: &LinuxResources) -> Result<Option<Step>> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_unstable_by_key(|(name, _)| *name);
    let mut lines = String::new();
    for (name, limits) in devices {
        check_word("rdma", name)?;
        push_line(&mut lines, format_args!("{name}"));
        for (key, value) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(value) = value {
                // Writing to a string cannot fail.
                let _ = write!(lines, " {key}={value}");
            }
        }
    }
    Ok((!lines.is_empty()).then(|| vec![Setting::new("rdma", "rdma.max", lines)]))
}

pub(super) fn warn_of_kernel_memory(limits: &LinuxMemory, warnings: &mut Vec<Warning>) {
    for (field, value) in [("memory.kernel", limits.kernel()), ("memory.kernelTCP", limits.kernel_tcp())] {
        if value.is_some_and(|value| value != 0 && value != -1) {
            warnings.push(Warning::new(format!(
                "linux.resources.{field} is ignored: kernel memory counts as memory, and has no limit of its own"
            )));
        }
    }
}

/// Refuses a name that would be more than one word of a line.
pub(super) fn check_word(field: &str, word: &str) -> Result<()> {
    if word.is_empty() || word.chars().any(|letter| letter.is_whitespace() || letter.is_control()) {
        return Err(Error::invalid(format!("linux.resources.{field}: `{}` is not a name", word.escape_debug())));
    }
    Ok(())
}

/// Adds a line, without a newline at the end.
pub(super) fn push_line(lines: &mut String, line: Arguments<'_>) {
    if !lines.is_empty() {
        lines.push('\n');
    }
    // Writing to a string cannot fail.
    let _ = lines.write_fmt(line);
}
