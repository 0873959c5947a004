//! What of the host goes into a configuration: two system calls, the resolver's file, a file where the processors have
//! thermal events; and what single options need to know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::engine::options::hosts::HostsSource;
use crate::engine::options::namespaces::{IpcMode, UserMode};
use crate::engine::options::{DeviceRequest, Network, RunOptions};
use crate::error::{Context, Error, Kind, Result};
use crate::support::{atomic, passwd};

/// The first kernel with mount_setattr(2), and so with a read-only that reaches what is mounted below.
const RECURSIVE_READ_ONLY: (u32, u32) = (5, 12);

/// The list of processors is a few ranges, however many there are.
const LIST_BYTES: usize = 4096;

/// More than any kernel is built for (`NR_CPUS`): what is beyond is not believed.
const PROCESSORS: u32 = 8192;

/// Most that is read of `/etc/hosts` and `/etc/resolv.conf`.
const FILE_BYTES: usize = 1 << 20;

/// Facts of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// For a container on the host's network, which has the host's name.
    pub hostname: String,
    pub has_recursive_read_only: bool,
    /// Processors whose thermal events have to be hidden; empty where the kernel shows none, as in most virtual machines.
    pub throttled_processors: Vec<u32>,
    /// `/etc/resolv.conf`; empty where there is none.
    pub resolver: String,
    /// `/etc/hosts`, or the file of `--hosts-file`, where one of them is asked for.
    pub hosts: Option<String>,
    /// The devices of `--device`.
    pub devices: Vec<Node>,
    /// All devices, for a privileged container.
    pub all_devices: Vec<Node>,
    /// Numbers of the block devices that limits name.
    pub block_devices: BTreeMap<PathBuf, (i64, i64)>,
    /// The file of `--tz`.
    pub timezone: Option<PathBuf>,
    /// The caller, for a container that keeps its ids.
    pub caller: Option<CallersName>,
    /// `/dev/mqueue` is there, to be shared with `--ipc host`.
    pub has_queues: bool,
}

/// Who calls, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallersName {
    pub name: String,
    pub group: String,
    pub home: String,
}

/// A device node of the host, and where it is to be in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub source: PathBuf,
    pub destination: PathBuf,
    /// `b` or `c`.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of `rwm`.
    pub access: String,
}

impl Host {
    /// Looks at what these options need.
    pub fn probe(options: &RunOptions) -> Result<Self> {
        let name = rustix::system::uname();
        let hosts = match &options.hosts.hosts {
            HostsSource::File(path) => Some(read_text(path)?),
            HostsSource::Made if options.network == Network::Host => Some(read_text(Path::new("/etc/hosts"))?),
            HostsSource::Made | HostsSource::Image => None,
        };
        let resolver =
            if options.hosts.keeps_resolver { String::new() } else { read_text(Path::new("/etc/resolv.conf"))? };
        Ok(Self {
            hostname: name.nodename().to_string_lossy().into_owned(),
            has_recursive_read_only: version(&name.release().to_string_lossy()) >= RECURSIVE_READ_ONLY,
            throttled_processors: throttled_processors(),
            resolver,
            hosts,
            devices: requested_devices(options)?,
            all_devices: if options.privileged { all_devices() } else { Vec::new() },
            block_devices: block_devices(options)?,
            has_queues: options.namespaces.ipc == IpcMode::Host && Path::new("/dev/mqueue").is_dir(),
            caller: if matches!(options.namespaces.user, UserMode::KeepId { .. }) { callers_name()? } else { None },
            timezone: options.timezone.as_deref().map(timezone).transpose()?,
        })
    }
}

/// Looks up who calls; the group goes by the user's name where the host has none for it.
fn callers_name() -> Result<Option<CallersName>> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let Some(user) = passwd::host_user(uid)? else { return Ok(None) };
    let groups = read_text(Path::new("/etc/group"))?;
    let group = passwd::group_entries(groups.as_bytes()).filter_map(Result::ok).find(|entry| entry.gid == gid);
    let group = group.map_or_else(|| user.name.clone(), |entry| String::from_utf8_lossy(entry.name).into_owned());
    Ok(Some(CallersName { name: user.name, group, home: user.home.to_string_lossy().into_owned() }))
}

/// Reads a file of the host's; a missing one is an empty one.
fn read_text(path: &Path) -> Result<String> {
    let read = || -> Result<Vec<u8>> {
        let fd = match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(Vec::new()),
            Err(errno) => return Err(errno.into()),
        };
        let mut bytes = Vec::new();
        let file = std::fs::File::from(fd);
        std::io::Read::read_to_end(&mut std::io::Read::take(file, FILE_BYTES as u64 + 1), &mut bytes)?;
        if bytes.len() > FILE_BYTES {
            return Err(Error::invalid(format!("larger than {FILE_BYTES} bytes")));
        }
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("read {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn requested_devices(options: &RunOptions) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    for request in &options.devices {
        // What a CDI name stands for is put in its place before.
        let DeviceRequest::Node { source, destination, access } = request else { continue };
        add_node(&mut nodes, source, Path::new(destination), access)
            .with_context(|| format!("device {}", source.display()))?;
    }
    Ok(nodes)
}

