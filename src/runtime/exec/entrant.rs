//! The process of `exec`: enters the container and becomes the workload there.
//!
//! | | when it starts | when it ends |
//! |---|---|---|
//! | namespaces | the caller's | the container's |
//! | user | the caller's | the workload's |
//! | root | the host's | the container's |
//! | may | what the caller may | what the workload may |
//!
//! Who enters a PID namespace is not in it: its children are. So nobody inside sees this process, which has the host's
//! descriptors and runs from the host's executable (CVE-2016-9962, CVE-2019-5736, CVE-2024-21626). What they see is cloned
//! last, by the sealed stub.

use std::convert::Infallible;
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::process::DumpableBehavior;

use super::super::protocol::{Channel, Tag};
use super::super::workload::{Before, Filtering, Place};
use super::super::{init, workload};
use super::{Appearance, Plan};
use crate::error::{Context, Error, Result};
use crate::support::root::Root;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::process::exit_now;
use crate::sys::signal;

/// Exit status of a stage that did not get to the workload; the error itself went over the channel.
const FAILED: i32 = 255;

/// Runs the entrant, or the child before it, to its end.
pub(super) fn run(plan: &Plan<'_>, channel: &Channel) -> ! {
    let Err(error) = enter(plan, channel).and_then(|()| become_workload(plan, channel));
    channel.send_failure(&error);
    exit_now(FAILED)
}

/// 1. What an ordinary user may do only as long as it owns its own `/proc/self`, and the cgroups.
/// 2. Not dumpable before the first join.
/// 3. All namespaces at once, and root of the user namespace: our own id has no number there.
/// 4. Where the entrant has to be in the PID namespace for what is to come, it is cloned here, with the caller as its
///    parent, so that the caller can wait for it.
fn enter(plan: &Plan<'_>, channel: &Channel) -> Result<()> {
    prepare(plan, channel)?;
    plan.inhabitant.enter(plan.kinds)?;
    become_root(plan)?;
    enter_root(plan)?;
    if plan.appearance != Appearance::Early {
        return Ok(());
    }
    match clone3(CloneFlags::PARENT, None).context("clone into the container")? {
        // Not a word of ours before the child has said who we are.
        Cloned::Child => channel.expect(Tag::Known),
        Cloned::Parent(pid, pidfd) => {
            channel.send_init(pid.as_raw_nonzero().get(), pidfd.as_fd())?;
            exit_now(0)
        }
    }
}

/// The order is init's, without what makes a container:
///
/// 1. A session, a session keyring, the terminal from the container's devpts.
/// 2. Limits while we may still raise them, then the credentials.
/// 3. The executable is looked up, then the tape.
fn become_workload(plan: &Plan<'_>, channel: &Channel) -> Result<Infallible> {
    let process = &plan.process;
    let _ = rustix::thread::set_name(c"husk:[2:INIT]");
    signal::reset_dispositions();
    signal::unblock_all().context("unblock signals")?;
    workload::start_session(process, plan.proc)?;
    let environment = {
        let root = Root::open(std::path::Path::new("/"))?;
        workload::complete_environment(process, &root)
    };
    let place = if plan.appearance == Appearance::Late {
        workload::provide_terminal(process, channel)?;
        Place::OutOfSight
    } else {
        workload::make_terminal(process, channel)?;
        Place::Container
    };
    let prepared = workload::take_credentials(process, plan.proc, channel, Filtering::Last)?;
    workload::play_tape(process, plan.proc, channel, &prepared, environment.as_ref(), Before::Ready, place)
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
