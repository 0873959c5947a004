//! `system` and `image prune`: the data root's soundness, its size, and what can go.

use std::io::{BufRead as _, IsTerminal as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::filter::{Filters, Key};
use super::format::{Columns, Format, Row, ellipsis, short_id};
use super::printer;
use super::report;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::remove::Gone;
use crate::engine::networks::{NetworkRecord, Networks};
use crate::engine::record::{Record, Status as Life};
use crate::engine::settings;
use crate::engine::system::check::{self, Checked};
use crate::engine::system::prune::{self, Pruned, Reach};
use crate::engine::system::usage::{self, Kind, Usages};
use crate::error::{Error, Result};
use crate::image::reference::Reference;
use crate::storage::check::{Depth, Grade};
use crate::storage::images::ImageRecord;
use crate::support::units::{human_ago, human_size};

/// `husk system …`
#[derive(Debug, Subcommand)]
pub(super) enum System {
    Info(super::info::Info),
    Events(super::events::Events),
    Check(Check),
    Df(Df),
    Prune(Prune),
}

/// Prove the store against its digests
///
/// Prints a line for each thing that is not as it should be, and then for what killed commands have left. The status is 0 where
/// the store is sound, whatever was left, and 1 where it is not (with --repair: where something is not mended).
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Mend it: make layers again, delete what is damaged, forget images that have lost a part
    #[arg(long, short)]
    repair: bool,
    /// Look at names and sizes, and read no blob
    #[arg(long, short)]
    quick: bool,
    /// `json` for an object a line
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show how much of the disk is used
///
/// Blocks are counted and not lengths, and a file with several names once, as du(1) does.
#[derive(Debug, Args)]
pub(super) struct Df {
    /// Show each image and each container
    #[arg(long, short)]
    verbose: bool,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Remove containers that do not run, and networks and images that nobody uses
#[derive(Debug, Args)]
pub(super) struct Prune {
    /// Also images that have a name
    #[arg(long, short)]
    all: bool,
    /// Also anonymous volumes; they go with their containers in any case
    #[arg(long)]
    volumes: bool,
    #[command(flatten)]
    what: What,
}

/// Remove containers that do not run
#[derive(Debug, Args)]
pub(super) struct ContainerPrune {
    #[command(flatten)]
    what: What,
}

/// Remove images that nobody uses
#[derive(Debug, Args)]
pub(super) struct ImagePrune {
    /// Also images that have a name
    #[arg(long, short)]
    all: bool,
    #[command(flatten)]
    what: What,
}

/// What prunes have in common.
#[derive(Debug, Args)]
struct What {
    /// Only what fits: `until=TIME`, `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

/// Runs `system`.
pub(super) fn run(system: System) -> Result<Status> {
    match system {
        System::Check(args) => check(&args),
        System::Df(args) => df(&args),
        System::Prune(args) => prune(&args),
        System::Info(args) => super::info::info(&args),
        System::Events(args) => super::events::run(&args),
    }
}

fn check(args: &Check) -> Result<Status> {
    let Check { repair, quick, format } = args;
    let is_json = match format.as_deref() {
        None | Some("") => false,
        Some("json") => true,
        Some(other) => return Err(Error::invalid(format!("--format {other}: `json` or nothing"))),
    };
    let engine = Engine::open(settings::File::default())?;
    let depth = if *quick { Depth::Sizes } else { Depth::Digests };
    let checked = if *repair { check::repair(&engine, depth)? } else { check::check(&engine, depth)? };
    let Checked { found, left } = &checked;
    // What a repair itself brings to light is told as well.
    let new = left.iter().filter(|finding| !found.contains(finding));
    let mut text = String::new();
    for finding in found.iter().chain(new) {
        let is_mended = !left.contains(finding);
        if is_json {
            let is_damage = finding.grade == Grade::Damage;
            let (path, problem) = (&finding.path, &finding.problem);
            let line = json!({ "path": path, "problem": problem, "damage": is_damage, "mended": is_mended });
            text += &(line.to_string() + "\n");
        } else {
            let end = if is_mended { " (mended)" } else { "" };
            text.extend([&finding.path, ": ", &finding.problem, end, "\n"]);
        }
    }
    printer::print(&text)?;
    if checked.is_sound() {
        return Ok(Status::Success);
    }
    if !repair {
        report::note("`husk system check --repair` mends what can be mended");
    }
    Ok(Status::Failure)
}

const KINDS: Columns = Columns {
    headers: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    table: "{{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
    quiet: "{{.Type}}",
};

const IMAGES: Columns = Columns {
    headers: &[
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("ID", "IMAGE ID"),
        ("CreatedSince", "CREATED"),
        ("Size", "SIZE"),
        ("SharedSize", "SHARED SIZE"),
        ("UniqueSize", "UNIQUE SIZE"),
        ("Containers", "CONTAINERS"),
    ],
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
    quiet: "{{.ID}}",
};

const CONTAINERS: Columns = Columns {
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Size", "SIZE"),
        ("CreatedSince", "CREATED"),
        ("Status", "STATUS"),
        ("Names", "NAMES"),
    ],
    table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.CreatedSince}}\t{{.Status}}\t{{.Names}}",
    quiet: "{{.ID}}",
};

