//! `husk volume create|ls|inspect|rename|export|import|rm|prune|exists`: named volumes, in docker's columns and fields.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::filter::{Filters, Key, matches_pattern};
use super::format::{Columns, Format, Row};
use super::image_list::object;
use super::status::Status;
use super::{input, output, printer, report};
use crate::engine::engine::Engine;
use crate::engine::options::parse_pair;
use crate::engine::settings;
use crate::engine::volumes::{VolumeRecord, Volumes};
use crate::error::{Error, Kind, Result};
use crate::support::id::ContainerId;

/// Manage volumes
#[derive(Debug, Subcommand)]
pub(super) enum Volume {
    Create(Create),
    #[command(alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    Rename(Rename),
    Export(Export),
    Import(Import),
    #[command(alias = "remove")]
    Rm(Rm),
    Prune(Prune),
    Exists(Exists),
}

/// Make a volume, and print its name
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Give it a name-value pair
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Who makes it: local
    #[arg(long, short, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Option of the driver: type=, device= and o= as mount(8) has them, or size= for a quota
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_pair)]
    opt: Vec<(String, String)>,
    /// Name; else one is made up
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// List the volumes
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print names only
    #[arg(long, short)]
    quiet: bool,
    /// Show what fits: dangling=BOOL, driver=NAME, label=KEY[=VALUE], name=TEXT
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show all that is known of volumes
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// `json`, or a template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
    /// Names of the volumes
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Give a volume that no container has another name
#[derive(Debug, Args)]
pub(super) struct Rename {
    /// Name of the volume
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Write the files of a volume as a tar
///
/// The same files give the same bytes, sorted by name; SOURCE_DATE_EPOCH bounds their times.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Where to write; standard output if it is left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name of the volume
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// Unpack a tar into a volume, over the files that are there
///
/// The tar may be packed with gzip or zstd. The volume must exist.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// Name of the volume
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// The tar; standard input if it is left out, or `-`
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Remove volumes that no container has
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// A volume that is not there is no error
    #[arg(long, short)]
    force: bool,
    /// Names of the volumes
    #[arg(required = true, value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// Remove all volumes that no container has
#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Those with names, too, which all of husk's are
    #[arg(long, short)]
    all: bool,
    /// Remove what fits: label=KEY[=VALUE], label!=KEY[=VALUE], until=TIME, all=BOOL
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

/// Tell by the status whether a volume is here: 0 if it is, 1 if not
#[derive(Debug, Args)]
pub(super) struct Exists {
    /// Name of the volume
    #[arg(value_name = "VOLUME")]
    volume: String,
}

const COLUMNS: Columns = Columns {
    headers: &[
        ("Name", "VOLUME NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("Mountpoint", "MOUNTPOINT"),
        ("Labels", "LABELS"),
        ("Links", "LINKS"),
        ("Size", "SIZE"),
        ("Availability", "AVAILABILITY"),
        ("Group", "GROUP"),
        ("Status", "STATUS"),
    ],
    table: "{{.Driver}}\t{{.Name}}",
    quiet: "{{.Name}}",
};

const KEYS: &[Key] = &[Key::new("dangling"), Key::new("driver"), Key::negatable("label"), Key::new("name")];

/// Runs the command.
pub(super) fn run(command: &Volume) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let volumes = Volumes::of(&engine);
    match command {
        Volume::Create(args) => create(args, &volumes),
        Volume::Ls(args) => list(args, &volumes),
        Volume::Inspect(args) => inspect(args, &volumes),
        Volume::Rename(Rename { volume, name }) => {
            volumes.rename(volume, name)?;
            Ok(Status::Success)
        }
        Volume::Export(args) => export(args, &volumes),
        Volume::Import(Import { volume, file }) => {
            volumes.find(volume)?;
            volumes.import(volume, &input::archive("volume import", file.as_deref())?)?;
            Ok(Status::Success)
        }
        Volume::Rm(args) => remove(args, &volumes),
        Volume::Prune(args) => prune(args, &volumes),
        Volume::Exists(Exists { volume }) => match volumes.find(volume) {
            Ok(_) => Ok(Status::Success),
            Err(error) if error.kind() == Kind::NotFound => Ok(Status::Failure),
            Err(error) => Err(error),
        },
    }
}

fn create(args: &Create, volumes: &Volumes<'_>) -> Result<Status> {
    let Create { label, driver, opt, name } = args;
    if driver != "local" {
        return Err(Error::unsupported(format!("--driver {driver}: only local is supported")));
    }
    let name = name.clone().map_or_else(|| ContainerId::random().map(|id| id.to_string()), Ok)?;
    let labels = label.iter().cloned().collect();
    let (record, _) = volumes.create(&name, &labels, &opt.iter().cloned().collect())?;
    printer::print(&format!("{}\n", record.name))?;
    Ok(Status::Success)
}

fn list(args: &Ls, volumes: &Volumes<'_>) -> Result<Status> {
    let Ls { quiet, filter, format } = args;
    let filters = Filters::parse(filter, KEYS)?;
    let format = Format::choose(&COLUMNS, format.as_deref(), *quiet)?;
    let dangling = filters.flag("dangling")?;
    let users = if dangling.is_some() { volumes.users()? } else { BTreeMap::new() };
    let fits = |record: &VolumeRecord| {
        dangling.is_none_or(|dangling| dangling != users.contains_key(&record.name))
            && filters.pass("driver", |driver| driver == "local")
            && filters.pass("name", |text| record.name.contains(text) || matches_pattern(text, &record.name))
            && filters.pass_labels("label", |label| record.labels.get(label).map(String::as_str))
    };
    let rows = volumes.list()?.into_iter().filter(fits).map(|record| row(record, volumes));
    printer::print(&format.print(rows)?)?;
    Ok(Status::Success)
}

fn row(record: VolumeRecord, volumes: &Volumes<'_>) -> Row {
    let labels: Vec<String> = record.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = json!({
        "Name": record.name,
        "Driver": "local",
        "Scope": "local",
        "Mountpoint": volumes.data(&record.name).display().to_string(),
        "Labels": labels.join(","),
        "Links": "N/A",
        "Size": "N/A",
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
    });
    Row { fields: object(fields), labels: record.labels }
}

fn inspect(args: &Inspect, volumes: &Volumes<'_>) -> Result<Status> {
    let describe = |name: &str| Ok(describe(&volumes.find(name)?, volumes));
    super::inspect::each(args.format.as_deref(), &args.volumes, describe)
}

/// Describes one, for `inspect --type volume`.
pub(super) fn inspected(engine: &Engine, name: &str) -> Result<Value> {
    let volumes = Volumes::of(engine);
    Ok(describe(&volumes.find(name)?, &volumes))
}

fn describe(record: &VolumeRecord, volumes: &Volumes<'_>) -> Value {
    let created = jiff::Timestamp::from_nanosecond(record.created.into()).unwrap_or_default();
    let given = |map: &BTreeMap<String, String>| if map.is_empty() { Value::Null } else { json!(map) };
    json!({
        "CreatedAt": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "Driver": "local",
        "Labels": given(&record.labels),
        "Mountpoint": volumes.data(&record.name).display().to_string(),
        "Name": record.name,
        "Options": given(&record.options),
        "Scope": "local",
    })
}

fn export(args: &Export, volumes: &Volumes<'_>) -> Result<Status> {
    let Export { output, volume } = args;
    volumes.find(volume)?;
    output::refuse_terminal("volume export", output.as_deref())?;
    let latest = output::latest()?;
    for path in output::write(output.as_deref(), |file| volumes.export(volume, latest, file))? {
        report::note(&format!("/{}: a socket is not exported", String::from_utf8_lossy(&path)));
    }
    Ok(Status::Success)
}

fn remove(args: &Rm, volumes: &Volumes<'_>) -> Result<Status> {
    let mut failure = None;
    for name in &args.volumes {
        match volumes.remove(name) {
            Ok(()) => printer::print(&format!("{name}\n"))?,
            Err(error) if args.force && error.kind() == Kind::NotFound => {}
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    report::engine_error(&earlier);
                }
            }
        }
    }
    failure.map_or(Ok(Status::Success), Err)
}

fn prune(args: &Prune, volumes: &Volumes<'_>) -> Result<Status> {
    let Prune { all: _, filter, force } = args;
    // Without names there are none but those that belong to their containers, so `all` changes nothing.
    let filters = Filters::parse(filter, &[Key::negatable("label"), Key::new("until"), Key::new("all")])?;
    let until = filters.time("until", SystemTime::now())?;
    filters.flag("all")?;
    if !force && !super::system::confirm("This will remove all volumes not used by at least one container.\n")? {
        return Ok(Status::Failure);
    }
    let users = volumes.users()?;
    let mut removed = String::new();
    for record in volumes.list()? {
        let is_old = until.is_none_or(|until| UNIX_EPOCH + Duration::from_nanos(record.created) < until);
        let passes = is_old && filters.pass_labels("label", |label| record.labels.get(label).map(String::as_str));
        if users.contains_key(&record.name) || !passes {
            continue;
        }
        match volumes.remove(&record.name) {
            Ok(()) => removed.extend([record.name.as_str(), "\n"]),
            // In use, or gone, since we looked.
            Err(error) if matches!(error.kind(), Kind::State | Kind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    printer::print(&removed)?;
    Ok(Status::Success)
}
