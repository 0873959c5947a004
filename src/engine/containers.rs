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

use super::record::{self, Container, ExitRecord, RECORD, Record, SUPERVISOR, Status, Supervision, Timestamp};

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
            if let Err(error) = self.examine(&id, &mut sweep) {
                sweep.failures.push(error.context(format!("container {}", id.short())));
            }
        }
        Ok(sweep)
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
        if !needs_attention(&record, &container.status()?) {
            return Ok(());
        }
        let Some(supervision) = container.supervise()? else { return Ok(()) };
        // Whoever had the lock before us may have settled it.
        let status = record::status_under(&supervision, container.directory())?;
        if !needs_attention(&record, &status) {
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
        let name = container.record()?.name;
        match rustix::fs::unlinkat(&container.directory, RECORD, AtFlags::empty()) {
            Ok(()) => {}
            Err(errno) => return Err(errno).with_context(|| format!("remove container {}", container.id.short())),
        }
        self.release(&name, &container.id)?;
        record::remove_folder(self.containers.as_fd(), &container.id, container.directory())
    }
}

fn needs_attention(record: &Record, status: &Status) -> bool {
    match status {
        Status::Running { .. } | Status::Created => false,
        Status::Lost { .. } => true,
        // Killed between the end of the run and the removal.
        Status::Exited(_) => record.remove,
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
            supervision.note_start(time)?;
        }
        atomic::create(self.directory(), RECORD, &serde_json::to_vec(record)?)
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
    /// Settles it, once nothing of it runs any more.
    pub fn settle(self, store: &Containers, now: Timestamp) -> Result<()> {
        match self.fate {
            Fate::Remove => store.remove(&self.container, &self.supervision),
            Fate::MarkExited => {
                let exit = ExitRecord {
                    started: self.started,
                    finished: now,
                    code: ExitRecord::UNKNOWN,
                    signal: None,
                    out_of_memory: false,
                    error: Some("its supervisor was killed".to_owned()),
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
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    struct Scratch {
        directory: tempfile::TempDir,
        store: Containers,
    }

    impl Scratch {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Self::open(&directory);
            Self { directory, store }
        }

        fn open(directory: &tempfile::TempDir) -> Containers {
            Containers::open(fs::File::open(directory.path()).unwrap().as_fd()).unwrap()
        }

        fn names(&self, folder: &str) -> Vec<String> {
            let entries = fs::read_dir(self.directory.path().join(folder)).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn statuses(&self) -> Vec<(String, Status)> {
            let listing = self.store.list().unwrap();
            assert!(listing.unreadable.is_empty(), "{:?}", listing.unreadable);
            listing.containers.into_iter().map(|(record, status)| (record.name.to_string(), status)).collect()
        }

        fn sweep(&self) {
            let sweep = self.store.sweep().unwrap();
            assert!(sweep.orphans.is_empty() && sweep.unfinished.is_empty());
            assert!(sweep.failures.is_empty(), "{:?}", sweep.failures);
        }

        fn run(&self, name: &str, remove: bool) -> (Container, Supervision) {
            let draft = self.store.begin(chosen(name)).unwrap();
            let record = Record { remove, ..record(&draft) };
            draft.commit(&record, Some(7)).unwrap()
        }
    }

    fn chosen(name: &str) -> Naming {
        Naming::Chosen(name.parse().unwrap())
    }

    fn record(draft: &Draft<'_>) -> Record {
        Record {
            format: record::FORMAT,
            id: *draft.id(),
            name: draft.name().clone(),
            created: record::now(),
            image: "oci:image".into(),
            image_id: None,
            layers: Vec::new(),
            command: vec!["true".into()],
            labels: BTreeMap::new(),
            remove: false,
            detached: false,
            interactive: false,
            terminal: false,
            stop_signal: None,
            stop_timeout_seconds: None,
        }
    }

    fn exit(code: u8) -> ExitRecord {
        ExitRecord { started: Some(7), finished: 9, code, signal: None, out_of_memory: false, error: None }
    }

    /// Leaves a draft as a SIGKILL would: the kernel closes its descriptors, and that is all.
    fn kill(mut draft: Draft<'_>) {
        draft.supervision.take();
        draft.directory.take();
    }

    #[test]
    fn a_life_from_creation_to_removal() {
        let scratch = Scratch::new();
        let draft = scratch.store.begin(chosen("web")).unwrap();
        draft.make_directories(&["bundle", "root", "root/upper"]).unwrap();
        assert_eq!(scratch.statuses(), [], "a draft is no container");
        let record = record(&draft);
        let (container, supervision) = draft.commit(&record, None).unwrap();
        assert_eq!(container.record().unwrap(), record);
        assert_eq!(container.status().unwrap(), Status::Running { started: None });
        assert!(container.supervise().unwrap().is_none());
        drop(supervision);
        assert_eq!(container.status().unwrap(), Status::Created);

        for code in [0, 3] {
            let supervision = container.supervise().unwrap().unwrap();
            container.note_start(&supervision, 7).unwrap();
            assert_eq!(container.status().unwrap(), Status::Running { started: Some(7) });
            container.record_exit(&supervision, &exit(code)).unwrap();
            // Handed on, as to a monitor, it is still looked after.
            let supervision = Supervision::from_fd(supervision.into_fd());
            assert_eq!(container.status().unwrap(), Status::Running { started: Some(7) });
            drop(supervision);
            assert_eq!(container.status().unwrap(), Status::Exited(exit(code)));
        }

        let supervision = container.supervise().unwrap().unwrap();
        scratch.store.remove(&container, &supervision).unwrap();
        assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty());
        assert_eq!(container.record().unwrap_err().kind(), Kind::NotFound);
        assert_eq!(scratch.store.remove(&container, &supervision).unwrap_err().kind(), Kind::NotFound);
    }

    #[test]
    fn a_dropped_draft_leaves_nothing() {
        let scratch = Scratch::new();
        let draft = scratch.store.begin(Naming::MadeUp).unwrap();
        draft.make_directories(&["root", "root/work"]).unwrap();
        drop(draft);
        assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty());
    }

    #[test]
    fn a_name_is_had_by_one() {
        let scratch = Scratch::new();
        let winners: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let store = Scratch::open(&scratch.directory);
                        let draft = store.begin(chosen("web"))?;
                        let record = record(&draft);
                        draft.commit(&record, Some(1)).map(|(container, supervision)| (container.id, supervision))
                    })
                })
                .collect();
            tries.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(winners.iter().filter(|answer| answer.is_ok()).count(), 1);
        for error in winners.iter().filter_map(|answer| answer.as_ref().err()) {
            assert_eq!(error.kind(), Kind::Exists);
            assert!(error.report().contains("is already in use by container"), "{}", error.report());
        }
        assert_eq!(scratch.names("containers").len(), 1);
    }

    #[test]
    fn references_are_found_when_they_mean_one() {
        let scratch = Scratch::new();
        let (web, _one) = scratch.run("web", false);
        let (_, _two) = scratch.run("db", false);
        // Seventeen containers have at least two that begin alike.
        let more: Vec<_> = (0..16).map(|number| scratch.run(&format!("c{number}"), false)).collect();
        for reference in ["web", web.id.as_str(), web.id.short()] {
            assert_eq!(scratch.store.find(reference).unwrap().id, web.id, "{reference}");
        }
        let ids = scratch.names("containers");
        let shared =
            (b'0'..=b'f').map(char::from).find(|digit| ids.iter().filter(|id| id.starts_with(*digit)).count() > 1);
        let error = scratch.store.find(&shared.unwrap().to_string()).err().unwrap();
        assert!(error.report().contains("is ambiguous"), "{}", error.report());
        for unknown in ["we", "webs", "", ".", "..", "../names/web", "web/", "WEB", &"f".repeat(64), "\0"] {
            let error = scratch.store.find(unknown).err().unwrap();
            assert_eq!(error.report(), format!("no such container: {}", unknown.replace('\0', "\\u{0}")));
        }
        drop(more);
    }

    #[test]
    fn a_name_precedes_the_beginning_of_an_id() {
        let scratch = Scratch::new();
        let (one, _held) = scratch.run("web", false);
        let (other, _held) = scratch.run(one.id.short(), false);
        assert_eq!(scratch.store.find(one.id.short()).unwrap().id, other.id);
        assert_eq!(scratch.store.find(one.id.as_str()).unwrap().id, one.id);
    }

    #[test]
    fn a_killed_creation_is_swept_and_its_name_is_free() {
        for sweeps in [true, false] {
            let scratch = Scratch::new();
            let draft = scratch.store.begin(chosen("web")).unwrap();
            draft.make_directories(&["root"]).unwrap();
            kill(draft);
            if sweeps {
                scratch.sweep();
                assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty());
            }
            // Without a sweep, whoever wants the name clears what is in the way.
            scratch.run("web", false);
            assert_eq!(scratch.names("containers").len(), 1);
        }
    }

    #[test]
    fn a_removal_is_finished_from_every_step() {
        // What a kill can leave: the record gone; the name, too; the content, too.
        for steps in 0..3 {
            let scratch = Scratch::new();
            let (container, supervision) = scratch.run("web", false);
            let folder = scratch.directory.path().join("containers").join(container.id.as_str());
            fs::remove_file(folder.join(RECORD)).unwrap();
            if steps > 0 {
                fs::remove_file(scratch.directory.path().join("names/web")).unwrap();
            }
            if steps > 1 {
                fs::remove_file(folder.join(SUPERVISOR)).unwrap();
            }
            assert_eq!(scratch.statuses(), []);
            if steps < 2 {
                scratch.sweep();
                assert!(folder.exists(), "somebody is at work there");
            }
            drop(supervision);
            scratch.sweep();
            assert!(scratch.names("containers").is_empty() && scratch.names("names").is_empty(), "step {steps}");
        }
    }

    #[test]
    fn what_cannot_be_deleted_does_not_keep_its_name() {
        let scratch = Scratch::new();
        let draft = scratch.store.begin(chosen("web")).unwrap();
        draft.make_directories(&["root", "root/upper"]).unwrap();
        let stubborn = scratch.directory.path().join("containers").join(draft.id().as_str()).join("root");
        kill(draft);
        // EPERM for root, as the files of subordinate ids are EACCES for an ordinary user.
        let set = |flag: &str| {
            std::process::Command::new("chattr")
                .arg(flag)
                .arg(&stubborn)
                .output()
                .is_ok_and(|done| done.status.success())
        };
        if !set("+i") {
            #[expect(clippy::print_stderr, reason = "a test that does not run says so")]
            return eprintln!("skipped: wants root, and chattr on this file system");
        }
        let held = scratch.run("web", false);
        let sweep = scratch.store.sweep().unwrap();
        assert_eq!(sweep.unfinished.len(), 1);
        assert_eq!(sweep.unfinished[0].clear(&scratch.store).unwrap_err().errno(), Some(Errno::PERM));
        assert!(scratch.store.sweep().unwrap().unfinished.is_empty(), "handed out with its lock");
        drop(sweep);
        assert!(set("-i"));
        scratch.sweep();
        assert_eq!((scratch.names("containers").len(), scratch.names("names").len()), (1, 1));
        drop(held);
    }

    #[test]
    fn a_dead_supervisor_is_noticed() {
        let scratch = Scratch::new();
        let (_, dead) = scratch.run("dead", false);
        let (_, gone) = scratch.run("gone", true);
        let (ended, ending) = scratch.run("ended", true);
        let (stays, resting) = scratch.run("stays", false);
        let (_, _alive) = scratch.run("alive", true);
        let waiting = scratch.store.begin(chosen("waiting")).unwrap();
        let waits = Record { remove: true, ..record(&waiting) };
        drop(waiting.commit(&waits, None).unwrap());
        ended.record_exit(&ending, &exit(0)).unwrap();
        stays.record_exit(&resting, &exit(0)).unwrap();
        drop((dead, gone, ending, resting));

        assert_eq!(scratch.store.find("dead").unwrap().status().unwrap(), Status::Lost { started: 7 });
        let sweep = scratch.store.sweep().unwrap();
        assert!(sweep.failures.is_empty());
        let mut found: Vec<_> = sweep.orphans.iter().map(|orphan| (orphan.record.name.as_str(), orphan.fate)).collect();
        found.sort_by_key(|(name, _)| *name);
        assert_eq!(found, [("dead", Fate::MarkExited), ("ended", Fate::Remove), ("gone", Fate::Remove)]);
        // Handed out with their locks, they are nobody else's.
        assert!(scratch.store.sweep().unwrap().orphans.is_empty());
        for orphan in sweep.orphans {
            orphan.settle(&scratch.store, 99).unwrap();
        }
        let mut left = scratch.statuses();
        left.sort_by(|(one, _), (other, _)| one.cmp(other));
        let lost = ExitRecord {
            started: Some(7),
            finished: 99,
            code: 255,
            signal: None,
            out_of_memory: false,
            error: Some("its supervisor was killed".into()),
        };
        assert_eq!(
            left,
            [
                ("alive".into(), Status::Running { started: Some(7) }),
                ("dead".into(), Status::Exited(lost)),
                ("stays".into(), Status::Exited(exit(0))),
                ("waiting".into(), Status::Created),
            ]
        );
        assert!(scratch.store.sweep().unwrap().orphans.is_empty());
    }

    #[test]
    fn creations_survive_sweeps_beside_them() {
        let scratch = Scratch::new();
        let done = AtomicBool::new(false);
        let held = std::thread::scope(|scope| {
            let sweeper = scope.spawn(|| {
                let store = Scratch::open(&scratch.directory);
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) || rounds == 0 {
                    let sweep = store.sweep().unwrap();
                    assert!(sweep.orphans.is_empty(), "nobody died");
                    assert!(sweep.failures.is_empty(), "{:?}", sweep.failures);
                    assert!(sweep.unfinished.is_empty());
                    rounds += 1;
                }
            });
            let creators: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let store = Scratch::open(&scratch.directory);
                        let create = |number: u32| {
                            let draft = store.begin(Naming::MadeUp).unwrap();
                            draft.make_directories(&["root"]).unwrap();
                            if number.is_multiple_of(3) {
                                return None;
                            }
                            let record = record(&draft);
                            Some(draft.commit(&record, Some(1)).unwrap())
                        };
                        (0..60).filter_map(create).collect::<Vec<_>>()
                    })
                })
                .collect();
            let held: Vec<_> = creators.into_iter().flat_map(|creator| creator.join().unwrap()).collect();
            done.store(true, Ordering::Relaxed);
            sweeper.join().unwrap();
            held
        });
        assert_eq!(held.len(), 160);
        assert_eq!((scratch.names("containers").len(), scratch.names("names").len()), (160, 160));
        assert!(held.iter().all(|(container, _)| container.record().is_ok()));
    }

    #[test]
    fn renaming_moves_the_name() {
        let scratch = Scratch::new();
        let (web, _held) = scratch.run("web", false);
        let (_, _other) = scratch.run("other", false);
        assert_eq!(scratch.store.rename(&web, "other".parse().unwrap()).unwrap_err().kind(), Kind::Exists);
        assert_eq!(scratch.store.rename(&web, "web".parse().unwrap()).unwrap_err().kind(), Kind::Exists);
        scratch.store.rename(&web, "new".parse().unwrap()).unwrap();
        assert_eq!(scratch.names("names"), ["new", "other"]);
        assert_eq!(scratch.store.find("new").unwrap().record().unwrap().name.as_str(), "new");
    }

    #[test]
    fn a_name_that_leads_nowhere_is_free() {
        let scratch = Scratch::new();
        let (web, held) = scratch.run("web", false);
        drop(held);
        fs::remove_dir_all(scratch.directory.path().join("containers").join(web.id.as_str())).unwrap();
        assert!(scratch.store.find("web").is_err());
        scratch.run("web", false);
    }

    #[test]
    fn what_cannot_be_read_hides_nothing() {
        let scratch = Scratch::new();
        let (torn, _held) = scratch.run("torn", false);
        let (newer, _held) = scratch.run("newer", false);
        let (_, _held) = scratch.run("web", false);
        let folder = |container: &Container| scratch.directory.path().join("containers").join(container.id.as_str());
        fs::write(folder(&torn).join(RECORD), "{\"format\":1,").unwrap();
        fs::write(folder(&newer).join(RECORD), "{\"format\":2}").unwrap();
        fs::create_dir(scratch.directory.path().join("containers/lost+found")).unwrap();
        let listing = scratch.store.list().unwrap();
        assert_eq!(listing.containers.len(), 1);
        let mut reports: Vec<_> = listing.unreadable.iter().map(Error::report).collect();
        reports.sort_by_key(|report| report.contains("format"));
        assert!(reports[0].starts_with(&format!("container {}: record.json: EOF", torn.id.short())), "{reports:?}");
        assert!(reports[1].ends_with("record.json has format 2, this husk knows 1"), "{reports:?}");
    }
}
