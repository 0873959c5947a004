//! Init: the process that becomes the workload.
//!
//! | | when it starts | when it ends |
//! |---|---|---|
//! | namespaces | all that were to be created; joined ones in step 2 | the container's |
//! | user | the caller's | the workload's |
//! | root | the host's | the container's |
//! | may | everything its user namespace allows | what the workload may |
//!
//! It has one thread, the parent's memory as a copy, and one way to report: the channel. It never unwinds and never
//! returns: it becomes the workload, by way of a sealed stub (see [`crate::sys::stub`]), or sends an error and `_exit`s.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Hook, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Signal};
use rustix::thread::{Gid, Uid};

use super::plan::{Plan, ProcessPlan};
use super::protocol::{Channel, Tag};
use super::workload::{Before, Filtering, Place, Prepared};
use super::{attributes, console, hooks, workload};
use crate::cgroups::{Cgroup, Entrances};
use crate::error::{Context, Result};
use crate::namespaces::plan::{Join, Stages, enter};
use crate::rootfs::cgroup_mount::CgroupView;
use crate::rootfs::host::HostProc;
use crate::rootfs::setup;
use crate::seccomp::Program;
use crate::support::root::Root;
use crate::sys::clone::{CloneFlags, Cloned, clone_sibling, unshare};
use crate::sys::process::{CStringArray, close_all_but, exit_now};
use crate::sys::signal;

/// Exit status of init when it could not become the workload; the error itself went over the channel.
const FAILED: i32 = 255;

/// What the parent alone knows when it clones.
pub(super) struct Surroundings<'a> {
    /// The container's cgroups; on v2 init is born in its own.
    pub cgroup: &'a Cgroup,
    /// The doors to those of v1, opened by the parent.
    pub entrances: &'a Entrances,
    /// What the container sees of them.
    pub view: &'a CgroupView,
    /// The container's state as hooks get it, with a pid that init fills in.
    pub state_for_hooks: &'a dyn Fn(&str, i32) -> Vec<u8>,
}

/// Runs init to its end.
pub(super) fn run(plan: &Plan, channel: &Channel, surroundings: &Surroundings<'_>) -> ! {
    let Err(error) = become_workload(plan, channel, surroundings, None);
    channel.send_failure(&error);
    exit_now(FAILED)
}

/// What the child knows that does init's work in hiding.
pub(super) struct Hidden<'a> {
    /// The PID namespace that init is to appear in.
    pub processes: &'a Join,
    /// Whether the child's own children are in it already, and so its hooks.
    pub has_joined: bool,
}

/// Runs the child as far as init may not be seen, then clones init, to its end.
pub(super) fn run_hidden(plan: &Plan, channel: &Channel, surroundings: &Surroundings<'_>, hidden: &Hidden<'_>) -> ! {
    let begin = || {
        channel.send(Tag::Hidden)?;
        channel.expect(Tag::Known)
    };
    let Err(error) = match begin() {
        Ok(()) => become_workload(plan, channel, surroundings, Some(hidden)),
        Err(error) => Err(error),
    };
    channel.send_failure(&error);
    exit_now(FAILED)
}

