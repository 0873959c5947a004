//! Operations that a container may or may not be allowed, one word each. Tells the outcome; expects nothing.
//!
//! ```text
//! open:P  open-write:P  write:P  create:P  mkdir:P  unlink:P  rmdir:P  chmod:P:MODE  chown:P:ID  rename:P:Q
//! mknod:P:MAJOR:MINOR  mknod-block:P:MAJOR:MINOR  exec:P  chdir:P  chroot:P
//! mount:P (a tmpfs)  unmount:P  remount-rw:P  proc:P (a proc file system)  sethostname:NAME
//! link:get|delete|join:NAME|INDEX:NUMBER (in the network namespace that ours calls NUMBER; join: a veth's end of ours to it)
//! setuid:N  setgid:N  kill:PID  socket:DOMAIN  unshare:FLAGS  connect:ADDRESS:PORT
//! syscall:NR[:A[:B…]]  syscall32:NR[:A[:B…]] (through the i386 entry)
//! ```

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, Mode};
use rustix::mount::MountFlags;
use serde_json::Value;

use super::raw;

/// Attempts one operation.
pub(crate) fn attempt(what: &str) -> Value {
    let (verb, rest) = what.split_once(':').unwrap_or((what, ""));
    let parts: Vec<&str> = rest.split(':').collect();
    match perform(verb, rest, &parts) {
        Ok(()) => "ok".into(),
        Err(error) => errno_name(&error).into(),
    }
}

/// Makes a system call, given as `NR[:A[:B…]]`; gives the number that it answers, or the name of the error.
pub(crate) fn answer(what: &str) -> Value {
    let parts: Vec<&str> = what.split(':').collect();
    let outcome = numbers(&parts).and_then(|words| raw::syscall(words[0], &words[1..]));
    outcome.map_or_else(|error| errno_name(&error).into(), Value::from)
}

/// Writes bytes to a file that exists.
pub(crate) fn write(path: &str, bytes: &[u8]) -> Value {
    let written = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(bytes));
    match written {
        Ok(()) => "ok".into(),
        Err(error) => errno_name(&error).into(),
    }
}

/// Sends a datagram to where sd_notify(3) would.
pub(crate) fn notify(text: &str) -> Value {
    let send = || {
        let place = std::env::var_os("NOTIFY_SOCKET").ok_or_else(|| std::io::Error::other("no NOTIFY_SOCKET"))?;
        std::os::unix::net::UnixDatagram::unbound()?.send_to(text.as_bytes(), place)
    };
    send().map_or_else(|error| errno_name(&error).into(), |_| "ok".into())
}

/// Names an error as the kernel's headers do.
pub(crate) fn errno_name(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| format!("{:?}", nix::errno::Errno::from_raw(code)))
}

