//! `husk commit`: a container becomes an image.

use clap::{Args, ValueEnum};

use super::making::Options;
use super::report;
use super::status::Status;
use crate::engine::commit;
use crate::engine::engine::Engine;
use crate::engine::settings;
use crate::error::{Error, Result};
use crate::image::media::Family;
use crate::image::reference::Reference;

/// Make an image of a container
///
/// The layers of the container's image, and one of what it has changed. Its entry point, command, variables, user, directory,
/// labels and stop signal become the image's. The same changes give the same layer; with SOURCE_DATE_EPOCH, the same image.
#[derive(Debug, Args)]
pub(super) struct Commit {
    /// Who made it
    #[arg(long, short, value_name = "AUTHOR")]
    author: Option<String>,
    /// What to say of it in its history
    #[arg(long, short, value_name = "MESSAGE", default_value = "", hide_default_value = true)]
    message: String,
    /// Stop the container's processes meanwhile
    #[arg(long, short, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pause: bool,
    /// The same as --pause=false
    #[arg(long)]
    no_pause: bool,
    /// In whose words the manifest is written
    #[arg(long, short, value_enum, default_value = "oci")]
    format: Format,
    /// Put everything into one layer
    #[arg(long, short)]
    squash: bool,
    /// Refused: what is in volumes is not the container's
    #[arg(long, hide = true)]
    include_volumes: bool,
    /// Accepted: nothing is said of the progress
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    options: Options,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Oci,
    Docker,
}

/// Runs `commit`.
pub(super) fn run(args: &Commit) -> Result<Status> {
    if args.include_volumes {
        return Err(Error::unsupported(
            "commit --include-volumes: what is in volumes does not become part of an image",
        )
        .with_hint("`husk cp` takes it out of the container"));
    }
    let name = args.name.as_deref().map(name).transpose()?;
    let family = match args.format {
        Format::Oci => Family::Oci,
        Format::Docker => Family::Docker,
    };
    let commit = commit::Commit {
        making: args.options.making(family)?,
        author: args.author.as_deref(),
        message: &args.message,
        changes: &args.options.changes,
        pause: args.pause && !args.no_pause,
        squash: args.squash,
    };
    let engine = Engine::open(settings::File::default())?;
    let image = commit::commit(&engine, &args.container, &commit, name.as_ref(), &|line| report::note(line))?;
    args.options.tell(&image)?;
    Ok(Status::Success)
}

/// Reads the name for an image that is made here.
pub(super) fn name(text: &str) -> Result<Reference> {
    let name = Reference::parse(text)?;
    match name.digest() {
        Some(_) => Err(Error::invalid(format!("{text}: a digest is no name that could be given"))),
        None => Ok(name),
    }
}
