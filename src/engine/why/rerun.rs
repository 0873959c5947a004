//! `why --rerun`: which system calls a container's filter refuses, found out by running it once more.
//!
//! ```text
//! profile ─ compiled ─┬─ the same filter, which asks wherever it refuses ─ a throw-away copy of the container
//!                     └─ what it says to a call ◀── listener ──┘
//! ```
//!
//! The copy is allowed nothing that the container is not: each call that it asks about fails as the filter has it fail, and
//! is written down. Its files are its own and go with it; its volumes and binds are the container's, and what the program does
//! to them it does once more, which is why nobody does this unasked.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Capabilities, Capability, LinuxSeccomp, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;

use crate::engine::config::capabilities;
use crate::engine::create::{self, Created, Purpose};
use crate::engine::defaults::ALL_CAPABILITIES;
use crate::engine::engine::Engine;
use crate::engine::options::{PullPolicy, RunOptions, SeccompChoice};
use crate::engine::record::{Container, Record};
use crate::engine::start;
use crate::error::{Context, Error, Kind, Result};
use crate::image::source::Source;
use crate::monitor::log::{Format, LogOptions};
use crate::monitor::{Lifetime, RestartPolicy, Stop, Wants};
use crate::runtime::foreground::Exit;
use crate::seccomp::{self, Program, Refusal, call_name};
use crate::spec::load;
use crate::support::base64;
use crate::support::id::{ContainerId, ContainerName};
use crate::sys::seccomp::{Notification, receive, refuse, to_bytes};
use crate::sys::signal::{self, Signals};

/// crun's annotation for a filter that somebody else has compiled.
const COMPILED: &str = "run.oci.seccomp_bpf_data";

/// How many different sets of arguments are shown of a call.
const EXAMPLES: usize = 4;

/// What came of the second run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rerun {
    pub id: ContainerId,
    pub name: ContainerName,
    /// How the copy ended; nothing where its time was over.
    pub status: Option<u8>,
    pub refused: Vec<Refused>,
}

/// A system call that the filter refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its name, or its number where it has none.
    pub call: String,
    /// What the caller got: the name of an error, or `killed`.
    pub answer: String,
    pub count: u64,
    /// Some of the arguments that it was called with.
    pub arguments: Vec<[u64; 6]>,
    /// What would allow it.
    pub remedies: Vec<String>,
}

/// Runs a copy of a container, for as long as `limit`, and tells which calls its filter refuses.
pub fn rerun(engine: &Engine, container: &Container, limit: Duration, tell: &dyn Fn(&str)) -> Result<Rerun> {
    let record = container.record()?;
    let bundle = engine.container_directory(container.id()).join("bundle");
    let spec = load::load(&bundle)?.value;
    let (profile, program) = filter(&spec)?;
    let image = match (Source::parse(&record.image)?, &record.image_id) {
        // Its name may mean another image by now.
        (Source::Named(_) | Source::Registry(_), Some(id)) => id.clone(),
        _ => record.image.clone(),
    };
    let mut created =
        create::create(engine, &image, &copy_of(&record), Purpose::Start, tell, &|_| ()).context("copy it")?;
    // In the abstract namespace: there is no file that could be left.
    let name = format!("husk-why-{}", created.container.id());
    let socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).context("make a socket")?)
        .context("make a socket")?;
    ask(&mut created, &profile, &program, &format!("@{name}"));
    let signals = Signals::block_all().context("block signals")?;
    let client = start::launch(engine, created, Lifetime::Command, Wants { output: false }, &signals, tell)?;
    let mut calls = Calls::new();
    let is_over = attend(&socket, &program, &signals, limit, &mut calls)?;
    if !is_over {
        client.stop(Stop { signal: signal::KILL, patience_seconds: None, is_kept: false });
    }
    let exit = client.wait()?;
    let status = exit.filter(|_| is_over).map(Exit::status);
    let refused = calls.into_iter().map(|(call, seen)| refused(call, seen, &record)).collect();
    Ok(Rerun { id: *container.id(), name: record.name.clone(), status, refused })
}

