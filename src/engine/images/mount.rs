//! `image mount` and `unmount`: the files of an image at a path of this machine, to be read.
//!
//! ```text
//! <run root>/images/<hex>         where the image is mounted
//! <run root>/images/<hex>.layers  its layers, which no sweep takes as long as this is there
//! ```
//!
//! Mounting is root's. An ordinary user is root inside of `husk unshare`, where the mount lasts as long as that does.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::engine::engine::Engine;
use crate::engine::view;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::rootfs::mount::attach;
use crate::storage::images::ImageRecord;
use crate::support::root::Root;
use crate::support::{atomic, mountinfo};

use super::find::{self, Found};

const LAYERS: &str = ".layers";

/// Bytes of a list of layers: 500 of them at most.
const LIST_BYTES: usize = 1 << 20;

/// Mounts an image, or finds that it is mounted, and says where.
pub fn mount(engine: &Engine, word: &str) -> Result<PathBuf> {
    check_rights()?;
    let mount = || {
        let stores = engine.stores()?;
        let _held = stores.hold()?;
        let (store, Found { image: found, .. }) = find::find(&stores, word)?;
        let image = find::open(store, &found)?;
        let layers = store.find_layers(&image)?;
        let layers = layers.ok_or_else(|| Error::new(Kind::Other, "a layer vanished from the store"))?;
        let (folder, name) = (open_folder(engine)?, found.id.hex());
        let place = folder_path(engine).join(&name);
        if mounted(engine)?.contains(&place) {
            return Ok(place);
        }
        let tree = view::open_layers(&layers, engine.form().overlay)?;
        match rustix::fs::mkdirat(&folder, &name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).with_context(|| format!("make {}", place.display())),
        }
        let ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
        atomic::replace(folder.as_fd(), &format!("{name}{LAYERS}"), &serde_json::to_vec(&ids)?)?;
        attach(&tree, Root::open(&place)?).with_context(|| format!("mount on {}", place.display()))?;
        Ok(place)
    };
    mount().map_err(|error: Error| error.context(format!("mount image {word}")))
}

/// Takes the mount of an image away.
pub fn unmount(engine: &Engine, word: &str) -> Result<Digest> {
    check_rights()?;
    let stores = engine.stores()?;
    let (_, Found { image, .. }) = find::find(&stores, word)?;
    let place = folder_path(engine).join(image.id.hex());
    if !mounted(engine)?.contains(&place) {
        return Err(Error::new(Kind::State, format!("image {word}: it is not mounted")));
    }
    take_away(engine, &image.id.hex()).with_context(|| format!("unmount image {word}"))?;
    Ok(image.id)
}

/// Takes all mounts of images away, and what mounts that ended with their namespace have left. Gives their names.
pub fn unmount_all(engine: &Engine) -> Result<Vec<String>> {
    check_rights()?;
    let mut names: Vec<String> = Vec::new();
    for entry in rustix::fs::Dir::read_from(open_folder(engine)?).context("list the mounts of images")? {
        let entry = entry.context("list the mounts of images")?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let name = name.strip_suffix(LAYERS).unwrap_or(name);
        if !name.starts_with('.') && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    for name in &names {
        take_away(engine, name).with_context(|| format!("unmount image {name}"))?;
    }
    Ok(names)
}

/// Lists the images that are mounted here, and where.
pub fn list(engine: &Engine) -> Result<Vec<(ImageRecord, PathBuf)>> {
    let (places, mut listed) = (mounted(engine)?, Vec::new());
    for view in engine.stores()?.views() {
        for image in view.images()? {
            let place = folder_path(engine).join(image.id.hex());
            if places.contains(&place) && listed.iter().all(|(_, known)| *known != place) {
                listed.push((image, place));
            }
        }
    }
    listed.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(listed)
}

/// Says whether an image is mounted here.
pub(super) fn is_mounted(engine: &Engine, id: &Digest) -> Result<bool> {
    Ok(mounted(engine)?.contains(&folder_path(engine).join(id.hex())))
}

/// Gives the layers that mounts need.
pub(super) fn layers_in_use(engine: &Engine) -> Result<HashSet<Digest>> {
    let mut layers = HashSet::new();
    let Some(folder) = open_existing(engine)? else { return Ok(layers) };
    for entry in rustix::fs::Dir::read_from(&folder).context("list the mounts of images")? {
        let entry = entry.context("list the mounts of images")?;
        let Some(name) = entry.file_name().to_str().ok().filter(|name| name.ends_with(LAYERS)) else { continue };
        let bytes = atomic::read(folder.as_fd(), name, LIST_BYTES)?.filter(|bytes| !bytes.is_empty());
        if let Some(bytes) = bytes {
            layers.extend(serde_json::from_slice::<Vec<Digest>>(&bytes).with_context(|| name.to_owned())?);
        }
    }
    Ok(layers)
}

fn check_rights() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(Kind::State, "an ordinary user cannot mount anything here")
        .with_hint("`husk unshare` opens a shell in which you can"))
}

fn take_away(engine: &Engine, name: &str) -> Result<()> {
    let place = folder_path(engine).join(name);
    match rustix::mount::unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // Nothing is mounted there, or there is nothing.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let folder = open_folder(engine)?;
    for (name, flags) in [(name.to_owned(), AtFlags::REMOVEDIR), (format!("{name}{LAYERS}"), AtFlags::empty())] {
        match rustix::fs::unlinkat(&folder, &name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).with_context(|| format!("remove {name}")),
        }
    }
    Ok(())
}

/// Gives what is mounted in the folder of this machine's, or this namespace's, images.
fn mounted(engine: &Engine) -> Result<HashSet<PathBuf>> {
    let folder = folder_path(engine);
    let table = std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let points = mountinfo::parse(&table)?.into_iter().map(|mount| mount.point);
    // The table has no links in its paths.
    let real = std::fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone());
    let inside = points.filter_map(|point| Some(folder.join(point.strip_prefix(&real).ok()?)));
    Ok(inside.filter(|point| *point != folder).collect())
}

fn folder_path(engine: &Engine) -> PathBuf {
    engine.settings.run_root.join("images")
}

fn open_folder(engine: &Engine) -> Result<OwnedFd> {
    let path = folder_path(engine);
    match rustix::fs::mkdirat(CWD, &path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).with_context(|| format!("make {}", path.display())),
    }
    open_path(&path).with_context(|| format!("open {}", path.display()))
}

fn open_existing(engine: &Engine) -> Result<Option<OwnedFd>> {
    let path = folder_path(engine);
    match open_path(&path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno).with_context(|| format!("open {}", path.display())),
    }
}

fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}
