//! `image prune` and `system prune`: takes away what nobody uses.

use std::collections::HashSet;

use crate::engine::engine::Engine;
use crate::engine::events;
use crate::engine::images::remove::{self, Gone};
use crate::engine::list;
use crate::engine::record::{Record, Status};
use crate::error::{Error, Kind, Result};
use crate::image::reference::Reference;
use crate::storage::images::ImageRecord;
use crate::support::id::ContainerId;

/// Which images may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those without a name.
    Nameless,
    /// Those that no container uses.
    Unused,
}

/// What was taken away.
#[derive(Clone, Debug, Default)]
pub struct Pruned {
    pub containers: Vec<ContainerId>,
    /// By name.
    pub networks: Vec<String>,
    pub images: Vec<Gone>,
    /// Bytes of blobs, and of the files in layers.
    pub bytes: u64,
}

/// Removes images that no container uses and that pass, and what was needed for them alone.
pub fn images(engine: &Engine, reach: Reach, passes: &dyn Fn(&ImageRecord) -> bool) -> Result<Pruned> {
    let store = engine.store()?;
    let mut pruned = Pruned::default();
    let changing = store.change()?;
    let used = used_images(engine)?;
    let names = store.names()?;
    for image in store.images()? {
        let its_names: Vec<_> = names.iter().filter(|name| name.image == Some(image.id)).collect();
        let may_go = reach == Reach::Unused || its_names.is_empty();
        if !may_go || used.contains(&image.id.to_string()) || !passes(&image) {
            continue;
        }
        for name in its_names {
            let reference = Reference::parse_exact(&name.name)?;
            if store.remove_name(&changing, &reference)? {
                pruned.images.push(Gone::Untagged(reference.familiar()));
            }
        }
        if store.remove_image(&changing, &image.id)? {
            pruned.images.push(Gone::Deleted(image.id));
        }
    }
    drop(changing);
    // Also where no image went: a removal beside a pull has left its layers.
    pruned.bytes = remove::sweep(engine, &store)?.unwrap_or_default().bytes;
    Ok(pruned)
}

fn used_images(engine: &Engine) -> Result<HashSet<String>> {
    let listing = engine.containers()?.list()?;
    // A container that cannot be read may use any image.
    if let Some(error) = listing.unreadable.into_iter().next() {
        return Err(error);
    }
    let used = |(record, _): (Record, _)| {
        let mounted: Vec<_> = record.mounted_images.into_iter().map(|image| image.id).collect();
        mounted.into_iter().chain([record.image_id]).flatten().collect::<Vec<_>>()
    };
    Ok(listing.containers.into_iter().flat_map(used).collect())
}

/// Removes the containers that do not run and pass, and counts what they took. One that is started meanwhile stays.
pub fn containers(engine: &Engine, passes: &dyn Fn(&Record) -> bool) -> Result<Pruned> {
    drop(engine.clear_remains()?);
    let containers = engine.containers()?;
    let chosen: Vec<Record> = (containers.list()?.containers.into_iter())
        .filter(|(record, status)| matches!(status, Status::Created | Status::Exited(_)) && passes(record))
        .map(|(record, _)| record)
        .collect();
    let sizes = list::sizes(engine, &chosen)?;
    let mut pruned = Pruned::default();
    for record in chosen {
        let removed = || -> Result<bool> {
            let container = containers.find(record.id.as_str())?;
            let Some(supervision) = container.supervise()? else { return Ok(false) };
            match engine.runtime(false)?.delete(record.id.as_str(), true) {
                Err(error) if error.kind() != Kind::NotFound => return Err(error),
                _ => {}
            }
            engine.remove(&containers, &container, &supervision)?;
            Ok(true)
        };
        match removed() {
            Ok(true) => {
                pruned.bytes += sizes.get(&record.id).map_or(0, |size| size.written);
                events::container(engine, &record, "destroy", &[]);
                pruned.containers.push(record.id);
            }
            Ok(false) => {}
            // Removed by another command meanwhile.
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(Error::context(error, format!("remove container {}", record.id.short()))),
        }
    }
    Ok(pruned)
}
