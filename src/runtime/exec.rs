//! The verb `exec`: another process in a container that runs.
//!
//! Everything is computed here before the clone; [`entrant`] enters. The container is known by what `create` kept of it:
//! its bundle may be another by now, or gone.

mod entrant;
mod process;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use rustix::thread::CpuSet;

use super::attributes::ExecAffinity;
use super::console;
use super::container::{Mode, Runtime, not_found};
use super::foreground::{self, Exit};
use super::hand_over::{HandOver, check_terminal, hook_state};
use super::hooks::{HookPlan, Output};
use super::parent::{Answers, Init, KillOnDrop, reap_left, see_through};
use super::plan::{Choices, ProcessPlan, process_plan, seccomp_filter};
use super::protocol::{Channel, Tag};
use super::state::{State, StateDirectory};
use crate::cgroups::resctrl::Group;
use crate::cgroups::{Cgroup, Entrances, Hierarchies, Record};
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::enter::Inhabitant;
use crate::namespaces::plan::{Privileged, Stages};
use crate::rootfs::host::HostProc;
use crate::spec::validate::validate_process;
use crate::support::log;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::process::{CloseHow, close_range};
use crate::sys::signal::{self, Signals};

pub use process::{Changes, Command};

/// What `exec` is asked for.
pub struct ExecRequest<'a> {
    /// The container's id.
    pub id: &'a str,
    /// What is to be executed.
    pub command: Command<'a>,
    /// Whether the caller stays; there is nothing to create.
    pub mode: Mode,
    /// Whether a container that is paused is entered, to go on with it.
    pub enters_paused: bool,
    /// Descriptors from 3 on that the process keeps.
    pub preserved_fds: u32,
    /// Cgroups below the container's own: controllers of v1, or none for all, and a path.
    pub subgroups: &'a [(Option<String>, PathBuf)],
    /// Where the pid is written.
    pub pid_file: Option<&'a Path>,
    /// Where the terminal's master is sent.
    pub console_socket: Option<&'a Path>,
    /// Where the pidfd is sent.
    pub pidfd_socket: Option<&'a Path>,
    /// Who cannot wait for a container that is paused while it is entered says so here; it is asked now and then.
    pub gives_up: Option<&'a dyn Fn() -> bool>,
}

/// A process that was started in a container.
pub struct Execution {
    /// The process.
    pub init: Init,
    /// Things the caller should be told.
    pub warnings: Vec<String>,
}

impl Execution {
    /// Attends to the process until it ends: signals, and the terminal if there is one.
    pub fn attend(&mut self, signals: &Signals) -> Result<Exit> {
        self.init.attend(signals)
    }
}

/// When the entrant is in the container's PID namespace, where others see it, and with CAP_SYS_PTRACE more than that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Appearance {
    /// From its birth: the container has the caller's.
    Always,
    /// Before it becomes the workload, with all that it still has. Only where it can't be late.
    Early,
    /// Once it is the stub.
    Late,
}

impl Appearance {
    fn of(kinds: CloneFlags, process: &ProcessPlan) -> Self {
        match kinds.contains(CloneFlags::NEWPID) {
            false => Self::Always,
            true if process.can_appear_late() => Self::Late,
            true => Self::Early,
        }
    }

    /// Whether one process enters, and another stays.
    fn stages(self) -> Stages {
        if self == Self::Always { Stages::One } else { Stages::Two }
    }
}

/// Everything the entrant needs, computed before the clone.
struct Plan<'a> {
    process: ProcessPlan,
    /// Processors before and after the cgroups are entered.
    affinity: ExecAffinity,
    /// The container's first process.
    inhabitant: Inhabitant<'a>,
    /// Namespaces that the container has of its own.
    kinds: CloneFlags,
    appearance: Appearance,
    /// The cgroups to be in; on v2 the entrant is born there.
    cgroup: Cgroup,
    /// Whether the entrant can't be born there, and has to be moved.
    is_moved: bool,
    /// Whether the caller has named the cgroup, be it as `/`.
    has_named_cgroup: bool,
    /// The doors to those of v1.
    entrances: Entrances,
    /// The container's root, where that is not the root of its mount namespace.
    root: Option<OwnedFd>,
    /// The resctrl group to be in.
    resctrl: Option<Group>,
    /// The host's `/proc`.
    proc: &'a HostProc,
}

impl Plan<'_> {
    /// Whether the entrant waits until the parent has brought it where it is to be.
    fn waits_to_be_moved(&self) -> bool {
        self.is_moved || self.resctrl.is_some()
    }
}