/// The order is the design:
///
///  1. The OOM score; then not dumpable before anything is joined: nothing inside may trace us or read our `/proc` (CVE-2016-9962).
///  2. Ids of the new user namespace, then the namespaces that init itself joins.
///  3. A session and a session keyring of our own.
///  4. The file system tree, below a descriptor, while the host's paths are still there.
///  5. What is written through the host's `/proc`: sysctls.
///  6. Hooks of the runtime, then those of the container, both before the pivot (runtime-spec, "Lifecycle" 4-6).
///  7. The pivot, the terminal from the container's devpts, the read-only root.
///  8. Limits while we may still raise them, then the credentials.
///  9. The executable is looked up, so that `create` reports what is missing.
/// 10. In a PID namespace that is joined, all of this was the child's work, and only now, or by the tape, there is init.
/// 11. `create` waits here for `start`.
/// 12. The rest is a tape that a sealed stub plays: seccomp last, so that the profile need allow nothing but the exec.
fn become_workload(
    plan: &Plan,
    channel: &Channel,
    surroundings: &Surroundings<'_>,
    hidden: Option<&Hidden<'_>>,
) -> Result<Infallible> {
    let is_known = prepare_process(plan, channel, surroundings)?;
    // With two stages it has been waited for already.
    let mut waits = plan.namespaces.stages == Stages::One && !is_known;
    if waits && surroundings.cgroup.adopts() {
        // By then systemd has moved us: before anything is allocated that the workload will have, so that it counts.
        channel.expect(Tag::Known)?;
        waits = false;
    }
    let view_of_cgroups = || {
        if !plan.namespaces.joins(LinuxNamespaceType::Cgroup) {
            enter_cgroups(plan, surroundings)?;
        }
        if plan.namespaces.creates_cgroup_namespace {
            unshare(CloneFlags::NEWCGROUP).context("make a cgroup namespace")?;
        }
        Ok(surroundings.view.clone())
    };
    let have_mapped = |mount, tree: &OwnedFd| {
        channel.send_tree(mount, tree.as_fd())?;
        channel.expect(Tag::IdsMapped)
    };
    let processes = hidden.map(|hidden| hidden.processes.fd.as_fd());
    let tree = setup::prepare(&plan.rootfs, processes, have_mapped, view_of_cgroups)?;
    if waits {
        // Sent long ago: the parent had less to do. Without it, and so with a parent that was killed, nothing starts.
        channel.expect(Tag::Known)?;
    }
    let process = &plan.process;
    tree.root()
        .make_directories(&process.cwd, Mode::from_raw_mode(0o755))
        .with_context(|| format!("make the working directory {}", process.cwd.display()))?;
    let environment = workload::complete_environment(process, tree.root());
    write_kernel_settings(plan)?;
    if plan.hooks.has_before_pivot() {
        channel.send(Tag::MountsDone)?;
        channel.expect(Tag::HooksDone)?;
    }
    if !plan.hooks.create_container.is_empty() {
        // Where runc's hooks find themselves; the pivot leaves it.
        rustix::process::fchdir(tree.root()).context("enter the root file system")?;
        run_container_hooks("createContainer", "creating", &plan.hooks.create_container, None, plan, surroundings)?;
    }
    tree.enter(&plan.rootfs)?;
    match hidden {
        Some(_) => workload::provide_terminal(process, channel)?,
        None => workload::make_terminal(process, channel)?,
    }
    if process.terminal {
        console::bind_console(&Root::open(Path::new("/"))?, rustix::stdio::stdin())?;
    } else if plan.rootfs.makes_default_dev {
        workload::take_own_null(tree.root())?;
    }
    tree.seal(&plan.rootfs)?;
    drop(tree);

    let has_hooks = !plan.hooks.start_container.is_empty();
    let own_proc = match hidden {
        Some(hidden) => {
            if !hidden.has_joined {
                enter(hidden.processes)?;
            }
            if has_hooks { workload::proc_after(process, hidden.processes.fd.as_fd())? } else { None }
        }
        None => None,
    };
    if plan.exec_fifo.is_some() && has_hooks {
        // Then it is not the stub that waits, which has handlers of its own.
        signal::end_at_ending().context("handle signals")?;
    }
    let filtering = Filtering::of(process, has_hooks);
    let mut prepared = workload::take_credentials(process, &plan.proc, channel, filtering)?;
    let envp = environment.as_ref();
    if !has_hooks {
        let before = plan.exec_fifo.as_ref().map_or(Before::Ready, Before::ReadyAndWait);
        let place = if hidden.is_some() { Place::OutOfSight } else { Place::Container };
        return workload::play_tape(process, &plan.proc, channel, &prepared, envp, before, place);
    }
    if hidden.is_some() {
        appear(plan, channel, &prepared, own_proc.as_ref())?;
    }
    let proc = own_proc.as_ref().unwrap_or(&plan.proc);
    // Hooks inside the container come between `start` and the workload, so husk waits for `start` itself.
    workload::load_filter_before_hooks(process, channel, &mut prepared)?;
    channel.send(Tag::Ready)?;
    if let Some(fifo) = &plan.exec_fifo {
        wait_for_start(fifo)?;
    }
    let hooks = with_environment(&plan.hooks.start_container, envp.unwrap_or(&process.envp));
    let filter = prepared.filter(process);
    run_container_hooks("startContainer", "created", &hooks, filter, plan, surroundings)?;
    workload::play_tape(process, proc, channel, &prepared, envp, Before::Nothing, Place::Container)
}

