//! Named volumes: directories that outlive containers.
//!
//! ```text
//! volumes/<name>/      flock on the folder itself: exclusive while it is filled or removed
//!   volume.json        what it is; written last: a folder without it is nobody's volume
//!   _data/             what containers see; its files belong to the containers' users
//! ```
//!
//! A volume is filled from the image at its first use, as docker does: where it is empty, and not for who asked for
//! `nocopy`. Who uses it is said by the records of the containers, and by nothing else.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::files;
use super::record::{Record, Timestamp, now};
use super::volume_option::{VolumeSource, is_volume_name};
use crate::error::{Context, Error, Kind, Result};
use crate::support::lock::{Lock, Sharing};
use crate::support::{atomic, remove};

const RECORD: &str = "volume.json";
const DATA: &str = "_data";

/// Labels are bounded by ARG_MAX.
const RECORD_BYTES: usize = 16 << 20;

/// How often a folder that vanishes under our hands is made anew.
const TRIES: usize = 100;

/// What a volume is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub name: String,
    pub created: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// The volumes of a data root.
pub struct Volumes<'e> {
    engine: &'e Engine,
    directory: PathBuf,
}

impl<'e> Volumes<'e> {
    /// Finds them; makes nothing.
    pub fn of(engine: &'e Engine) -> Self {
        Self { engine, directory: engine.settings.data_root.join("volumes") }
    }

    /// Where a volume's files are.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory.join(name).join(DATA)
    }

    /// Makes a volume, or finds it there: as docker has it, that is no error. As long as the lock is held, nobody fills or
    /// removes it; who takes several takes them in the order of their names.
    pub fn create(
        &self,
        name: &str,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<(VolumeRecord, Lock)> {
        let context = || format!("make volume {name}");
        if !is_volume_name(name) {
            return Err(Error::invalid(format!("volume name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed")));
        }
        if let Some(option) = options.keys().next() {
            return Err(Error::unsupported(format!(
                "volume option {option:?}: mounts and quotas are not supported yet"
            )));
        }
        for _ in 0..TRIES {
            for directory in [self.directory.clone(), self.directory.join(name)] {
                match rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o711)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno).with_context(context),
                }
            }
            let Some((folder, lock)) = self.lock(name)? else { continue };
            if let Some(found) = read(&folder).with_context(context)? {
                return Ok((found, lock));
            }
            let data = self.data(name);
            // Root inside: an ordinary user's is the user.
            match rustix::fs::mkdir(&data, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno).with_context(context),
            }
            let record =
                VolumeRecord { name: name.to_owned(), created: now(), labels: labels.clone(), ..Default::default() };
            atomic::create(folder.as_fd(), RECORD, &serde_json::to_vec(&record)?).with_context(context)?;
            return Ok((record, lock));
        }
        Err(Error::new(Kind::Other, format!("volume {name} was removed {TRIES} times while it was made")))
    }

    /// Fills an empty volume with what the image has where it is mounted.
    pub fn fill(&self, name: &str, _lock: &Lock, destination: &str, layers: &[PathBuf]) -> Result<()> {
        let data = self.data(name);
        self.engine.with_file_rights(|| {
            let is_empty = std::fs::read_dir(&data)?.next().is_none();
            if is_empty { files::fill(&data, destination, layers) } else { Ok(()) }
        })
    }

    /// Reads what a volume is; [`Kind::NotFound`] where there is none.
    pub fn find(&self, name: &str) -> Result<VolumeRecord> {
        if !is_volume_name(name) {
            return Err(unknown(name));
        }
        let Some(folder) = open(&self.directory.join(name))? else { return Err(unknown(name)) };
        read(&folder).with_context(|| format!("volume {name}"))?.ok_or_else(|| unknown(name))
    }

    /// Lists all, by name.
    pub fn list(&self) -> Result<Vec<VolumeRecord>> {
        let Some(folder) = open(&self.directory)? else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for name in super::containers::entries(folder.as_fd())? {
            match self.find(&name) {
                Ok(record) => found.push(record),
                // Unfinished, removed meanwhile, or nothing of husk's.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    /// Removes a volume that no container has.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.find(name)?;
        // Who makes a container holds the lock until the container is recorded.
        let Some((folder, _lock)) = self.lock(name)? else { return Err(unknown(name)) };
        if let Some(user) = self.users()?.get(name).and_then(|users| users.first()) {
            return Err(Error::new(Kind::State, format!("volume {name} is in use by container {user}"))
                .with_hint(format!("husk rm {user}")));
        }
        match rustix::fs::unlinkat(&folder, RECORD, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).with_context(|| format!("remove volume {name}")),
        }
        self.engine.with_file_rights(|| {
            let volumes = open(&self.directory)?.ok_or_else(|| unknown(name))?;
            remove::remove_tree(volumes.as_fd(), name)
        })
    }

    /// Gives the containers that have each volume, by short id.
    pub fn users(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (record, _) in self.engine.containers()?.list()?.containers {
            for name in names(&record) {
                users.entry(name.to_owned()).or_default().push(record.id.short().to_owned());
            }
        }
        Ok(users)
    }

    /// Locks a volume's folder; `None` where there is none.
    fn lock(&self, name: &str) -> Result<Option<(OwnedFd, Lock)>> {
        let path = self.directory.join(name);
        let (Some(folder), Some(locked)) = (open(&path)?, open(&path)?) else { return Ok(None) };
        let lock = Lock::wait(locked, Sharing::Exclusive, |_| ())?;
        // Removed while we waited.
        if rustix::fs::fstat(&folder)?.st_nlink == 0 {
            return Ok(None);
        }
        Ok(Some((folder, lock)))
    }
}

/// The volumes that a container has.
fn names(record: &Record) -> impl Iterator<Item = &str> {
    record.options.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Named(name) => Some(name.as_str()),
        _ => None,
    })
}

fn open(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open {}", path.display())),
    }
}

fn read(folder: &OwnedFd) -> Result<Option<VolumeRecord>> {
    let Some(bytes) = atomic::read(folder.as_fd(), RECORD, RECORD_BYTES)?.filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes).context(RECORD).map(Some)
}

fn unknown(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("no such volume: {name}"))
}
