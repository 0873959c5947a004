//! `husk diff`: what a container or an image changes.

use clap::{Args, ValueEnum};
use serde_json::json;

use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::{diff, settings};
use crate::error::Result;
use crate::image::write::{Change, ChangeKind};

/// List what a container has changed of its image
///
/// A added, C changed, D deleted, in docker's order. Of an image, what its last layer changes; with a second image, in what
/// the first differs from that.
#[derive(Debug, Args)]
pub(super) struct Diff {
    /// Print one JSON object instead of lines
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Name or id of a container or an image
    #[arg(value_name = "CONTAINER|IMAGE")]
    subject: String,
    /// Name or id of the image to compare with, instead of its own
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
}

/// Runs `diff`.
pub(super) fn run(args: &Diff) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let changes = match &args.image {
        None => diff::diff(&engine, &args.subject)?,
        Some(image) => diff::diff_to(&engine, &args.subject, image)?,
    };
    printer::print(&match args.format {
        Some(Format::Json) => as_json(&changes),
        None => {
            let lines = changes.iter().map(|change| format!("{} {}", change.kind.letter(), show(&change.path)));
            lines.fold(String::new(), |text, line| text + &line + "\n")
        }
    })?;
    Ok(Status::Success)
}

/// podman's object: a list for each kind, left out where it is empty.
fn as_json(changes: &[Change]) -> String {
    let mut document = serde_json::Map::new();
    for (name, kind) in
        [("changed", ChangeKind::Changed), ("added", ChangeKind::Added), ("deleted", ChangeKind::Deleted)]
    {
        let paths: Vec<_> = changes
            .iter()
            .filter(|change| change.kind == kind)
            .map(|change| String::from_utf8_lossy(&change.path))
            .collect();
        if !paths.is_empty() {
            document.insert(name.to_owned(), json!(paths));
        }
    }
    format!("{}\n", serde_json::Value::Object(document))
}

/// One line a path, and nothing that a terminal would act on: names are the container's.
fn show(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.contains(char::is_control) { text.escape_debug().to_string() } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_write_on_the_terminal() {
        assert_eq!(show(b"/a\x1b[2J\nD /etc"), "/a\\u{1b}[2J\\nD /etc");
        assert_eq!(show("/ünï \"x\"".as_bytes()), "/ünï \"x\"");
    }

    #[test]
    fn json_is_podmans() {
        let change = |kind, path: &str| Change { kind, path: path.as_bytes().to_vec() };
        let changes =
            [change(ChangeKind::Added, "/a"), change(ChangeKind::Changed, "/b"), change(ChangeKind::Added, "/c")];
        assert_eq!(as_json(&changes), "{\"added\":[\"/a\",\"/c\"],\"changed\":[\"/b\"]}\n");
        assert_eq!(as_json(&[]), "{}\n");
    }
}
