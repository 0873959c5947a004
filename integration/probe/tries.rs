//! Operations that a container may or may not be allowed, one word each. Tells the outcome; expects nothing.
//!
//! ```text
//! open:P  open-write:P  write:P  create:P  mkdir:P  unlink:P  rmdir:P  chmod:P:MODE  chown:P:ID  rename:P:Q
//! mknod:P:MAJOR:MINOR  mknod-block:P:MAJOR:MINOR  exec:P  chdir:P  chroot:P
//! mount:P (a tmpfs)  unmount:P  remount-rw:P  proc:P (a proc file system)  sethostname:NAME
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
        "unshare" => raw::syscall(libc::SYS_unshare, &[number(parts, 0)?]).map(drop)?,
        "syscall" => raw::syscall(number(parts, 0)?, &numbers(&parts[1..])?).map(drop)?,
        "syscall32" => raw::syscall32(number(parts, 0)?, &numbers(&parts[1..])?)?,
        _ => return Err(std::io::Error::other(format!("unknown operation {verb}"))),
    }
    Ok(())
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
