//! `husk mount`, `husk image mount` and their opposites: files of containers and images at a path of this machine.

use std::path::PathBuf;

use clap::Args;

use super::format::short_id;
use super::status::Status;
use super::{printer, report};
use crate::engine::engine::Engine;
use crate::engine::images::mount as image;
use crate::engine::mount as container;
use crate::engine::settings;
use crate::error::{Error, Result};

/// Mount images to read their files
///
/// Prints where. Without an image, lists what is mounted. An ordinary user can do that inside of `husk unshare`.
#[derive(Debug, Args)]
pub(super) struct Mount {
    /// Names or ids of the images
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
}

/// Take mounts of images away
#[derive(Debug, Args)]
pub(super) struct Unmount {
    /// All of them
    #[arg(long, short, conflicts_with = "images")]
    all: bool,
    /// Accepted: a mount that is in use goes when it is left
    #[arg(long, short)]
    force: bool,
    /// Names or ids of the images
    #[arg(value_name = "IMAGE", required_unless_present = "all")]
    images: Vec<String>,
}

/// Mount containers to read and write their files
///
/// Prints where; what is mounted in them is not shown. Without a container, lists what is mounted. One that is mounted is not
/// started. An ordinary user can do that inside of `husk unshare`.
#[derive(Debug, Args)]
pub(super) struct MountContainer {
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Names or ids of the containers
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Take mounts of containers away
#[derive(Debug, Args)]
pub(super) struct UnmountContainer {
    /// All of them
    #[arg(long, short, conflicts_with = "containers")]
    all: bool,
    /// Accepted: a mount that is in use goes when it is left
    #[arg(long, short)]
    force: bool,
    /// Names or ids of the containers
    #[arg(value_name = "CONTAINER", required_unless_present = "all")]
    containers: Vec<String>,
}

/// Runs `image mount`.
pub(super) fn run(args: &Mount) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    if args.images.is_empty() {
        for (image, place) in image::list(&engine)? {
            let id = image.id.to_string();
            printer::print(&format!("{} {}\n", short_id(&id), place.display()))?;
        }
    }
    print_places(&args.images, |word| image::mount(&engine, word))
}

/// Runs `image unmount`.
pub(super) fn unmount(args: &Unmount) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    if args.all {
        for name in image::unmount_all(&engine)? {
            printer::print(&format!("{name}\n"))?;
        }
    }
    each(&args.images, |word| printer::print(&format!("{}\n", image::unmount(&engine, word)?.hex())))
}

/// Runs `mount`.
pub(super) fn mount_container(args: &MountContainer) -> Result<Status> {
    let MountContainer { no_trunc, containers } = args;
    let engine = Engine::open(settings::File::default())?;
    if containers.is_empty() {
        for (id, place) in container::list(&engine)? {
            let id = if *no_trunc { id.as_str() } else { id.short() };
            printer::print(&format!("{id} {}\n", place.display()))?;
        }
    }
    print_places(containers, |word| container::mount(&engine, word))
}

/// Runs `unmount`.
pub(super) fn unmount_container(args: &UnmountContainer) -> Result<Status> {
    let UnmountContainer { all, force: _, containers } = args;
    let engine = Engine::open(settings::File::default())?;
    if *all {
        for name in container::unmount_all(&engine)? {
            printer::print(&format!("{name}\n"))?;
        }
    }
    each(containers, |word| printer::print(&format!("{}\n", container::unmount(&engine, word)?)))
}

/// Prints where each is mounted: of several, with what it was called.
fn print_places(words: &[String], mount: impl Fn(&str) -> Result<PathBuf>) -> Result<Status> {
    each(words, |word| {
        let place = mount(word)?;
        let name = if words.len() > 1 { format!("{word} ") } else { String::new() };
        printer::print(&format!("{name}{}\n", place.display()))
    })
}

/// Goes on after a failure; the last one is the command's.
fn each(words: &[String], act: impl Fn(&str) -> Result<()>) -> Result<Status> {
    let mut failure: Option<Error> = None;
    for word in words {
        if let Err(error) = act(word)
            && let Some(earlier) = failure.replace(error)
        {
            report::engine_error(&earlier);
        }
    }
    failure.map_or(Ok(Status::Success), Err)
}
