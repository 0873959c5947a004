//! `husk events`: what has happened, and what happens.

use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use super::filter::{Filters, Key, parse_time};
use super::printer;
use super::status::Status;
use super::template::{Template, unescape};
use crate::engine::engine::Engine;
use crate::engine::events::{self, Event, Span};
use crate::engine::settings;
use crate::error::{Error, Result};

const KEYS: &[Key] = &[
    Key::new("type"),
    Key::new("event"),
    Key::new("container"),
    Key::new("image"),
    Key::new("label"),
    Key::new("volume"),
    Key::new("network"),
    Key::new("daemon"),
    Key::new("plugin"),
    Key::new("scope"),
];

/// Show what happens to containers, images and networks
///
/// From now on, or since --since, until --until or the command is ended.
#[derive(Debug, Args)]
pub(super) struct Events {
    /// Show what fits: KEY=VALUE of type, event, container, image, network, label
    #[arg(long, short, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// `json` for an object a line, or a template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show what has happened since TIME: a date, seconds since 1970, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show what happens until TIME
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Wait for more
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    stream: bool,
}

enum Form {
    Plain,
    Json,
    Template(Template),
}

/// Runs `events`.
pub(super) fn run(args: &Events) -> Result<Status> {
    let Events { filter, format, since, until, stream } = args;
    let filters = Filters::parse(filter, KEYS)?;
    let form = match format.as_deref() {
        None | Some("") => Form::Plain,
        Some("json" | "{{json .}}") => Form::Json,
        Some(text) => Form::Template(Template::parse(&unescape(text))?),
    };
    let now = SystemTime::now();
    let time = |text: &Option<String>| -> Result<Option<SystemTime>> {
        let Some(text) = text else { return Ok(None) };
        let wrong = || {
            Error::invalid(format!("{text:?} is not a time"))
                .with_hint("a duration (10m), seconds since 1970, or a date")
        };
        parse_time(text, now).map(Some).ok_or_else(wrong)
    };
    let span = Span { since: time(since)?, until: time(until)?, follows: *stream };
    let engine = Engine::open(settings::File::default())?;
    events::events(&engine, span, &mut |event| {
        if !passes(&filters, &event) {
            return Ok(true);
        }
        let line = match &form {
            Form::Plain => plain(&event),
            Form::Json => document(&event).to_string(),
            Form::Template(template) => template.render(&fields(&event))?,
        };
        // Whoever has closed the pipe has what they wanted.
        printer::print_or_end(&(line + "\n"))
    })?;
    Ok(Status::Success)
}

fn passes(filters: &Filters, event: &Event) -> bool {
    let attributes = &event.actor.attributes;
    let is_called = |kind: &str, word: &str| {
        let name = attributes.get("name").map_or("", String::as_str);
        event.kind == kind
            && (event.actor.id == word || name == word || word.len() > 2 && event.actor.id.starts_with(word))
    };
    filters.pass("type", |word| word == event.kind)
        // `exec_start: ls` is an `exec_start`.
        && filters.pass("event", |word| event.action == word || event.action.split(':').next() == Some(word))
        && filters.pass("container", |word| is_called("container", word))
        && filters.pass("network", |word| is_called("network", word))
        && filters.pass("image", |word| {
            let image = attributes.get("image").map_or("", String::as_str);
            is_called("image", word) || image == word || image.split(':').next() == Some(word)
        })
        && filters.pass_labels("label", |label| attributes.get(label).map(String::as_str))
        && filters.pass("scope", |word| word == "local")
        // Nothing happens to what there is not.
        && ["volume", "daemon", "plugin"].iter().all(|key| !filters.has(key))
}

/// Docker's line.
fn plain(event: &Event) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(event.time));
    let time = time.map_or_else(|_| String::new(), |time| time.strftime("%Y-%m-%dT%H:%M:%S.%9f+00:00").to_string());
    let attributes: Vec<String> =
        event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let line = format!("{time} {} {} {} ({})", event.kind, event.action, event.actor.id, attributes.join(", "));
    super::table::clean(&line)
}

/// Docker's document, which has some things twice for old readers.
fn document(event: &Event) -> Value {
    let Event { kind, action, actor, time } = event;
    let mut document = json!({
        "Type": kind,
        "Action": action,
        "Actor": actor,
        "scope": "local",
        "time": time / 1_000_000_000,
        "timeNano": time,
        "status": action,
        "id": actor.id,
    });
    if let Some(image) = actor.attributes.get("image") {
        document["from"] = json!(image);
    }
    document
}

/// The same by the names that docker's and podman's templates have.
fn fields(event: &Event) -> Value {
    let Event { kind, action, actor, time } = event;
    let attribute = |name: &str| actor.attributes.get(name).cloned().unwrap_or_default();
    json!({
        "Type": kind,
        "Action": action,
        "Status": action,
        "Actor": { "ID": actor.id, "Attributes": actor.attributes },
        "ID": actor.id,
        "From": attribute("image"),
        "Image": attribute("image"),
        "Name": attribute("name"),
        "Scope": "local",
        "Time": time / 1_000_000_000,
        "TimeNano": time,
    })
}
