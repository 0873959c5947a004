//! The verb `mounts`: attaches mounts to a container that runs, and takes them off again.
//!
//! Sources are opened here, in the caller's namespaces; a child enters the container's mount namespace and attaches them
//! below the container's root, by descriptor: what the container has made of its file system leads nowhere else. It is a
//! child, so that nothing of the caller's, such as the log, is looked up inside.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Mount;
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::container::{Runtime, not_found};
use super::protocol::{Channel, Message};
use super::state::State;
use crate::error::{Context, Error, Kind, Result};
use crate::rootfs::host::HostProc;
use crate::rootfs::mount::{self, Aid};
use crate::rootfs::plan::{MountPlan, MountSource, Origin};
use crate::spec::validate::validate_mounts;
use crate::support::root::Root;
use crate::sys::clone::{CloneFlags, Cloned, clone3};
use crate::sys::mount::{Change, Reach, attr, mount_setattr};
use crate::sys::process::{CloseHow, close_range, exit_now};

/// What is done with the mounts of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountChange {
    /// They are attached, in order.
    Add,
    /// What is mounted on their destinations is taken off, in order.
    Remove,
}

/// File systems that would show the caller's namespaces rather than the container's.
const OF_NAMESPACES: &[&str] = &["proc", "sysfs", "mqueue", "cgroup", "cgroup2", "devpts"];

impl Runtime {
    /// Changes the mounts of a container that has a process.
    pub fn change_mounts(&self, id: &str, mut mounts: Vec<Mount>, change: MountChange) -> Result<()> {
        close_range(3, CloseHow::OnExec).context("mark descriptors close-on-exec")?;
        let directory = self.root.open(id)?;
        let state = directory.load()?.ok_or_else(|| not_found(id))?;
        let inside = Inside::open(&state)?;
        validate_mounts(&mut mounts)?;
        let plans = mounts.iter().map(|mount| plan(mount, change)).collect::<Result<Vec<_>>>()?;
        let (here, there) = Channel::pair()?;
        let pidfd = match clone3(CloneFlags::empty(), None).context("clone a child")? {
            Cloned::Parent(_, pidfd) => pidfd,
            Cloned::Child => {
                drop(here);
                if let Err(error) = inside.act(&plans, change) {
                    there.send_failure(&error);
                    exit_now(255);
                }
                exit_now(0)
            }
        };
        drop(there);
        let word = here.receive()?;
        let status = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).context("wait for the child")?;
        match word {
            Some(Message::Failed(error)) => Err(error),
            _ if status.is_some_and(|status| status.exit_status() == Some(0)) => Ok(()),
            _ => Err(Error::new(Kind::Other, "the child that enters the container was killed")),
        }
    }
}

/// The container, as far as it is to be entered.
struct Inside {
    init: OwnedFd,
    root: OwnedFd,
    proc: HostProc,
}

impl Inside {
    fn open(state: &State) -> Result<Self> {
        let stopped = || Error::new(Kind::State, format!("container {} is not running", state.id));
        let init = state.open_init()?.ok_or_else(stopped)?;
        let proc = HostProc::open()?;
        let path = format!("{}/root", state.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(&proc, &*path, flags, Mode::empty()).with_context(|| format!("open /proc/{path}"))?;
        // Still the same process: its number could have been another's when the path was opened.
        if state.open_init()?.is_none() {
            return Err(stopped());
        }
        Ok(Self { init, root, proc })
    }

    /// Runs in the child, which ends with it.
    fn act(self, plans: &[MountPlan], change: MountChange) -> Result<()> {
        let namespace = ThreadNameSpaceType::MOUNT;
        move_into_thread_name_spaces(self.init.as_fd(), namespace).context("enter the container's mount namespace")?;
        let root = Root::from_fd(self.root);
        for plan in plans {
            match change {
                MountChange::Add => {
                    if let Some(unsealed) = mount::mount(&root, plan, &Aid::NONE)? {
                        let change = Change { set: attr::RDONLY, ..Change::default() };
                        mount_setattr(&unsealed, Reach::One, &change).context("make a mount read-only")?;
                    }
                }
                MountChange::Remove => {
                    let on = plan.destination.display();
                    remove(&root, &self.proc, plan).with_context(|| format!("unmount {on}"))?;
                }
            }
        }
        Ok(())
    }
}

/// umount2(2) takes paths only; a link of the host's `/proc` leads from a path to the descriptor.
fn remove(root: &Root, proc: &HostProc, plan: &MountPlan) -> Result<()> {
    let target = root.open_at(&plan.destination, OFlags::PATH, Mode::empty())?;
    rustix::process::fchdir(proc)?;
    let path = format!("self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
    Ok(rustix::mount::unmount(path, UnmountFlags::DETACH)?)
}

fn plan(mount: &Mount, change: MountChange) -> Result<MountPlan> {
    let bundle = std::env::current_dir().context("read the working directory")?;
    let mut plan = MountPlan::new(mount, &bundle, None)?;
    if plan.destination == Path::new("/") {
        return Err(Error::invalid("mounts: /: the root of a container that runs cannot be changed"));
    }
    if change == MountChange::Remove {
        return Ok(plan);
    }
    let describe = plan.describe();
    match &mut plan.source {
        MountSource::Bind { path, origin } => {
            let opened = mount::clone_tree(path, &plan.options).with_context(|| describe.clone())?;
            if plan.options.propagation.is_empty() {
                let private = u64::from(MountPropagationFlags::PRIVATE.bits());
                mount_setattr(&opened, Reach::Tree, &Change { propagation: private, ..Change::default() })
                    .with_context(|| describe.clone())?;
            }
            *origin = Origin::Parent(opened);
        }
        MountSource::New { kind, .. } if !OF_NAMESPACES.iter().any(|name| name.as_bytes() == kind.to_bytes()) => {}
        _ => return Err(Error::unsupported(format!("{describe}: not in a container that runs"))),
    }
    Ok(plan)
}
