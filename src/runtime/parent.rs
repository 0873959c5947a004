//! The parent: clones, does what only the host's side can do, and hears how it went.
//!
//! | | throughout |
//! |---|---|
//! | namespaces | the caller's |
//! | user | the caller's |
//! | root | the host's |

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use oci_spec::runtime::LinuxNamespaceType;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdGetfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_getfd, pidfd_send_signal, waitid,
};

use super::container::Networks;
use super::foreground::{self, End, Exit};
use super::hooks::HookPlan;
use super::plan::{Plan, ProcessPlan};
use super::protocol::{Channel, Message, Tag};
use super::tape::Step;
use super::{child, hooks, init, landlock, listener};
use crate::cgroups::{Cgroup, Entrances};
use crate::error::{Context, Error, Kind, Result};
use crate::namespaces::idmap;
use crate::namespaces::net_device;
use crate::namespaces::plan::Stages;
use crate::rootfs::bind;
use crate::rootfs::cgroup_mount::CgroupView;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::signal::Signals;

/// What the parent works with beside the plan.
pub(super) struct Surroundings<'a> {
    /// The container's cgroups.
    pub cgroup: &'a Cgroup,
    /// The doors to those of v1.
    pub entrances: &'a Entrances,
    /// What the container sees of them.
    pub view: &'a CgroupView,
    /// The state that hooks get, for a status and a pid.
    pub state_for_hooks: &'a dyn Fn(&str, i32) -> Vec<u8>,
    /// The state that whoever gets the seccomp listener is told, for a pid.
    pub state_for_listener: &'a dyn Fn(i32) -> Vec<u8>,
    /// Told as soon as init is there, before it does anything that must be cleaned up after. Puts it into cgroups that
    /// could not be there before it.
    pub on_init: &'a dyn Fn(Pid) -> Result<()>,
    /// Told of init where a child before it was told of as init, and did its work.
    pub on_clone: &'a dyn Fn(Pid) -> Result<()>,
    /// What the container's network namespace is joined to.
    pub networks: Option<&'a dyn Networks>,
    /// Done while init is busy with its mounts.
    pub meanwhile: &'a dyn Fn() -> Result<()>,
}

/// Init, which is the workload by now or waits in `exec.fifo`.
pub struct Init {
    /// Its pid, as seen from here.
    pub pid: Pid,
    /// A descriptor that stands for it.
    pub pidfd: OwnedFd,
    /// The master of its terminal.
    pub terminal: Option<OwnedFd>,
}

impl Init {
    /// Attends to the workload until it ends: signals, and the terminal if there is one.
    pub fn attend(&mut self, signals: &Signals) -> Result<Exit> {
        let terminal = self.terminal.take();
        let pidfd = self.pidfd.as_fd();
        foreground::attend(pidfd, terminal, signals, pidfd, || {
            Ok(foreground::try_wait(pidfd)?.map_or(End::NotYet, End::Now))
        })
    }
}

/// What the parent answers init's messages with.
pub(super) struct Answers<'a> {
    /// What init becomes.
    pub process: &'a ProcessPlan,
    /// The hooks to run at init's word.
    pub hooks: &'a HookPlan,
    /// Where they write to.
    pub hook_output: &'a hooks::Output,
    /// Whether to leave init where it waits in `exec.fifo`.
    pub leaves_init_waiting: bool,
    /// The state that hooks get, for a status and a pid.
    pub state_for_hooks: &'a dyn Fn(&str, i32) -> Vec<u8>,
    /// The state that whoever gets the seccomp listener is told, for a pid.
    pub state_for_listener: &'a dyn Fn(i32) -> Vec<u8>,
    /// Asked now and then: who cannot wait any longer says so.
    pub gives_up: Option<&'a dyn Fn() -> bool>,
}

