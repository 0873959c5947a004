//! Named volumes: directories that outlive containers.
//!
//! ```text
//! volumes/<name>/      flock on the folder itself: exclusive while it is filled or removed
//!   volume.json        what it is; written last: a folder without it is nobody's volume
//!   _data/             what containers see; its files belong to the containers' users
//! ```
//!
//! A volume is filled from the image at its first use, as docker does: where it is empty, and not for who asked for
//! `nocopy`. Who uses it is said by the records of the containers, and by nothing else. It is called as its folder is: what
//! `volume.json` says of that is only for who reads it.

pub mod options;
mod quota;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::engine::Engine;
use super::files;
use super::record::{Record, Timestamp, now};
use super::volume_option::{VolumeSource, is_volume_name};
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Algorithm;
use crate::image::limits::LayerLimits;
use crate::image::media::Compression;
use crate::image::unpack::{Unpacked, unpack_files};
use crate::image::write::{Changing, Settings, write_tree};
use crate::support::lock::{Lock, Sharing};
use crate::support::root::Root;
use crate::support::{atomic, remove};

use options::{Backing, Bounds};

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
    /// The project of the file system that its quota is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<u32>,
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

    /// Where a volume's files are, unless it is a mount.
    pub fn data(&self, name: &str) -> PathBuf {
        self.directory.join(name).join(DATA)
    }

    /// Where a volume's files can be reached from outside of containers.
    fn place(&self, record: &VolumeRecord) -> Result<PathBuf> {
        match Backing::parse(&record.options)? {
            Backing::Directory(_) => Ok(self.data(&record.name)),
            Backing::Bind { source, .. } => Ok(source),
            Backing::Mount { kind, .. } => {
                Err(Error::unsupported(format!("its files are a {kind} that is mounted in containers only")))
            }
        }
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
            return Err(misnamed(name));
        }
        let backing = Backing::parse(options)?;
        for _ in 0..TRIES {
            for directory in [self.directory.clone(), self.directory.join(name)] {
                match rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o711)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno).with_context(context),
                }
            }
            let Some((folder, lock)) = self.lock(name)? else { continue };
            if let Some(found) = read(&folder, name).with_context(context)? {
                return Ok((found, lock));
            }
            // What is there belongs to nobody: a volume that was not quite removed, or not quite made.
            let left = || remove::remove_tree(folder.as_fd(), DATA);
            self.engine.with_file_rights(left).with_context(context)?;
            let project = self.make_data(name, &backing).with_context(context)?;
            let (labels, options) = (labels.clone(), options.clone());
            let record = VolumeRecord { name: name.to_owned(), created: now(), labels, options, project };
            atomic::create(folder.as_fd(), RECORD, &serde_json::to_vec(&record)?).with_context(context)?;
            return Ok((record, lock));
        }
        Err(Error::new(Kind::Other, format!("volume {name} was removed {TRIES} times while it was made")))
    }

    /// Makes the directory of a volume's files. Gives the project of its quota.
    fn make_data(&self, name: &str, backing: &Backing) -> Result<Option<u32>> {
        let data = self.data(name);
        // Root inside: an ordinary user's is the user.
        match rustix::fs::mkdir(&data, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        let Backing::Directory(bounds) = backing else { return Ok(None) };
        let Bounds { bytes, inodes, uid, gid } = *bounds;
        let project = if bytes.is_some() || inodes.is_some() {
            let directory = open(&data)?.ok_or_else(|| unknown(name))?;
            match quota::limit(directory.as_fd(), bounds) {
                Ok(project) => Some(project),
                Err(error) => {
                    // No volume without the bounds that were asked for.
                    let _ = std::fs::remove_dir(&data).and_then(|()| std::fs::remove_dir(self.directory.join(name)));
                    return Err(error);
                }
            }
        } else {
            None
        };
        if uid.is_some() || gid.is_some() {
            let give = || Ok(rustix::fs::chown(&data, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?);
            self.engine.with_file_rights(give).context("give it its owner")?;
        }
        Ok(project)
    }

    /// Fills an empty volume with what the image has where it is mounted. One that is a mount has nothing that could be
    /// filled before there is a container.
    pub fn fill(&self, record: &VolumeRecord, _lock: &Lock, destination: &str, layers: &[PathBuf]) -> Result<()> {
        let Ok(data) = self.place(record) else { return Ok(()) };
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
        read(&folder, name).with_context(|| format!("volume {name}"))?.ok_or_else(|| unknown(name))
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
        let record = self.find(name)?;
        // Who makes a container holds the lock until the container is recorded.
        let Some((folder, _lock)) = self.lock(name)? else { return Err(unknown(name)) };
        self.refuse_in_use(name)?;
        match rustix::fs::unlinkat(&folder, RECORD, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).with_context(|| format!("remove volume {name}")),
        }
        self.engine.with_file_rights(|| {
            let volumes = open(&self.directory)?.ok_or_else(|| unknown(name))?;
            remove::remove_tree(volumes.as_fd(), name)
        })?;
        if let Some(project) = record.project {
            quota::lift(self.engine.data_root(), project);
        }
        Ok(())
    }

    fn refuse_in_use(&self, name: &str) -> Result<()> {
        match self.users()?.get(name).and_then(|users| users.first()) {
            None => Ok(()),
            Some(user) => Err(Error::new(Kind::State, format!("volume {name} is in use by container {user}"))
                .with_hint(format!("husk rm {user}"))),
        }
    }

    /// Gives a volume that no container has another name: those that have it know it by its path.
    pub fn rename(&self, name: &str, new: &str) -> Result<()> {
        self.find(name)?;
        if !is_volume_name(new) {
            return Err(misnamed(new));
        }
        let Some((folder, _lock)) = self.lock(name)? else { return Err(unknown(name)) };
        self.refuse_in_use(name)?;
        let volumes = open(&self.directory)?.ok_or_else(|| unknown(name))?;
        let rename = || rustix::fs::renameat_with(&volumes, name, &volumes, new, RenameFlags::NOREPLACE);
        let context = || format!("rename volume {name} to {new}");
        match rename() {
            Err(Errno::EXIST) => {
                self.clear_unfinished(new)?;
                rename().with_context(context)?;
            }
            answer => answer.with_context(context)?,
        }
        // The folder's name is what counts from here on.
        let Some(record) = read(&folder, new)? else { return Ok(()) };
        atomic::replace(folder.as_fd(), RECORD, &serde_json::to_vec(&record)?).with_context(context)
    }

    /// Clears the folder of a volume that somebody has begun to make, or to remove.
    fn clear_unfinished(&self, name: &str) -> Result<()> {
        let Some((folder, _lock)) = self.lock(name)? else { return Ok(()) };
        if read(&folder, name)?.is_some() {
            return Err(Error::new(Kind::Exists, format!("a volume of the name {name} exists")));
        }
        self.engine.with_file_rights(|| {
            let volumes = open(&self.directory)?.ok_or_else(|| unknown(name))?;
            remove::remove_tree(volumes.as_fd(), name)
        })
    }

    /// Writes a volume's files as a tar, none younger than `latest`, in seconds since 1970. Gives the paths of sockets, which
    /// a tar cannot hold.
    pub fn export(&self, name: &str, latest: Option<i64>, mut out: File) -> Result<Vec<Vec<u8>>> {
        let context = || format!("export volume {name}");
        let place = self.place(&self.find(name)?).with_context(context)?;
        let settings = Settings {
            compression: Compression::None,
            algorithm: Algorithm::Sha256,
            ownership: self.engine.form().ownership,
            latest,
            with_fractions: false,
            changing: Changing::Fill,
        };
        let write = || {
            let (_, written) = write_tree(&Root::open(&place)?, &settings, &mut out)?;
            out.flush().context("write the tar")?;
            Ok(written.left_out)
        };
        self.engine.with_file_rights_for(write).with_context(context)
    }

    /// Unpacks a tar into a volume, over what is there. The tar is believed as little as an image's layer.
    pub fn import(&self, name: &str, tar: &File) -> Result<()> {
        let context = || format!("import to volume {name}");
        let record = self.find(name)?;
        // It stays meanwhile, and nobody fills it.
        let Some((_folder, _lock)) = self.lock(name)? else { return Err(unknown(name)) };
        let place = self.place(&record).with_context(context)?;
        let form = self.engine.form();
        let unpack = || {
            let directory = open(&place)?.ok_or(Errno::NOENT)?;
            let Unpacked { .. } = unpack_files(tar, directory, form, LayerLimits::default())?;
            Ok(())
        };
        self.engine.with_file_rights(unpack).with_context(context)
    }

    /// Gives the containers that have each volume, by short id.
    pub fn users(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let listing = self.engine.containers()?.list()?;
        // Nobody knows what that one has.
        if let Some(error) = listing.unreadable.into_iter().next() {
            return Err(error.context("find out which containers have volumes"));
        }
        for (record, _) in listing.containers {
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
        // Removed or renamed while we waited.
        let is_in_place = match open(&self.directory)? {
            Some(volumes) => lock.is_in_place(volumes.as_fd(), name)?,
            None => false,
        };
        Ok(is_in_place.then_some((folder, lock)))
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

fn read(folder: &OwnedFd, name: &str) -> Result<Option<VolumeRecord>> {
    let Some(bytes) = atomic::read(folder.as_fd(), RECORD, RECORD_BYTES)?.filter(|bytes| !bytes.is_empty()) else {
        return Ok(None);
    };
    let record: VolumeRecord = serde_json::from_slice(&bytes).context(RECORD)?;
    Ok(Some(VolumeRecord { name: name.to_owned(), ..record }))
}

fn misnamed(name: &str) -> Error {
    Error::invalid(format!("volume name {name:?}: only [a-zA-Z0-9][a-zA-Z0-9_.-]+ is allowed"))
}

fn unknown(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("no such volume: {name}"))
}
