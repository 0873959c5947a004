//! `image mount` and `unmount`: the files of an image at a path of this machine, to be read.
//!
//! ```text
//! <run root>/images/<hex>         where the image is mounted
//! <run root>/images/<hex>.layers  its layers, which no sweep takes as long as this is there
//! ```

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::engine::engine::Engine;
use crate::engine::places::{Places, check_rights};
use crate::engine::view;
use crate::error::{Context, Error, Kind, Result};
use crate::image::digest::Digest;
use crate::storage::images::ImageRecord;
use crate::support::atomic;

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
        let (places, name) = (places(engine), found.id.hex());
        let place = places.path(&name);
        if places.mounted()?.contains(&place) {
            return Ok(place);
        }
        let tree = view::open_layers(&layers, engine.form().overlay)?;
        let ids: Vec<_> = image.layers.iter().map(|layer| layer.diff_id).collect();
        atomic::replace(places.open()?.as_fd(), &format!("{name}{LAYERS}"), &serde_json::to_vec(&ids)?)?;
        places.attach(&name, &tree)
    };
    mount().map_err(|error: Error| error.context(format!("mount image {word}")))
}

/// Takes the mount of an image away.
pub fn unmount(engine: &Engine, word: &str) -> Result<Digest> {
    check_rights()?;
    let stores = engine.stores()?;
    let (_, Found { image, .. }) = find::find(&stores, word)?;
    if !is_mounted(engine, &image.id)? {
        return Err(Error::new(Kind::State, format!("image {word}: it is not mounted")));
    }
    take_away(engine, &image.id.hex()).with_context(|| format!("unmount image {word}"))?;
    Ok(image.id)
}

/// Takes all mounts of images away, and what mounts that ended with their namespace have left. Gives their names.
pub fn unmount_all(engine: &Engine) -> Result<Vec<String>> {
    check_rights()?;
    let mut names: Vec<String> = Vec::new();
    for entry in rustix::fs::Dir::read_from(places(engine).open()?).context("list the mounts of images")? {
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
    let (places, mut listed) = (places(engine), Vec::new());
    let mounted = places.mounted()?;
    for view in engine.stores()?.views() {
        for image in view.images()? {
            let place = places.path(&image.id.hex());
            if mounted.contains(&place) && listed.iter().all(|(_, known)| *known != place) {
                listed.push((image, place));
            }
        }
    }
    listed.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(listed)
}

/// Says whether an image is mounted here.
pub(super) fn is_mounted(engine: &Engine, id: &Digest) -> Result<bool> {
    let places = places(engine);
    Ok(places.mounted()?.contains(&places.path(&id.hex())))
}

/// Gives the layers that mounts need.
pub(super) fn layers_in_use(engine: &Engine) -> Result<HashSet<Digest>> {
    let mut layers = HashSet::new();
    let Some(folder) = places(engine).open_existing()? else { return Ok(layers) };
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

fn take_away(engine: &Engine, name: &str) -> Result<()> {
    let places = places(engine);
    places.take_away(name)?;
    let name = format!("{name}{LAYERS}");
    match rustix::fs::unlinkat(places.open()?, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("remove {name}")),
    }
}

fn places(engine: &Engine) -> Places {
    Places::of(engine, "images")
}
