//! `diff`: what a container has added to its image, changed and deleted; the same of the last layer of an image; and in
//! what one tree differs from the layers of an image.

use std::path::{Path, PathBuf};

use super::engine::Engine;
use super::images::find;
use super::makeup::{Base, Makeup, Overlay};
use super::record::Container;
use super::view::{View, open_directory, open_layers};
use crate::error::{Context, Error, Kind, Result};
use crate::image::write::{Change, Listing, list_changes};
use crate::runtime::tree::Access;
use crate::support::root::Root;
use crate::sys::mount::Reach;

/// Lists what a container or an image changes; a container wins over an image of that name.
pub fn diff(engine: &Engine, word: &str) -> Result<Vec<Change>> {
    match find_container(engine, word)? {
        Some(container) => of_container(engine, &container),
        None => {
            let layers = image_layers(engine, word)?;
            // An image without layers changes nothing.
            let Some((top, below)) = layers.split_last() else { return Ok(Vec::new()) };
            let below: Vec<_> = below.iter().rev().cloned().collect();
            engine.with_file_rights_for(|| compare(engine, top, &below, Listing::default()))
        }
        .with_context(|| format!("image {word}")),
    }
}

/// Lists in what a container or an image differs from an image.
pub fn diff_to(engine: &Engine, word: &str, image: &str) -> Result<Vec<Change>> {
    let lower: Vec<_> = image_layers(engine, image)?.into_iter().rev().collect();
    let listing = Listing { is_whole: true, ..Listing::default() };
    let list = |tree: &Root| list_changes(tree, &open_all(&lower)?, engine.form().overlay, listing);
    if let Some(container) = find_container(engine, word)? {
        View::find(engine, &container, Reach::One, Access::Read)?.with(list)
    } else {
        let layers = image_layers(engine, word)?;
        engine.with_file_rights_for(|| list(&open_layers(&layers, engine.form().overlay)?))
    }
    .with_context(|| format!("compare {word} with {image}"))
}

fn find_container(engine: &Engine, word: &str) -> Result<Option<Container>> {
    match engine.find(word) {
        Ok(container) => Ok(Some(container)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Finds the layers of an image, lowest first.
fn image_layers(engine: &Engine, word: &str) -> Result<Vec<PathBuf>> {
    let stores = engine.stores()?;
    let found = find::find_among(&stores, word)?;
    let (store, image) = found.ok_or_else(|| {
        Error::new(Kind::NotFound, format!("{word}: no such container or image"))
            .with_hint("`husk ps -a` and `husk images` show what there is")
    })?;
    let layers = store.find_layers(&find::open(store, &image.image)?)?;
    layers.ok_or_else(|| Error::new(Kind::Other, format!("{word}: a layer vanished from the store")))
}

fn of_container(engine: &Engine, container: &Container) -> Result<Vec<Change>> {
    let record = container.record()?;
    record.require_usual_ids()?;
    let makeup = Makeup::read(engine, container, &record)?;
    let list = || {
        let listing = Listing { is_whole: false, mount_points: &makeup.mount_points };
        let mut changes = match &makeup.base {
            Base::Overlay(overlay) => of_overlay(engine, overlay, listing)?,
            // The host's files in parts: the directory has nothing but places to mount them on.
            Base::Directory(_) if makeup.is_host => Vec::new(),
            Base::Directory(path) => {
                let layers = engine.stores()?.layer_paths(&record.layers)?;
                let layers = layers.ok_or_else(|| Error::new(Kind::Other, "a layer vanished from the store"))?;
                let lower: Vec<_> = layers.into_iter().rev().collect();
                compare(engine, path, &lower, Listing { is_whole: true, ..listing })?
            }
        };
        for (destination, overlay) in &makeup.parts {
            let below = of_overlay(engine, overlay, Listing::default())?;
            changes.extend(below.into_iter().map(|change| Change {
                path: [destination.as_os_str().as_encoded_bytes(), &change.path].concat(),
                ..change
            }));
        }
        Ok(changes)
    };
    engine.with_file_rights_for(list).with_context(|| format!("container {}", container.id().short()))
}

fn of_overlay(engine: &Engine, overlay: &Overlay, listing: Listing<'_>) -> Result<Vec<Change>> {
    compare(engine, &overlay.upper, &overlay.lower, listing)
}

fn compare(engine: &Engine, upper: &Path, lower: &[PathBuf], listing: Listing<'_>) -> Result<Vec<Change>> {
    let upper = open_directory(upper, Access::Read)?;
    list_changes(&upper, &open_all(lower)?, engine.form().overlay, listing)
}

fn open_all(directories: &[PathBuf]) -> Result<Vec<Root>> {
    directories.iter().map(|path| Root::open(path)).collect()
}