/// Clones and sees init through until only the exec is left (`create`) or done.
pub(super) fn launch(plan: &Plan, surroundings: &Surroundings<'_>) -> Result<Init> {
    let (channel, their_channel) = Channel::pair()?;
    let stages = plan.namespaces.stages;
    let flags = if stages == Stages::One { plan.namespaces.create } else { CloneFlags::empty() };
    let into = surroundings.cgroup.v2_directory();
    let (pid, pidfd) = match clone3(flags, into).map_err(explain_clone)? {
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
        Cloned::Child => {
            drop(channel);
            let ours = init::Surroundings {
                cgroup: surroundings.cgroup,
                entrances: surroundings.entrances,
                view: surroundings.view,
                state_for_hooks: surroundings.state_for_hooks,
            };
            match stages {
                Stages::One => init::run(plan, &their_channel, &ours),
                Stages::Two => child::run(plan, &their_channel, &ours),
            }
        }
    };
    drop(their_channel);
    let guard = KillOnDrop::new(pid, pidfd);
    let answers = Answers {
        process: &plan.process,
        hooks: &plan.hooks,
        hook_output: &plan.hook_output,
        leaves_init_waiting: plan.exec_fifo.is_some(),
        state_for_hooks: surroundings.state_for_hooks,
        state_for_listener: surroundings.state_for_listener,
        gives_up: None,
    };
    let launching = Launching { plan, surroundings };
    if stages == Stages::One {
        if let Some(maps) = &plan.namespaces.id_maps {
            idmap::write(pid, maps).context("map the ids of the user namespace")?;
            channel.send(Tag::MapsWritten)?;
        }
        launching.make_known(pid, &channel)?;
    }
    attend(&channel, guard, &answers, stages, Some(&launching))
}

/// What init is answered only while its container is made.
struct Launching<'a> {
    plan: &'a Plan,
    surroundings: &'a Surroundings<'a>,
}

impl Launching<'_> {
    /// Records init, or the child that does its work, and lets it go on. One that has failed by now does not hear it; its
    /// reason is what is read next.
    fn make_known(&self, pid: Pid, channel: &Channel) -> Result<()> {
        (self.surroundings.on_init)(pid)?;
        let _ = channel.send(Tag::Known);
        (self.surroundings.meanwhile)()
    }
}

/// Answers a process that enters a container until it has become the workload; with two stages, a child comes first.
pub(super) fn see_through(channel: &Channel, guard: KillOnDrop, answers: &Answers<'_>, stages: Stages) -> Result<Init> {
    attend(channel, guard, answers, stages, None)
}

/// Answers init, and before it the child, which may do much of init's work.
fn attend(
    channel: &Channel,
    mut guard: KillOnDrop,
    answers: &Answers<'_>,
    stages: Stages,
    launching: Option<&Launching<'_>>,
) -> Result<Init> {
    let mut is_child = stages == Stages::Two;
    let mut is_hidden = false;
    let mut terminal = None;
    let mut is_ready = false;
    loop {
        if let Some(gives_up) = answers.gives_up {
            guard.wait_with_patience(channel, gives_up)?;
        }
        if is_child {
            guard.wait_for_word(channel)?;
        }
        let pid = guard.pid().as_raw_nonzero().get();
        let message = match (channel.receive()?, launching) {
            (Some(Message::WantsMaps), Some(launching)) if is_child => {
                if let Some(maps) = &launching.plan.namespaces.id_maps {
                    idmap::write(guard.pid(), maps).context("map the ids of the user namespace")?;
                }
                channel.send(Tag::MapsWritten)?;
                continue;
            }
            (Some(Message::Hidden), Some(launching)) if is_child => {
                is_hidden = true;
                launching.make_known(guard.pid(), channel)?;
                continue;
            }
            (Some(Message::Init { pid, pidfd }), launching) if is_child => {
                is_child = false;
                guard.hand_over(pid, pidfd, answers.gives_up)?;
                match launching {
                    Some(launching) if !is_hidden => launching.make_known(guard.pid(), channel)?,
                    Some(launching) => {
                        (launching.surroundings.on_clone)(guard.pid())?;
                        let _ = channel.send(Tag::Known);
                    }
                    None => {
                        let _ = channel.send(Tag::Known);
                    }
                }
                continue;
            }
            (Some(Message::WantsDevices { namespace }), Some(launching)) => {
                set_up_network(launching, namespace.as_fd(), pid)?;
                channel.send(Tag::DevicesMoved)?;
                continue;
            }
            (Some(Message::WantsIds { mount, tree }), Some(launching)) => {
                bind::map_for_init(&launching.plan.rootfs, mount as usize, &tree)?;
                channel.send(Tag::IdsMapped)?;
                continue;
            }
            (message, _) => message,
        };
        match message {
            Some(Message::MountsDone) => {
                let state = (answers.state_for_hooks)("creating", pid);
                hooks::run("prestart", &answers.hooks.prestart, &state, answers.hook_output)?;
                hooks::run("createRuntime", &answers.hooks.create_runtime, &state, answers.hook_output)?;
                channel.send(Tag::HooksDone)?;
            }
            Some(Message::Terminal { master }) => terminal = Some(master),
            Some(Message::Listener { number, fd }) => {
                let program = answers.process.seccomp.as_ref();
                if let Some(listener) = program.and_then(|program| program.listener.as_ref()) {
                    let fd = match fd {
                        Some(fd) => fd,
                        None => guard.take_fd(number).map_err(explain_listener)?,
                    };
                    listener::send(listener, &fd, pid, &(answers.state_for_listener)(pid))?;
                }
                channel.send(Tag::ListenerSent)?;
            }
            Some(Message::Ready) if answers.leaves_init_waiting => break,
            Some(Message::Ready) => is_ready = true,
            Some(Message::Failed(error)) => return Err(error),
            Some(Message::ExecFailed { errno, step }) => return Err(explain_exec(answers.process, errno, step)),
            None if is_ready => break,
            None => return Err(guard.explain_end()),
            Some(message) => {
                return Err(Error::new(Kind::Other, format!("init: unexpected {:?}", message.tag())));
            }
        }
    }
    let (pid, pidfd) = guard.disarm();
    Ok(Init { pid, pidfd, terminal })
}

