//! `husk top` and `husk port`: what runs in a container, and what of it can be reached from outside.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;

use super::oci::ps;
use super::ports::{self, Reach};
use super::printer;
use super::status::Status;
use super::table;
use crate::engine::engine::Engine;
use crate::engine::networks::Networks;
use crate::engine::options::ports::ContainerPort;
use crate::engine::processes;
use crate::engine::record::{Container, Status as Life};
use crate::engine::settings;
use crate::error::{Error, Kind, Result};
use crate::network::port::BoundPort;
use crate::runtime::ps::Details;

/// Show the processes of a container
///
/// In docker's columns, without ps(1). Further words are descriptors, as podman has them (user pid ppid pcpu stime tty time args),
/// or else options for the machine's ps(1), whose answer is narrowed to the container's processes.
#[derive(Debug, Args)]
pub(super) struct Top {
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Descriptors, or options for ps(1)
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// Show the ports of a container that can be reached from outside
#[derive(Debug, Args)]
pub(super) struct Port {
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// A port of the container's alone
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

type Column = (&'static str, &'static str, fn(&Details) -> String);

const COLUMNS: [Column; 8] = [
    ("user", "USER", |process| process.user.clone()),
    ("pid", "PID", |process| process.pid.to_string()),
    ("ppid", "PPID", |process| process.parent.to_string()),
    ("pcpu", "%CPU", |process| process.usage_percent.to_string()),
    ("stime", "STIME", |process| process.started.clone()),
    ("tty", "TTY", |process| process.terminal.clone()),
    ("time", "TIME", |Details { seconds, .. }| {
        format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }),
    ("args", "COMMAND", |process| process.command.clone()),
];

/// Docker's words for the same.
const DOCKERS: [&str; 8] = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"];

/// Runs `top`.
pub(super) fn top(args: &Top) -> Result<Status> {
    let Top { container, options } = args;
    let engine = Engine::open(settings::File::default())?;
    let container = engine.find(container)?;
    if !matches!(container.status()?, Life::Running { .. }) {
        return Err(not_running(&container));
    }
    let runtime = engine.runtime(false)?;
    let pids = processes::processes(&engine, &container)?;
    let words: Vec<&str> = options.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()).collect();
    let columns = words.iter().map(|word| COLUMNS.iter().find(|column| column.0 == *word));
    let chosen: Option<Vec<&Column>> = columns.collect();
    let text = match chosen {
        Some(chosen) => {
            let columns = if chosen.is_empty() { COLUMNS.iter().collect() } else { chosen };
            let headers: Vec<&str> =
                if words.is_empty() { DOCKERS.to_vec() } else { columns.iter().map(|column| column.1).collect() };
            let mut text = headers.join("\t") + "\n";
            for process in runtime.process_details(&pids)? {
                let cells: Vec<String> = columns.iter().map(|column| table::clean(&(column.2)(&process))).collect();
                text.push_str(&(cells.join("\t") + "\n"));
            }
            table::align_wide(&text)
        }
        None => table::align_wide(&columns_of(&ps::narrow(&ps::ask_ps(options)?.unwrap_or_default(), &pids)?)),
    };
    printer::print(&text)?;
    Ok(Status::Success)
}

/// Puts a tab after each column of a table of ps(1), as docker does: the last may hold blanks.
fn columns_of(table: &str) -> String {
    let columns = table.lines().next().unwrap_or_default().split_ascii_whitespace().count();
    let mut text = String::new();
    for line in table.lines() {
        let mut words = line.split_ascii_whitespace();
        let mut cells: Vec<String> = words.by_ref().take(columns.saturating_sub(1)).map(str::to_owned).collect();
        cells.push(words.collect::<Vec<_>>().join(" "));
        text.push_str(&(cells.join("\t") + "\n"));
    }
    text
}

/// Runs `port`.
pub(super) fn port(args: &Port) -> Result<Status> {
    let Port { container: word, port } = args;
    let engine = Engine::open(settings::File::default())?;
    let container = engine.find(word)?;
    let record = container.record()?;
    let asked: Option<ContainerPort> = port.as_deref().map(str::parse).transpose()?;
    let held = match container.status()? {
        Life::Running { .. } => Networks::of(&engine).held_by(&record)?,
        _ => BTreeMap::new(),
    };
    let bound: Vec<BoundPort> = held.values().flat_map(|lease| lease.published.iter().copied()).collect();
    let mut text = String::new();
    for Reach { inside, outside } in ports::reach(&[], &bound) {
        match (asked, outside) {
            (None, Some(outside)) => {
                let _ = writeln!(text, "{inside} -> {outside}");
            }
            (Some(asked), Some(outside)) if asked == inside => {
                let _ = writeln!(text, "{outside}");
            }
            _ => {}
        }
    }
    if let Some(asked) = asked.filter(|_| text.is_empty()) {
        return Err(Error::new(Kind::NotFound, format!("no public port '{asked}' published for {word}")));
    }
    printer::print(&text)?;
    Ok(Status::Success)
}

fn not_running(container: &Container) -> Error {
    match container.record() {
        Ok(record) => Error::new(Kind::State, format!("container {} is not running", record.name)),
        Err(error) => error,
    }
}
