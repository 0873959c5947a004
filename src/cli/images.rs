//! `husk pull`, `push`, `tag` and `rmi`, and the same below `husk image`.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::history::History;
use super::image_list::List;
use super::import;
use super::inspect::{Exists, InspectImage};
use super::load;
use super::printer;
use super::progress::{self, Bar, Mode};
use super::referrers;
use super::report;
use super::save;
use super::search;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::load as loading;
use crate::engine::images::pull::{self, PullOptions};
use crate::engine::images::push;
use crate::engine::images::remote::RemoteOptions;
use crate::engine::images::remove as removal;
use crate::engine::images::remove::Gone;
use crate::engine::images::repack as packing;
use crate::engine::images::tag;
use crate::engine::settings;
use crate::error::{Context, Error, Result};
use crate::image::media::Compression;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::registry::push::Uploaded;
use crate::image::source::{Local, Source};
use crate::support::units::parse_duration;

/// `husk image …`
#[derive(Debug, Subcommand)]
pub(super) enum Image {
    Pull(Pull),
    Push(Push),
    Search(search::Search),
    Referrers(referrers::Referrers),
    Tag(Tag),
    Untag(Untag),
    Load(load::Load),
    Import(import::Import),
    Save(save::Save),
    #[command(visible_alias = "list")]
    Ls(List),
    Inspect(InspectImage),
    History(History),
    Exists(Exists),
    #[command(visible_alias = "remove")]
    Rm(Remove),
    Prune(super::system::ImagePrune),
    Diff(super::diff::Diff),
    Mount(super::mount::Mount),
    #[command(visible_alias = "umount")]
    Unmount(super::mount::Unmount),
    Tree(super::tree::Tree),
}

/// How registries are spoken to.
#[derive(Debug, Args)]
pub(super) struct Remote {
    /// Check the registry's certificate, and speak nothing but TLS
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_verify: Option<bool>,
    /// File that holds the logins
    #[arg(long, value_name = "FILE")]
    pub(super) authfile: Option<PathBuf>,
    /// Folder of certificates for the registry
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// How often to try again where a failure may pass
    #[arg(long, value_name = "NUMBER")]
    retry: Option<u32>,
    /// How long to wait before the first of these; each further wait is longer
    #[arg(long, value_name = "DURATION")]
    retry_delay: Option<String>,
}

impl Remote {
    pub(super) fn options(&self) -> Result<RemoteOptions> {
        let delay = self.retry_delay.as_deref().map(parse_duration).transpose().context("--retry-delay")?;
        Ok(RemoteOptions {
            verify_tls: self.tls_verify,
            authfile: self.authfile.clone(),
            certificates: self.cert_dir.clone(),
            retries: self.retry,
            retry_delay: delay,
        })
    }
}