const VOLUMES: Columns = Columns {
    headers: &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")],
    table: "{{.Name}}\t{{.Links}}\t{{.Size}}",
    quiet: "{{.Name}}",
};

fn df(args: &Df) -> Result<Status> {
    let Df { verbose, format } = args;
    let kinds = Format::choose(&KINDS, format.as_deref(), false)?;
    let usages = usage::measure(&Engine::open(settings::File::default())?)?;
    let text = if *verbose && format.is_none() { each(&usages)? } else { kinds.print(kind_rows(&usages))? };
    printer::print(&text)?;
    Ok(Status::Success)
}

fn kind_rows(usages: &Usages) -> Vec<Row> {
    let row = |name: &str, kind: &Kind| {
        let percent = (kind.reclaimable.saturating_mul(100)).checked_div(kind.size);
        let reclaimable = match percent {
            Some(percent) => format!("{} ({percent}%)", human_size(kind.reclaimable)),
            None => human_size(kind.reclaimable),
        };
        row(json!({
            "Type": name,
            "TotalCount": kind.total.to_string(),
            "Active": kind.active.to_string(),
            "Size": human_size(kind.size),
            "Reclaimable": reclaimable,
        }))
    };
    vec![
        row("Images", &usages.images),
        row("Containers", &usages.containers),
        row("Local Volumes", &usages.volumes),
        row("Build Cache", &Kind::default()),
    ]
}

fn each(usages: &Usages) -> Result<String> {
    let now = SystemTime::now();
    let mut images = Vec::new();
    for used in &usages.each_image {
        let since = created(&used.image).map_or_else(|| "N/A".to_owned(), |then| human_ago(then, now));
        let names: Vec<_> = used.names.iter().filter_map(|name| Reference::parse_exact(&name.name).ok()).collect();
        let none = "<none>".to_owned();
        let mut pairs: Vec<_> = names
            .iter()
            .map(|name| (name.repository().familiar(), name.tag().map_or_else(|| none.clone(), ToOwned::to_owned)))
            .collect();
        if pairs.is_empty() {
            pairs.push((none.clone(), none));
        }
        images.extend(pairs.into_iter().map(|(repository, tag)| {
            row(json!({
                "Repository": repository,
                "Tag": tag,
                "ID": short_id(&used.image.id.to_string()),
                "CreatedSince": since,
                "Size": human_size(used.shared + used.unique),
                "SharedSize": human_size(used.shared),
                "UniqueSize": human_size(used.unique),
                "Containers": used.containers.to_string(),
            }))
        }));
    }
    let containers = usages.each_container.iter().map(|used| {
        let status = match &used.status {
            Life::Created => "Created".to_owned(),
            Life::Running { .. } => "Up".to_owned(),
            Life::Restarting(exit) => format!("Restarting ({})", exit.code),
            Life::Exited(exit) => format!("Exited ({})", exit.code),
            Life::Lost { .. } => "Dead".to_owned(),
        };
        row(json!({
            "ID": used.record.id.short(),
            "Image": used.record.image,
            "Command": format!("{:?}", ellipsis(&used.record.command.join(" "), 20)),
            "LocalVolumes": used.volumes.len().to_string(),
            "Size": human_size(used.size),
            "CreatedSince": human_ago(UNIX_EPOCH + Duration::from_nanos(used.record.created), now),
            "Status": status,
            "Names": used.record.name.to_string(),
        }))
    });
    let volumes = usages.each_container.iter().flat_map(|used| {
        let name = move |volume: &str| format!("{}/{volume}", used.record.id.short());
        used.volumes
            .iter()
            .map(move |(volume, size)| row(json!({ "Name": name(volume), "Links": "1", "Size": human_size(*size) })))
    });
    let table = |columns: &Columns, rows: Vec<Row>| Format::choose(columns, None, false)?.print(rows);
    Ok(format!(
        "Images space usage:\n\n{}\nContainers space usage:\n\n{}\nLocal Volumes space usage:\n\n{}",
        table(&IMAGES, images)?,
        table(&CONTAINERS, containers.collect())?,
        table(&VOLUMES, volumes.collect())?
    ))
}

fn row(fields: Value) -> Row {
    let fields = match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    Row { fields, ..Row::default() }
}

