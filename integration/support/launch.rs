//! Prepares a process before it becomes the command under test: what `pre_exec` would do, without its `unsafe`.
//!
//! The integration executable is started as `integration --launch OPTIONS -- COMMAND…` and ends in an exec.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::sys::signal::{SigSet, Signal};
use rustix::fs::Mode;

/// One thing to prepare; [`Step::to_argument`] and [`main`] are its two ends.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Become the leader of a session whose terminal is the standard input.
    ControllingTerminal,
    /// Open that many descriptors of / without close-on-exec.
    LeakDescriptors(u32),
    /// Be told by a socket-activating manager of that many descriptors, from 3 on, and of names for them.
    Activate(u32, &'static str),
    /// Listen at an address, with the lowest descriptor that is free, and pass that on.
    Listen(std::net::SocketAddr),
    /// Set the file creation mask.
    Umask(u32),
    /// Ignore a signal by number, as nohup(1) does.
    Ignore(i32),
    /// Block a signal by number.
    Block(i32),
    /// Set the soft and hard limit of open files.
    OpenFiles(u64),
    /// Set the limit of bytes that are writable and its own (RLIMIT_DATA), stacks of threads included.
    Data(u64),
    /// Set the soft limit of pending signals.
    PendingSignals(u64),
    /// Change the root directory.
    Chroot(std::path::PathBuf),
    /// Be in the network namespace of a path.
    Network(std::path::PathBuf),
    /// Run on one processor alone, by its number, as taskset(1) has it.
    Processor(usize),
    /// Close a descriptor of the standard three.
    Close(i32),
    /// Have one supplementary group.
    Group(u32),
    /// Wait for a byte on the standard input: a tracer is about to attach.
    AwaitInput,
}

impl Step {
    pub(crate) fn to_argument(&self) -> OsString {
        match self {
            Self::ControllingTerminal => "ctty".into(),
            Self::LeakDescriptors(count) => format!("leak={count}").into(),
            Self::Activate(count, names) => format!("activate={count}:{names}").into(),
            Self::Listen(at) => format!("listen={at}").into(),
            Self::Umask(mask) => format!("umask={mask}").into(),
            Self::Ignore(signal) => format!("ignore={signal}").into(),
            Self::Block(signal) => format!("block={signal}").into(),
            Self::OpenFiles(count) => format!("nofile={count}").into(),
            Self::Data(bytes) => format!("data={bytes}").into(),
            Self::PendingSignals(count) => format!("sigpending={count}").into(),
            Self::Chroot(path) => {
                let mut word = OsString::from("chroot=");
                word.push(path);
                word
            }
            Self::Network(path) => {
                let mut word = OsString::from("network=");
                word.push(path);
                word
            }
            Self::Processor(number) => format!("processor={number}").into(),
            Self::Close(fd) => format!("close={fd}").into(),
            Self::Group(gid) => format!("group={gid}").into(),
            Self::AwaitInput => "await".into(),
        }
    }
}

/// Says whether this process was started as a launcher, and with which arguments.
pub(crate) fn arguments(argv: &[OsString]) -> Option<&[OsString]> {
    (argv.get(1)? == "--launch").then(|| &argv[2..])
}

/// Does the steps, then becomes the command.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    let Err(error) = launch(arguments);
    _ = writeln!(std::io::stderr(), "launch: {error}");
    ExitCode::from(98)
}

fn launch(arguments: &[OsString]) -> std::io::Result<std::convert::Infallible> {
    let end = arguments.iter().position(|word| word == "--").ok_or_else(|| std::io::Error::other("no command"))?;
    let mut traps = String::new();
    let mut variables = Vec::new();
    for word in &arguments[..end] {
        let word = word.to_str().ok_or_else(|| std::io::Error::other("steps are UTF-8"))?;
        match word.split_once('=').unwrap_or((word, "")) {
            ("ignore", signal) => traps.extend(["trap '' ", signal, "; "]),
            ("activate", words) => {
                let (count, names) = words.split_once(':').unwrap_or((words, ""));
                let pid = std::process::id().to_string();
                variables =
                    vec![("LISTEN_FDS", count.to_owned()), ("LISTEN_PID", pid), ("LISTEN_FDNAMES", names.into())];
            }
            (name, value) => perform(name, value)?,
        }
    }
    let command = &arguments[end + 1..];
    if !traps.is_empty() {
        // An ignored signal stays ignored over exec, and the shell can set one without `unsafe`.
        return Err(Command::new("/bin/sh").args(["-c", &format!("{traps}exec \"$@\""), "sh"]).args(command).exec());
    }
    let program: &OsStr = command.first().ok_or_else(|| std::io::Error::other("no command"))?;
    Err(Command::new(program).args(&command[1..]).envs(variables).exec())
}

fn perform(name: &str, value: &str) -> std::io::Result<()> {
    let number = || value.parse::<u32>().map_err(std::io::Error::other);
    let signal = || Ok::<_, std::io::Error>(Signal::try_from(number()?.cast_signed())?);
    match name {
        "ctty" => {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        }
        "leak" => {
            for _ in 0..number()? {
                let fd = rustix::fs::open("/", rustix::fs::OFlags::RDONLY, Mode::empty())?;
                std::mem::forget(fd);
            }
        }
        "listen" => {
            let at: std::net::SocketAddr = value.parse().map_err(std::io::Error::other)?;
            let family =
                if at.is_ipv4() { rustix::net::AddressFamily::INET } else { rustix::net::AddressFamily::INET6 };
            let socket = rustix::net::socket(family, rustix::net::SocketType::STREAM, None)?;
            // As systemd does: what was said by it keeps nobody from the port.
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &at)?;
            rustix::net::listen(&socket, 16)?;
            std::mem::forget(socket);
        }
        "umask" => {
            rustix::process::umask(Mode::from_raw_mode(number()?));
        }
        "group" => nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(number()?)])?,
        "block" => SigSet::from_iter([signal()?]).thread_block()?,
        "nofile" => {
            let limit = rustix::process::Rlimit { current: Some(number()?.into()), maximum: Some(number()?.into()) };
            rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?;
        }
        "data" => {
            let limit = rustix::process::Rlimit { current: Some(number()?.into()), maximum: Some(number()?.into()) };
            rustix::process::setrlimit(rustix::process::Resource::Data, limit)?;
        }
        "sigpending" => {
            let resource = rustix::process::Resource::Sigpending;
            let limit =
                rustix::process::Rlimit { current: Some(number()?.into()), ..rustix::process::getrlimit(resource) };
            rustix::process::setrlimit(resource, limit)?;
        }
        "chroot" => {
            rustix::process::chroot(value)?;
            rustix::process::chdir("/")?;
        }
        "network" => {
            let namespace = std::fs::File::open(value)?;
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind)?;
        }
        "await" => {
            rustix::io::read(rustix::stdio::stdin(), &mut [0; 1])?;
        }
        "processor" => {
            let mut processors = rustix::thread::CpuSet::new();
            processors.set(number()? as usize);
            rustix::thread::sched_setaffinity(None, &processors)?;
        }
        "close" => nix::unistd::close(number()?.cast_signed())?,
        unknown => return Err(std::io::Error::other(format!("unknown step {unknown}"))),
    }
    Ok(())
}
