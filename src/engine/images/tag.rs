//! `tag` and `untag`: gives an image further names, and takes them away.

use crate::engine::engine::Engine;
use crate::engine::events;
use crate::engine::record::now;
use crate::error::{Error, Result};
use crate::image::reference::Reference;
use crate::storage::images::{FORMAT, NameRecord};

use super::find;

/// Gives the image that `word` means the names `names`, whatever they meant before.
pub fn tag(engine: &Engine, word: &str, names: &[Reference]) -> Result<()> {
    if let Some(name) = names.iter().find(|name| name.digest().is_some()) {
        return Err(Error::invalid(format!("{name}: a digest is no name that could be given")));
    }
    let store = engine.store()?;
    let changing = store.change()?;
    let found = find::find_own(engine, &store, word)?;
    let target = match found.name {
        Some(name) => name.target,
        None => found.image.manifest()?.clone(),
    };
    for name in names {
        let record = NameRecord {
            format: FORMAT,
            name: name.to_string(),
            target: target.clone(),
            image: Some(found.image.id),
            since: now(),
        };
        store.put_name(&changing, name, &record)?;
        events::image(engine, &found.image.id.to_string(), "tag", &name.familiar());
    }
    Ok(())
}

/// Takes names away, and leaves the image: all of its names, or those that are given.
pub fn untag(engine: &Engine, word: &str, names: &[Reference]) -> Result<()> {
    let store = engine.store()?;
    let changing = store.change()?;
    let found = find::find_own(engine, &store, word)?;
    for name in store.names()? {
        let reference = Reference::parse(&name.name)?;
        if name.image == Some(found.image.id) && (names.is_empty() || names.contains(&reference)) {
            store.remove_name(&changing, &reference)?;
            events::image(engine, &found.image.id.to_string(), "untag", &reference.familiar());
        }
    }
    Ok(())
}
