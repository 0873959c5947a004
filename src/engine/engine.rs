//! The engine of one caller: settings, the data root, the id maps, the runtime underneath.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connecting;
use super::containers::{Containers, Fate, Orphan, Sweep};
use super::events;
use super::logs;
use super::record::{Container, ExitRecord, Status, Supervision, now};
use super::settings::{self, Caller, CgroupManager, Settings};
use super::userns;
use crate::cgroups::{Driver, Home, Tolerance};
use crate::error::{Context, Error, Kind, Result};
use crate::image::unpack::{Form, OverlayXattr, Ownership};
use crate::monitor;
use crate::namespaces::idmap::IdMaps;
use crate::namespaces::rootless;
use crate::runtime::container::Runtime;
use crate::runtime::state::StateRoot;
use crate::storage::additional::Stores;
use crate::storage::store::{Store, StoreView};
use crate::support::id::ContainerId;

/// Set by `husk unshare`, whose user 0 is not the machine's root: the layers there are those of an ordinary user.
pub const UNSHARED: &str = "_HUSK_UNSHARED";

/// What it is where the user has one id only.
pub const SINGLE_ID: &str = "single";

/// Everything that commands of the engine share.
pub struct Engine {
    /// The decided configuration.
    pub settings: Settings,
    /// The id maps of an ordinary user's containers; root's have none.
    pub maps: Option<IdMaps>,
    /// Lines for the user: what this host does not give.
    pub notes: Vec<String>,
    /// Inside of `husk unshare`: how the user's layers record owners.
    unshared: Option<Ownership>,
    /// What husk's tables in nf_tables are called.
    pub(super) firewall_name: String,
    data_root: OwnedFd,
}

impl Engine {
    /// Opens the engine for the process's user. `flags` win over every other source of settings.
    pub fn open(flags: settings::File) -> Result<Self> {
        let caller = Caller::current();
        let settings = Settings::load(flags, &caller)?;
        let data_root = settings::open_data_root(&settings.data_root, caller.uid)?;
        settings::open_run_root(&settings.run_root, caller.uid)?;
        let mut notes = Vec::new();
        let maps = if caller.uid == 0 {
            None
        } else {
            let found = rootless::maps_for_caller()?;
            notes.extend(found.lost);
            Some(found.maps)
        };
        let unshared = match std::env::var_os(UNSHARED).filter(|_| caller.uid == 0) {
            Some(value) if value == SINGLE_ID => Some(Ownership::Record),
            value => value.map(|_| Ownership::Keep),
        };
        let firewall_name = connecting::firewall_name(&settings.run_root);
        Ok(Self { settings, maps, notes, unshared, firewall_name, data_root })
    }

