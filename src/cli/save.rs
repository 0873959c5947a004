//! `husk save`: images into an archive or a layout.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::output;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::save::{self, Chosen, Form};
use crate::engine::settings;
use crate::error::{Context, Error, Result};
use crate::image::write::place::Folder;
use crate::image::write::tar::TarWriter;

/// Save images to an archive
///
/// The same images give the same bytes. Layers stay packed as they are; docker, podman and skopeo read all of the forms.
#[derive(Debug, Args)]
pub(super) struct Save {
    /// Where to write; standard output if it is left out
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// What to write
    #[arg(long, value_enum, default_value = "docker-archive")]
    format: Format,
    /// Accepted: several images are always saved together
    #[arg(long, short)]
    multi_image_archive: bool,
    /// Accepted: nothing is said of the progress
    #[arg(long, short)]
    quiet: bool,
    /// Names or ids of the images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    DockerArchive,
    OciArchive,
    OciDir,
}

/// Runs `save`.
pub(super) fn run(args: &Save) -> Result<Status> {
    if args.output.is_none() && args.format == Format::OciDir {
        return Err(Error::invalid("save: a layout is a directory: --output DIR is missing"));
    }
    output::refuse_terminal("save", args.output.as_deref())?;
    let chosen = save::choose(&Engine::open(settings::File::default())?, &args.images)?;
    let form = if args.format == Format::DockerArchive { Form::Docker } else { Form::Oci };
    match &args.output {
        Some(path) if args.format == Format::OciDir => chosen.write(form, &mut Folder::make(path)?)?,
        path => output::write(path.as_deref(), |file| write_tar(&chosen, form, file))?,
    }
    Ok(Status::Success)
}

fn write_tar(chosen: &Chosen, form: Form, file: File) -> Result<()> {
    let mut tar = TarWriter::new(BufWriter::with_capacity(256 << 10, file));
    chosen.write(form, &mut tar)?;
    tar.finish()?.flush().context("write the archive")
}
