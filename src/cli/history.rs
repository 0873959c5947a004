//! `husk history`: the steps of an image's making, the newest first, in docker's columns.

use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use super::format::{Columns, Format, Row, ellipsis, short_id};
use super::image_list::object;
use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::inspect::{self, Step};
use crate::engine::settings;
use crate::error::Result;
use crate::support::units::{human_ago, human_size};

const COLUMNS: Columns = Columns {
    headers: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
    table: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    quiet: "{{.ID}}",
};

/// With `--human=false`.
const EXACT: Columns = Columns { table: "{{.ID}}\t{{.CreatedAt}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}", ..COLUMNS };

/// Letters of a command that the table shows.
const COMMAND_LETTERS: usize = 45;

/// Show how an image was made
#[derive(Debug, Args)]
pub(super) struct History {
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Print sizes and times for people
    #[arg(long, short = 'H', value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    human: bool,
    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// Name or id of the image
    #[arg(value_name = "IMAGE")]
    image: String,
}

/// Runs `history`.
pub(super) fn run(args: &History) -> Result<Status> {
    let columns = if args.human { &COLUMNS } else { &EXACT };
    let format = Format::choose(columns, args.format.as_deref(), args.quiet)?;
    let history = inspect::history(&Engine::open(settings::File::default())?, &args.image)?;
    let (now, id) = (SystemTime::now(), history.image.id.to_string());
    let shown = if args.no_trunc { id.as_str() } else { short_id(&id) };
    let rows = history.steps.iter().enumerate();
    let rows = rows.map(|(place, step)| row(args, step, if place == 0 { shown } else { "<missing>" }, now));
    printer::print(&format.print(rows)?)?;
    Ok(Status::Success)
}

fn row(args: &History, step: &Step, id: &str, now: SystemTime) -> Row {
    let time = step.created.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let command = step.created_by.replace('\t', " ");
    let fields = json!({
        "ID": id,
        "CreatedSince": time.map_or_else(|| "N/A".to_owned(), |time| human_ago(time.into(), now)),
        "CreatedAt": time.map_or_else(|| "N/A".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        "CreatedBy": if args.no_trunc { command } else { ellipsis(&command, COMMAND_LETTERS) },
        "Size": if args.human { human_size(step.size) } else { step.size.to_string() },
        "Comment": step.comment,
    });
    Row { fields: object(fields), ..Row::default() }
}