impl Runtime {
    /// Starts a process in a container, and sees it through to its exec.
    pub fn exec(&self, request: &ExecRequest<'_>) -> Result<Execution> {
        // What the caller left open is for nobody inside (CVE-2024-21626).
        close_range(3, CloseHow::OnExec).context("mark descriptors close-on-exec")?;
        reap_left();
        let directory = self.root.open(request.id)?;
        let state = directory.load()?.ok_or_else(|| not_found(request.id))?;
        let first = first_process(&state)?;
        let proc = HostProc::open()?;
        let cgroup = cgroup_of(&state, &proc)?;
        if !request.enters_paused && cgroup.is_frozen().unwrap_or(false) {
            return Err(paused());
        }
        let (plan, warnings) = plan(request, &directory, &state, first.as_fd(), cgroup, &proc)?;
        let mut init = launch(plan, &|_| hook_state(&state, "running", state.pid), request.gives_up)?;
        let wanted = HandOver {
            console_socket: request.console_socket,
            pidfd_socket: request.pidfd_socket,
            pid_file: request.pid_file,
        };
        if let Err(error) = wanted.serve(&mut init) {
            let _ = signal::send(init.pidfd.as_fd(), signal::KILL);
            let _ = foreground::wait(&init.pidfd);
            return Err(error);
        }
        Ok(Execution { init, warnings })
    }
}

/// Opens the first process of a container.
fn first_process(state: &State) -> Result<OwnedFd> {
    match state.open_init()? {
        Some(first) => Ok(first),
        None if state.pid == 0 => Err(unfinished()),
        None => Err(stopped()),
    }
}

/// The words are runc's, here and below.
fn stopped() -> Error {
    Error::new(Kind::State, "cannot exec in a stopped container")
}

fn paused() -> Error {
    Error::new(Kind::State, "cannot exec in a paused container (use --ignore-paused to override)")
}

fn unfinished() -> Error {
    Error::new(Kind::State, "cannot exec in a container that is still being created")
}

fn plan<'a>(
    request: &ExecRequest<'_>,
    directory: &StateDirectory,
    state: &State,
    first: BorrowedFd<'a>,
    mut cgroup: Cgroup,
    proc: &'a HostProc,
) -> Result<(Plan<'a>, Vec<String>)> {
    let spec = configuration(directory, state, proc)?.ok_or_else(unfinished)?;
    let own = spec.process().as_ref().ok_or_else(|| Error::invalid("process: missing"))?;
    let process = request.command.process(own)?;
    validate_process(&process)?;
    check_terminal(Some(&process), request.console_socket.is_some(), request.mode)?;
    let choices = Choices { preserved_fds: request.preserved_fds, ..Choices::default() };
    let affinity = ExecAffinity::of(&process, &spec)?;
    let mut process = process_plan(&process, &spec, &choices)?;
    if request.mode == Mode::Foreground && process.terminal {
        process.console_size = process.console_size.or_else(console::callers_size);
    }
    process.seccomp = seccomp_filter(&spec)?;
    process.has_own_keyring = !state.keeps_keyring;

    let is_root = rustix::process::geteuid().is_root();
    let privileged = if is_root { Privileged::Yes } else { Privileged::No };
    let inhabitant = Inhabitant { pid: state.pid, pidfd: first, proc: proc.as_fd(), privileged };
    let kinds = inhabitant.kinds(&spec)?;
    let has_user_namespace = kinds.contains(CloneFlags::NEWUSER);
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let is_own = |ns: &LinuxNamespace| ns.typ() == LinuxNamespaceType::Mount && ns.path().is_none();
    let root = if namespaces.iter().any(is_own) { None } else { Some(inhabitant.root()?) };
    let warnings = process.fit_to_caller(has_user_namespace, is_root)?;
    for (controllers, path) in request.subgroups {
        cgroup = cgroup.subgroup(controllers.as_deref(), path)?;
    }
    let entrances = cgroup.entrances(Hierarchies::Legacy)?;
    let appearance = Appearance::of(kinds, &process);
    let (is_moved, resctrl) = (false, state.resctrl.clone());
    let has_named_cgroup = !request.subgroups.is_empty();
    let plan = Plan {
        process,
        affinity,
        inhabitant,
        kinds,
        appearance,
        cgroup,
        is_moved,
        has_named_cgroup,
        entrances,
        root,
        resctrl,
        proc,
    };
    Ok((plan, warnings))
}

/// Reads the configuration that the container was made of; none as long as its init may not be inside.
pub(super) fn configuration(directory: &StateDirectory, state: &State, proc: &HostProc) -> Result<Option<Spec>> {
    if let Some(spec) = directory.load_config()? {
        return Ok(Some(spec));
    }
    // Init may be the workload already and the runtime slow to write that down, or dead. As long as init runs our own
    // executable it may not have pivoted, and its mount namespace is the host's files.
    let executable = |who: &str| -> Result<_> {
        let path = format!("{who}/exe");
        let stat =
            rustix::fs::statat(proc, &path, AtFlags::empty()).with_context(|| format!("inspect /proc/{path}"))?;
        Ok((stat.st_dev, stat.st_ino))
    };
    let is_inside = executable(&state.pid.to_string())? != executable("self")?;
    let spec = if is_inside { directory.load_unpublished_config()? } else { None };
    // Published between the two looks, it has another name.
    match spec {
        Some(spec) => Ok(Some(spec)),
        None => directory.load_config(),
    }
}