/// Moves interfaces to the network namespace that init is in by now, and joins that to networks.
fn set_up_network(launching: &Launching<'_>, namespace: BorrowedFd<'_>, pid: i32) -> Result<()> {
    let Launching { plan, surroundings } = launching;
    if !plan.net_devices.is_empty() {
        let joined = plan.namespaces.join.iter().find(|join| join.kind == LinuxNamespaceType::Network);
        let path =
            joined.map_or_else(|| format!("/proc/{pid}/ns/net"), |join| join.path.to_string_lossy().into_owned());
        net_device::move_all(&plan.net_devices, namespace, &path)?;
    }
    surroundings.networks.map_or(Ok(()), |networks| networks.connect(namespace))
}

/// A process that dies with its guard, so that a failure half-way leaves none behind.
pub(super) struct KillOnDrop {
    process: Option<(Pid, OwnedFd)>,
    /// How long its end is waited for.
    patience: Timespec,
}

/// A process that was killed ends within this time, unless it is frozen, or waits for a disk that does not answer.
const KILL_PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// How often who gives up is asked.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

impl KillOnDrop {
    /// Guards a child.
    pub(super) fn new(pid: Pid, pidfd: OwnedFd) -> Self {
        Self { process: Some((pid, pidfd)), patience: KILL_PATIENCE }
    }

    fn pid(&self) -> Pid {
        // Taken out only by `disarm`, which takes the guard too.
        self.process.as_ref().map_or(Pid::INIT, |(pid, _)| *pid)
    }

