//! `husk image tree`: an image's layers, in podman's form.

use std::fmt::Write as _;

use clap::Args;

use super::format::short_id;
use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::tree;
use crate::engine::settings;
use crate::error::Result;
use crate::support::units::human_size;

/// Show the layers of an image, and which images end with them
#[derive(Debug, Args)]
pub(super) struct Tree {
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Runs `image tree`.
pub(super) fn run(args: &Tree) -> Result<Status> {
    let tree::Tree { image, names, layers } = tree::tree(&Engine::open(settings::File::default())?, &args.image)?;
    let id = image.id.to_string();
    let mut text =
        format!("Image ID: {}\nTags:     [{}]\nSize:     {}\n", short_id(&id), names.join(" "), human_size(image.size));
    text.push_str(if layers.is_empty() { "No Image Layers\n" } else { "Image Layers\n" });
    for (index, layer) in layers.iter().enumerate() {
        let branch = if index + 1 == layers.len() { "└── " } else { "├── " };
        let id = layer.diff_id.to_string();
        let _ = write!(text, "{branch} ID: {} Size: {:>7}", short_id(&id), human_size(layer.size));
        if !layer.tops.is_empty() {
            let _ = write!(text, " Top Layer of: [{}]", layer.tops.join(" "));
        }
        text.push('\n');
    }
    printer::print(&text)?;
    Ok(Status::Success)
}
