//! All containers of one store: making, finding, listing, clearing up after crashes.
//!
//! ```text
//! <data root>/
//!   containers/<id>/   one folder a container: see `record`
//!   names/<name>       a symlink to the id: made in one call, unique by that, never torn
//! ```
//!
//! No index and no lock over all of it. A container comes into being with its `record.json`: the folder, the supervisor's
//! lock and the name are there before. It ceases with that file: the name and the folder go after. Between, the folder is
//! unfinished; whoever finds it with a lock that is free deletes it, the name first.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Kind, Result};
use crate::support::atomic;
use crate::support::id::{ContainerId, ContainerName, is_hexadecimal};
use crate::support::lock::{self, Lock, Sharing};

use super::record::{self, Container, ExitRecord, RECORD, Record, SUPERVISOR, Start, Status, Supervision, Timestamp};

/// How often a made-up name may be taken. There are more than 20,000; a store near that many is asked to name its own.
const NAME_TRIES: usize = 64;

/// How often an id's folder may be swept away between two system calls before that is no accident.
const FOLDER_TRIES: usize = 16;

/// The containers of a store.
pub struct Containers {
    containers: OwnedFd,
    names: OwnedFd,
}

/// How a new container gets its name.
#[derive(Clone, Debug)]
pub enum Naming {
    Chosen(ContainerName),
    MadeUp,
}

