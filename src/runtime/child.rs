//! The child in between, for containers that join what only children can enter. Clones init as its own sibling and ends.
//!
//! In a PID namespace that is joined, others see init from its first moment, and one with CAP_SYS_PTRACE may look through
//! its root, its descriptors and its memory, or take it over. So there the child does the work of init first, out of their
//! sight, and clones it last: with the container's root, the workload's rights, and no descriptor of the host's.
//!
//! | | when it starts | when it ends |
//! |---|---|---|
//! | namespaces | the caller's | those joined; the user namespace above init's own, or that itself, and a new time namespace |
//! | user | the caller's | user 0 of that user namespace, if there is one |
//! | root | the host's | the host's |

use std::os::fd::AsFd;

use oci_spec::runtime::LinuxNamespaceType;
use rustix::process::{DumpableBehavior, Pid};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::init;
use super::plan::Plan;
use super::protocol::{Channel, Tag};
use crate::error::{Context, Error, Result};
use crate::namespaces::idmap::{self, IdMaps};
use crate::namespaces::plan::enter;
use crate::rootfs::mount;
use crate::sys::clone::{CloneFlags, Cloned, clone3, unshare};
use crate::sys::process::exit_now;

/// Runs the child to its end.
pub(super) fn run(plan: &Plan, channel: &Channel, surroundings: &init::Surroundings<'_>) -> ! {
    match clone_init(plan, channel, surroundings) {
        Ok(Side::Init) => match channel.expect(Tag::Known) {
            Ok(()) => init::run(plan, channel, surroundings),
            // The parent or the child was killed; there is nobody to tell.
            Err(_) => exit_now(255),
        },
        Ok(Side::Child) => exit_now(0),
        Ok(Side::Hidden(hidden)) => init::run_hidden(plan, channel, surroundings, &hidden),
        Err(error) => {
            channel.send_failure(&error);
            exit_now(255)
        }
    }
}

enum Side<'a> {
    Child,
    Init,
    /// The child still, which does init's work until it is to be seen.
    Hidden(init::Hidden<'a>),
}