/// When an image was made, by its own account.
fn created(image: &ImageRecord) -> Option<SystemTime> {
    image.created.as_ref()?.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// What may go, by `--filter`.
struct Conditions {
    filters: Filters,
    until: Option<SystemTime>,
}

impl Conditions {
    fn parse(texts: &[String]) -> Result<Self> {
        let filters = Filters::parse(texts, &[Key::new("until"), Key::negatable("label")])?;
        let until = filters.time("until", SystemTime::now())?;
        Ok(Self { filters, until })
    }

    fn pass_image(&self, image: &ImageRecord) -> bool {
        // What does not say when it was made is as old as can be.
        let is_old = self.until.is_none_or(|until| created(image).is_none_or(|then| then < until));
        is_old && self.filters.pass_labels("label", |name| image.labels.get(name).map(String::as_str))
    }

    fn pass_network(&self, record: &NetworkRecord) -> bool {
        let then = UNIX_EPOCH + Duration::from_nanos(record.created);
        self.until.is_none_or(|until| then < until)
            && self.filters.pass_labels("label", |name| record.labels.get(name).map(String::as_str))
    }

    fn pass_container(&self, record: &Record) -> bool {
        let then = UNIX_EPOCH + Duration::from_nanos(record.created);
        self.until.is_none_or(|until| then < until)
            && self.filters.pass_labels("label", |name| record.labels.get(name).map(String::as_str))
    }
}

fn prune(args: &Prune) -> Result<Status> {
    // An anonymous volume cannot outlive its container, so there is none that --volumes could still find.
    let Prune { all, volumes: _, what } = args;
    let conditions = Conditions::parse(&what.filter)?;
    let images =
        if *all { "all images without at least one container associated to them" } else { "all dangling images" };
    let networks = "all networks not used by at least one container";
    let warning = format!("This will remove:\n  - all stopped containers\n  - {networks}\n  - {images}\n");
    if !what.force && !confirm(&warning)? {
        return Ok(Status::Failure);
    }
    let engine = Engine::open(settings::File::default())?;
    let before = usage::measure(&engine)?;
    let containers = prune::containers(&engine, &|record| conditions.pass_container(record))?.containers;
    let networks = Networks::of(&engine).prune(&|network| conditions.pass_network(network))?;
    let pruned = prune::images(&engine, reach(*all), &|image| conditions.pass_image(image))?;
    let after = usage::measure(&engine)?;
    let whole = |usages: &Usages| usages.images.size + usages.containers.size + usages.volumes.size;
    let bytes = whole(&before).saturating_sub(whole(&after));
    tell(&Pruned { containers, networks, bytes, ..pruned })
}

/// Runs `container prune`.
pub(super) fn prune_containers(args: &ContainerPrune) -> Result<Status> {
    let ContainerPrune { what } = args;
    let conditions = Conditions::parse(&what.filter)?;
    if !what.force && !confirm("This will remove all stopped containers.\n")? {
        return Ok(Status::Failure);
    }
    let engine = Engine::open(settings::File::default())?;
    let pruned = prune::containers(&engine, &|record| conditions.pass_container(record))?;
    tell(&pruned)
}

/// Runs `image prune`.
pub(super) fn prune_images(args: &ImagePrune) -> Result<Status> {
    let ImagePrune { all, what } = args;
    let conditions = Conditions::parse(&what.filter)?;
    let images =
        if *all { "all images without at least one container associated to them" } else { "all dangling images" };
    if !what.force && !confirm(&format!("This will remove {images}.\n"))? {
        return Ok(Status::Failure);
    }
    let engine = Engine::open(settings::File::default())?;
    tell(&prune::images(&engine, reach(*all), &|image| conditions.pass_image(image))?)
}

fn reach(all: bool) -> Reach {
    if all { Reach::Unused } else { Reach::Nameless }
}

/// Asks on standard error, so that what is printed stays data; without a terminal the answer is read as it comes.
pub(super) fn confirm(warning: &str) -> Result<bool> {
    report::note(&format!("WARNING! {warning}Are you sure you want to continue? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    let is_yes = matches!(answer.trim(), "y" | "Y" | "yes");
    if !is_yes && !std::io::stdin().is_terminal() {
        report::note("nothing was removed: --force does not ask");
    }
    Ok(is_yes)
}

fn tell(pruned: &Pruned) -> Result<Status> {
    let mut text = String::new();
    if !pruned.containers.is_empty() {
        text.push_str("Deleted Containers:\n");
        text.extend(pruned.containers.iter().map(|id| format!("{id}\n")));
        text.push('\n');
    }
    if !pruned.networks.is_empty() {
        text.push_str("Deleted Networks:\n");
        text.extend(pruned.networks.iter().map(|name| format!("{name}\n")));
        text.push('\n');
    }
    if !pruned.images.is_empty() {
        text.push_str("Deleted Images:\n");
        text.extend(pruned.images.iter().map(|gone| match gone {
            Gone::Untagged(name) => format!("untagged: {name}\n"),
            Gone::Deleted(id) => format!("deleted: {id}\n"),
        }));
        text.push('\n');
    }
    text.extend(["Total reclaimed space: ", &human_size(pruned.bytes), "\n"]);
    printer::print(&text)?;
    Ok(Status::Success)
}
