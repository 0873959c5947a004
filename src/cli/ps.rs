//! `husk ps`: the containers, the newest first, in docker's columns.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::json;

use super::container_filter::{ContainerFilter, network};
use super::format::{Columns, Format, Row, ellipsis};
use super::image_list::object;
use super::status::Status;
use super::{ports, printer, report};
use crate::engine::engine::Engine;
use crate::engine::list::{self, Listed, Size};
use crate::engine::networks::Networks;
use crate::engine::record::{Record, Status as State, Timestamp};
use crate::engine::settings;
use crate::engine::volume_option::VolumeSource;
use crate::error::Result;
use crate::monitor::health;
use crate::network::lease::Lease;
use crate::network::port::BoundPort;
use crate::support::units::{human_ago, human_duration, human_size};

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

const WITH_SIZES: Columns = Columns {
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}",
    ..COLUMNS
};

/// Most of a command, or of a list of mounts, that a table shows.
const CELL: usize = 20;
/// Most of each mount.
const MOUNT_CELL: usize = 15;

/// List containers
///
/// Those that run, unless --all, --last, --latest or a filter by status says otherwise.
#[derive(Debug, Args)]
pub(super) struct Ps {
    /// Show those that do not run, too
    #[arg(long, short)]
    all: bool,
    /// Show what fits: KEY=VALUE of id, name, label, ancestor, before, since, exited, status, health, volume, network, publish,
    /// expose, until, command, annotation, restart-policy
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show the NUMBER that were made last, whether they run or not
    #[arg(long, short = 'n', value_name = "NUMBER", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Show the one that was made last, whether it runs or not
    #[arg(long, short)]
    latest: bool,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// Print ids, commands and mounts in full
    #[arg(long)]
    no_trunc: bool,
    /// Show what they take of the disk
    #[arg(long, short)]
    size: bool,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Runs `ps`.
pub(super) fn run(args: &Ps) -> Result<Status> {
    let Ps { all, filter, last, latest, quiet, no_trunc, size, format: template } = args;
    let columns = if *size { &WITH_SIZES } else { &COLUMNS };
    let format = Format::choose(columns, template.as_deref(), *quiet)?;
    // What takes longer to find out is looked at only where it may be shown.
    let is_asked = |field: &str| template.as_ref().is_some_and(|text| text.contains(field) || text.contains("json"));
    let wants_record = ["Mounts", "Networks", "LocalVolumes"].into_iter().any(is_asked);
    let engine = Engine::open(settings::File::default())?;
    let filter = ContainerFilter::parse(filter, &engine, &engine.containers()?)?;
    let overview = list::list(&engine)?;
    for failure in &overview.failures {
        report::note(&failure.report());
    }
    let most =
        if *latest { Some(1) } else { last.and_then(|last| usize::try_from(last).ok()).filter(|last| *last > 0) };
    let shows_all = *all || most.is_some() || filter.wants_all();
    let mut chosen = Vec::new();
    for listed in overview.containers.iter().filter(|listed| shows_all || listed.runs()) {
        if most.is_some_and(|most| chosen.len() >= most) {
            break;
        }
        if filter.pass(listed)? {
            chosen.push(listed);
        }
    }
    let records: BTreeMap<_, _> = if wants_record || *size || is_asked("Size") {
        chosen.iter().map(|listed| Ok((listed.summary.id, listed.record()?))).collect::<Result<_>>()?
    } else {
        BTreeMap::new()
    };
    let sizes = if *size || template.as_ref().is_some_and(|text| text.contains("Size")) {
        list::sizes(&engine, &records.values().cloned().collect::<Vec<_>>())?
    } else {
        BTreeMap::new()
    };
    let now = SystemTime::now();
    let shows_ports = !*quiet && template.as_ref().is_none_or(|_| is_asked("Ports") || is_asked("table"));
    let held = if shows_ports { Networks::of(&engine).everybodys()? } else { BTreeMap::new() };
    let mut leases =
        chosen.iter().filter(|listed| listed.runs()).filter_map(|listed| held.get(listed.summary.id.as_str()));
    if leases.next().is_some() {
        super::network::tell_lost_rules(&engine);
    }
    let rows = chosen.iter().map(|listed| {
        let id = &listed.summary.id;
        row(listed, held.get(id.as_str()), records.get(id), sizes.get(id), *no_trunc, now)
    });
    printer::print(&format.print(rows)?)?;
    Ok(Status::Success)
}

fn row(
    listed: &Listed,
    held: Option<&BTreeMap<String, Lease>>,
    record: Option<&Record>,
    size: Option<&Size>,
    in_full: bool,
    now: SystemTime,
) -> Row {
    let summary = &listed.summary;
    let created = time(summary.created);
    let command = one_line(&summary.command);
    let command = if in_full { command } else { ellipsis(&command, CELL) };
    let labels: Vec<String> = summary.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = json!({
        "ID": if in_full { summary.id.as_str() } else { summary.id.short() },
        "Image": summary.image,
        "Command": format!("{command:?}"),
        "CreatedAt": jiff::Timestamp::try_from(created)
            .map_or_else(|_| String::new(), |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
        "RunningFor": human_ago(created, now),
        "Ports": held.filter(|_| listed.runs()).map_or_else(String::new, |held| ports(listed, held)),
        "State": listed.status.word(listed.is_paused),
        "Status": describe(listed, now),
        "Size": size.map_or_else(
            || "N/A".to_owned(),
            |Size { written, whole }| format!("{} (virtual {})", human_size(*written), human_size(*whole)),
        ),
        "Names": summary.name.as_str(),
        "Labels": labels.join(","),
        "Mounts": record.map_or_else(String::new, |record| mounts(record, in_full)),
        "Networks": record.map_or_else(String::new, network),
        "LocalVolumes": record.map_or(0, local_volumes).to_string(),
    });
    Row { fields: object(fields), labels: summary.labels.clone() }
}

/// A command as docker writes it: words of more than one in quotes.
fn one_line(command: &[String]) -> String {
    let quote = |(index, word): (usize, &String)| {
        if index > 0 && word.contains(' ') { format!("'{word}'") } else { word.clone() }
    };
    command.iter().enumerate().map(quote).collect::<Vec<_>>().join(" ")
}

/// The ports of one that is in a network.
fn ports(listed: &Listed, held: &BTreeMap<String, Lease>) -> String {
    let bound: Vec<BoundPort> = held.values().flat_map(|lease| lease.published.iter().copied()).collect();
    ports::cell(&ports::reach(&listed.summary.exposed, &bound))
}

/// The sources of what is mounted, each cut as docker cuts it.
fn mounts(record: &Record, in_full: bool) -> String {
    let sources = record.options.volumes.iter().filter_map(|volume| match &volume.source {
        VolumeSource::Host(path) => Some(path.to_string_lossy().into_owned()),
        VolumeSource::Named(name) => Some(name.clone()),
        VolumeSource::Anonymous | VolumeSource::Image(_) => None,
    });
    let sources: Vec<String> =
        sources.map(|source| if in_full { source } else { ellipsis(&source, MOUNT_CELL) }).collect();
    sources.join(",")
}

fn local_volumes(record: &Record) -> usize {
    let is_local = |source: &VolumeSource| matches!(source, VolumeSource::Named(_) | VolumeSource::Anonymous);
    record.options.volumes.iter().filter(|volume| is_local(&volume.source)).count()
}

/// The state in docker's words.
fn describe(listed: &Listed, now: SystemTime) -> String {
    let since = |then: Timestamp| human_duration(now.duration_since(time(then)).unwrap_or_default());
    match &listed.status {
        State::Created => "Created".to_owned(),
        State::Running { started, .. } => {
            let end = match listed.health {
                _ if listed.is_paused => " (Paused)",
                None => "",
                Some(health::Status::Starting) => " (health: starting)",
                Some(health::Status::Healthy) => " (healthy)",
                Some(health::Status::Unhealthy) => " (unhealthy)",
            };
            format!("Up {}{end}", since(started.unwrap_or_default()))
        }
        State::Restarting(exit) => format!("Restarting ({}) {} ago", exit.code, since(exit.finished)),
        State::Exited(exit) => format!("Exited ({}) {} ago", exit.code, since(exit.finished)),
        State::Lost { started } => format!("Exited (255) {} ago", since(*started)),
    }
}

/// The time of the clock that a record's number means.
pub(super) fn time(timestamp: Timestamp) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(timestamp)
}