/// Fetch an image from a registry
///
/// Prints the image's id. Layers are fetched and unpacked in one pass, several at once; what a killed pull has left is gone
/// on with.
#[derive(Debug, Args)]
pub(super) struct Pull {
    /// Platform of the image
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// Say nothing of the progress
    #[arg(long, short)]
    quiet: bool,
    /// How progress is told on standard error: auto, plain, json or none
    #[arg(long, value_name = "MODE", default_value = "auto")]
    progress: Mode,
    #[command(flatten)]
    remote: Remote,
    /// Names of the images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Send an image to a registry
///
/// Blobs that the registry has, or can take from another of its repositories, are not sent. An image that was pulled arrives
/// byte for byte as it came; plain layers of others are packed.
#[derive(Debug, Args)]
pub(super) struct Push {
    /// Say nothing of the progress
    #[arg(long, short)]
    quiet: bool,
    /// Write the digest of the manifest to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    packing: Packing,
    #[command(flatten)]
    remote: Remote,
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where to send it, if that is not its name
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
}

/// How layers are packed.
#[derive(Debug, Args)]
struct Packing {
    /// How to pack layers; gzip, of those that are plain, if nothing is said
    #[arg(long, value_enum, value_name = "FORMAT")]
    compression_format: Option<CompressionFormat>,
    /// How small to pack them, from 1 to 9 (gzip) or 19 (zstd)
    #[arg(long, value_name = "LEVEL", allow_negative_numbers = true)]
    compression_level: Option<i32>,
    /// Pack those anew that are packed in another way; on with --compression-format
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_compression: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CompressionFormat {
    Gzip,
    Zstd,
}

impl Packing {
    fn options(&self) -> packing::Packing {
        let format = self.compression_format.map(|format| match format {
            CompressionFormat::Gzip => Compression::Gzip,
            CompressionFormat::Zstd => Compression::Zstd,
        });
        packing::Packing { compression: format, level: self.compression_level, force: self.force_compression }
    }
}

/// Give an image another name
#[derive(Debug, Args)]
pub(super) struct Tag {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The new names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Take names away from an image, and leave the image
#[derive(Debug, Args)]
pub(super) struct Untag {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// The names; all of them if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

/// Remove names, and images with their last name
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Remove all names of an image, also of one that a container uses
    #[arg(long, short)]
    force: bool,
    /// Names or ids of the images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Runs `pull`.
pub(super) fn pull(args: &Pull) -> Result<Status> {
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?.unwrap_or_else(Platform::host);
    let options = PullOptions { platform, remote: args.remote.options()? };
    let sources = args.names.iter().map(|name| source(name)).collect::<Result<Vec<_>>>()?;
    let engine = Engine::open(settings::File::default())?;
    for source in &sources {
        let bar = Bar::with(if args.quiet { Mode::None } else { args.progress });
        let report = |progress| bar.show(progress);
        let image = match source {
            Pulled::Local(local) => loading::pull_local(&engine, local, &options.platform, &report)?.image,
            Pulled::Named(word) => pull::pull_word(&engine, word, &options, &report)?.1.image,
        };
        printer::print(&format!("{}\n", image.id.hex()))?;
    }
    Ok(Status::Success)
}

/// Says what became of a blob that was to be sent.
pub(super) fn describe(progress: &push::Progress) -> String {
    let what = match progress.uploaded {
        Uploaded::Exists => "exists already",
        Uploaded::Mounted => "mounted",
        Uploaded::Sent => "sent",
    };
    format!("{}: {what}", &progress.digest.hex()[..12])
}

/// What `pull` can bring here.
enum Pulled {
    Named(String),
    Local(Local),
}

fn source(word: &str) -> Result<Pulled> {
    match Source::parse(word)? {
        Source::Named(name) => Reference::parse(&name).map(|_| Pulled::Named(name)),
        Source::Registry(reference) => Ok(Pulled::Named(reference.to_string())),
        Source::Local(local) => Ok(Pulled::Local(local)),
        Source::Directory(_) | Source::Host => {
            Err(Error::invalid(format!("pull {word}: it is no image")).with_hint("`husk run` takes it as it is"))
        }
    }
}

/// Runs `push`.
pub(super) fn push(args: &Push) -> Result<Status> {
    let destination = args.destination.as_deref().unwrap_or(&args.image);
    let destination = Reference::parse(destination.strip_prefix("docker://").unwrap_or(destination))?;
    let engine = Engine::open(settings::File::default())?;
    let say = |progress: push::Progress| {
        if !args.quiet {
            progress::say(&describe(&progress));
        }
    };
    let pushed = push::push(&engine, &args.image, &destination, args.packing.options(), &args.remote.options()?, &say)?;
    if let Some(path) = &args.digestfile {
        let open = || File::options().write(true).create(true).truncate(true).open(path);
        let write = || open()?.write_all(pushed.digest.to_string().as_bytes());
        write().with_context(|| format!("write {}", path.display()))?;
    }
    if !args.quiet {
        let name = destination.tag().unwrap_or_default();
        progress::say(&format!("{name}: digest: {} size: {}", pushed.digest, pushed.size));
    }
    Ok(Status::Success)
}

/// Runs `tag`.
pub(super) fn tag(args: &Tag) -> Result<Status> {
    let names = args.names.iter().map(|name| Reference::parse(name)).collect::<Result<Vec<_>>>()?;
    tag::tag(&Engine::open(settings::File::default())?, &args.image, &names)?;
    Ok(Status::Success)
}

/// Runs `untag`.
pub(super) fn untag(args: &Untag) -> Result<Status> {
    let names = args.names.iter().map(|name| Reference::parse(name)).collect::<Result<Vec<_>>>()?;
    tag::untag(&Engine::open(settings::File::default())?, &args.image, &names)?;
    Ok(Status::Success)
}

/// Runs `rmi`.
pub(super) fn remove(args: &Remove) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let mut failure: Option<Error> = None;
    for word in &args.images {
        match removal::remove(&engine, word, args.force) {
            Ok(gone) => {
                for gone in gone {
                    printer::print(&match gone {
                        Gone::Untagged(name) => format!("Untagged: {name}\n"),
                        Gone::Deleted(id) => format!("Deleted: {id}\n"),
                    })?;
                }
            }
            Err(error) => {
                // The others are tried; the last failure is the command's.
                if let Some(earlier) = failure.replace(error) {
                    report::engine_error(&earlier);
                }
            }
        }
    }
    failure.map_or(Ok(Status::Success), Err)
}