/// 1. Not dumpable before the first join. Where nothing is joined, not before the maps and offsets: an ordinary user's
///    parent could not write them, and nobody from inside a container is near.
/// 2. Into the user namespace that init's own is to be below: there are no containers in that one, only in its children.
///    Then join, in the plan's order.
///    In a user namespace that was joined, its root makes what is to be made: our own id has no number there.
/// 3. A new user namespace comes after: it would take the right to join. Below another, it is init's from birth, and its
///    maps are written from here, where the rights are.
/// 4. A new time namespace needs its offsets before the first process is in it.
/// 5. Init, with the caller as its parent, so that the caller can wait for it; unless that has to wait.
fn clone_init<'a>(plan: &'a Plan, channel: &Channel, surroundings: &init::Surroundings<'_>) -> Result<Side<'a>> {
    init::set_oom_score(&plan.process, &plan.proc)?;
    let become_undumpable =
        || rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).context("become undumpable");
    if !plan.namespaces.join.is_empty() {
        become_undumpable()?;
    }
    let _ = rustix::thread::set_name(c"husk:[1:CHILD]");
    let namespaces = &plan.namespaces;
    if let Some(below) = &namespaces.below {
        move_into_link_name_space(below.as_fd(), Some(LinkNameSpaceType::User))
            .context("join the user namespace above the container's")?;
        init::become_root_of_joined()?;
    }
    let mut hidden = find_hidden(plan);
    // Whom systemd is to move is init, which is not there yet: the parent makes sure of that one.
    if namespaces.joins(LinuxNamespaceType::Cgroup) && !surroundings.cgroup.adopts() {
        init::enter_cgroups(plan, surroundings)?;
    }
    for join in &namespaces.join {
        if !hidden.as_ref().is_some_and(|hidden| !hidden.has_joined && std::ptr::eq(hidden.processes, join)) {
            enter(join)?;
        }
    }
    if namespaces.join.iter().any(|join| join.kind == LinuxNamespaceType::User) {
        init::become_root_of_joined()?;
        become_undumpable()?;
    }
    let mut flags = namespaces.create;
    if namespaces.below.is_none() && flags.contains(CloneFlags::NEWUSER) {
        flags.remove(CloneFlags::NEWUSER);
        unshare(CloneFlags::NEWUSER).context("make a user namespace")?;
        channel.send(Tag::WantsMaps)?;
        channel.expect(Tag::MapsWritten)?;
    }
    if !namespaces.time_offsets.is_empty() {
        flags.remove(CloneFlags::NEWTIME);
        unshare(CloneFlags::NEWTIME).context("make a time namespace")?;
        plan.proc.write("self/timens_offsets", &namespaces.time_offsets).context("set linux.timeOffsets")?;
    }
    match &namespaces.below {
        None => become_undumpable()?,
        // Until its maps are written init is to be dumpable, or its files in /proc would be root's own. Whoever may be near
        // has no rights over another user namespace (ptrace(2), access mode checking).
        Some(_) => rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).context("become dumpable")?,
    }
    if namespaces.join.iter().any(|join| join.kind == LinuxNamespaceType::Pid) && flags.contains(CloneFlags::NEWPID) {
        return Err(Error::invalid("linux.namespaces: a PID namespace to join and one to create"));
    }
    if let Some(hidden) = hidden.take() {
        unshare(flags).context("make namespaces")?;
        return Ok(Side::Hidden(hidden));
    }
    match clone3(flags | CloneFlags::PARENT, None).context("clone init")? {
        Cloned::Child => Ok(Side::Init),
        Cloned::Parent(pid, pidfd) => {
            channel.send_init(pid.as_raw_nonzero().get(), pidfd.as_fd())?;
            // Init is let go once we have ended.
            if namespaces.below.is_some() {
                write_maps(plan, pid)?;
            }
            Ok(Side::Child)
        }
    }
}

/// Writes the maps of init's user namespace, a child of the one we are in: with the numbers that ids have here.
fn write_maps(plan: &Plan, init: Pid) -> Result<()> {
    let Some(maps) = &plan.namespaces.id_maps else { return Ok(()) };
    let describe = || "map the ids of the user namespace";
    let made_before = |error: Error| {
        error.with_hint(
            "the user's networks were made when the user had other ids; they are made anew once no container is in any",
        )
    };
    let own = |kind: &str| plan.proc.read(&format!("self/{kind}")).with_context(|| format!("read /proc/self/{kind}"));
    let above = IdMaps::from_kernel(&own("uid_map")?, &own("gid_map")?)
        .ok_or_else(|| Error::invalid("/proc/self/uid_map: not understood"))?;
    let maps = maps.below(&above).map_err(made_before).with_context(describe)?;
    idmap::write(init, &maps).with_context(describe)
}

/// Says whether init is to be hidden, and from which PID namespace.
///
/// Before kernel 6.17 a procfs is made from inside its PID namespace only; there, init is seen while it mounts. With a
/// user namespace, too, the PID namespace may be one that only the caller has rights over, and is joined while they last.
/// And [`ProcessPlan::can_appear_late`](super::plan::ProcessPlan) says which processes cannot leave the work to another.
fn find_hidden(plan: &Plan) -> Option<init::Hidden<'_>> {
    let namespaces = &plan.namespaces;
    // Who makes containers below another user namespace has none join a PID namespace: the maps are written by another process.
    if !plan.process.can_appear_late() || namespaces.below.is_some() {
        return None;
    }
    let processes = namespaces.join.iter().find(|join| join.kind == LinuxNamespaceType::Pid)?;
    if !namespaces.creates(CloneFlags::NEWNS) || !mount::can_show_processes_of(processes.fd.as_fd()) {
        return None;
    }
    Some(init::Hidden { processes, has_joined: namespaces.has_own(LinuxNamespaceType::User) })
}
