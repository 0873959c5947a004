//! `mount` and `unmount`: the files of a container at a path of this machine, to be read and written.
//!
//! ```text
//! <run root>/mounts/<id>   where the container's root file system is mounted
//! ```
//!
//! Of a container that runs, its own overlay is shown; of one at rest, an overlay of the same directories. Two overlays with
//! one upper directory would not know of each other (overlayfs.rst, "Sharing and copying layers"), so that a container is
//! not started as long as it is mounted. What is mounted in it is not shown.

use std::os::fd::AsFd;
use std::path::PathBuf;

use super::engine::Engine;
use super::places::{Places, check_rights};
use super::record::Container;
use super::view::View;
use crate::error::{Context, Error, Kind, Result};
use crate::runtime::tree::Access;
use crate::support::id::ContainerId;
use crate::sys::mount::Reach;

fn places(engine: &Engine) -> Places {
    Places::of(engine, "mounts")
}

/// Mounts a container's files, or finds that they are mounted, and says where.
pub fn mount(engine: &Engine, word: &str) -> Result<PathBuf> {
    check_rights()?;
    let container = engine.find(word)?;
    let mount = || {
        let (places, name) = (places(engine), container.id().as_str());
        let place = places.path(name);
        if places.mounted()?.contains(&place) {
            return Ok(place);
        }
        // It holds off who would start it, until the place is there that does.
        let view = View::find(engine, &container, Reach::One, Access::Write)?;
        places.attach(name, view.open()?.as_fd())
    };
    mount().map_err(|error: Error| error.context(format!("mount container {word}")))
}

/// Takes the mount of a container away.
pub fn unmount(engine: &Engine, word: &str) -> Result<ContainerId> {
    let container = engine.find(word)?;
    let (places, id) = (places(engine), *container.id());
    if !places.is_taken(id.as_str()) {
        return Err(Error::new(Kind::State, format!("container {word} is not mounted")));
    }
    places.take_away(id.as_str()).with_context(|| format!("unmount container {word}"))?;
    Ok(id)
}

/// Takes all mounts of containers away, also of those that are gone. Gives their ids.
pub fn unmount_all(engine: &Engine) -> Result<Vec<String>> {
    let places = places(engine);
    let Some(folder) = places.open_existing()? else { return Ok(Vec::new()) };
    let names = super::containers::entries(folder.as_fd())?;
    for name in &names {
        places.take_away(name).with_context(|| format!("unmount container {name}"))?;
    }
    Ok(names)
}

/// Lists the containers that are mounted here, and where.
pub fn list(engine: &Engine) -> Result<Vec<(ContainerId, PathBuf)>> {
    let mut listed = Vec::new();
    for place in places(engine).mounted()? {
        let id = place.file_name().and_then(|name| name.to_str()?.parse().ok());
        listed.extend(id.map(|id| (id, place)));
    }
    listed.sort_by(|(_, one), (_, other)| one.cmp(other));
    Ok(listed)
}

/// Refuses to start a container whose files are mounted.
pub(super) fn refuse_mounted(engine: &Engine, container: &Container) -> Result<()> {
    let id = container.id();
    if !places(engine).is_taken(id.as_str()) {
        return Ok(());
    }
    Err(Error::new(Kind::State, format!("container {} is mounted", id.short()))
        .with_hint(format!("husk unmount {}", id.short())))
}

/// Takes away the mount of a container that was removed.
pub(super) fn forget(engine: &Engine, id: &ContainerId) {
    let places = places(engine);
    if places.is_taken(id.as_str()) {
        // In somebody else's namespace it cannot be; there it goes with that.
        let _ = places.take_away(id.as_str());
    }
}
