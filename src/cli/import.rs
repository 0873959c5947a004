//! `husk import`: a tar of a root file system becomes an image.

use std::path::{Path, PathBuf};

use clap::Args;

use super::making::Options;
use super::status::Status;
use super::{commit, input};
use crate::engine::engine::Engine;
use crate::engine::images::import;
use crate::engine::settings;
use crate::error::{Context, Error, Result};
use crate::image::media::Family;
use crate::image::platform::Platform;

/// Make an image of a tar of files
///
/// What `husk export` and `docker export` write, also packed with gzip or zstd. It becomes the only layer of an image that
/// says nothing of what is to be run, but what --change adds.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// What to say of it in its history
    #[arg(long, short, value_name = "MESSAGE")]
    message: Option<String>,
    /// Platform that the files are for
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// Accepted: nothing is said of the progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    options: Options,
    /// The archive; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// Runs `import`.
pub(super) fn run(args: &Import) -> Result<Status> {
    let place = args.file.display();
    if let Some(url) = args.file.to_str().filter(|file| file.contains("://") && !Path::new(file).exists()) {
        return Err(Error::unsupported(format!("import {url}: archives are not fetched"))
            .with_hint(format!("curl -L {url} | husk import -")));
    }
    let name = args.name.as_deref().map(commit::name).transpose()?;
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?.unwrap_or_else(Platform::host);
    let message = args.message.clone().unwrap_or_else(|| format!("Imported from {place}"));
    let wanted = import::Import {
        making: args.options.making(Family::Oci)?,
        platform,
        message: &message,
        changes: &args.options.changes,
    };
    let archive = input::archive("import", Some(&args.file))?;
    let engine = Engine::open(settings::File::default())?;
    let image = import::import(&engine, archive, &wanted, name.as_ref()).with_context(|| format!("import {place}"))?;
    args.options.tell(&image)?;
    Ok(Status::Success)
}
