//! A cgroup for processes that belong to no one container: name servers, an ordinary user's way out. They begin as somebody's
//! child, and whoever ends that one's cgroup (`systemctl stop` of its unit, a CI job's end, want of memory) does not mean them.
//!
//! With systemd they are a scope of their own each; where husk makes the cgroups, they are together in one beside the containers'.
//! Where neither may be had they stay where they are: nothing here fails.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Entrances;
use super::file;
use super::layout::{Hierarchy, Layout, Mode};
use super::systemd::{Manager, Owner, helper_properties};
use crate::sys::clone::{CloneFlags, Cloned, clone3};

/// Where such a process is to live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Home {
    /// With who starts it.
    #[default]
    Starters,
    /// In a scope of systemd's.
    Scope,
    /// In the cgroup of all of them.
    Group,
}

/// The cgroup of all, below that of root's containers; and the same beside an ordinary user's.
const GROUP: &str = "husk/network";
const USERS_GROUP: &str = "husk-network";

/// A place to be cloned into, and to enter.
pub struct Refuge {
    home: Home,
    /// On v2: clone3(2) enters it without the lock that a process takes which is moved (see [`Entrances`]).
    unified: Option<OwnedFd>,
    legacy: Entrances,
}

impl Refuge {
    /// Makes what there is to be made.
    pub fn prepare(home: Home) -> Self {
        let mut refuge = Self { home, unified: None, legacy: Entrances::from_fds(Vec::new()) };
        if home != Home::Group {
            return refuge;
        }
        let Ok(layout) = Layout::probe() else { return refuge };
        let is_root = rustix::process::geteuid().is_root();
        let place = |hierarchy: &Hierarchy| -> Option<PathBuf> {
            if is_root {
                return Some(hierarchy.mount.join(GROUP));
            }
            // As an ordinary user's containers: v1 is delegated to nobody.
            let above = Path::new(hierarchy.own_below_mount()).parent()?;
            (layout.mode() == Mode::Unified).then(|| hierarchy.mount.join(above).join(USERS_GROUP))
        };
        let open = |path: PathBuf| {
            make(&path)?;
            rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty())
        };
        refuge.unified = layout.unified.as_ref().and_then(place).and_then(|path| open(path).ok());
        // A new cpuset has no processors, and keeps nobody from being ended.
        let legacy = layout.legacy.iter().filter(|hierarchy| !hierarchy.has("cpuset"));
        let enter = |path: PathBuf| {
            make(&path)?;
            file::open_for_writing(&path.join("tasks"))
        };
        refuge.legacy =
            Entrances::from_fds(legacy.filter_map(|of| place(of).and_then(|path| enter(path).ok())).collect());
        refuge
    }

    /// Clones this process, into the place if it may be.
    pub fn fork(&self) -> Result<Cloned, Errno> {
        match clone3(CloneFlags::empty(), self.unified.as_ref().map(AsFd::as_fd)) {
            // Between two cgroups of others an ordinary user moves nobody; and kernels before 5.7 clone into none.
            Err(_) if self.unified.is_some() => clone3(CloneFlags::empty(), None),
            answer => answer,
        }
    }

    /// Enters what a clone does not enter: for the child, which has one thread.
    pub fn enter(self) {
        match self.home {
            Home::Starters => {}
            Home::Group => drop(self.legacy.enter()),
            Home::Scope => {
                let owner = Owner::of_caller();
                let pid = rustix::process::getpid();
                let name = format!("husk-network-{}.scope", pid.as_raw_nonzero());
                let start = |mut manager: Manager| manager.start(&name, Vec::new(), &helper_properties(owner, pid));
                let _ = Manager::connect(owner).and_then(start);
            }
        }
    }
}

fn make(path: &Path) -> Result<(), Errno> {
    for path in path.parent().into_iter().chain([path]) {
        match rustix::fs::mkdir(path, FileMode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stays_has_nothing_made() {
        let refuge = Refuge::prepare(Home::Starters);
        assert!(refuge.unified.is_none() && refuge.legacy.fds().len() == 0);
    }
}