impl Containers {
    /// Opens the containers of a data root, making the folders on first use.
    pub fn open(data_root: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { containers: open_folder(data_root, "containers")?, names: open_folder(data_root, "names")? })
    }

    /// The folder of all of them.
    pub(super) fn folder(&self) -> BorrowedFd<'_> {
        self.containers.as_fd()
    }

    /// Begins a container: its folder, its name, and its supervisor, which is the caller.
    ///
    /// Until [`Draft::commit`] it is none, and dropping the draft takes it all back.
    pub fn begin(&self, naming: Naming) -> Result<Draft<'_>> {
        let (id, directory, supervision) = self.make_folder()?;
        let mut draft =
            Draft { store: self, id, name: None, directory: Some(directory), supervision: Some(supervision) };
        draft.name = Some(match naming {
            Naming::Chosen(name) => match self.claim(&name, &id)? {
                None => name,
                Some(owner) => return Err(taken(&name, &owner)),
            },
            Naming::MadeUp => self.claim_any(&id)?,
        });
        Ok(draft)
    }

    fn make_folder(&self) -> Result<(ContainerId, OwnedFd, Supervision)> {
        for _ in 0..FOLDER_TRIES {
            let id = ContainerId::random()?;
            let context = || format!("make the folder of container {}", id.short());
            rustix::fs::mkdirat(&self.containers, id.as_str(), Mode::RWXU).with_context(context)?;
            // A sweep may meet the folder before its lock is held, take it for a dead one's and delete it. Then another.
            let Some(directory) = open_existing(self.containers.as_fd(), id.as_str())? else { continue };
            let file = match lock::open_lock_file(directory.as_fd(), SUPERVISOR, OFlags::CREATE | OFlags::EXCL) {
                Ok(file) => file,
                Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::EXIST)) => continue,
                Err(error) => return Err(error).with_context(context),
            };
            let Some(lock) = Lock::try_now(file, Sharing::Exclusive)? else { continue };
            if rustix::fs::fstat(&lock).with_context(context)?.st_nlink > 0 {
                return Ok((id, directory, Supervision(lock)));
            }
        }
        Err(Error::new(Kind::Other, format!("a new container's folder was swept away {FOLDER_TRIES} times")))
    }

    /// Gives a name to a container; if it is taken, says whose it is.
    fn claim(&self, name: &ContainerName, id: &ContainerId) -> Result<Option<ContainerId>> {
        loop {
            match rustix::fs::symlinkat(id.as_str(), &self.names, name.as_str()) {
                Ok(()) => return Ok(None),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).with_context(|| format!("claim the name {name}")),
            }
            // Gone meanwhile: try again.
            let Some(owner) = self.owner(name)? else { continue };
            if !self.clear_if_unfinished(&owner)? && !self.clear_if_dangling(name, &owner)? {
                return Ok(Some(owner));
            }
        }
    }

    fn claim_any(&self, id: &ContainerId) -> Result<ContainerName> {
        for _ in 0..NAME_TRIES {
            let name = ContainerName::random()?;
            if self.claim(&name, id)?.is_none() {
                return Ok(name);
            }
        }
        Err(Error::new(Kind::Exists, "every name that was made up is taken").with_hint("choose one with --name"))
    }

    /// Reads whose a name is.
    fn owner(&self, name: &ContainerName) -> Result<Option<ContainerId>> {
        let target = match rustix::fs::readlinkat(&self.names, name.as_str(), Vec::with_capacity(128)) {
            Ok(target) => target,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).with_context(|| format!("read the name {name}")),
        };
        let id = target.to_str().ok().and_then(|id| id.parse().ok());
        match id {
            Some(id) => Ok(Some(id)),
            None => Err(Error::invalid(format!("names/{name} does not lead to a container"))),
        }
    }

    /// Takes a name back, if it is still the container's.
    fn release(&self, name: &ContainerName, id: &ContainerId) -> Result<()> {
        // Between the two calls nobody can change it: only who holds the container's locks may.
        if self.owner(name)? == Some(*id) {
            match rustix::fs::unlinkat(&self.names, name.as_str(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).with_context(|| format!("release the name {name}")),
            }
        }
        Ok(())
    }

    /// Lists the names, in no order.
    pub fn names(&self) -> Result<Vec<String>> {
        entries(self.names.as_fd())
    }

    /// Clears what is left of a container that was never finished, or not quite removed; its names are free after that.
    fn clear_if_unfinished(&self, id: &ContainerId) -> Result<bool> {
        let Some(unfinished) = self.find_unfinished(id)? else { return Ok(false) };
        self.clear_or_keep(unfinished).map(|_| true)
    }

    /// Deletes what is unfinished; gives it back where that takes rights over the containers' files.
    fn clear_or_keep(&self, unfinished: Unfinished) -> Result<Option<Unfinished>> {
        match unfinished.clear(self) {
            Ok(()) => Ok(None),
            Err(error) if matches!(error.errno(), Some(Errno::ACCESS | Errno::PERM)) => Ok(Some(unfinished)),
            Err(error) => Err(error),
        }
    }

    /// Looks whether a folder is one of a container that nobody is making or removing any more, and takes its lock and its
    /// names from it.
    fn find_unfinished(&self, id: &ContainerId) -> Result<Option<Unfinished>> {
        let Some(directory) = open_existing(self.containers.as_fd(), id.as_str())? else { return Ok(None) };
        if exists(directory.as_fd(), RECORD)? {
            return Ok(None);
        }
        let lock = match Lock::try_file(directory.as_fd(), SUPERVISOR, Sharing::Exclusive) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(None),
            // Deleted under our hands.
            Err(error) if error.errno() == Some(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        // Committed between the look and the lock, by a `create` that let go of it.
        if exists(directory.as_fd(), RECORD)? {
            return Ok(None);
        }
        for name in entries(self.names.as_fd())? {
            if let Ok(name) = name.parse() {
                self.release(&name, id)?;
            }
        }
        Ok(Some(Unfinished { id: *id, directory, _supervision: Supervision(lock) }))
    }

    /// Deletes a name whose container has no folder: what somebody leaves who deletes folders by hand.
    fn clear_if_dangling(&self, name: &ContainerName, owner: &ContainerId) -> Result<bool> {
        if exists(self.containers.as_fd(), owner.as_str())? {
            return Ok(false);
        }
        // One at a time: a second one would delete what was claimed after the first had cleared.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let names = rustix::fs::openat(&self.names, c".", flags, Mode::empty()).context("lock names")?;
        let _lock = Lock::wait(names, Sharing::Exclusive, |_| ())?;
        self.release(name, owner)?;
        Ok(true)
    }

    /// Finds a container by its id, its name, or the beginning of its id if no other begins so.
    pub fn find(&self, reference: &str) -> Result<Container> {
        if let Ok(id) = reference.parse() {
            return self.open_container(&id)?.ok_or_else(|| unknown(reference));
        }
        if let Ok(name) = reference.parse()
            && let Some(id) = self.owner(&name)?
            && let Some(container) = self.open_container(&id)?
        {
            return Ok(container);
        }
        if !is_hexadecimal(reference) {
            return Err(unknown(reference));
        }
        let mut found: Option<Container> = None;
        for name in entries(self.containers.as_fd())? {
            if !name.starts_with(reference) {
                continue;
            }
            let Ok(id) = name.parse() else { continue };
            let Some(container) = self.open_container(&id)? else { continue };
            if let Some(other) = found {
                let message =
                    format!("container {reference} is ambiguous: {} and {} begin so", other.id.short(), id.short());
                return Err(Error::invalid(message).with_hint("give more digits, or the name"));
            }
            found = Some(container);
        }
        found.ok_or_else(|| unknown(reference))
    }

    fn open_container(&self, id: &ContainerId) -> Result<Option<Container>> {
        let Some(directory) = open_existing(self.containers.as_fd(), id.as_str())? else { return Ok(None) };
        let is_one = exists(directory.as_fd(), RECORD)?;
        Ok(is_one.then_some(Container { id: *id, directory }))
    }

    /// Lists all containers, the newest first; one that cannot be read is named, and hides none of the others.
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        for name in entries(self.containers.as_fd())? {
            let Ok(id) = name.parse::<ContainerId>() else { continue };
            match self.summary(&id) {
                Ok(Some(summary)) => listing.containers.push(summary),
                // Unfinished, or removed meanwhile.
                Ok(None) => {}
                Err(error) => listing.unreadable.push(error.context(format!("container {}", id.short()))),
            }
        }
        listing.containers.sort_by_key(|(record, _)| std::cmp::Reverse((record.created, record.id)));
        Ok(listing)
    }

    fn summary(&self, id: &ContainerId) -> Result<Option<(Record, Status)>> {
        let Some(record) = record::read_record(self.containers.as_fd(), &format!("{id}/{RECORD}"))? else {
            return Ok(None);
        };
        match record::status(self.containers.as_fd(), &format!("{id}/")) {
            Ok(status) => Ok(Some((record, status))),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds what crashes left: folders of containers that were never finished or not quite removed, which it deletes if it
    /// may, and containers whose supervisor is gone. What is handed out has the lock with it that the dead one held.
    ///
    /// Costs a few system calls a container: not for the way to a start, but while a container runs, or where `ps` looks
    /// at all of them anyway.
    pub fn sweep(&self) -> Result<Sweep> {
        let mut sweep = Sweep::default();
        for name in entries(self.containers.as_fd())? {
            let Ok(id) = name.parse::<ContainerId>() else { continue };
            self.examine_into(&id, &mut sweep);
        }
        Ok(sweep)
    }

    /// Looks at one folder, and adds what is wrong with it to a sweep.
    pub(super) fn examine_into(&self, id: &ContainerId, sweep: &mut Sweep) {
        match self.examine(id, sweep) {
            // Somebody removed it while we looked.
            Err(error) if error.errno() == Some(Errno::NOENT) && matches!(self.open_container(id), Ok(None)) => {}
            Err(error) => sweep.failures.push(error.context(format!("container {}", id.short()))),
            Ok(()) => {}
        }
    }

    fn examine(&self, id: &ContainerId, sweep: &mut Sweep) -> Result<()> {
        let Some(container) = self.open_container(id)? else {
            if let Some(unfinished) = self.find_unfinished(id)? {
                sweep.unfinished.extend(self.clear_or_keep(unfinished)?);
            }
            return Ok(());
        };
        // Most are alive or at rest, and cost no more than this.
        let record = container.record()?;
        if !needs_attention(record.remove, &container.status()?) {
            return Ok(());
        }
        let Some(supervision) = container.supervise()? else { return Ok(()) };
        // Whoever had the lock before us may have settled it.
        let status = record::status_under(&supervision, container.directory())?;
        if !needs_attention(record.remove, &status) {
            return Ok(());
        }
        let fate = if record.remove { Fate::Remove } else { Fate::MarkExited };
        let started = match status {
            Status::Lost { started } => Some(started),
            _ => None,
        };
        sweep.orphans.push(Orphan { container, record, fate, started, supervision });
        Ok(())
    }

    /// Changes a container's name.
    pub fn rename(&self, container: &Container, name: ContainerName) -> Result<()> {
        let _lock = container.lock(|_| ())?;
        let mut record = container.record()?;
        if record.name == name {
            return Err(Error::new(Kind::Exists, format!("container {} has the name {name}", container.id.short())));
        }
        // Until the last step both names lead to it, so that a kill leaves it with at least one.
        if let Some(owner) = self.claim(&name, &container.id)?
            && owner != container.id
        {
            return Err(taken(&name, &owner));
        }
        let old = std::mem::replace(&mut record.name, name);
        atomic::replace(container.directory(), RECORD, &serde_json::to_vec(&record)?)?;
        self.release(&old, &container.id)
    }

    /// Removes a container whose processes, cgroup and mounts are gone. `_supervision` says that nobody looks after it.
    pub fn remove(&self, container: &Container, _supervision: &Supervision) -> Result<()> {
        // Against a rename, which would bring the record back.
        let _lock = container.lock(|_| ())?;
        // Whatever its record says, or no longer says, its names are those that lead to it.
        let names = match container.record() {
            Ok(record) => vec![record.name],
            Err(error) if error.kind() == Kind::NotFound => return Err(error),
            Err(_) => self.names()?.iter().filter_map(|name| name.parse().ok()).collect(),
        };
        match rustix::fs::unlinkat(&container.directory, RECORD, AtFlags::empty()) {
            Ok(()) => {}
            Err(errno) => return Err(errno).with_context(|| format!("remove container {}", container.id.short())),
        }
        names.iter().try_for_each(|name| self.release(name, &container.id))?;
        self.remove_rest(container)
    }

    /// Goes on with a removal that lacked the rights over some file.
    pub(super) fn remove_rest(&self, container: &Container) -> Result<()> {
        record::remove_folder(self.containers.as_fd(), &container.id, container.directory())
    }
}

/// Says whether a container, which is to go with its end or not, was left by a supervisor that is dead.
pub(super) fn needs_attention(removes: bool, status: &Status) -> bool {
    match status {
        Status::Running { .. } | Status::Restarting(_) | Status::Created => false,
        Status::Lost { .. } => true,
        // Killed between the end of the run and the removal.
        Status::Exited(_) => removes,
    }
}

/// A container that is being made.
pub struct Draft<'a> {
    store: &'a Containers,
    id: ContainerId,
    name: Option<ContainerName>,
    directory: Option<OwnedFd>,
    supervision: Option<Supervision>,
}

