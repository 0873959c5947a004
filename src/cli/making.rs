//! The flags of commands that make an image here.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{output, printer};
use crate::engine::images::make::Making;
use crate::error::{Context, Result};
use crate::image::media::{Compression, Family};
use crate::storage::images::ImageRecord;

/// How an image is written.
#[derive(Debug, Args)]
pub(super) struct Options {
    /// Change the image's configuration by an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL,
    /// ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR
    #[arg(long = "change", short, value_name = "INSTRUCTION")]
    pub(super) changes: Vec<String>,
    /// How layers are packed
    #[arg(long, value_enum, default_value = "gzip", value_name = "FORMAT")]
    compression_format: Packing,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Packing {
    Gzip,
    Zstd,
    None,
}

impl Options {
    pub(super) fn making(&self, family: Family) -> Result<Making> {
        let compression = match self.compression_format {
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
            Packing::None => Compression::None,
        };
        Ok(Making { family, compression, latest: output::latest()? })
    }

    /// Tells which image was made.
    pub(super) fn tell(&self, image: &ImageRecord) -> Result<()> {
        if let Some(path) = &self.iidfile {
            output::write(Some(path), |mut file| {
                std::io::Write::write_all(&mut file, image.id.to_string().as_bytes()).context("write the id")
            })?;
        }
        printer::print(&format!("{}\n", image.id))
    }
}
