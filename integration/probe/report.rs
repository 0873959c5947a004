//! What the probe can see of itself. Reads; changes nothing.

use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::process::Resource;
use serde_json::{Map, Value, json};

use super::tries::errno_name;

/// Collects everything that needs no question.
pub(crate) fn collect() -> Map<String, Value> {
    let status = std::fs::read_to_string("/proc/self/status").ok();
    let field = |name: &str| {
        let line = status.as_ref()?.lines().find(|line| line.split(':').next() == Some(name))?;
        Some(line[name.len() + 1..].trim().to_owned())
    };
    let uts = rustix::system::uname();
    let value = json!({
        "pid": rustix::process::getpid().as_raw_nonzero().get(),
        "ppid": rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get()),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "sid": rustix::process::getsid(None).ok().map(|pid| pid.as_raw_nonzero().get()),
        "uid": ids(nix::unistd::getresuid().ok().map(|id| [id.real, id.effective, id.saved].map(nix::unistd::Uid::as_raw)), field("Uid")),
        "gid": ids(nix::unistd::getresgid().ok().map(|id| [id.real, id.effective, id.saved].map(nix::unistd::Gid::as_raw)), field("Gid")),
        "groups": groups(),
        "caps": capabilities(),
        "no_new_privs": rustix::thread::no_new_privs().ok(),
        "seccomp": field("Seccomp").and_then(|mode| mode.parse::<u8>().ok()),
        "namespaces": namespaces(),
        "mounts": std::fs::read_to_string("/proc/self/mountinfo").ok().map(|text| parse_mountinfo(&text)),
        "fds": descriptors(),
        "stdio": ([0, 1, 2].map(stdio)),
        "tty_size": tty_size(),
        "rlimits": rlimits(),
        "cwd": std::env::current_dir().ok(),
        "argv": std::env::args().collect::<Vec<_>>(),
        "env": std::env::vars_os().map(|(name, value)| {
            let (name, value) = (String::from_utf8_lossy(name.as_bytes()), String::from_utf8_lossy(value.as_bytes()));
            (name.into_owned(), value.into_owned().into())
        }).collect::<Map<_, _>>(),
        "umask": umask(),
        "machine": uts.machine().to_str().ok(),
        "hostname": uts.nodename().to_str().ok(),
        "domainname": uts.domainname().to_str().ok(),
        "cgroup": std::fs::read_to_string("/proc/self/cgroup").ok(),
        "oom_score_adj": std::fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|text| text.trim().parse::<i32>().ok()),
        "exe": std::fs::read_link("/proc/self/exe").ok(),
        "uid_map": map("/proc/self/uid_map"),
        "gid_map": map("/proc/self/gid_map"),
    });
    match value {
        Value::Object(map) => map,
        _ => unreachable!("json!({{}}) is an object"),
    }
}

/// Gives the contents of a file, or the name of the error.
pub(crate) fn read(path: &str) -> Value {
    match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into(),
        Err(error) => errno_name(&error).into(),
    }
}

/// Gives the names in a directory, sorted, or the name of the error.
pub(crate) fn list(path: &str) -> Value {
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let mut names: Vec<String> =
                entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names.into()
        }
        Err(error) => errno_name(&error).into(),
    }
}

/// Gives the value of an extended attribute, or the name of the error.
pub(crate) fn attribute(path: &str, name: &str) -> Value {
    let mut value = [0; 256];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(length) => String::from_utf8_lossy(&value[..length]).into(),
        Err(error) => errno_name(&error.into()).into(),
    }
}

/// Gives what lstat says of a file, or the name of the error.
pub(crate) fn stat(path: &str) -> Value {
    let data = match std::fs::symlink_metadata(path) {
        Ok(data) => data,
        Err(error) => return errno_name(&error).into(),
    };
    let kind = data.file_type();
    let kind = match () {
        () if kind.is_symlink() => "link",
        () if kind.is_dir() => "directory",
        () if kind.is_char_device() => "char",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => "file",
    };
    json!({
        "kind": kind,
        "mode": format!("{:o}", data.mode() & 0o7777),
        "uid": data.uid(),
        "gid": data.gid(),
        "size": data.size(),
        "links": data.nlink(),
        "inode": data.ino(),
        "device": [rustix::fs::major(data.rdev()), rustix::fs::minor(data.rdev())],
        "target": std::fs::read_link(path).ok(),
    })
}

/// Real, effective and saved ids from the kernel, the file system's from /proc.
fn ids(known: Option<[u32; 3]>, status: Option<String>) -> Value {
    let filesystem = status.and_then(|line| line.split_whitespace().nth(3)?.parse::<u32>().ok());
    json!(known.map(|[real, effective, saved]| [Some(real), Some(effective), Some(saved), filesystem]))
}

fn groups() -> Value {
    let groups = rustix::process::getgroups().map(|groups| groups.iter().map(|gid| gid.as_raw()).collect::<Vec<_>>());
    json!(groups.ok())
}