/// Opens the container's cgroups. If the one of v2 is gone, the first process was moved out of it and knows a better one.
fn cgroup_of(state: &State, proc: &HostProc) -> Result<Cgroup> {
    let Some(record) = &state.cgroups else { return Cgroup::open(Record::default()) };
    let cgroup = Cgroup::open(record.clone())?;
    if cgroup.record() == *record { Ok(cgroup) } else { cgroup_of_first(record, state.pid, proc) }
}

/// Opens the cgroups of a container, that of v2 where its first process is now.
fn cgroup_of_first(record: &Record, pid: i32, proc: &HostProc) -> Result<Cgroup> {
    let text = proc.read(&format!("{pid}/cgroup")).with_context(|| format!("read /proc/{pid}/cgroup"))?;
    Cgroup::open(record.with_unified_of(&text)?)
}

/// Clones the entrant and sees it through.
fn launch(
    mut plan: Plan<'_>,
    state_for_listener: &dyn Fn(i32) -> Vec<u8>,
    gives_up: Option<&dyn Fn() -> bool>,
) -> Result<Init> {
    let (channel, their_channel) = Channel::pair()?;
    // Inherited: on v2 there is no moment between the birth and the cgroup.
    plan.affinity.set_initial(None)?;
    // runc's words, here and below, which its users look for.
    log::debug(|| format!("nsexec: affinity: {}", describe_affinity()));
    let answer = match clone3(CloneFlags::empty(), plan.cgroup.v2_directory()) {
        // v2 has no processes beside subtrees with controllers: a container with a cgroup manager of its own has moved
        // its first process to a leaf. There is room there. Who has named a cgroup means that one.
        Err(Errno::BUSY | Errno::NOENT | Errno::NODEV)
            if plan.cgroup.v2_directory().is_some() && !plan.has_named_cgroup =>
        {
            plan.cgroup = cgroup_of_first(&plan.cgroup.record(), plan.inhabitant.pid, plan.proc)?;
            clone3(CloneFlags::empty(), plan.cgroup.v2_directory())
        }
        // A user in a login session may write to the cgroup, and to nothing above it that is above the session too. The
        // user's systemd may.
        Err(Errno::ACCESS) if plan.cgroup.is_unit() => {
            plan.is_moved = true;
            clone3(CloneFlags::empty(), None)
        }
        answer => answer,
    };
    let (pid, pidfd) = match answer.map_err(explain_clone)? {
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
        Cloned::Child => {
            drop(channel);
            entrant::run(&plan, &their_channel)
        }
    };
    drop(their_channel);
    log::debug(|| format!("nsexec container setup: cloned into namespaces that are there, {:?}", plan.appearance));
    log::debug(|| format!("child process in init(): process {}", pid.as_raw_nonzero()));
    let guard = KillOnDrop::new(pid, pidfd);
    if plan.is_moved {
        plan.cgroup.join(pid, Hierarchies::Every)?;
    }
    if let Some(group) = &plan.resctrl {
        group.join(pid)?;
    }
    if plan.waits_to_be_moved() {
        channel.send(Tag::InCgroup)?;
    }
    log::debug(|| "setns_init: about to exec".to_owned());
    see_through(
        &channel,
        guard,
        &Answers {
            process: &plan.process,
            hooks: &HookPlan::default(),
            hook_output: &Output::default(),
            leaves_init_waiting: false,
            state_for_hooks: &|_, _| Vec::new(),
            state_for_listener,
            gives_up,
        },
        plan.appearance.stages(),
    )
}

/// Gives the processors that this thread, and a child of it, may run on, as a mask.
fn describe_affinity() -> String {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return "unknown".to_owned() };
    let digit = |place: usize| (0..4).fold(0, |digit, bit| digit | u32::from(set.is_set(place * 4 + bit)) << bit);
    let digits = (0..CpuSet::MAX_CPU / 4).rev().map(digit).skip_while(|digit| *digit == 0);
    let digits: String = digits.filter_map(|digit| char::from_digit(digit, 16)).collect();
    format!("0x{digits}")
}

fn explain_clone(errno: Errno) -> Error {
    match errno {
        // The first process has ended, and its PID namespace takes nobody any more (pid_namespaces(7)).
        Errno::NOMEM => stopped(),
        // runc's words.
        Errno::BUSY => Error::from(errno).context("adding pid to cgroups").with_hint(
            "on v2 a cgroup whose controllers are for its children (cgroup.subtree_control) takes no processes",
        ),
        errno => Error::from(errno).context("clone into the container"),
    }
}
