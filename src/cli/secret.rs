//! `husk secret create|ls|inspect|rm|exists`: secrets for containers, in podman's columns and fields.

use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::filter::{Filters, Key, matches_pattern};
use super::format::{Columns, Format, Row};
use super::image_list::object;
use super::status::Status;
use super::{printer, ps, report};
use crate::engine::engine::Engine;
use crate::engine::options::parse_pair;
use crate::engine::record::Timestamp;
use crate::engine::secrets::{CONTENT_BYTES, Present, Secret, Secrets};
use crate::engine::settings;
use crate::error::{Context, Error, Kind, Result};
use crate::support::units::human_ago;

/// Manage secrets of containers
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Create(Create),
    #[command(alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(alias = "remove")]
    Rm(Rm),
    Exists(Exists),
}

/// Keep a secret, and print its id
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Who keeps it: file
    #[arg(long, short, value_name = "DRIVER", default_value = "file")]
    driver: String,
    /// Options of the driver, which file has none of
    #[arg(long, value_name = "NAME=VALUE", value_delimiter = ',')]
    driver_opts: Vec<String>,
    /// SOURCE is the name of a variable
    #[arg(long)]
    env: bool,
    /// Give it a name-value pair
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = parse_pair)]
    label: Vec<(String, String)>,
    /// Put it in the place of one of that name
    #[arg(long, conflicts_with = "ignore")]
    replace: bool,
    /// One of that name is no error, and stays
    #[arg(long)]
    ignore: bool,
    /// Name of the secret
    #[arg(value_name = "NAME")]
    name: String,
    /// File that holds it; `-` is standard input
    #[arg(value_name = "SOURCE")]
    source: String,
}