/// Clones init into the PID namespace that was joined, where it is seen; the child ends here. Only for hooks inside the
/// container, which husk itself has to start there: else the tape does this, and no process of husk's own executable is
/// ever seen.
///
/// Neither has a descriptor of the host's by then, and the plan's are not to be used any more.
fn appear(plan: &Plan, channel: &Channel, prepared: &Prepared, proc: Option<&HostProc>) -> Result<()> {
    let process = &plan.process;
    let first = process.preserved_fds.saturating_add(3).cast_signed();
    let fifo = plan.exec_fifo.as_ref().map(AsRawFd::as_raw_fd);
    let proc = proc.map(|proc| proc.as_fd().as_raw_fd());
    let mut kept: Vec<_> =
        [Some(channel.as_fd().as_raw_fd()), fifo, proc, prepared.descriptor()].into_iter().flatten().collect();
    if !plan.hooks.start_container.is_empty() {
        kept.extend(plan.hook_output.descriptors());
    }
    close_all_but(first, &mut kept).context("close what is the host's")?;
    let cloned = clone_sibling().context("clone init").map_err(|error| {
        if process.seccomp.is_some() && !process.no_new_privileges {
            return error.with_hint("in a joined PID namespace, without noNewPrivileges, seccomp must allow clone");
        }
        error
    })?;
    if let Cloned::Parent(pid, pidfd) = cloned {
        channel.send_init(pid.as_raw_nonzero().get(), pidfd.as_fd())?;
        exit_now(0);
    }
    if process.dies_with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("follow the parent's death")?;
    }
    channel.expect(Tag::Known)?;
    rustix::process::setsid().context("start a session")?;
    workload::take_terminal(process)
}

/// Enters the cgroups where it was not born, and makes sure of it. From a cgroup namespace that is joined they would have
/// other names (cgroup_namespaces(7)), so that comes before it is.
pub(super) fn enter_cgroups(plan: &Plan, surroundings: &Surroundings<'_>) -> Result<()> {
    surroundings.entrances.enter().context("enter the container's cgroups")?;
    let text = plan.proc.read("self/cgroup").context("read /proc/self/cgroup")?;
    surroundings.cgroup.verify(&text)?;
    attributes::take_every_processor();
    Ok(())
}

/// Gives whether the parent has said already that init is known.
fn prepare_process(plan: &Plan, channel: &Channel, surroundings: &Surroundings<'_>) -> Result<bool> {
    let has_fresh_ids = plan.namespaces.stages == Stages::One && plan.namespaces.creates(CloneFlags::NEWUSER);
    if has_fresh_ids {
        // An ordinary user's parent may write the maps of a dumpable process only. Nothing was joined yet, so nobody
        // from inside a container is near.
        channel.expect(Tag::MapsWritten)?;
    }
    if plan.namespaces.stages == Stages::One {
        set_oom_score(&plan.process, &plan.proc)?;
    }
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable")?;
    let _ = rustix::thread::set_name(c"husk:[2:INIT]");
    if plan.process.dies_with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("follow the parent's death")?;
    }
    signal::reset_dispositions();
    signal::unblock_all().context("unblock signals")?;
    if plan.namespaces.creates(CloneFlags::NEWUSER) {
        become_root_inside(plan)?;
    }
    let mut is_known = false;
    if plan.namespaces.stages == Stages::One {
        if plan.namespaces.joins(LinuxNamespaceType::Cgroup) {
            if surroundings.cgroup.adopts() {
                channel.expect(Tag::Known)?;
                is_known = true;
            }
            enter_cgroups(plan, surroundings)?;
        }
        for join in &plan.namespaces.join {
            enter(join)?;
        }
        let asks_parent = plan.has_network_work() || plan.rootfs.has_late_maps();
        if asks_parent && !is_known {
            // Else this word would be taken for the answer.
            channel.expect(Tag::Known)?;
            is_known = true;
        }
    }
    if plan.has_network_work() {
        // Before sysctls that are theirs, and hooks that look for them.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace =
            rustix::fs::openat(&plan.proc, c"self/ns/net", flags, Mode::empty()).context("open /proc/self/ns/net")?;
        channel.send_fd(Tag::WantsDevices, namespace.as_fd())?;
        drop(namespace);
        channel.expect(Tag::DevicesMoved)?;
    }
    if plan.namespaces.creates(CloneFlags::NEWNET) {
        crate::sys::net::bring_up_loopback().context("bring up the loopback interface")?;
    }
    workload::start_session(&plan.process, &plan.proc)?;
    let uts = |name: &Option<String>| name.as_ref().map(|name| name.as_bytes().to_vec());
    if let Some(name) = uts(&plan.hostname) {
        rustix::system::sethostname(&name).context("set the host name")?;
    }
    if let Some(name) = uts(&plan.domainname) {
        rustix::system::setdomainname(&name).context("set the domain name")?;
    }
    Ok(is_known)
}