    /// The data root's folder.
    pub(super) fn data_root(&self) -> BorrowedFd<'_> {
        self.data_root.as_fd()
    }

    /// Whether it is in a user namespace of `husk unshare`.
    pub(super) fn is_unshared(&self) -> bool {
        self.unshared.is_some()
    }

    /// Opens the containers.
    pub fn containers(&self) -> Result<Containers> {
        Containers::open(self.data_root.as_fd())
    }

    /// Opens the store of layers, in the form that this caller's overlays need.
    pub fn store(&self) -> Result<Store> {
        Store::open(&self.settings.data_root.join("store"), self.form())
    }

    /// Opens the store, and those whose images are used besides.
    pub fn stores(&self) -> Result<Stores> {
        Ok(Stores { own: self.store()?, others: self.additional_stores()? })
    }

    /// Opens the stores whose images are used and never changed.
    pub fn additional_stores(&self) -> Result<Vec<StoreView>> {
        let uid = rustix::process::geteuid().as_raw();
        let open = |path: &std::path::PathBuf| StoreView::open_additional(path, self.form(), uid);
        self.settings.additional_stores.iter().map(open).collect()
    }

    /// Says how this caller's layers lie on disk.
    pub fn form(&self) -> Form {
        match &self.maps {
            None => match self.unshared {
                Some(ownership) => Form { ownership, overlay: OverlayXattr::User },
                None => Form { ownership: Ownership::Keep, overlay: OverlayXattr::Trusted },
            },
            Some(maps) if maps.is_single() => Form { ownership: Ownership::Record, overlay: OverlayXattr::User },
            Some(_) => Form { ownership: Ownership::Keep, overlay: OverlayXattr::User },
        }
    }

    /// Gives the runtime that the engine's containers are made with.
    pub fn runtime(&self, require_limits: bool) -> Result<Runtime> {
        let driver = match self.cgroup_manager() {
            CgroupManager::Systemd => Driver::Systemd,
            CgroupManager::Auto | CgroupManager::Cgroupfs => Driver::Cgroupfs,
        };
        let tolerates = self.maps.is_some() && !require_limits && !self.settings.require_limits;
        let tolerance = if tolerates { Tolerance::WarnWhenDenied } else { Tolerance::Require };
        Ok(Runtime { root: StateRoot::new(self.runtime_root()), driver, tolerance })
    }

    /// Says who makes the cgroups of a container that starts now: `auto` is decided here.
    pub fn cgroup_manager(&self) -> CgroupManager {
        match self.settings.cgroup_manager {
            CgroupManager::Auto if crate::cgroups::systemd_is_reachable() => CgroupManager::Systemd,
            CgroupManager::Auto => CgroupManager::Cgroupfs,
            named => named,
        }
    }

    /// Where processes live that are of no one container.
    pub fn helpers_home(&self) -> Home {
        match self.cgroup_manager() {
            CgroupManager::Systemd => Home::Scope,
            CgroupManager::Auto | CgroupManager::Cgroupfs => Home::Group,
        }
    }

    /// Where the runtime keeps the states of the engine's containers.
    pub fn runtime_root(&self) -> std::path::PathBuf {
        self.settings.run_root.join("oci")
    }

    /// The folder of a container, by path.
    pub fn container_directory(&self, id: &ContainerId) -> std::path::PathBuf {
        self.settings.data_root.join("containers").join(id.as_str())
    }

    /// Runs `work` with rights over the files of the caller's containers: as it is for root, in the user namespace else.
    pub fn with_file_rights(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        match &self.maps {
            None => work(),
            Some(maps) => userns::run(maps, work),
        }
    }

    /// The same for work whose result is wanted.
    pub fn with_file_rights_for<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T>
    where
        T: Serialize + DeserializeOwned,
    {
        match &self.maps {
            None => work(),
            Some(maps) => userns::run_for(maps, work),
        }
    }

    /// Removes a container with its files. Most have none but the caller's: only where there are others is the user namespace
    /// made, which takes two programs and a process.
    pub(super) fn remove(
        &self,
        containers: &Containers,
        container: &Container,
        supervision: &Supervision,
    ) -> Result<()> {
        // Gone with the run root, at the latest.
        let _ = container.record().and_then(|record| logs::forget_egress(self, &record));
        match (containers.remove(container, supervision), &self.maps) {
            (Err(error), Some(maps)) if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM)) => {
                userns::run(maps, || containers.remove_rest(container))
            }
            (answer, _) => answer,
        }
    }

    /// Clears what commands that were killed have left. Gives the failures; the rest is cleared.
    pub fn clear_remains(&self) -> Result<Vec<Error>> {
        let containers = self.containers()?;
        let sweep = containers.sweep()?;
        let mut failures = self.settle(&containers, sweep);
        failures.extend(connecting::sweep(self).err());
        Ok(failures)
    }

    /// Finds a container, as it is once what was left of it is cleared, or looked after again.
    pub fn find(&self, reference: &str) -> Result<Container> {
        let container = self.containers()?.find(reference)?;
        if let Ok(Status::Lost { .. }) = container.status() {
            // Whoever asks finds out by what it does.
            let _ = self.look_after(&container);
        }
        Ok(container)
    }

    /// Gives a container that lost its monitor another one where it lives, and clears what is left of it where it does not.
    pub fn look_after(&self, container: &Container) -> Result<()> {
        let containers = self.containers()?;
        let mut sweep = Sweep::default();
        containers.examine_into(container.id(), &mut sweep);
        self.settle(&containers, sweep).into_iter().next().map_or(Ok(()), Err)
    }

    /// Clears what a sweep has found. Gives the failures.
    pub(super) fn settle(&self, containers: &Containers, sweep: Sweep) -> Vec<Error> {
        let mut failures = sweep.failures;
        for unfinished in sweep.unfinished {
            if let Err(error) = self.with_file_rights(|| unfinished.clear(containers)) {
                failures.push(error);
            }
        }
        for orphan in sweep.orphans {
            if let Err(error) = self.clear_orphan(containers, orphan) {
                failures.push(error);
            }
        }
        failures
    }

    fn clear_orphan(&self, containers: &Containers, orphan: Orphan) -> Result<()> {
        let id = orphan.container.id().as_str().to_owned();
        let runtime = self.runtime(false)?;
        // Without its streams it cannot be served; without its monitor, one with a terminal has none.
        let had_fifos = monitor::has_fifos(orphan.container.directory());
        if had_fifos && runtime.lives(&id)? {
            // In a user namespace of somebody's own making one could not look after it.
            return if self.unshared.is_some() { Ok(()) } else { self.hand_over(orphan) };
        }
        match runtime.delete(&id, true) {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error.context(format!("clear container {}", orphan.container.id().short()))),
        }
        if self.unshared.is_none() && orphan.container.interrupted_rest()?.is_some() {
            return self.hand_over(orphan);
        }
        let (record, fate) = (orphan.record.clone(), orphan.fate);
        monitor::settle(orphan.container.directory(), record.options.log);
        let error = if had_fifos { ExitRecord::UNSEEN } else { ExitRecord::SUPERVISOR_LOST };
        self.with_file_rights(|| orphan.settle(containers, now(), error))?;
        events::container(self, &record, "die", &[("exitCode", ExitRecord::UNKNOWN.to_string())]);
        connecting::tell_orphan_parted(self, &record);
        if fate == Fate::Remove {
            events::container(self, &record, "destroy", &[]);
        }
        connecting::sweep_container(self, &id)
    }
}