/// List the secrets
#[derive(Debug, Args)]
pub(super) struct Ls {
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
    /// Print no headings
    #[arg(long, short)]
    noheading: bool,
    /// Show what fits: name=TEXT, id=TEXT, label=KEY[=VALUE]
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json`, `table TEMPLATE` or `TEMPLATE`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

/// Show what is known of secrets, without what they hold
#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// `json`, or a template
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<String>,
    /// Show what they hold, too
    #[arg(long)]
    showsecret: bool,
    /// Names or ids of the secrets
    #[arg(required = true, value_name = "SECRET")]
    secrets: Vec<String>,
}

/// Forget secrets
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// All there are
    #[arg(long, short, conflicts_with = "secrets")]
    all: bool,
    /// One that is not there is no error
    #[arg(long, short)]
    ignore: bool,
    /// Names or ids of the secrets
    #[arg(required_unless_present = "all", value_name = "SECRET")]
    secrets: Vec<String>,
}

/// Tell by the status whether a secret is here: 0 if it is, 1 if not
#[derive(Debug, Args)]
pub(super) struct Exists {
    /// Name or id of the secret
    #[arg(value_name = "SECRET")]
    secret: String,
}

const COLUMNS: Columns = Columns {
    headers: &[
        ("ID", "ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("CreatedAt", "CREATED"),
        ("UpdatedAt", "UPDATED"),
        ("Labels", "LABELS"),
    ],
    table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
    quiet: "{{.ID}}",
};

const KEYS: &[Key] = &[Key::new("name"), Key::new("id"), Key::negatable("label")];

/// Runs the command.
pub(super) fn run(command: &Command) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let secrets = Secrets::of(&engine);
    match command {
        Command::Create(args) => create(args, &secrets),
        Command::Ls(args) => list(args, &secrets),
        Command::Inspect(args) => inspect(args, &secrets),
        Command::Rm(args) => remove(args, &secrets),
        Command::Exists(Exists { secret }) => match secrets.find(secret) {
            Ok(_) => Ok(Status::Success),
            Err(error) if error.kind() == Kind::NotFound => Ok(Status::Failure),
            Err(error) => Err(error),
        },
    }
}

fn create(args: &Create, secrets: &Secrets<'_>) -> Result<Status> {
    let Create { driver, driver_opts, env, label, replace, ignore, name, source } = args;
    if driver != "file" {
        return Err(Error::unsupported(format!("--driver {driver}: only file is supported")));
    }
    if let Some(option) = driver_opts.first() {
        return Err(Error::invalid(format!("--driver-opts {option}: the driver file has no options")));
    }
    let content = if *env {
        let value = std::env::var_os(source).ok_or_else(|| Error::invalid(format!("no variable {source}")))?;
        value.into_encoded_bytes()
    } else {
        read(source)?
    };
    let present = match (replace, ignore) {
        (true, _) => Present::Replaced,
        (false, true) => Present::Kept,
        (false, false) => Present::Refused,
    };
    let id = secrets.create(name, &content, label.iter().cloned().collect(), present)?;
    printer::print(&format!("{id}\n"))?;
    Ok(Status::Success)
}

/// Reads what is to be a secret; one byte more than it may have tells that it has too many.
fn read(source: &str) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let most = CONTENT_BYTES as u64 + 1;
    if source == "-" {
        std::io::stdin().lock().take(most).read_to_end(&mut content).context("read standard input")?;
    } else {
        let file = std::fs::File::open(Path::new(source));
        let read = file.and_then(|file| file.take(most).read_to_end(&mut content));
        read.with_context(|| format!("read {source}"))?;
    }
    Ok(content)
}

fn list(args: &Ls, secrets: &Secrets<'_>) -> Result<Status> {
    let Ls { quiet, noheading, filter, format } = args;
    let filters = Filters::parse(filter, KEYS)?;
    let is_table = format.is_none() && !quiet;
    let format = Format::choose(&COLUMNS, format.as_deref(), *quiet)?;
    let fits = |secret: &Secret| {
        filters.pass("name", |text| secret.name.contains(text) || matches_pattern(text, &secret.name))
            && filters.pass("id", |text| secret.id.starts_with(text))
            && filters.pass_labels("label", |label| secret.labels.get(label).map(String::as_str))
    };
    let now = SystemTime::now();
    let text = format.print(secrets.list()?.into_iter().filter(fits).map(|secret| row(secret, now)))?;
    let text = match text.split_once('\n') {
        Some((_, rows)) if *noheading && is_table => rows,
        _ => &text,
    };
    printer::print(text)?;
    Ok(Status::Success)
}

fn row(secret: Secret, now: SystemTime) -> Row {
    let labels: Vec<String> = secret.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let fields = json!({
        "ID": secret.id,
        "Name": secret.name,
        "Driver": "file",
        "CreatedAt": human_ago(ps::time(secret.created), now),
        "UpdatedAt": human_ago(ps::time(secret.updated), now),
        "Labels": labels.join(","),
    });
    Row { fields: object(fields), labels: secret.labels }
}

fn inspect(args: &Inspect, secrets: &Secrets<'_>) -> Result<Status> {
    let describe = |word: &str| describe(&secrets.find(word)?, args.showsecret);
    super::inspect::each(args.format.as_deref(), &args.secrets, describe)
}

fn describe(secret: &Secret, shows_content: bool) -> Result<Value> {
    let time = |time: Timestamp| jiff::Timestamp::from_nanosecond(time.into()).unwrap_or_default().to_string();
    let mut described = json!({
        "ID": secret.id,
        "CreatedAt": time(secret.created),
        "UpdatedAt": time(secret.updated),
        "Spec": {
            "Name": secret.name,
            "Driver": { "Name": "file", "Options": {} },
            "Labels": secret.labels,
        },
    });
    if shows_content {
        described["SecretData"] = String::from_utf8_lossy(&secret.content()?).into();
    }
    Ok(described)
}

fn remove(args: &Rm, secrets: &Secrets<'_>) -> Result<Status> {
    let Rm { all, ignore, secrets: words } = args;
    let found: Vec<Result<Secret>> = if *all {
        secrets.list()?.into_iter().map(Ok).collect()
    } else {
        words.iter().map(|word| secrets.find(word)).collect()
    };
    let mut failure = None;
    for secret in found {
        match secret.and_then(|secret| secrets.remove(&secret).map(|()| secret.id)) {
            Ok(id) => printer::print(&format!("{id}\n"))?,
            Err(error) if *ignore && error.kind() == Kind::NotFound => {}
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    report::engine_error(&earlier);
                }
            }
        }
    }
    failure.map_or(Ok(Status::Success), Err)
}
