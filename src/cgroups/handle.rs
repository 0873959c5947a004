//! The cgroups of one container: entering them, looking into them, changing their limits, removing them.
//!
//! Makes none: that is a plan's work.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::plan::{Place, Places, Warning, distribute};
use super::setting::{self, Step};
use super::systemd::{self, Manager, Scope};
use super::{file, tree};
use crate::error::{Context, Error, Kind, Result};

/// How long a removal waits for processes that have been killed but are still leaving.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(2);

/// The container's cgroup in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// The controllers as `/proc/PID/cgroup` lists them; empty for v2.
    pub controllers: String,
    pub path: PathBuf,
    /// The cgroup as `/proc/PID/cgroup` shows it.
    pub shown: String,
}

impl Directory {
    pub(super) fn of(place: Place) -> Self {
        Self { controllers: place.controllers, path: place.path, shown: place.shown }
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|name| name == controller)
    }
}

/// What is written down to find the cgroups again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub directories: Vec<Directory>,
    /// The unit that they are, where systemd has made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

impl Record {
    /// Gives the path for each controller, as runc's state has it: the empty name is v2.
    pub fn cgroup_paths(&self) -> BTreeMap<&str, &Path> {
        let directories = self.directories.iter();
        directories.flat_map(|held| held.controllers.split(',').map(|name| (name, &*held.path))).collect()
    }

    /// Gives these cgroups with that of v2 where a process of the container is: below it, where a cgroup manager in the
    /// container has moved it, or elsewhere, where who may write there has. `text` is that process's `/proc/PID/cgroup`.
    pub fn with_unified_of(&self, text: &str) -> Result<Self> {
        let mut record = self.clone();
        let Self { directories, scope } = &mut record;
        for directory in directories.iter_mut().filter(|directory| directory.controllers.is_empty()) {
            let found = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
            let own = directory.shown.trim_end_matches('/');
            if let Some(below) = found.strip_prefix(own).filter(|below| below.is_empty() || below.starts_with('/')) {
                directory.path.push(below.trim_start_matches('/'));
                if let Some(scope) = scope {
                    scope.subgroup.push_str(below);
                }
            } else {
                let climbs = Path::new(found).components().any(|part| part == Component::ParentDir);
                let mount = directory.path.to_str().and_then(|path| path.strip_suffix(own)).filter(|_| !climbs);
                let Some(mount) = mount.filter(|_| found.starts_with('/')) else {
                    let cause = format!("the container's first process is in cgroup `{found}`, which is out of reach");
                    return Err(Error::new(Kind::State, cause));
                };
                directory.path = PathBuf::from(format!("{mount}{found}"));
                *scope = None;
            }
            found.clone_into(&mut directory.shown);
        }
        Ok(record)
    }
}

/// Which hierarchies a process joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hierarchies {
    Every,
    /// Those of v1; clone3(2) has put the process into its v2 cgroup.
    Legacy,
}

/// The cgroups of one container. Without any, every operation succeeds and does nothing.
pub struct Cgroup {
    pub(super) unified: Option<Directory>,
    /// The v2 cgroup, opened; nothing as long as it is yet to be made.
    pub(super) unified_fd: Option<OwnedFd>,
    pub(super) legacy: Vec<Directory>,
    /// The unit that they are, where systemd has made them.
    pub(super) scope: Option<Scope>,
    /// Whether they will be made around a process that is there already.
    pub(super) adopts: bool,
}

