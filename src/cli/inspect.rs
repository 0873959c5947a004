//! `husk inspect` and `husk image inspect` and `exists`: what is known of images, for scripts.

use clap::Args;
use serde::Serialize as _;
use serde_json::Value;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::printer;
use super::report;
use super::status::Status;
use super::template::{Template, unescape};
use crate::engine::engine::Engine;
use crate::engine::images::{find, inspect};
use crate::engine::settings;
use crate::error::Result;

/// Show all that is known of images
///
/// Prints an array of JSON objects with docker's fields, or a line of the template for each.
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// `json`, or a template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids of the images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Tell by the status whether an image is here: 0 if it is, 1 if not
#[derive(Debug, Args)]
pub(super) struct Exists {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Runs `inspect`.
pub(super) fn run(args: &Inspect) -> Result<Status> {
    let template = match args.format.as_deref() {
        None => None,
        Some("json") => Some(Template::parse("{{json .}}")?),
        Some(text) => Some(Template::parse(&unescape(text))?),
    };
    let engine = Engine::open(settings::File::default())?;
    let (mut found, mut failure) = (Vec::new(), None);
    for word in &args.images {
        match inspect::inspect(&engine, word) {
            Ok(described) => found.push(described),
            Err(error) => {
                // The others are shown; the last failure is the command's.
                if let Some(earlier) = failure.replace(error) {
                    report::engine_error(&earlier);
                }
            }
        }
    }
    let text = match template {
        None => array(&found)?,
        Some(template) => {
            let lines = found.iter().map(|described| Ok(template.render(described)? + "\n"));
            lines.collect::<Result<String>>()?
        }
    };
    printer::print(&text)?;
    failure.map_or(Ok(Status::Success), Err)
}

/// Runs `image exists`.
pub(super) fn exists(args: &Exists) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let found = find::find_in(&engine.store()?, &args.image)?;
    Ok(if found.is_some() { Status::Success } else { Status::Failure })
}

/// Prints as docker does, four spaces deep.
pub(super) fn array(found: &[Value]) -> Result<String> {
    let mut bytes = Vec::new();
    found.serialize(&mut Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    ")))?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