    /// Guards init from now on, and reaps the child, which has ended with its work.
    fn hand_over(&mut self, pid: i32, pidfd: OwnedFd, gives_up: Option<&dyn Fn() -> bool>) -> Result<()> {
        let pid = Pid::from_raw(pid).ok_or_else(|| Error::new(Kind::Other, "the child sent no pid"))?;
        if let Some((_, child)) = self.process.replace((pid, pidfd)) {
            let has_ended = || Ok::<_, Error>(foreground::wait_at_most(&child, LOOK)?.is_some());
            while let Some(gives_up) = gives_up
                && !has_ended()?
            {
                if gives_up() {
                    reap_later(child);
                    return Err(self.give_up());
                }
            }
            if gives_up.is_none() {
                waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED).context("wait for the child")?;
            }
        }
        Ok(())
    }

    fn disarm(mut self) -> (Pid, OwnedFd) {
        self.process.take().expect("a guard is disarmed once, by value")
    }

    /// Gets a copy of a descriptor of the process, by its number there (pidfd_getfd(2), Linux 5.6).
    fn take_fd(&self, number: i32) -> Result<OwnedFd, Errno> {
        let (_, pidfd) = self.process.as_ref().ok_or(Errno::SRCH)?;
        pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty())
    }

    /// Waits until there is something to receive. Init has the other end too, and waits for us: if the child ends without
    /// having told of it, there is no end of file.
    fn wait_for_word(&self, channel: &Channel) -> Result<()> {
        let Some((_, pidfd)) = &self.process else { return Ok(()) };
        let mut fds = [PollFd::new(channel, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None)).context("wait for the child")?;
        if fds[0].revents().is_empty() { Err(self.explain_end()) } else { Ok(()) }
    }

    /// Waits as long as that makes sense to who waits; the process is not waited for then, either.
    fn wait_with_patience(&mut self, channel: &Channel, gives_up: &dyn Fn() -> bool) -> Result<()> {
        let Some((_, pidfd)) = &self.process else { return Ok(()) };
        loop {
            let mut fds = [PollFd::new(channel, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            if rustix::io::retry_on_intr(|| poll(&mut fds, Some(&LOOK))).context("wait for the child")? > 0 {
                return Ok(());
            }
            if gives_up() {
                return Err(self.give_up());
            }
        }
    }

    /// What is frozen is killed, and not waited for.
    fn give_up(&mut self) -> Error {
        self.patience = Timespec::default();
        Error::new(Kind::State, "the container was paused meanwhile")
    }

    /// Says how a process ended that sent no reason.
    fn explain_end(&self) -> Error {
        let status = self.process.as_ref().and_then(|(_, pidfd)| {
            waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).ok().flatten()
        });
        let cause = match status {
            Some(status) => describe_end(&status),
            None => "for an unknown reason".to_owned(),
        };
        let error = Error::new(Kind::Other, format!("init ended before the workload started: {cause}"));
        if cause.contains("signal 9") { error.with_hint("the memory limit may be too low to start in") } else { error }
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some((_, pidfd)) = self.process.take() {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
            if let Ok(None) = foreground::wait_at_most(&pidfd, self.patience) {
                reap_later(pidfd);
            }
        }
    }
}

/// Children that were killed and have yet to end.
static UNREAPED: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

fn reap_later(child: OwnedFd) {
    UNREAPED.lock().unwrap_or_else(PoisonError::into_inner).push(child);
}

/// Reaps those that have ended by now: who lives for long would gather them.
pub(super) fn reap_left() {
    let mut left = UNREAPED.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain(|child| matches!(foreground::try_wait(child), Ok(None)));
}

fn describe_end(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("killed by signal {signal}"),
        _ => "for an unknown reason".to_owned(),
    }
}

/// A file that is there and does not start has a reason that the error number hides.
fn explain_exec(process: &ProcessPlan, errno: Errno, step: u32) -> Error {
    let name = process.argv.strings().first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let (is_exec, step) = match Step::from_raw(step) {
        Some(Step::Exec) | None => (true, format!("exec {name}")),
        Some(Step::Label) if let [label, ..] = &process.labels.at_exec[..] => return label.explain(errno),
        Some(Step::Landlock) => {
            return Error::from(errno).context(landlock::ANNOTATION).context(Step::Landlock.describe());
        }
        // Such a PID namespace takes nobody any more (pid_namespaces(7)).
        Some(Step::Appear) if errno == Errno::NOMEM => {
            return Error::new(Kind::State, "the first process of the container's PID namespace has ended");
        }
        Some(Step::Capabilities) => {
            let error = Error::from(errno).context(Step::Capabilities.describe());
            return error.with_hint("without noNewPrivileges the seccomp profile must allow capset");
        }
        Some(step) => (false, step.describe().to_owned()),
    };
    if !is_exec {
        return Error::from(errno).context(step);
    }
    let error = Error::from(errno).with_kind(Kind::NotExecutable).context(step);
    match errno {
        Errno::NOENT => error.with_hint(format!("{name} exists; the interpreter or loader it names does not")),
        Errno::NOEXEC => error.with_hint(format!("{name} is for another architecture, or a script without `#!`")),
        _ => error,
    }
}

fn explain_listener(errno: Errno) -> Error {
    let error = Error::from(errno).context("take the seccomp listener from init");
    match errno {
        Errno::PERM => error.with_hint("pidfd_getfd(2) needs CAP_SYS_PTRACE"),
        _ => error,
    }
}

fn explain_clone(errno: Errno) -> Error {
    let error = Error::from(errno).context("clone into new namespaces");
    match errno {
        Errno::PERM => error.with_hint("without root, a container needs a user namespace, and this host may forbid those (sysctl kernel.apparmor_restrict_unprivileged_userns, kernel.unprivileged_userns_clone)"),
        Errno::NOSPC | Errno::USERS => error.with_hint("a limit of /proc/sys/user/max_*_namespaces is reached"),
        _ => error,
    }
}