impl Cgroup {
    /// Opens the cgroups of a container again. Those that are gone count as empty.
    pub fn open(record: Record) -> Result<Self> {
        let Record { directories, scope } = record;
        let legacy = Vec::with_capacity(directories.len());
        let mut cgroup = Self { unified: None, unified_fd: None, legacy, scope, adopts: false };
        for directory in directories {
            if !directory.controllers.is_empty() {
                cgroup.legacy.push(directory);
                continue;
            }
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::open(&directory.path, flags, Mode::empty()) {
                Ok(fd) => {
                    cgroup.unified = Some(directory);
                    cgroup.unified_fd = Some(fd);
                }
                Err(Errno::NOENT) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| format!("open cgroup {}", directory.path.display()));
                }
            }
        }
        Ok(cgroup)
    }

    /// Gives what finds these cgroups again.
    pub fn record(&self) -> Record {
        Record { directories: self.directories().cloned().collect(), scope: self.scope.clone() }
    }

    /// Gives a cgroup below this one that exists already, for `exec --cgroup`.
    ///
    /// `controllers` narrows it to some v1 hierarchies; the others stay as they are. The path is below the container's
    /// cgroup and may not climb: a sibling that shares a prefix is another container's.
    pub fn subgroup(&self, controllers: Option<&str>, path: &Path) -> Result<Self> {
        let wrong = |cause: &str| Error::invalid(format!("cgroup `{}`: {cause}", path.display()));
        // runc takes `/` for the container's own.
        let parts: Vec<&str> = path
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => Some(name.to_str().ok_or_else(|| wrong("is not UTF-8"))),
                Component::ParentDir => Some(Err(wrong("bad sub cgroup path: climbs with `..`"))),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
            })
            .collect::<Result<_>>()?;
        let mut record = self.record();
        for name in controllers.into_iter().flat_map(|list| list.split(',')) {
            if !self.directories().any(|directory| directory.has(name)) {
                return Err(wrong(&format!("unknown controller {name}")));
            }
        }
        if let Some(scope) = &mut record.scope {
            for part in &parts {
                scope.subgroup.push('/');
                scope.subgroup.push_str(part);
            }
        }
        for directory in &mut record.directories {
            let chosen = controllers.is_none_or(|list| list.split(',').any(|name| directory.has(name)));
            if chosen && !parts.is_empty() {
                for part in &parts {
                    directory.path.push(part);
                    directory.shown.push('/');
                    directory.shown.push_str(part);
                }
                if !directory.path.is_dir() {
                    // The words are runc's.
                    return Err(Error::from(Errno::NOENT)
                        .with_kind(Kind::NotFound)
                        .context(format!("adding pid to cgroup {}", directory.path.display())));
                }
            }
        }
        Self::open(record)
    }

    /// Gives the v2 cgroup, for clone3(2) with `CLONE_INTO_CGROUP`.
    pub fn v2_directory(&self) -> Option<BorrowedFd<'_>> {
        self.unified_fd.as_ref().map(AsFd::as_fd)
    }

    /// Says whether systemd has made these, and may be asked to move a process in.
    pub fn is_unit(&self) -> bool {
        self.scope.is_some()
    }

    /// Says whether a process has to wait until it has been put into these.
    pub fn adopts(&self) -> bool {
        self.adopts
    }

    /// Opens the doors by which a process enters by itself.
    pub fn entrances(&self, hierarchies: Hierarchies) -> Result<Entrances> {
        if self.adopts {
            return Ok(Entrances(Vec::new()));
        }
        let legacy = self.legacy.iter().map(|directory| directory.path.join("tasks"));
        let unified = self.unified.iter().map(|directory| directory.path.join("cgroup.procs"));
        let unified = unified.filter(|_| hierarchies == Hierarchies::Every);
        let open = |path: PathBuf| file::open_for_writing(&path).with_context(|| format!("open {}", path.display()));
        legacy.chain(unified).map(open).collect::<Result<_>>().map(Entrances)
    }

    /// Moves another process in. Costs a grace period on v1, see [`Entrances`].
    ///
    /// Where an ordinary user may not, since the two cgroups have nothing above them that is the user's, the user's
    /// systemd does it, which may.
    pub fn join(&self, pid: Pid, hierarchies: Hierarchies) -> Result<()> {
        let unified = self.unified.iter().filter(|_| hierarchies == Hierarchies::Every);
        for directory in self.legacy.iter().chain(unified) {
            match (move_process(&directory.path, pid), &self.scope) {
                (Err(Errno::ACCESS | Errno::PERM), Some(scope)) => {
                    return Manager::connect(scope.manager)?
                        .attach(&scope.name, &scope.subgroup, pid)
                        .with_context(|| format!("move process {pid} to {}", scope.name));
                }
                (answer, _) => {
                    answer.with_context(|| format!("move process {pid} to cgroup {}", directory.path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Compares where a process is with where it should be. `text` is its `/proc/PID/cgroup`.
    ///
    /// A process elsewhere has none of the limits (CVE-2025-47291, CVE-2023-6476).
    pub fn verify(&self, text: &str) -> Result<()> {
        for directory in self.directories() {
            let found = text.lines().find_map(|line| {
                let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
                (controllers == directory.controllers).then_some(path)
            });
            if found != Some(&*directory.shown) {
                let hierarchy = if directory.controllers.is_empty() { "v2" } else { &directory.controllers };
                let found = found.unwrap_or("none");
                let expected = &directory.shown;
                return Err(Error::new(
                    Kind::State,
                    format!("the process is in cgroup {found} of hierarchy {hierarchy} instead of {expected}"),
                ));
            }
        }
        Ok(())
    }

    /// Gives the processes of the container, also in cgroups that it made below its own.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        match self.census() {
            Some(directory) => tree::processes(&directory.path)
                .with_context(|| format!("list the processes of cgroup {}", directory.path.display())),
            None => Ok(Vec::new()),
        }
    }

    /// Says whether no process is left.
    pub fn is_empty(&self) -> Result<bool> {
        match &self.unified {
            Some(directory) if self.legacy.is_empty() => {
                Ok(event(directory, "populated").is_none_or(|populated| !populated))
            }
            _ => Ok(self.processes()?.is_empty()),
        }
    }

    /// Changes limits. Fields that are not there stay as they are, and so do the device rules, as in runc.
    pub fn update(&self, resources: &LinuxResources) -> Result<Vec<Warning>> {
        let mut warnings = Vec::new();
        let mut legacy: Vec<Vec<Step>> = self.legacy.iter().map(|_| Vec::new()).collect();
        let mut unified = Vec::new();
        let current = |file: &str| {
            let directory = self.unified.as_ref()?;
            file::read_value(&directory.path.join(file)).ok()
        };
        let mut places = Places {
            legacy: self.legacy.iter().map(|directory| &*directory.controllers).zip(&mut legacy).collect(),
            unified: self.unified.is_some().then_some(&mut unified),
        };
        distribute(resources, &mut places, &current, &mut warnings, &mut |_, steps| {
            let controller = steps[0][0].file.split('.').next().unwrap_or_default();
            // runc's words.
            Err(Error::unsupported(format!("cannot set {controller} limit: container could not join or create cgroup")))
        })?;
        if let Some(scope) = &self.scope {
            self.update_scope(scope, legacy.iter_mut().chain([&mut unified]))?;
        }
        let unified = self.unified.iter().map(|directory| (directory, &unified));
        for (directory, steps) in self.legacy.iter().zip(&legacy).chain(unified) {
            let mut path = directory.path.clone();
            for step in steps {
                setting::apply(step, &mut path).map_err(|refusal| refusal.explain(&directory.path))?;
            }
        }
        Ok(warnings)
    }

    /// Tells systemd of new limits, before the files have them: it would put its own back when it next reloads.
    fn update_scope<'a>(&self, scope: &Scope, places: impl Iterator<Item = &'a mut Vec<Step>>) -> Result<()> {
        let mut manager = Manager::connect(scope.manager)?;
        let (version, _) = manager.describe()?;
        let current = |name: &str| {
            let directory = self.with("cpu").or(self.unified.as_ref())?;
            file::read_value(&directory.path.join(name)).ok()
        };
        let mut properties = systemd::Properties::new();
        for steps in places {
            properties.extend(systemd::limits(steps, version, &current)?);
        }
        // runc's words.
        manager.set(&scope.name, properties).context("unable to set unit properties")
    }

    /// Removes the cgroups and all below them. Tries every one before it reports a failure.
    pub fn delete(self) -> Result<()> {
        let mut failure = Ok(());
        if let Some(scope) = &self.scope {
            failure = Manager::connect(scope.manager)
                .and_then(|mut manager| manager.stop(&scope.name))
                .with_context(|| format!("stop {}", scope.name));
        }
        for directory in self.directories() {
            let path = self.top_of(directory);
            let answer =
                tree::remove(path, REMOVAL_PATIENCE).with_context(|| format!("remove cgroup {}", path.display()));
            failure = failure.and(answer);
        }
        failure
    }

    /// Gives the container's whole cgroup, which is the one above if its processes are in a subgroup.
    fn top_of<'a>(&self, directory: &'a Directory) -> &'a Path {
        let levels =
            self.scope.as_ref().map_or(0, |scope| scope.subgroup.split('/').filter(|part| !part.is_empty()).count());
        directory.path.ancestors().nth(levels).unwrap_or(&directory.path)
    }

    pub(super) fn directories(&self) -> impl Iterator<Item = &Directory> {
        self.legacy.iter().chain(&self.unified)
    }

    pub(super) fn with(&self, controller: &str) -> Option<&Directory> {
        self.legacy.iter().find(|directory| directory.has(controller))
    }

    /// Gives the hierarchy in which processes are counted: one that they can't well leave, v1's devices for choice.
    pub(super) fn census(&self) -> Option<&Directory> {
        self.with("devices").or_else(|| self.with("pids")).or_else(|| self.directories().next())
    }
}