impl Draft<'_> {
    pub fn id(&self) -> &ContainerId {
        &self.id
    }

    /// The name, chosen or made up.
    pub fn name(&self) -> &ContainerName {
        self.name.as_ref().expect("a draft is handed out with its name")
    }

    /// The container's folder, for its bundle and its root file system.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_ref().expect("present until committed").as_fd()
    }

    /// Makes directories below the folder, parents first.
    pub fn make_directories(&self, paths: &[&str]) -> Result<()> {
        for path in paths {
            rustix::fs::mkdirat(self.directory(), *path, Mode::RWXU)
                .with_context(|| format!("make {path} of container {}", self.id.short()))?;
        }
        Ok(())
    }

    /// Makes it a container. With `started`, it counts as started at once (`run`), without the moment in which a kill
    /// would leave it created only.
    pub fn commit(mut self, record: &Record, started: Option<Timestamp>) -> Result<(Container, Supervision)> {
        debug_assert!(record.id == self.id && Some(&record.name) == self.name.as_ref());
        let supervision = self.supervision.as_ref().expect("present until committed");
        if let Some(time) = started {
            supervision.note_start(Start { time, restarts: 0, stop: None })?;
        }
        let document = serde_json::to_vec(record)?;
        record::check_size(&document)?;
        atomic::create(self.directory(), RECORD, &document)
            .with_context(|| format!("container {}", self.id.short()))?;
        let directory = self.directory.take().expect("present until committed");
        let supervision = self.supervision.take().expect("present until committed");
        Ok((Container { id: self.id, directory }, supervision))
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        let Some(directory) = &self.directory else { return };
        // What cannot be deleted here is unfinished to the next sweep, which says why.
        if let Some(name) = &self.name {
            let _ = self.store.release(name, &self.id);
        }
        let _ = record::remove_folder(self.store.containers.as_fd(), &self.id, directory.as_fd());
    }
}

