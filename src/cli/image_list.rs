//! `husk images`: a row for each name of each image, the newest first, in docker's columns.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Map, Value, json};

use super::filter::{Filters, Key, matches_pattern};
use super::format::{Columns, Format, Row, short_id};
use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::images::find;
use crate::engine::settings;
use crate::error::Result;
use crate::image::digest::Digest;
use crate::image::reference::Reference;
use crate::storage::additional::Stores;
use crate::storage::images::{ImageRecord, NameRecord};
use crate::support::units::{human_ago, human_size};

const HEADERS: &[(&str, &str)] = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("VirtualSize", "SIZE"),
    ("ReadOnly", "R/O"),
];

const COLUMNS: Columns = Columns {
    headers: HEADERS,
    table: "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
    quiet: "{{.ID}}",
};

const WITH_DIGESTS: Columns =
    Columns { table: "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}", ..COLUMNS };

const KEYS: &[Key] = &[
    Key::new("dangling"),
    Key::negatable("label"),
    Key::new("before"),
    Key::new("since"),
    Key::new("until"),
    Key::negatable("reference"),
];

/// List the images
#[derive(Debug, Args)]
pub(super) struct List {
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// Print ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Accepted: all images are shown
    #[arg(long, short)]
    all: bool,
    /// Show what fits: dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, until=TIME, reference=PATTERN
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show names that fit
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// Runs `images`.
pub(super) fn run(args: &List) -> Result<Status> {
    let mut filters = args.filter.clone();
    filters.extend(args.name.as_ref().map(|name| format!("reference={name}")));
    let filters = Filters::parse(&filters, KEYS)?;
    let columns = if args.digests { &WITH_DIGESTS } else { &COLUMNS };
    let format = Format::choose(columns, args.format.as_deref(), args.quiet)?;
    let engine = Engine::open(settings::File::default())?;
    let stores = engine.stores()?;
    let now = SystemTime::now();
    let chosen = choose(&stores, &filters, now)?;
    let mut seen = HashSet::new();
    let is_repeated = |shown: &Shown| args.quiet && args.format.is_none() && !seen.insert(shown.image.id);
    let mut is_repeated = is_repeated;
    let rows = chosen.iter().filter(|shown| !is_repeated(shown)).map(|shown| shown.row(args.no_trunc, now));
    printer::print(&format.print(rows)?)?;
    Ok(Status::Success)
}

/// A line: an image by one of its names.
struct Shown {
    image: Rc<ImageRecord>,
    name: Option<(Reference, NameRecord)>,
    /// In a store that is never changed.
    is_read_only: bool,
}

/// An image of one of the stores, with the names by which it is found there.
struct Listed {
    image: ImageRecord,
    names: Vec<(Reference, NameRecord)>,
    is_read_only: bool,
}

/// Lists what words find: a name means what the first store says that has it.
fn list(stores: &Stores) -> Result<Vec<Listed>> {
    let (mut listed, mut taken, mut ids) = (Vec::new(), HashSet::new(), HashSet::new());
    for (place, view) in stores.views().enumerate() {
        let is_read_only = place > 0;
        let mut names: HashMap<Digest, Vec<(Reference, NameRecord)>> = HashMap::new();
        for name in view.names()? {
            if let (Some(image), Ok(reference)) = (name.image, Reference::parse_exact(&name.name)) {
                names.entry(image).or_default().push((reference, name));
            }
        }
        let (mut taken_here, mut ids_here) = (Vec::new(), Vec::new());
        for image in view.images()? {
            if is_read_only && !view.has_layers(&image)? {
                continue;
            }
            let mut names = names.remove(&image.id).unwrap_or_default();
            names.retain(|(_, record)| !taken.contains(&record.name));
            if names.is_empty() && ids.contains(&image.id) {
                continue;
            }
            taken_here.extend(names.iter().map(|(_, record)| record.name.clone()));
            ids_here.push(image.id);
            listed.push(Listed { image, names, is_read_only });
        }
        taken.extend(taken_here);
        ids.extend(ids_here);
    }
    Ok(listed)
}

fn choose(stores: &Stores, filters: &Filters, now: SystemTime) -> Result<Vec<Shown>> {
    let dangling = filters.flag("dangling")?;
    let until = filters.time("until", now)?;
    let limit = |key: &str| -> Result<Vec<Option<SystemTime>>> {
        filters.values(key).map(|word| find::find(stores, word).map(|(_, found)| created(&found.image))).collect()
    };
    let (before, since) = (limit("before")?, limit("since")?);
    let mut rows = Vec::new();
    for Listed { image, names: named, is_read_only } in list(stores)? {
        let made = created(&image);
        let fits = dangling.is_none_or(|dangling| dangling == named.is_empty())
            && filters.pass_labels("label", |label| image.labels.get(label).map(String::as_str))
            && until.is_none_or(|until| made.is_none_or(|made| made < until))
            && before.iter().all(|limit| made < *limit)
            && since.iter().all(|limit| made > *limit);
        if !fits {
            continue;
        }
        let image = Rc::new(image);
        if named.is_empty() && !filters.has("reference") {
            rows.push(Shown { image: Rc::clone(&image), name: None, is_read_only });
        }
        let named = named.into_iter().filter(|(name, _)| filters.pass("reference", |pattern| is_called(name, pattern)));
        rows.extend(named.map(|name| Shown { image: Rc::clone(&image), name: Some(name), is_read_only }));
    }
    rows.sort_by_cached_key(|row| {
        (std::cmp::Reverse(created(&row.image)), row.name.as_ref().map(|(name, _)| name.familiar()), row.image.id.hex())
    });
    Ok(rows)
}

/// Docker's rule: a pattern is for the name with or without its tag.
fn is_called(name: &Reference, pattern: &str) -> bool {
    let (repository, whole) = (name.repository(), name.familiar());
    [whole.as_str(), &repository.familiar(), &repository.to_string(), &name.to_string()]
        .iter()
        .any(|text| matches_pattern(pattern, text))
}

fn created(image: &ImageRecord) -> Option<SystemTime> {
    image.created.as_ref()?.parse::<jiff::Timestamp>().ok().map(Into::into)
}

impl Shown {
    fn row(&self, in_full: bool, now: SystemTime) -> Row {
        let none = || "<none>".to_owned();
        let made = created(&self.image);
        let id = self.image.id.to_string();
        let at = self.image.created.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let reference = self.name.as_ref().map(|(reference, _)| reference);
        let size = human_size(self.image.size);
        let fields = json!({
            "ID": if in_full { &id } else { short_id(&id) },
            "Repository": reference.map_or_else(none, |name| name.repository().familiar()),
            "Tag": reference.and_then(Reference::tag).map_or_else(none, ToOwned::to_owned),
            "Digest": self.name.as_ref().map_or_else(none, |(_, name)| name.target.digest.to_string()),
            "CreatedSince": made.map_or_else(|| "N/A".to_owned(), |then| human_ago(then, now)),
            "CreatedAt": at.map_or_else(|| "N/A".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
            "Size": size,
            "VirtualSize": size,
            "Containers": "N/A",
            "SharedSize": "N/A",
            "UniqueSize": "N/A",
            "ReadOnly": self.is_read_only,
        });
        Row { fields: object(fields), labels: self.image.labels.clone() }
    }
}

/// Gives the fields of a literal object.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
