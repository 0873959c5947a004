//! `husk image referrers`: what a registry holds that refers to an image, such as signatures and bills of materials.

use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::format::{Columns, Format, Row};
use super::image_list::object;
use super::images::Remote;
use super::printer;
use super::status::Status;
use crate::engine::images::referrers;
use crate::engine::settings::{self, Settings};
use crate::error::Result;
use crate::image::platform::Platform;
use crate::image::reference::Reference;
use crate::image::registry::referrers::Referrer;
use crate::support::units::{human_ago, human_size};

const REFERRERS: Columns = Columns {
    headers: &[
        ("Digest", "DIGEST"),
        ("ArtifactType", "ARTIFACT TYPE"),
        ("MediaType", "MEDIA TYPE"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Annotations", "ANNOTATIONS"),
    ],
    table: "{{.Digest}}\t{{.ArtifactType}}\t{{.Size}}\t{{.CreatedSince}}",
    quiet: "{{.Digest}}",
};

/// When it was made, if a referrer says so.
const CREATED: &str = "org.opencontainers.image.created";

/// List what a registry holds that refers to an image: signatures, attestations, bills of materials
#[derive(Debug, Args)]
pub(super) struct Referrers {
    /// Only those of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Of the image for a platform, instead of the index that has it
    #[arg(long, value_name = "OS/ARCHITECTURE[/VARIANT]")]
    platform: Option<String>,
    /// Print digests only
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    remote: Remote,
    /// Name of the image, in the registry
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs `image referrers`.
pub(super) fn run(args: &Referrers) -> Result<Status> {
    let settings = Settings::load(settings::File::default(), &settings::Caller::current())?;
    let format = Format::choose(&REFERRERS, args.format.as_deref(), args.quiet)?;
    let name = Reference::parse(args.name.strip_prefix("docker://").unwrap_or(&args.name))?;
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let (artifact_type, options) = (args.artifact_type.as_deref(), args.remote.options()?);
    let found = referrers::list(&settings, &name, platform.as_ref(), artifact_type, &options)?;
    let now = SystemTime::now();
    printer::print(&format.print(found.iter().map(|referrer| row(referrer, now)))?)?;
    Ok(Status::Success)
}

fn row(referrer: &Referrer, now: SystemTime) -> Row {
    let created = referrer.annotations.get(CREATED);
    let since = created.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let fields = json!({
        "Digest": referrer.digest.to_string(),
        "ArtifactType": referrer.artifact_type.as_deref().unwrap_or_default(),
        "MediaType": referrer.media_type,
        "Size": human_size(referrer.size),
        "CreatedSince": since.map_or_else(|| "N/A".to_owned(), |then| human_ago(then.into(), now)),
        "CreatedAt": created.map(String::as_str).unwrap_or_default(),
        "Annotations": referrer.annotations,
    });
    Row { fields: object(fields), labels: referrer.annotations.clone() }
}