impl Engine {
    /// husk once more, for a part of its own (`husk internal`), with the same settings.
    pub(super) fn itself(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("husk").arg("internal").args(words);
        command.env("HUSK_DATA_ROOT", &self.settings.data_root).env("HUSK_RUN_ROOT", &self.settings.run_root);
        command
    }

    /// Has a process of its own become the monitor of a container that lives: this one may have threads, and files open that
    /// no monitor may keep. The lock goes with its descriptor, as that one's standard input.
    fn hand_over(&self, orphan: Orphan) -> Result<()> {
        let name = orphan.record.name.to_string();
        let (container, supervision) = orphan.hand_over();
        let describe = || format!("look after container {}", container.id().short());
        let output = self
            .itself(&["monitor", container.id().as_str(), &name])
            .stdin(supervision.into_fd())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .with_context(describe)?;
        if output.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
        Err(Error::new(Kind::Other, reason).context(describe()))
    }
}

/// Says whether overlayfs can have its writable layer in a directory: not on another overlay, nor on NFS.
pub fn can_hold_upper(path: &Path) -> bool {
    /// `OVERLAYFS_SUPER_MAGIC` and `NFS_SUPER_MAGIC` of linux/magic.h.
    const UNFIT: [rustix::fs::FsWord; 2] = [0x794c_7630, 0x6969];
    rustix::fs::statfs(path).is_ok_and(|stat| !UNFIT.contains(&stat.f_type))
}