/// What there is.
#[derive(Debug, Default)]
pub struct Listing {
    pub containers: Vec<(Record, Status)>,
    pub unreadable: Vec<Error>,
}

/// What crashes left.
#[derive(Default)]
pub struct Sweep {
    /// To be cleared with rights over the containers' files, without which the sweep could not.
    pub unfinished: Vec<Unfinished>,
    /// To be settled once nothing of them runs any more.
    pub orphans: Vec<Orphan>,
    pub failures: Vec<Error>,
}

/// A folder that is no container: one that was never finished, or not quite removed.
pub struct Unfinished {
    id: ContainerId,
    directory: OwnedFd,
    _supervision: Supervision,
}

impl Unfinished {
    /// Deletes it. Its files may belong to ids of a user namespace, in which this is then to be called.
    pub fn clear(&self, store: &Containers) -> Result<()> {
        record::remove_folder(store.containers.as_fd(), &self.id, self.directory.as_fd())
    }
}

/// What is to become of a container whose supervisor is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was to go with its end.
    Remove,
    /// It stays, and its end is written down as far as it is known.
    MarkExited,
}

/// A container without a supervisor. Its processes, cgroup, mounts and runtime state are to be cleared first.
pub struct Orphan {
    pub container: Container,
    pub record: Record,
    pub fate: Fate,
    started: Option<Timestamp>,
    supervision: Supervision,
}

