//! What can be read of this host: settings of the kernel, limits, places. What cannot be read is unknown, and no error.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use super::trial::{self, Steps};
use crate::cgroups::{self, Layout};
use crate::engine::settings::{self, Caller, Settings};
use crate::namespaces::rootless;
use crate::support::passwd;
use crate::sys::{landlock, process, seccomp};

/// Everything that the findings rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) is_root: bool,
    pub(super) kernel: String,
    /// What a container's start does, step by step; or why not even a child was possible.
    pub(super) trial: Result<Steps, String>,
    pub(super) max_user_namespaces: Option<u64>,
    pub(super) unprivileged_userns_clone: Option<u64>,
    pub(super) apparmor_restricts_userns: Option<u64>,
    /// How many ids a container can have, and why it is only one.
    pub(super) ids: u64,
    pub(super) lost_ids: Option<String>,
    pub(super) cgroups: Cgroups,
    pub(super) memfd_noexec: Option<u64>,
    pub(super) has_seccomp: bool,
    pub(super) landlock: u32,
    /// Why /dev/net/tun cannot be opened.
    pub(super) tun: Option<String>,
    pub(super) first_unprivileged_port: Option<u64>,
    pub(super) may_ping: bool,
    pub(super) open_files: (u64, u64),
    pub(super) data_root: Place,
    pub(super) run_root: Place,
    /// Whether a user's processes outlive the log-out; `None` where nobody ends them.
    pub(super) lingers: Option<bool>,
    pub(super) inside: Option<String>,
    pub(super) reads_kernel_log: bool,
}

/// What the caller may do with cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cgroups {
    pub(super) mode: cgroups::Mode,
    /// Where containers' cgroups would be made, by husk itself.
    pub(super) is_writable: bool,
    /// By systemd.
    pub(super) has_manager: bool,
    /// The controllers that can be used there.
    pub(super) controllers: Vec<String>,
}

/// A directory of husk's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Why it cannot be used.
    pub(super) problem: Option<String>,
    pub(super) file_system: String,
    pub(super) is_memory: bool,
    pub(super) free_bytes: u64,
    pub(super) free_inodes: Option<u64>,
}

/// `CAP_SYSLOG` or a lax `kernel.dmesg_restrict`.
const KERNEL_LOG: &str = "/dev/kmsg";