pub(super) fn move_process(cgroup: &Path, pid: Pid) -> Result<(), Errno> {
    let fd = file::open_for_writing(&cgroup.join("cgroup.procs"))?;
    file::write_number(fd, pid.as_raw_pid())
}

/// Reads a flag of a v2 cgroup's events; nothing for a cgroup that is gone.
pub(super) fn event(directory: &Directory, name: &str) -> Option<bool> {
    let text = file::read_value(&directory.path.join("cgroup.events")).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(|value| value == "1")
}

/// Open doors into the cgroups of a container, for the process that is to go through.
///
/// # Why a process enters by itself
///
/// Moving a process by its number takes the kernel's lock over all forks and exits (`cgroup_threadgroup_rwsem`) for
/// writing, and that waits for an RCU grace period whenever nobody did so a moment before. A thread that moves itself
/// by writing 0 to `tasks` of v1 needs no lock, since it can neither exit nor exec meanwhile (since 5.7, commit
/// 9a3284fad42f); a process with one thread is whole in its new cgroup by that. Measured on 6.18 with nine v1
/// hierarchies after 60 ms of rest, in microseconds for all nine:
///
/// | by whom | into | µs |
/// |---|---|---|
/// | another process | `cgroup.procs` | 6600 to 18900, of which 60 after the first |
/// | the process itself | `cgroup.procs` | 6700 to 18700 |
/// | the process itself | `tasks` | 62 to 75 |
///
/// v2 has no such door (`cgroup.threads` is for threads within a domain), but clone3(2) with `CLONE_INTO_CGROUP` takes
/// the lock only for reading: 80 µs more than a clone without.
///
/// Permission is that of whoever opened the door (since 5.16; before, that of the writer, who may always move itself),
/// so that this works across a user namespace too.
pub struct Entrances(Vec<OwnedFd>);

impl Entrances {
    /// Takes descriptors that came from [`Entrances::into_fds`], be it through a socket.
    pub fn from_fds(fds: Vec<OwnedFd>) -> Self {
        Self(fds)
    }

    /// Gives the descriptors, to be sent to the process that is to enter.
    pub fn into_fds(self) -> Vec<OwnedFd> {
        self.0
    }

    /// Lends the descriptors.
    pub fn fds(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.0.iter().map(AsFd::as_fd)
    }

    /// Enters. Only for a process with one thread; allocates nothing, so that a freshly cloned child may call it.
    ///
    /// Before a cgroup namespace is made, whose top is wherever its maker is.
    pub fn enter(&self) -> Result<(), Errno> {
        self.0.iter().try_for_each(|fd| file::write(fd, b"0"))
    }
}

#[cfg(test)]
mod tests;
