//! `husk manifest …`: indexes of images for several platforms.

use clap::{Args, Subcommand};

use super::images::Remote;
use super::status::Status;
use super::{printer, progress};
use crate::engine::engine::Engine;
use crate::engine::images::index::{self, Notes};
use crate::engine::settings;
use crate::error::{Error, Result};
use crate::image::reference::Reference;

/// `husk manifest …`
#[derive(Debug, Subcommand)]
pub(super) enum Manifest {
    /// Make an index of images
    Create {
        /// Add to the index that there is
        #[arg(long, short)]
        amend: bool,
        /// Name of the index
        #[arg(value_name = "LIST")]
        list: String,
        /// Images of the store
        #[arg(value_name = "IMAGE")]
        images: Vec<String>,
    },
    /// Add an image to an index
    Add {
        #[command(flatten)]
        notes: NoteArgs,
        #[command(flatten)]
        remote: Remote,
        /// Name of the index
        #[arg(value_name = "LIST")]
        list: String,
        /// An image of the store, or docker://NAME
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// Change what an index says of an image
    Annotate {
        #[command(flatten)]
        notes: NoteArgs,
        /// Name of the index
        #[arg(value_name = "LIST")]
        list: String,
        /// The image's digest, or an image of the store
        #[arg(value_name = "IMAGE")]
        image: String,
    },
    /// Show an index or a manifest, of the store or else of the registry
    Inspect {
        #[command(flatten)]
        remote: Remote,
        /// Its name; docker://NAME asks the registry
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Send an index to a registry, after the images in it
    Push {
        /// Say nothing of the progress
        #[arg(long, short)]
        quiet: bool,
        /// Accepted: the images are always sent
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        remote: Remote,
        /// Name of the index
        #[arg(value_name = "LIST")]
        list: String,
        /// Where to send it, if that is not its name
        #[arg(value_name = "DESTINATION")]
        destination: Option<String>,
    },
    /// Forget indexes; the images in them stay
    Rm {
        /// Names of the indexes
        #[arg(required = true, value_name = "LIST")]
        lists: Vec<String>,
    },
}

/// What is said of an image.
#[derive(Debug, Args)]
pub(super) struct NoteArgs {
    /// Operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Processor, in Go's words
    #[arg(long, value_name = "ARCHITECTURE")]
    arch: Option<String>,
    /// Level of the processor
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// What the operating system must have
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Annotation of the image in the index
    #[arg(long, value_name = "NAME=VALUE", value_parser = annotation)]
    annotation: Vec<(String, String)>,
}

impl NoteArgs {
    fn notes(self) -> Notes {
        Notes {
            os: self.os,
            architecture: self.arch,
            variant: self.variant,
            os_version: self.os_version,
            features: self.os_features,
            annotations: self.annotation,
        }
    }
}

fn annotation(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::invalid(format!("{text:?}: not of the form NAME=VALUE"))),
    }
}

/// Runs a command of the group.
pub(super) fn run(command: Manifest) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let parse = |name: &str| Reference::parse(name);
    match command {
        Manifest::Create { amend, list, images } => {
            printer::print(&format!("{}\n", index::create(&engine, &parse(&list)?, &images, amend)?))?;
        }
        Manifest::Add { notes, remote, list, image } => {
            let digest = index::add(&engine, &parse(&list)?, &image, &notes.notes(), &remote.options()?)?;
            printer::print(&format!("{digest}\n"))?;
        }
        Manifest::Annotate { notes, list, image } => {
            printer::print(&format!("{}\n", index::annotate(&engine, &parse(&list)?, &image, &notes.notes())?))?;
        }
        Manifest::Inspect { remote, name } => {
            let bytes = index::inspect(&engine, &name, &remote.options()?)?;
            let value: serde_json::Value = serde_json::from_slice(&bytes)?;
            printer::print(&format!("{value:#}\n"))?;
        }
        Manifest::Push { quiet, all: _, remote, list, destination } => {
            let name = parse(&list)?;
            let destination = destination.as_deref().unwrap_or(&list);
            let destination = parse(destination.strip_prefix("docker://").unwrap_or(destination))?;
            let report = |progress: crate::engine::images::push::Progress| {
                if !quiet {
                    progress::say(&super::images::describe(&progress));
                }
            };
            let pushed = index::push(&engine, &name, &destination, &remote.options()?, &report)?;
            printer::print(&format!("{}\n", pushed.digest))?;
        }
        Manifest::Rm { lists } => {
            for list in lists {
                printer::print(&format!("Untagged: {list}\nDeleted: {}\n", index::remove(&engine, &parse(&list)?)?))?;
            }
        }
    }
    Ok(Status::Success)
}