impl Orphan {
    /// Gives the container with its lock, to be looked after by another.
    pub(super) fn hand_over(self) -> (Container, Supervision) {
        (self.container, self.supervision)
    }

    /// Settles it, once nothing of it runs any more.
    pub fn settle(self, store: &Containers, now: Timestamp, error: &str) -> Result<()> {
        match self.fate {
            Fate::Remove => store.remove(&self.container, &self.supervision),
            Fate::MarkExited => {
                let exit = ExitRecord {
                    started: self.started,
                    finished: now,
                    code: ExitRecord::UNKNOWN,
                    was_stopped: self.supervision.start()?.is_some_and(|start| start.stop.is_some()),
                    error: Some(error.to_owned()),
                    ..ExitRecord::default()
                };
                self.container.record_exit(&self.supervision, &exit)
            }
        }
    }
}

fn taken(name: &ContainerName, owner: &ContainerId) -> Error {
    // Docker's words: scripts look for "is already in use".
    let message = format!("the container name \"/{name}\" is already in use by container \"{owner}\"");
    Error::new(Kind::Exists, message).with_hint(format!("remove it (husk rm {name}), or choose another name"))
}

fn unknown(reference: &str) -> Error {
    Error::new(Kind::NotFound, format!("no such container: {reference}"))
}

fn open_folder(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    if let Some(folder) = open_existing(parent, name)? {
        return Ok(folder);
    }
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).with_context(|| format!("make {name} in the data root")),
    }
    open_existing(parent, name)?
        .ok_or_else(|| Error::new(Kind::NotFound, format!("open {name} in the data root: gone")))
}

fn open_existing(parent: BorrowedFd<'_>, name: &str) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open {name} in the data root")),
    }
}

fn exists(directory: BorrowedFd<'_>, name: &str) -> Result<bool> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        // Empty: what a power cut leaves of a file that was being made.
        Ok(stat) => Ok(stat.st_size > 0 || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("inspect {name}")),
    }
}

/// Lists the names in a folder of the store; those that are no text are not husk's.
pub(super) fn entries(directory: BorrowedFd<'_>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory).context("list the store")? {
        let entry = entry.context("list the store")?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "fixtures are not state")]
mod tests;