/// Adds a node, or all that are below a directory, as docker does.
fn add_node(nodes: &mut Vec<Node>, source: &Path, destination: &Path, access: &str) -> Result<()> {
    let stat = rustix::fs::stat(source)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice | FileType::BlockDevice => {
            nodes.push(node(&stat, source, destination, access));
            Ok(())
        }
        FileType::Directory => {
            let count = nodes.len();
            for entry in walkdir::WalkDir::new(source).sort_by_file_name().into_iter().flatten() {
                let Ok(stat) = rustix::fs::lstat(entry.path()) else { continue };
                if matches!(FileType::from_raw_mode(stat.st_mode), FileType::CharacterDevice | FileType::BlockDevice) {
                    let place = entry.path().strip_prefix(source).unwrap_or(entry.path());
                    nodes.push(node(&stat, entry.path(), &destination.join(place), access));
                }
            }
            if nodes.len() == count { Err(Error::invalid("holds no device node")) } else { Ok(()) }
        }
        _ => Err(Error::invalid("not a device node")),
    }
}

fn node(stat: &rustix::fs::Stat, source: &Path, destination: &Path, access: &str) -> Node {
    Node {
        source: source.to_owned(),
        destination: destination.to_owned(),
        kind: if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice { 'b' } else { 'c' },
        major: rustix::fs::major(stat.st_rdev),
        minor: rustix::fs::minor(stat.st_rdev),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        access: access.to_owned(),
    }
}

/// Directories of `/dev` that are file systems of the container's own, and entries that are made for each container.
const OWN_DIRECTORIES: [&str; 6] = ["pts", "shm", "fd", "mqueue", "hugepages", ".udev"];
const OWN_NODES: [&str; 9] = ["console", "full", "null", "ptmx", "random", "tty", "urandom", "zero", "core"];

/// Lists the host's devices, but for what every container has of its own.
fn all_devices() -> Vec<Node> {
    let dev = Path::new("/dev");
    let is_own = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 1 && (OWN_DIRECTORIES.contains(&&*name) || OWN_NODES.contains(&&*name))
    };
    let mut nodes = Vec::new();
    let walk = walkdir::WalkDir::new(dev).sort_by_file_name().into_iter().filter_entry(|entry| !is_own(entry));
    for entry in walk {
        let Ok(entry) = entry else { continue };
        // Links and sockets are no devices; what is gone meanwhile is none either.
        let Ok(stat) = rustix::fs::lstat(entry.path()) else { continue };
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::CharacterDevice | FileType::BlockDevice) {
            nodes.push(node(&stat, entry.path(), entry.path(), "rwm"));
        }
    }
    nodes
}

fn block_devices(options: &RunOptions) -> Result<BTreeMap<PathBuf, (i64, i64)>> {
    let limits = &options.limits;
    let rates =
        [&limits.device_read_bps, &limits.device_write_bps, &limits.device_read_iops, &limits.device_write_iops];
    let weighted = limits.blkio_weight_devices.iter().map(|entry| &entry.device);
    let mut numbers = BTreeMap::new();
    for device in rates.into_iter().flatten().map(|entry| &entry.device).chain(weighted) {
        let stat = rustix::fs::stat(device).with_context(|| format!("device {}", device.display()))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice {
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            numbers.insert(device.clone(), (i64::from(major), i64::from(minor)));
        }
    }
    Ok(numbers)
}

/// Finds the file of a time zone: `local`, or a name as `Europe/Berlin`.
fn timezone(name: &str) -> Result<PathBuf> {
    let is_name =
        !name.is_empty() && !name.starts_with('/') && !name.split('/').any(|part| matches!(part, "" | "." | ".."));
    let path = match name {
        "local" => PathBuf::from("/etc/localtime"),
        _ if is_name => Path::new("/usr/share/zoneinfo").join(name),
        _ => return Err(Error::invalid(format!("timezone {name:?}: not a name such as Europe/Berlin"))),
    };
    match std::fs::canonicalize(&path) {
        Ok(path) if path.is_file() => Ok(path),
        _ => Err(Error::new(Kind::NotFound, format!("timezone {name:?}: this machine has no {}", path.display()))),
    }
}

/// Reads major and minor of a release such as `6.1.0-18-amd64`; what is none is the oldest.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn throttled_processors() -> Vec<u32> {
    let first = super::defaults::thermal_throttle_path(0);
    if rustix::fs::access(first, rustix::fs::Access::EXISTS).is_err() {
        return Vec::new();
    }
    let list = atomic::read(rustix::fs::CWD, "/sys/devices/system/cpu/possible", LIST_BYTES);
    parse_list(&String::from_utf8_lossy(&list.ok().flatten().unwrap_or_default()))
}

/// Reads `0-3,8`.
fn parse_list(list: &str) -> Vec<u32> {
    let mut processors = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) {
            processors.extend(first..=last.min(PROCESSORS));
        }
    }
    processors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_have_a_version() {
        for (release, expected) in
            [("6.1.0-18-amd64", (6, 1)), ("5.12", (5, 12)), ("5.4.0+", (5, 4)), ("strange", (0, 0)), ("", (0, 0))]
        {
            assert_eq!(version(release), expected, "{release}");
        }
        assert!(
            Host::probe(&RunOptions::default()).unwrap().has_recursive_read_only == (version(&release()) >= (5, 12))
        );
    }

    fn release() -> String {
        std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap()
    }

    #[test]
    fn lists_of_processors_are_ranges() {
        assert_eq!(parse_list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(parse_list("0\n"), [0]);
        assert_eq!(parse_list("x,-,3-1\n"), [0_u32; 0]);
        assert!(parse_list("0-4294967295").len() <= 8193);
    }
}