/// Gives a container's filter.
fn filter(spec: &Spec) -> Result<(LinuxSeccomp, Program)> {
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone());
    let profile = profile.ok_or_else(|| {
        Error::new(Kind::State, "it has no filter for system calls, so none refused anything")
            .with_hint("what is not permitted for want of a capability is told by `husk why` alone")
    })?;
    let program = seccomp::compile(&profile).context("linux.seccomp")?;
    if program.listener.is_some() {
        return Err(Error::unsupported("its filter has a listener of its own, which decides"));
    }
    // What hands the listener over and starts the program is asked about by nobody else.
    for (name, number) in [("write", libc_number("write")), ("execve", libc_number("execve"))] {
        if !number.is_some_and(|number| program.allows(number, [0; 6])) {
            return Err(Error::unsupported(format!("its filter refuses {name}, without which nothing runs")));
        }
    }
    Ok((profile, program))
}

fn libc_number(name: &str) -> Option<u64> {
    seccomp::call_number(name).map(u64::from)
}

/// What was asked for, less what a second container cannot have and nobody needs of it.
fn copy_of(record: &Record) -> RunOptions {
    let log = match record.options.log.format {
        // Its output would be this command's.
        Format::None | Format::Passthrough => LogOptions::default(),
        _ => record.options.log,
    };
    let mut options = RunOptions {
        name: None,
        remove: true,
        detached: false,
        interactive: false,
        console_size: None,
        id_file: None,
        pid_file: None,
        preserved_fds: 0,
        pull: PullPolicy::Never,
        restart: RestartPolicy::No,
        log,
        ..record.options.clone()
    };
    options.health.disabled = true;
    options
}

/// Puts the asking filter in the place of the container's.
fn ask(created: &mut Created, profile: &LinuxSeccomp, program: &Program, socket: &str) {
    let mut profile = profile.clone();
    profile.set_listener_path(Some(socket.into()));
    let mut annotations = created.spec.annotations().clone().unwrap_or_default();
    annotations.insert(COMPILED.to_owned(), base64::encode(&to_bytes(&program.asking())));
    created.spec.set_annotations(Some(annotations));
    if let Some(linux) = created.spec.linux_mut() {
        linux.set_seccomp(Some(profile));
    }
}

type Calls = BTreeMap<(u32, u32, Refusal), Seen>;

#[derive(Default)]
struct Seen {
    count: u64,
    arguments: Vec<[u64; 6]>,
}

/// Answers for the container until the last process under the filter has ended (kernel 5.8), or somebody has had enough:
/// then false.
fn attend(
    socket: &UnixListener,
    program: &Program,
    signals: &Signals,
    limit: Duration,
    calls: &mut Calls,
) -> Result<bool> {
    let deadline = Instant::now() + limit;
    let Some(listener) = take_listener(socket)? else { return Ok(true) };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::new(&listener, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("wait for the container"),
        }
        let [of_calls, of_signals] = polled.map(|polled| polled.revents());
        if of_signals.contains(PollFlags::IN) {
            while let Some(arrived) = signals.next().context("read signals")? {
                if signal::ENDING.contains(&arrived.number) {
                    return Ok(false);
                }
            }
        }
        if of_calls.contains(PollFlags::IN) {
            match receive(&listener) {
                Ok(notification) => answer(&listener, program, &notification, calls)?,
                // It was killed before it was heard.
                Err(Errno::NOENT | Errno::INTR) => {}
                Err(errno) => return Err(errno).context("take a system call"),
            }
        } else if of_calls.intersects(PollFlags::HUP | PollFlags::ERR) {
            return Ok(true);
        }
    }
}