/// Gathers all of it.
pub(super) fn gather(settings: &Settings, caller: &Caller) -> Facts {
    let data_root = place(&settings.data_root, settings::open_data_root(&settings.data_root, caller.uid).err());
    let run_root = place(&settings.run_root, settings::open_run_root(&settings.run_root, caller.uid).err());
    let (maps, lost_ids) = match rootless::maps_for_caller() {
        _ if caller.uid == 0 => (None, None),
        Ok(found) => (Some(found.maps), found.lost),
        Err(error) => (Some(crate::namespaces::idmap::IdMaps::single(0, 0)), Some(error.report())),
    };
    let ids = maps.as_ref().map_or(1 << 32, |maps| maps.uids.iter().map(|range| u64::from(range.length)).sum());
    Facts {
        is_root: caller.uid == 0,
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        trial: trial::run(maps.as_ref(), &settings.data_root).map_err(|error| error.report()),
        max_user_namespaces: number("/proc/sys/user/max_user_namespaces"),
        unprivileged_userns_clone: number("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor_restricts_userns: number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        ids,
        lost_ids,
        cgroups: gather_cgroups(caller.uid == 0),
        memfd_noexec: number("/proc/sys/vm/memfd_noexec"),
        has_seccomp: seccomp::knows_flag(0),
        landlock: landlock::abi().unwrap_or(0),
        tun: opens("/dev/net/tun", OFlags::RDWR).err(),
        first_unprivileged_port: number("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
        may_ping: may_ping(),
        open_files: process::resource_limit(RLIMIT_NOFILE).unwrap_or((0, 0)),
        data_root,
        run_root,
        lingers: lingers(caller.uid),
        inside: inside(),
        reads_kernel_log: opens(KERNEL_LOG, OFlags::RDONLY | OFlags::NONBLOCK).is_ok(),
    }
}

/// `RLIMIT_NOFILE` of asm-generic/resource.h.
const RLIMIT_NOFILE: u32 = 7;

fn number<T: FromStr>(path: &str) -> Option<T> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn opens(path: &str, flags: OFlags) -> Result<(), String> {
    match rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(crate::sys::errno::describe(errno)),
    }
}

fn gather_cgroups(is_root: bool) -> Cgroups {
    let has_manager = cgroups::systemd_is_reachable();
    let Ok(layout) = Layout::probe() else {
        let mode = cgroups::Mode::Absent;
        return Cgroups { mode, is_writable: false, has_manager, controllers: Vec::new() };
    };
    let directory = |hierarchy: &cgroups::Hierarchy| {
        if is_root { hierarchy.mount.clone() } else { hierarchy.mount.join(hierarchy.own_below_mount()) }
    };
    let is_writable = |hierarchy: &cgroups::Hierarchy| {
        rustix::fs::accessat(CWD, directory(hierarchy), Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    };
    let legacy = layout.legacy.iter().filter(|hierarchy| is_writable(hierarchy));
    let mut controllers: Vec<String> =
        legacy.flat_map(|hierarchy| hierarchy.controllers.split(',')).map(str::to_owned).collect();
    let unified = layout.unified.as_ref();
    if let Some(unified) = unified
        && let Ok(text) = std::fs::read_to_string(directory(unified).join("cgroup.controllers"))
    {
        controllers.extend(text.split_ascii_whitespace().map(str::to_owned));
    }
    let mut all = layout.legacy.iter().filter(|hierarchy| !hierarchy.controllers.contains('=')).chain(unified);
    Cgroups { mode: layout.mode(), is_writable: all.any(is_writable), has_manager, controllers }
}

fn place(path: &Path, error: Option<crate::error::Error>) -> Place {
    let stat = rustix::fs::statfs(path).ok();
    let kind = stat.as_ref().map_or(0, |stat| stat.f_type);
    Place {
        path: path.to_owned(),
        problem: error.map(|error| error.report()),
        file_system: file_system(kind).map_or_else(|| format!("file system {kind:#x}"), str::to_owned),
        is_memory: matches!(file_system(kind), Some("tmpfs" | "ramfs")),
        free_bytes: stat
            .as_ref()
            .map_or(0, |stat| stat.f_bavail.saturating_mul(u64::try_from(stat.f_bsize).unwrap_or_default())),
        // btrfs and others count none.
        free_inodes: stat.as_ref().filter(|stat| stat.f_files > 0).map(|stat| stat.f_ffree),
    }
}

/// The magic numbers of linux/magic.h that a data root is likely to have.
fn file_system(kind: rustix::fs::FsWord) -> Option<&'static str> {
    Some(match kind {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0xf2f5_2010 => "f2fs",
        0x2fc1_2fc1 => "zfs",
        0xca45_1a4e => "bcachefs",
        0x0102_1994 => "tmpfs",
        0x8584_58f6 => "ramfs",
        0x794c_7630 => "overlay",
        0x6969 => "nfs",
        0xff53_4d42 | 0xfe53_4d42 => "cifs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        _ => return None,
    })
}

/// ICMP sockets of datagrams are for the groups of this range.
fn may_ping() -> bool {
    let Ok(text) = std::fs::read_to_string("/proc/sys/net/ipv4/ping_group_range") else { return false };
    let mut range = text.split_ascii_whitespace().map(str::parse::<u32>);
    let (Some(Ok(first)), Some(Ok(last))) = (range.next(), range.next()) else { return false };
    (first..=last).contains(&rustix::process::getegid().as_raw())
}

/// systemd-logind ends a user's services with the last session, unless it is told otherwise.
fn lingers(uid: u32) -> Option<bool> {
    if uid == 0 || !Path::new("/run/systemd/system").is_dir() {
        return None;
    }
    let user = passwd::host_user(uid).ok().flatten()?;
    Some(Path::new("/var/lib/systemd/linger").join(user.name).exists())
}

/// What the marks of other engines say of where we are.
fn inside() -> Option<String> {
    let kind = std::fs::read_to_string("/run/systemd/container").ok();
    if let Some(kind) = kind.map(|text| text.trim().to_owned()).filter(|kind| !kind.is_empty()) {
        return Some(kind.chars().filter(char::is_ascii_graphic).take(32).collect());
    }
    let marks = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];
    marks.iter().find(|(path, _)| Path::new(path).exists()).map(|(_, name)| (*name).to_owned())
}
