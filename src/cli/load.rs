//! `husk load`: images out of an archive.

use std::path::{Path, PathBuf};

use clap::Args;

use super::input;
use super::printer;
use super::progress::Bar;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::load::{self, Input, Loaded};
use crate::engine::settings;
use crate::error::{Context, Result};
use crate::image::platform::Platform;

/// Load images from an archive
///
/// Reads what `docker save`, `podman save`, `skopeo copy` and `husk save` write: docker archives and OCI archives, also packed
/// with gzip or zstd, with one image or several; and directories that are OCI layouts.
#[derive(Debug, Args)]
pub(super) struct Load {
    /// The archive, or a directory; standard input if it is left out
    #[arg(long, short, value_name = "PATH")]
    input: Option<PathBuf>,
    /// Say nothing of the progress
    #[arg(long, short)]
    quiet: bool,
    /// Platform of the images
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
}

/// Runs `load`.
pub(super) fn run(args: &Load) -> Result<Status> {
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?.unwrap_or_else(Platform::host);
    let input = match args.input.as_deref() {
        Some(path) if path.is_dir() => Input::Layout,
        path => Input::Archive(input::archive("load", path)?),
    };
    let engine = Engine::open(settings::File::default())?;
    let bar = Bar::new(args.quiet);
    let mut tell = |loaded: &Loaded| {
        if loaded.names.is_empty() {
            return printer::print(&format!("Loaded image ID: {}\n", loaded.image.id));
        }
        let lines = loaded.names.iter().map(|name| format!("Loaded image: {}\n", name.familiar()));
        printer::print(&lines.collect::<String>())
    };
    let path = args.input.as_deref().unwrap_or(Path::new("/dev/stdin"));
    let answer = load::load(&engine, input, path, &platform, &|progress| bar.show(progress), &mut tell);
    let place = args.input.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    answer.with_context(|| format!("load {place}"))?;
    Ok(Status::Success)
}
