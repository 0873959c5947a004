//! `husk image mount` and `unmount`: the files of images at a path, to be read.

use clap::Args;

use super::format::short_id;
use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::mount;
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

/// Runs `image mount`.
pub(super) fn run(args: &Mount) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    if args.images.is_empty() {
        for (image, place) in mount::list(&engine)? {
            let id = image.id.to_string();
            printer::print(&format!("{} {}\n", short_id(&id), place.display()))?;
        }
    }
    for word in &args.images {
        printer::print(&format!("{}\n", mount::mount(&engine, word)?.display()))?;
    }
    Ok(Status::Success)
}

/// Runs `image unmount`.
pub(super) fn unmount(args: &Unmount) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    if args.all {
        for name in mount::unmount_all(&engine)? {
            printer::print(&format!("{name}\n"))?;
        }
    }
    let mut failure: Option<Error> = None;
    for word in &args.images {
        match mount::unmount(&engine, word) {
            Ok(id) => printer::print(&format!("{}\n", id.hex()))?,
            // The others are tried; the last failure is the command's.
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    super::report::engine_error(&earlier);
                }
            }
        }
    }
    failure.map_or(Ok(Status::Success), Err)
}