fn perform(verb: &str, rest: &str, parts: &[&str]) -> std::io::Result<()> {
    let path = parts[0];
    match verb {
        "open" => {
            std::fs::File::open(rest)?;
        }
        "open-write" => {
            OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(rest)?;
        }
        "write" => OpenOptions::new().write(true).open(rest)?.write_all(b"x")?,
        "create" => {
            OpenOptions::new().write(true).create_new(true).open(rest)?;
        }
        "mkdir" => std::fs::create_dir(rest)?,
        "unlink" => std::fs::remove_file(rest)?,
        "rmdir" => std::fs::remove_dir(rest)?,
        "rename" => std::fs::rename(path, parts[1])?,
        "chmod" => {
            let mode = u32::from_str_radix(parts[1], 8).map_err(std::io::Error::other)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        "chown" => std::os::unix::fs::lchown(path, Some(number(parts, 1)?), Some(number(parts, 1)?))?,
        "mknod" => make_node(path, FileType::CharacterDevice, parts)?,
        "mknod-block" => make_node(path, FileType::BlockDevice, parts)?,
        "exec" => {
            Command::new(rest).args(["--quiet"]).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        }
        "chdir" => std::env::set_current_dir(rest)?,
        "chroot" => rustix::process::chroot(rest)?,
        "mount" => rustix::mount::mount("tmpfs", rest, "tmpfs", MountFlags::empty(), None)?,
        "proc" => rustix::mount::mount("proc", rest, "proc", MountFlags::empty(), None)?,
        "unmount" => rustix::mount::unmount(rest, rustix::mount::UnmountFlags::DETACH)?,
        "remount-rw" => rustix::mount::mount_remount(rest, MountFlags::BIND, "")?,
        "sethostname" => rustix::system::sethostname(rest.as_bytes())?,
        "setuid" => rustix::thread::set_thread_uid(rustix::fs::Uid::from_raw(number(parts, 0)?))?,
        "setgid" => rustix::thread::set_thread_gid(rustix::fs::Gid::from_raw(number(parts, 0)?))?,
        "kill" => nix::sys::signal::kill(nix::unistd::Pid::from_raw(number(parts, 0)?), None)?,
        "socket" => raw::syscall(libc::SYS_socket, &[number(parts, 0)?, i64::from(libc::SOCK_STREAM), 0]).map(drop)?,
        "connect" => {
            std::net::TcpStream::connect(rest)?;
        }
        "link" => change_link(path, parts.get(1).copied().unwrap_or_default(), number(parts, 2)?)?,
        "unshare" => raw::syscall(libc::SYS_unshare, &[number(parts, 0)?]).map(drop)?,
        "syscall" => raw::syscall(number(parts, 0)?, &numbers(&parts[1..])?).map(drop)?,
        "syscall32" => raw::syscall32(number(parts, 0)?, &numbers(&parts[1..])?)?,
        _ => return Err(std::io::Error::other(format!("unknown operation {verb}"))),
    }
    Ok(())
}

/// Asks rtnetlink(7) for something in a network namespace that is known by its number alone (`IFLA_TARGET_NETNSID`).
fn change_link(verb: &str, link: &str, namespace: i32) -> std::io::Result<()> {
    /// `IFLA_…` of linux/if_link.h.
    const NAME: u16 = 3;
    const MASTER: u16 = 10;
    const INFO: u16 = 18;
    const PEERS_PID: u16 = 19;
    const TARGET: u16 = 46;
    let attribute = |kind: u16, value: &[u8]| {
        let length = u16::try_from(4 + value.len()).expect("a short value");
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    };
    let target = attribute(TARGET, &namespace.to_ne_bytes());
    let (kind, flags, attributes): (u16, u16, _) = match verb {
        "get" => (18, 5, [attribute(NAME, &[link.as_bytes(), b"\0"].concat()), target].concat()),
        "delete" => (17, 5, [attribute(NAME, &[link.as_bytes(), b"\0"].concat()), target].concat()),
        "join" => {
            let index: i32 = link.parse().map_err(std::io::Error::other)?;
            let peer = [&[0; 16][..], &attribute(PEERS_PID, &std::process::id().to_ne_bytes())].concat();
            let veth = [attribute(1, b"veth\0"), attribute(2, &attribute(1, &peer))].concat();
            (16, 0x605, [target, attribute(MASTER, &index.to_ne_bytes()), attribute(INFO, &veth)].concat())
        }
        _ => return Err(std::io::Error::other(format!("unknown operation {verb}"))),
    };
    let length = u32::try_from(32 + attributes.len()).map_err(std::io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&[kind.to_ne_bytes(), flags.to_ne_bytes()].concat());
    message.resize(32, 0);
    message.extend_from_slice(&attributes);
    let family = rustix::net::AddressFamily::NETLINK;
    let socket = rustix::net::socket(family, rustix::net::SocketType::RAW, None)?;
    rustix::net::send(&socket, &message, rustix::net::SendFlags::empty())?;
    let mut answer = [0; 8192];
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], rustix::net::RecvFlags::empty())?;
    // An error, or an acknowledgement, has its number behind the header.
    match (answer[4..6] == 2_u16.to_ne_bytes(), answer.get(16..length.min(20)).and_then(|code| code.try_into().ok())) {
        (true, Some(code)) if i32::from_ne_bytes(code) != 0 => {
            Err(std::io::Error::from_raw_os_error(-i32::from_ne_bytes(code)))
        }
        _ => Ok(()),
    }
}

fn make_node(path: &str, kind: FileType, parts: &[&str]) -> std::io::Result<()> {
    let device = rustix::fs::makedev(number(parts, 1)?, number(parts, 2)?);
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o600), device)?)
}

fn number<T: std::str::FromStr>(parts: &[&str], index: usize) -> std::io::Result<T> {
    let part = parts.get(index).ok_or_else(|| std::io::Error::other("a number is missing"))?;
    part.parse().map_err(|_| std::io::Error::other(format!("not a number: {part}")))
}

fn numbers(parts: &[&str]) -> std::io::Result<Vec<i64>> {
    (0..parts.len()).map(|index| number(parts, index)).collect()
}
