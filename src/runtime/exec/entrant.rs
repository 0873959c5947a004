//! The process of `exec`: enters the container and becomes the workload there.
//!
//! | | when it starts | when it ends |
//! |---|---|---|
//! | namespaces | the caller's, but for the container's PID namespace | the container's |
//! | user | the caller's | the workload's |
//! | root | the host's | the container's |
//! | may | what the caller may | what the workload may |
//!
//! Without rights over the container's namespaces from outside, a child in between enters its user namespace first and
//! clones the entrant from there, as [`super::super::child`] does for init.

use std::convert::Infallible;

use rustix::io::Errno;
use rustix::process::DumpableBehavior;

use super::super::protocol::{Channel, Tag};
use super::super::workload::{Before, FilterState};
use super::super::{init, workload};
use super::Plan;
use crate::error::{Context, Error, Result};
use crate::namespaces::plan::Stages;
use crate::support::root::Root;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::process::exit_now;
use crate::sys::signal;

/// Exit status of a stage that did not get to the workload; the error itself went over the channel.
const FAILED: i32 = 255;

/// Runs the entrant, or the child before it, to its end.
pub(super) fn run(plan: &Plan<'_>, channel: &Channel) -> ! {
    let answer = match plan.stages {
        Stages::One => become_workload(plan, channel),
        Stages::Two => match clone_entrant(plan, channel) {
            // Not a word of ours before the child has said who we are.
            Ok(Side::Entrant) => channel.expect(Tag::Known).and_then(|()| become_workload(plan, channel)),
            Ok(Side::Child) => exit_now(0),
            Err(error) => Err(error),
        },
    };
    let Err(error) = answer;
    channel.send_failure(&error);
    exit_now(FAILED)
}

enum Side {
    Child,
    Entrant,
}

/// The child's part:
///
/// 1. What an ordinary user may do only as long as it owns its own `/proc/self`, and the cgroups.
/// 2. Not dumpable before the first join (CVE-2016-9962).
/// 3. All namespaces at once, and root of the user namespace: our own id has no number there.
/// 4. The entrant, with the caller as its parent, so that the caller can wait for it.
fn clone_entrant(plan: &Plan<'_>, channel: &Channel) -> Result<Side> {
    prepare(plan, channel)?;
    plan.inhabitant.enter(plan.kinds)?;
    become_root(plan)?;
    enter_root(plan)?;
    match clone3(CloneFlags::PARENT, None).context("clone into the container")? {
        Cloned::Child => Ok(Side::Entrant),
        Cloned::Parent(pid, pidfd) => {
            channel.send_init(pid.as_raw_nonzero().get(), std::os::fd::AsFd::as_fd(&pidfd))?;
            Ok(Side::Child)
        }
    }
}

/// The order is init's, without what makes a container:
///
/// 1. The OOM score and the cgroups, through the host's `/proc` and the parent's doors; not dumpable before anything of
///    the container's is entered.
/// 2. All namespaces at once; the PID namespace it was born in.
/// 3. A session, a session keyring, the terminal from the container's devpts.
/// 4. Limits while we may still raise them, then the credentials.
/// 5. The executable is looked up, then the tape.
fn become_workload(plan: &Plan<'_>, channel: &Channel) -> Result<Infallible> {
    let process = &plan.process;
    if plan.stages == Stages::One {
        prepare(plan, channel)?;
        plan.inhabitant.enter(plan.kinds.difference(CloneFlags::NEWPID))?;
        become_root(plan)?;
        enter_root(plan)?;
    }
    let _ = rustix::thread::set_name(c"husk:[2:INIT]");
    signal::reset_dispositions();
    signal::unblock_all().context("unblock signals")?;
    workload::start_session(process, plan.proc)?;
    let environment = {
        let root = Root::open(std::path::Path::new("/"))?;
        workload::complete_environment(process, &root)
    };
    workload::make_terminal(process, channel)?;
    let prepared = workload::take_credentials(process, plan.proc, channel)?;
    let filter = FilterState::of(process);
    workload::play_tape(process, plan.proc, channel, &prepared, environment.as_ref(), filter, Before::Ready)
}

/// What is done from the host's side.
fn prepare(plan: &Plan<'_>, channel: &Channel) -> Result<()> {
    init::set_oom_score(&plan.process, plan.proc)?;
    become_undumpable()?;
    if plan.waits_to_be_moved() {
        channel.expect(Tag::InCgroup)?;
    }
    plan.entrances.enter().map_err(explain_entrance)?;
    let text = plan.proc.read("self/cgroup").context("read /proc/self/cgroup")?;
    plan.cgroup.verify(&text)?;
    plan.affinity.set_final()
}

fn explain_entrance(errno: Errno) -> Error {
    let error = Error::from(errno).context("enter the container's cgroups");
    if errno == Errno::NOSPC {
        error.with_hint("a cgroup of cpuset takes processes once cpuset.cpus and cpuset.mems are set")
    } else {
        error
    }
}

/// Becomes user 0 of the container's user namespace, if it is another one. With a change of ids, fs.suid_dumpable says
/// whether a process is dumpable (proc_sys_fs(5)).
fn become_root(plan: &Plan<'_>) -> Result<()> {
    if plan.kinds.contains(CloneFlags::NEWUSER) {
        init::become_root_of_joined()?;
        become_undumpable()?;
    }
    Ok(())
}

/// The root of a mount namespace that the container has not to itself is not the container's: whoever enters it has the
/// host's files.
fn enter_root(plan: &Plan<'_>) -> Result<()> {
    let Some(root) = &plan.root else { return Ok(()) };
    rustix::process::fchdir(root).context("change to the container's root")?;
    rustix::process::chroot(c".").context("chroot into the container's root")
}

fn become_undumpable() -> Result<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable")
}