/// The five sets as the kernel prints them: sixteen hexadecimal digits.
fn capabilities() -> Value {
    let set = |holds: &dyn Fn(caps::Capability) -> bool| {
        let mask = caps::all().into_iter().filter(|cap| holds(*cap)).fold(0_u64, |mask, cap| mask | cap.bitmask());
        format!("{mask:016x}")
    };
    let read = |name: caps::CapSet| set(&|cap| caps::has_cap(None, name, cap).unwrap_or(false));
    json!({
        "effective": read(caps::CapSet::Effective),
        "permitted": read(caps::CapSet::Permitted),
        "inheritable": read(caps::CapSet::Inheritable),
        "bounding": read(caps::CapSet::Bounding),
        "ambient": read(caps::CapSet::Ambient),
    })
}

fn namespaces() -> Value {
    let Ok(entries) = std::fs::read_dir("/proc/self/ns") else { return Value::Null };
    entries
        .flatten()
        .map(|entry| {
            let target = std::fs::read_link(entry.path()).map(|path| path.display().to_string());
            (entry.file_name().to_string_lossy().into_owned(), json!(target.ok()))
        })
        .collect::<Map<_, _>>()
        .into()
}

/// Parses mountinfo; see proc_pid_mountinfo(5).
pub(crate) fn parse_mountinfo(text: &str) -> Vec<Value> {
    text.lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            Some(json!({
                "root": unescape(left.get(3)?),
                "target": unescape(left.get(4)?),
                "options": left.get(5)?.split(',').collect::<Vec<_>>(),
                "propagation": left.get(6..)?,
                "type": right.first()?,
                "source": unescape(right.get(1)?),
                "super_options": right.get(2)?.split(',').collect::<Vec<_>>(),
            }))
        })
        .collect()
}

/// The kernel writes blanks, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Open descriptors and what they show. The directory that is being read is left out.
fn descriptors() -> Value {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return Value::Null };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names
        .iter()
        .filter_map(|name| {
            let target = std::fs::read_link(Path::new("/proc/self/fd").join(name)).ok()?;
            Some((name.to_string_lossy().into_owned(), target.display().to_string().into()))
        })
        .collect::<Map<_, _>>()
        .into()
}

fn stdio(number: i32) -> Value {
    let fd = match number {
        0 => rustix::stdio::stdin(),
        1 => rustix::stdio::stdout(),
        _ => rustix::stdio::stderr(),
    };
    describe(fd)
}

fn describe(fd: BorrowedFd<'_>) -> Value {
    let Ok(stat) = rustix::fs::fstat(fd) else { return Value::Null };
    let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        _ if rustix::termios::isatty(fd) => "tty",
        rustix::fs::FileType::Fifo => "pipe",
        rustix::fs::FileType::RegularFile => "file",
        rustix::fs::FileType::CharacterDevice => "char",
        rustix::fs::FileType::Socket => "socket",
        _ => "other",
    };
    json!({ "kind": kind, "inode": stat.st_ino, "device": stat.st_rdev, "uid": stat.st_uid, "gid": stat.st_gid })
}

fn tty_size() -> Value {
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdin()).ok();
    json!(size.map(|size| [size.ws_row, size.ws_col]))
}

/// Soft and hard limits by the names of config.json; null is infinity.
pub(crate) fn rlimits() -> Value {
    let named = [
        ("RLIMIT_AS", Resource::As),
        ("RLIMIT_CORE", Resource::Core),
        ("RLIMIT_CPU", Resource::Cpu),
        ("RLIMIT_DATA", Resource::Data),
        ("RLIMIT_FSIZE", Resource::Fsize),
        ("RLIMIT_LOCKS", Resource::Locks),
        ("RLIMIT_MEMLOCK", Resource::Memlock),
        ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
        ("RLIMIT_NICE", Resource::Nice),
        ("RLIMIT_NOFILE", Resource::Nofile),
        ("RLIMIT_NPROC", Resource::Nproc),
        ("RLIMIT_RSS", Resource::Rss),
        ("RLIMIT_RTPRIO", Resource::Rtprio),
        ("RLIMIT_RTTIME", Resource::Rttime),
        ("RLIMIT_SIGPENDING", Resource::Sigpending),
        ("RLIMIT_STACK", Resource::Stack),
    ];
    named
        .into_iter()
        .map(|(name, resource)| {
            let limit = rustix::process::getrlimit(resource);
            (name.to_owned(), json!([limit.current, limit.maximum]))
        })
        .collect::<Map<_, _>>()
        .into()
}

fn umask() -> String {
    let mask = rustix::process::umask(rustix::fs::Mode::empty());
    rustix::process::umask(mask);
    format!("{:o}", mask.as_raw_mode())
}

fn map(path: &str) -> Value {
    let Ok(text) = std::fs::read_to_string(path) else { return Value::Null };
    text.lines()
        .map(|line| line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(u64::MAX)).collect::<Vec<_>>())
        .collect::<Vec<_>>()
        .into()
}
