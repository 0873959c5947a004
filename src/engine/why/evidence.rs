//! What can be known about a container from outside: its records, the files that it starts with, the kernel's log, its own.
//!
//! What cannot be looked at is left out, and no error: every piece stands for itself. Judges nothing.

use std::collections::VecDeque;
use std::path::Path;

use oci_spec::runtime::{Capability, Spec};
use serde::{Deserialize, Serialize};

use super::LOG_LINES;
use super::kernel_log::{self, Event};
use super::program::{Files, Mounted, Program, User, Wanted};
use crate::engine::engine::Engine;
use crate::engine::logs::{LogsOptions, logs};
use crate::engine::options::Network;
use crate::engine::record::{Container, ExitRecord, Record, Status, Timestamp, now};
use crate::engine::view::View;
use crate::error::Result;
use crate::monitor::RestartPolicy;
use crate::monitor::health::Health;
use crate::runtime::tree::Access;
use crate::spec::load;
use crate::support::id::{ContainerId, ContainerName};
use crate::sys::mount::Reach;

/// Most that is kept of a line of the log.
const LINE_LENGTH: usize = 512;

/// Everything that the judgement rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) id: ContainerId,
    pub(super) name: ContainerName,
    pub(super) state: State,
    pub(super) now: Timestamp,
    /// When the machine came up, by today's clock.
    pub(super) booted: Timestamp,
    pub(super) restart: RestartPolicy,
    /// In the foreground of a command, at its last start as far as is known.
    pub(super) is_foreground: bool,
    /// Its first word.
    pub(super) command: String,
    pub(super) uid: u32,
    /// The network that it asked for.
    pub(super) network: Network,
    pub(super) is_read_only: bool,
    pub(super) has_filter: bool,
    /// With CAP_SYS_ADMIN: a refusal is hardly for want of a capability.
    pub(super) is_privileged: bool,
    /// `None` where its files could not be looked at, or are no part of the question.
    pub(super) program: Option<Program>,
    /// Directories of the host in it that its user may not write to, though they are mounted to be written to.
    pub(super) closed_mounts: Vec<ClosedMount>,
    /// What the kernel logged while it ran; `None` where the log may not be read.
    pub(super) kernel: Option<Vec<Event>>,
    /// What it wrote last.
    pub(super) log: Vec<String>,
    /// What its health checks say.
    pub(super) health: Option<Health>,
    /// An emulator is registered for foreign programs (binfmt_misc).
    pub(super) has_emulators: bool,
}

/// Where it is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Created,
    Running { started: Timestamp, is_paused: bool },
    Restarting(ExitRecord),
    Ended(ExitRecord),
}

/// A bind mount whose files are closed to the container's user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClosedMount {
    pub(super) destination: String,
    pub(super) source: String,
    pub(super) owner: u32,
    pub(super) mode: u32,
}

/// What is found with rights over the container's files.
#[derive(Serialize, Deserialize)]
struct Look {
    program: Option<Program>,
    closed_mounts: Vec<ClosedMount>,
}

/// Gathers the evidence, and the last lines of the log as they are to be shown.
pub(super) fn gather(engine: &Engine, container: &Container) -> Result<(Evidence, Vec<String>)> {
    if let Status::Lost { .. } = container.status()? {
        engine.look_after(container)?;
    }
    let record = container.record()?;
    let state = match container.status()? {
        Status::Created => State::Created,
        Status::Running { started, .. } => {
            State::Running { started: started.unwrap_or(record.created), is_paused: is_paused(engine, container) }
        }
        Status::Restarting(exit) => State::Restarting(exit),
        Status::Exited(exit) => State::Ended(exit),
        Status::Lost { started } => State::Ended(ExitRecord {
            started: Some(started),
            finished: now(),
            code: ExitRecord::UNKNOWN,
            error: Some(ExitRecord::SUPERVISOR_LOST.to_owned()),
            ..ExitRecord::default()
        }),
    };
    let spec =
        load::load(&engine.container_directory(container.id()).join("bundle")).map(|document| document.value).ok();
    let failed = match &state {
        State::Restarting(exit) | State::Ended(exit) => Some(exit).filter(|exit| exit.code != 0 || exit.out_of_memory),
        State::Created | State::Running { .. } => None,
    };
    let look = match (&failed, &spec) {
        (Some(_), Some(spec)) => look(engine, container, &record, spec),
        _ => Look { program: None, closed_mounts: Vec::new() },
    };
    let kernel = failed.and_then(|exit| kernel_log::read(exit.started.unwrap_or(exit.finished), exit.finished).ok());
    let log = if failed.is_some() { last_lines(engine, container) } else { Vec::new() };
    let user = spec.as_ref().map(user_of);
    let evidence = Evidence {
        id: record.id,
        name: record.name.clone(),
        state,
        now: now(),
        booted: booted(),
        restart: record.options.restart,
        is_foreground: !record.detached,
        command: record.command.first().cloned().unwrap_or_default(),
        uid: user.as_ref().map_or(0, |user| user.uid),
        network: record.options.network.clone(),
        is_read_only: spec.as_ref().and_then(|spec| spec.root().as_ref()?.readonly()).unwrap_or(false),
        has_filter: spec.as_ref().and_then(|spec| spec.linux().as_ref()?.seccomp().as_ref()).is_some(),
        is_privileged: spec.as_ref().is_some_and(|spec| has_capability(spec, Capability::SysAdmin)),
        program: look.program,
        closed_mounts: look.closed_mounts,
        kernel,
        log: log.clone(),
        health: Health::read(container.directory()).ok().flatten(),
        has_emulators: has_emulators(),
    };
    Ok((evidence, log))
}