/// Becomes user 0 of the new user namespace: who we were outside may not be mapped in it, and files would be nobody's.
fn become_root_inside(plan: &Plan) -> Result<()> {
    let Some(maps) = &plan.namespaces.id_maps else { return Ok(()) };
    if maps.uid_outside(0).is_none() || maps.gid_outside(0).is_none() {
        return Ok(());
    }
    workload::set_ids(0, 0)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable")
}

/// Becomes user 0 of the user namespace that was joined, if it has one.
pub(super) fn become_root_of_joined() -> Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    for answer in [rustix::thread::set_thread_res_gid(gid, gid, gid), rustix::thread::set_thread_res_uid(uid, uid, uid)]
    {
        match answer {
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).context("become root of the user namespace"),
        }
    }
    Ok(())
}

fn write_kernel_settings(plan: &Plan) -> Result<()> {
    for (path, value) in &plan.sysctls {
        plan.proc
            .write(path, value)
            .with_context(|| format!("set sysctl {} to `{value}`", path.trim_start_matches("sys/")))?;
    }
    Ok(())
}

/// Sets the OOM score, while an ordinary user still owns its own `/proc/self`: a process that is not dumpable does not.
pub(super) fn set_oom_score(process: &ProcessPlan, proc: &HostProc) -> Result<()> {
    let Some(score) = process.oom_score_adj else { return Ok(()) };
    match proc.write("self/oom_score_adj", &score.to_string()) {
        Err(Errno::ACCESS | Errno::PERM) if process.tolerates_oom_score => Ok(()),
        answer => answer.with_context(|| format!("set oom_score_adj to {score}")),
    }
}

/// Gives hooks that say nothing of their environment the workload's, as runc does: they are inside with it.
fn with_environment(hooks: &[Hook], environment: &CStringArray) -> Vec<Hook> {
    let mut hooks = hooks.to_vec();
    for hook in hooks.iter_mut().filter(|hook| hook.env().is_none()) {
        let strings = environment.strings().iter().map(|entry| entry.to_string_lossy().into_owned());
        hook.set_env(Some(strings.collect()));
    }
    hooks
}

fn run_container_hooks(
    moment: &str,
    status: &str,
    list: &[Hook],
    filter: Option<&Program>,
    plan: &Plan,
    surroundings: &Surroundings<'_>,
) -> Result<()> {
    if list.is_empty() {
        return Ok(());
    }
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    let state = (surroundings.state_for_hooks)(status, pid);
    hooks::run_filtered(moment, list, &state, &plan.hook_output, filter)
}

/// Reads the byte that `start` writes, and with it the word that the exec comes next.
fn wait_for_start(fifo: &OwnedFd) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::read(fifo, &mut [0u8; 1][..])).context("read exec.fifo").map(drop)
}