/// Takes the listener from the container's monitor, which has sent it before it told that the container runs. Others may
/// connect as well: what comes from them is passed by.
fn take_listener(socket: &UnixListener) -> Result<Option<OwnedFd>> {
    socket.set_nonblocking(true).context("take the listener")?;
    loop {
        let stream = match socket.accept() {
            Ok((stream, _)) => stream,
            // It has ended already, or its start has failed.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).context("take the listener"),
        };
        let peer = rustix::net::sockopt::socket_peercred(&stream).context("take the listener")?;
        if peer.uid != rustix::process::geteuid() {
            continue;
        }
        let mut document = [0; 4096];
        if let (_, Some(listener)) = crate::sys::fdpass::receive(&stream, &mut document).context("take the listener")? {
            return Ok(Some(listener));
        }
    }
}

/// Has a call fail as the filter would have it fail, and writes it down.
fn answer(listener: &OwnedFd, program: &Program, call: &Notification, calls: &mut Calls) -> Result<()> {
    let number = call.number.cast_unsigned();
    let refusal = program.refusal(call.architecture, number, call.arguments);
    if let Some(refusal) = refusal {
        let seen = calls.entry((call.architecture, number, refusal)).or_default();
        seen.count += 1;
        if seen.arguments.len() < EXAMPLES && !seen.arguments.contains(&call.arguments) {
            seen.arguments.push(call.arguments);
        }
    }
    let errno = match refusal {
        Some(Refusal::Error(errno)) => i32::try_from(errno).unwrap_or(Errno::PERM.raw_os_error()),
        Some(Refusal::Killed) => {
            // SIGSYS would be passed over by the first process of a PID namespace.
            if let Some(pid) = rustix::process::Pid::from_raw(call.pid.cast_signed()) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            Errno::PERM.raw_os_error()
        }
        Some(Refusal::Trapped) | None => Errno::NOSYS.raw_os_error(),
    };
    match refuse(listener.as_fd(), call.id, errno) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).context("answer a system call"),
    }
}

fn refused((architecture, number, refusal): (u32, u32, Refusal), seen: Seen, record: &Record) -> Refused {
    let name = call_name(architecture, number.into());
    let answer = match refusal {
        Refusal::Error(errno) => {
            let errno = Errno::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
            crate::sys::errno::name(errno).map_or_else(|| errno.raw_os_error().to_string(), ToOwned::to_owned)
        }
        Refusal::Killed => "killed".to_owned(),
        Refusal::Trapped => "SIGSYS".to_owned(),
    };
    let remedies = name.map_or_else(Vec::new, |name| remedies(architecture, number, name, &seen, &record.options));
    let call = name.map_or_else(|| number.to_string(), ToOwned::to_owned);
    Refused { call, answer, count: seen.count, arguments: seen.arguments, remedies }
}

/// Says what would allow a call: a capability, where the default profile opens it with that, and a line of a profile.
fn remedies(architecture: u32, number: u32, name: &str, seen: &Seen, options: &RunOptions) -> Vec<String> {
    let mut remedies = Vec::new();
    if options.security.seccomp == SeccompChoice::Default
        && let Ok(held) = capabilities(options)
    {
        let opens = |more: &Capability| {
            let with: Capabilities = held.iter().copied().chain([*more]).collect();
            let program = seccomp::compile(&seccomp::default_profile(&with));
            let allows = |arguments: &[u64; 6]| {
                program.as_ref().is_ok_and(|program| program.refusal(architecture, number, *arguments).is_none())
            };
            seen.arguments.iter().all(allows)
        };
        let opening = ALL_CAPABILITIES.iter().filter(|more| !held.contains(more)).filter(|more| opens(more));
        remedies.extend(opening.map(|more| format!("--cap-add {}", more.to_string().trim_start_matches("CAP_"))));
    }
    let line = format!(r#"{{"names": ["{name}"], "action": "SCMP_ACT_ALLOW"}}"#);
    remedies.push(match &options.security.seccomp {
        SeccompChoice::File(path) => format!("in syscalls of {}: {line}", path.display()),
        _ => format!("in syscalls of a profile, for --security-opt seccomp=FILE: {line}"),
    });
    remedies
}