/// The clock may have been set since: good for days, not for seconds.
fn booted() -> Timestamp {
    let up = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let up = std::time::Duration::new(up.tv_sec.unsigned_abs(), u32::try_from(up.tv_nsec).unwrap_or_default());
    now().saturating_sub(u64::try_from(up.as_nanos()).unwrap_or_default())
}

fn is_paused(engine: &Engine, container: &Container) -> bool {
    let state = engine.runtime(false).and_then(|runtime| runtime.state(container.id().as_str()));
    state.is_ok_and(|state| state.status == "paused")
}

fn has_capability(spec: &Spec, capability: Capability) -> bool {
    let sets = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    sets.and_then(|sets| sets.effective().as_ref()).is_some_and(|set| set.contains(&capability))
}

fn user_of(spec: &Spec) -> User {
    let user = spec.process().as_ref().map(|process| process.user().clone()).unwrap_or_default();
    let mut gids = vec![user.gid()];
    gids.extend(user.additional_gids().iter().flatten());
    let overrides = has_capability(spec, Capability::DacOverride);
    User { uid: user.uid(), gids, overrides, is_only_one: false }
}

fn look(engine: &Engine, container: &Container, record: &Record, spec: &Spec) -> Look {
    let process = spec.process().as_ref();
    let args = process.and_then(|process| process.args().as_ref());
    let environment = process.and_then(|process| process.env().as_ref());
    let path = environment.into_iter().flatten().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let cwd = process.map_or(Path::new("/"), |process| process.cwd().as_path());
    let name = args.and_then(|args| args.first()).or(record.command.first());
    let wanted = Wanted { name: name.map_or("", String::as_str), path, cwd };
    let mut user = user_of(spec);
    user.is_only_one = engine.maps.as_ref().is_some_and(crate::namespaces::idmap::IdMaps::is_single);
    let mounts = mounts_of(spec);
    let examine = |root: &crate::support::root::Root| {
        Ok(Look {
            program: Some(Files { root, mounts: &mounts }.examine(&wanted, &user)?),
            closed_mounts: closed_mounts(spec, &user),
        })
    };
    let view = View::find(engine, container, Reach::One, Access::Read);
    view.and_then(|view| view.with(examine)).unwrap_or_else(|_| Look { program: None, closed_mounts: Vec::new() })
}

/// What is mounted below the root, the overlay on it left out.
fn mounts_of(spec: &Spec) -> Vec<Mounted> {
    let mounts = spec.mounts().iter().flatten().filter(|mount| mount.destination() != Path::new("/"));
    mounts
        .map(|mount| {
            let has = |option: &str| mount.options().iter().flatten().any(|given| given == option);
            let is_bind = has("bind") || has("rbind");
            Mounted {
                destination: mount.destination().clone(),
                source: mount.source().clone().filter(|_| is_bind),
                is_noexec: has("noexec"),
            }
        })
        .collect()
}

/// Binds that are there to be written to, and are closed to the user.
fn closed_mounts(spec: &Spec, user: &User) -> Vec<ClosedMount> {
    let mut closed = Vec::new();
    for mount in spec.mounts().iter().flatten() {
        let has = |option: &str| mount.options().iter().flatten().any(|given| given == option);
        let Some(source) = mount.source().as_ref().filter(|_| has("bind") || has("rbind")) else { continue };
        let is_kernels = mount.destination().starts_with("/proc") || mount.destination().starts_with("/sys");
        let Ok(stat) = rustix::fs::stat(source) else { continue };
        if !has("ro") && !is_kernels && !user.may_write(&stat) {
            closed.push(ClosedMount {
                destination: show(mount.destination()),
                source: show(source),
                owner: stat.st_uid,
                mode: stat.st_mode & 0o7777,
            });
        }
    }
    closed
}

/// The last lines of its log, without what a terminal would act on.
fn last_lines(engine: &Engine, container: &Container) -> Vec<String> {
    let mut last: VecDeque<String> = VecDeque::new();
    let options = LogsOptions { tail: Some(LOG_LINES), ..LogsOptions::default() };
    let shown = logs(engine, container, options, &mut |entry| {
        let text = String::from_utf8_lossy(&entry.bytes);
        let line: String = text.trim_end().chars().take(LINE_LENGTH).filter(|letter| !letter.is_control()).collect();
        last.push_back(line);
        Ok(())
    });
    if shown.is_err() {
        last.clear();
    }
    last.into()
}

fn has_emulators() -> bool {
    let entries = std::fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("qemu-"))
}

fn show(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
