//! The root file system of a container as it is seen from outside, by commands that read or write its files.
//!
//! | the container | what is seen |
//! |---|---|
//! | runs | a detached copy of its mounts ([`crate::runtime::tree`]) |
//! | is at rest, to be read | the layers and the upper directory, mounted read-only, detached: attached nowhere |
//! | is at rest, to be written to | the overlay itself, detached, while nobody can start it |
//! | is at rest, and was copied from its image | the directory, as a mount of its own |
//!
//! All of them without devices, set-user-id and execution. Paths in it are the container's word: they are resolved by
//! [`Root`], and never joined to a path of the host's.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{OpenTreeFlags, open_tree};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::engine::Engine;
use super::makeup::{Base, Makeup};
use super::record::{Container, Status, Supervision};
use crate::error::{Context, Error, Kind, Result};
use crate::image::unpack::OverlayXattr;
use crate::rootfs::mount::new_file_system;
use crate::rootfs::overlay;
use crate::runtime::tree::{Access, tame};
use crate::spec::mount_options::MountOptions;
use crate::support::lock::{Lock, Sharing};
use crate::support::root::Root;
use crate::sys::mount::{Reach, attr};

/// A container's files, found but not opened: that takes rights over them.
pub struct View<'e> {
    engine: &'e Engine,
    place: Place,
    #[expect(dead_code, reason = "held for its locks")]
    stay: Stay,
}

enum Place {
    Live(OwnedFd),
    AtRest(Makeup, Access),
}

/// What keeps the container as it is while it is looked at.
#[derive(Default)]
struct Stay {
    /// Shared, on its folder: it is not removed meanwhile.
    folder: Option<Lock>,
    /// Nobody starts it.
    supervision: Option<Supervision>,
}

impl<'e> View<'e> {
    /// Finds a container's files: its root file system alone, or with what is mounted in it as long as it runs.
    pub fn find(engine: &'e Engine, container: &Container, reach: Reach, access: Access) -> Result<Self> {
        let find = || {
            let id = container.id();
            if let Status::Lost { .. } = container.status()? {
                engine.look_after(container)?;
            }
            let is_running = matches!(container.status()?, Status::Running { .. });
            if is_running && let Some(tree) = engine.runtime(false)?.tree(id.as_str(), reach, access)? {
                return Ok(Self { engine, place: Place::Live(tree), stay: Stay::default() });
            }
            let mut stay = Stay::default();
            if access == Access::Write {
                // Two mounts of one upper directory would not know of each other.
                stay.supervision = container.supervise()?;
                if stay.supervision.is_none() {
                    return Err(Error::new(Kind::State, "it is just starting or ending").with_hint("try again"));
                }
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(container.directory(), c".", flags, Mode::empty())?;
            stay.folder = Some(Lock::wait(folder, Sharing::Shared, |_| ())?);
            let makeup = Makeup::read(engine, container, &container.record()?)?;
            if makeup.is_host {
                return Err(Error::unsupported("it has the files of this host, and shows them only while it runs"));
            }
            if access == Access::Write && makeup.is_readonly {
                return Err(Error::invalid("container rootfs is marked read-only"));
            }
            Ok(Self { engine, place: Place::AtRest(makeup, access), stay })
        };
        find().map_err(|error: Error| error.context(format!("container {}", container.id().short())))
    }

    /// Says whether the container runs.
    pub fn is_live(&self) -> bool {
        matches!(self.place, Place::Live(_))
    }

    /// Does `work` with the files, and with rights over them: in a process of its own where the caller has none, so that
    /// nothing but what it gives comes back.
    pub fn with<T: Serialize + DeserializeOwned>(&self, work: impl FnOnce(&Root) -> Result<T>) -> Result<T> {
        self.engine.with_file_rights_for(|| work(&self.open()?))
    }

    /// Opens the files, by a caller that has rights over them.
    pub(super) fn open(&self) -> Result<Root> {
        match &self.place {
            Place::Live(tree) => Ok(Root::from_fd(tree.try_clone().context("open the container's files")?)),
            Place::AtRest(makeup, access) => match (&makeup.base, access) {
                (Base::Directory(path), access) => open_directory(path, *access),
                (Base::Overlay(overlay), Access::Write) => mount(&overlay.data, 0),
                (Base::Overlay(overlay), Access::Read) => mount(&overlay.read_only_data()?, attr::RDONLY),
            },
        }
    }
}

fn mount(data: &[(CString, Option<CString>)], attributes: u64) -> Result<Root> {
    let attributes = attributes | attr::NODEV | attr::NOSUID | attr::NOEXEC;
    let (kind, options) = (c"overlay".to_owned(), MountOptions::default());
    let tree = new_file_system(&kind, &kind, data, &options, attributes, None, None);
    tree.map(Root::from_fd).context("mount the container's root file system")
}

/// Mounts layers, lowest first, to be read as one tree.
pub fn open_layers(layers: &[PathBuf], overlay: OverlayXattr) -> Result<Root> {
    match layers {
        [] => Err(Error::invalid("it has no layers")),
        // Overlayfs wants a second one, or an upper directory.
        [only] => open_directory(only, Access::Read),
        layers => mount(&layers_data(layers, overlay)?, attr::RDONLY),
    }
}

/// Gives the options of an overlay of layers, lowest first.
pub fn layers_data(layers: &[PathBuf], overlay: OverlayXattr) -> Result<Vec<(CString, Option<CString>)>> {
    let escaped: Vec<_> = layers.iter().rev().map(|path| overlay::escape(&path.to_string_lossy())).collect();
    let mut data = vec![(c"lowerdir".to_owned(), Some(CString::new(escaped.join(":"))?))];
    if overlay == OverlayXattr::User {
        data.push((c"userxattr".to_owned(), None));
    }
    Ok(data)
}

/// Opens a directory of husk's own as a mount of its own: what is in it was made by containers and images.
pub fn open_directory(path: &Path, access: Access) -> Result<Root> {
    let open = || {
        let directory = Root::open(path)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(directory.as_fd(), c"", flags).context("copy the mount")?;
        tame(&tree, Reach::One, access)?;
        Ok(Root::from_fd(tree))
    };
    open().map_err(|error: Error| error.context(format!("open {}", path.display())))
}
