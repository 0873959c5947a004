//! `husk save`: images into an archive or a layout.

use std::fs::File;
use std::io::{BufWriter, IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};

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
    let stdout = rustix::stdio::stdout();
    if args.output.is_none() && args.format == Format::OciDir {
        return Err(Error::invalid("save: a layout is a directory: --output DIR is missing"));
    }
    if args.output.is_none() && stdout.is_terminal() {
        return Err(Error::invalid("save: standard output is a terminal").with_hint("use --output FILE, or `> FILE`"));
    }
    let chosen = save::choose(&Engine::open(settings::File::default())?, &args.images)?;
    let form = if args.format == Format::DockerArchive { Form::Docker } else { Form::Oci };
    match &args.output {
        Some(path) if args.format == Format::OciDir => chosen.write(form, &mut Folder::make(path)?)?,
        Some(path) => write_file(path, |file| write_tar(&chosen, form, file))?,
        None => {
            let copy = rustix::io::fcntl_dupfd_cloexec(stdout, 0).context("standard output")?;
            write_tar(&chosen, form, copy.into()).context("write to standard output")?;
        }
    }
    Ok(Status::Success)
}

fn write_tar(chosen: &Chosen, form: Form, file: File) -> Result<()> {
    let mut tar = TarWriter::new(BufWriter::with_capacity(256 << 10, file));
    chosen.write(form, &mut tar)?;
    tar.finish()?.flush().context("write the archive")
}

/// Writes a file that is there whole or not at all; into what is no file (a pipe, a device) as it is.
fn write_file(path: &Path, write: impl FnOnce(File) -> Result<()>) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    let write_into = || {
        if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return write(File::from(rustix::fs::open(path, flags, Mode::empty())?));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".tmp-{}", std::process::id()));
        let made = flags | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(&name, made, Mode::from_raw_mode(0o644))?);
        let written = write(file).and_then(|()| Ok(rustix::fs::rename(&name, path)?));
        if written.is_err() {
            let _ = rustix::fs::unlinkat(CWD, &name, AtFlags::empty());
        }
        written
    };
    write_into().with_context(|| format!("write {}", path.display()))
}
