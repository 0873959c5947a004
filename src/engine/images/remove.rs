//! `rmi`: takes names away, and with its last name the image.

use crate::engine::engine::Engine;
use crate::engine::events;
use crate::engine::record::Record;
use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::storage::images::NameRecord;
use crate::storage::store::Store;
use crate::storage::sweep::Swept;

use super::find::{self, Found};
use super::mount;

/// What was taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    Untagged(String),
    Deleted(Digest),
}

/// Takes away what a word means: a name, and the image if that was its last; by id, the image with its one name.
/// `force` takes all names, and those that containers still use (their layers stay as long as they do).
pub fn remove(engine: &Engine, word: &str, force: bool) -> Result<Vec<Gone>> {
    let store = engine.store()?;
    let changing = store.change()?;
    let Found { image, name } = find::find_own(engine, &store, word)?;
    let names: Vec<NameRecord> = store.names()?.into_iter().filter(|name| name.image == Some(image.id)).collect();
    let going: Vec<&NameRecord> = match &name {
        Some(name) => names.iter().filter(|other| other.name == name.name).collect(),
        None if names.len() > 1 && !force => {
            let names: Vec<_> = names.iter().map(|name| name.name.as_str()).collect();
            return Err(Error::new(Kind::State, format!("image {word}: it has several names: {}", names.join(", ")))
                .with_hint("remove it by name, or with --force"));
        }
        None => names.iter().collect(),
    };
    let is_last = going.len() == names.len();
    if is_last && !force {
        if mount::is_mounted(engine, &image.id)? {
            return Err(Error::new(Kind::State, format!("image {word}: it is mounted"))
                .with_hint("`husk image unmount` first, or use --force"));
        }
        let users = users(engine, &image.id)?;
        if let Some(user) = users.first() {
            return Err(Error::new(
                Kind::State,
                format!("image {word}: container {} ({}) uses it", user.id.short(), user.name),
            )
            .with_hint("remove the container first, or use --force"));
        }
    }
    let mut gone = Vec::new();
    for name in going {
        let reference = Reference::parse(&name.name)?;
        if store.remove_name(&changing, &reference)? {
            events::image(engine, &image.id.to_string(), "untag", &reference.familiar());
            gone.push(Gone::Untagged(reference.familiar()));
        }
    }
    if is_last {
        store.remove_image(&changing, &image.id)?;
        events::image(engine, &image.id.to_string(), "delete", word);
        gone.push(Gone::Deleted(image.id));
    }
    drop(changing);
    if is_last {
        sweep(engine, &store)?;
    }
    Ok(gone)
}

/// Deletes what no image and no container needs; none where a pull is under way.
pub fn sweep(engine: &Engine, store: &Store) -> Result<Option<Swept>> {
    let mut layers = mount::layers_in_use(engine)?;
    let listing = engine.containers()?.list()?;
    // A container that cannot be read may use any layer.
    if let Some(error) = listing.unreadable.into_iter().next() {
        return Err(error);
    }
    for (record, _) in &listing.containers {
        layers.extend(record.needed_layers().copied());
    }
    let swept = store.set_aside(&layers)?;
    engine.with_file_rights(|| store.delete_set_aside())?;
    Ok(swept)
}

fn users(engine: &Engine, id: &Digest) -> Result<Vec<Record>> {
    let (listing, id) = (engine.containers()?.list()?, id.to_string());
    Ok(listing.containers.into_iter().map(|(record, _)| record).filter(|record| record.uses_image(&id)).collect())
}
