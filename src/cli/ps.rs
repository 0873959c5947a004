//! `husk ps`: the containers, the newest first, in docker's columns.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use super::format::{Columns, Format, Row, ellipsis};
use super::image_list::object;
use super::status::Status;
use super::{printer, report};
use crate::engine::engine::Engine;
use crate::engine::record::{Record, Status as State, Timestamp};
use crate::engine::settings;
use crate::error::Result;
use crate::support::units::{human_ago, human_duration};

const HEADERS: &[(&str, &str)] = &[
    ("ID", "CONTAINER ID"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Names", "NAMES"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("Networks", "NETWORKS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
];

const COLUMNS: Columns = Columns {
    headers: HEADERS,
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    quiet: "{{.ID}}",
};

/// List containers
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Show those that do not run, too
    #[arg(long, short)]
    all: bool,
    /// Show the NUMBER that were made last, whether they run or not
    #[arg(long, short = 'n', value_name = "NUMBER")]
    last: Option<usize>,
    /// Show the one that was made last, whether it runs or not
    #[arg(long, short)]
    latest: bool,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// Print ids and commands in full
    #[arg(long)]
    no_trunc: bool,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs `ps`.
pub(super) fn run(args: &Ps) -> Result<Status> {
    let Ps { all, last, latest, quiet, no_trunc, format } = args;
    let format = Format::choose(&COLUMNS, format.as_deref(), *quiet)?;
    let engine = Engine::open(settings::File::default())?;
    for failure in engine.clear_remains()? {
        report::note(&failure.report());
    }
    let listing = engine.containers()?.list()?;
    for failure in &listing.unreadable {
        report::note(&failure.report());
    }
    let most = if *latest { Some(1) } else { *last };
    let runs = |state: &State| matches!(state, State::Running { .. } | State::Restarting(_));
    let now = SystemTime::now();
    let rows = listing
        .containers
        .iter()
        .filter(|(_, state)| *all || most.is_some() || runs(state))
        .take(most.unwrap_or(usize::MAX))
        .map(|(record, state)| row(record, state, *no_trunc, now));
    printer::print(&format.print(rows)?)?;
    Ok(Status::Success)
}

fn row(record: &Record, state: &State, in_full: bool, now: SystemTime) -> Row {
    let created = time(record.created);
    let command = record.command.join(" ");
    let command = if in_full { command } else { ellipsis(&command, 20) };
    let fields = json!({
        "ID": if in_full { record.id.as_str() } else { record.id.short() },
        "Image": record.image,
        "Command": format!("\"{command}\""),
        "CreatedAt": jiff::Timestamp::try_from(created)
            .map_or_else(|_| String::new(), |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
        "RunningFor": human_ago(created, now),
        "Ports": "",
        "State": word(state),
        "Status": describe(state, now),
        "Size": "N/A",
        "Names": record.name.as_str(),
        "Mounts": "",
        "Networks": "none",
        "LocalVolumes": "0",
    });
    Row { fields: object(fields), labels: record.labels.clone() }
}

/// The state in docker's word for it.
fn word(state: &State) -> &'static str {
    match state {
        State::Created => "created",
        State::Running { .. } => "running",
        State::Restarting(_) => "restarting",
        State::Exited(_) | State::Lost { .. } => "exited",
    }
}

/// The state in docker's words.
fn describe(state: &State, now: SystemTime) -> String {
    let since = |then: Timestamp| now.duration_since(time(then)).unwrap_or_default();
    match state {
        State::Created => "Created".to_owned(),
        State::Running { started } => format!("Up {}", human_duration(since(started.unwrap_or_default()))),
        State::Restarting(exit) => format!("Restarting ({}) {} ago", exit.code, human_duration(since(exit.finished))),
        State::Exited(exit) => format!("Exited ({}) {} ago", exit.code, human_duration(since(exit.finished))),
        State::Lost { started } => format!("Exited (255) {} ago", human_duration(since(*started))),
    }
}

fn time(timestamp: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(timestamp)
}
