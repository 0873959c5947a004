//! `husk logs CONTAINER`.

use std::time::SystemTime;

use clap::Args;

use super::filter::parse_time;
use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::logs::{self, LogsOptions};
use crate::engine::settings;
use crate::error::{Error, Result};
use crate::monitor::Stream;

/// Show what a container wrote
///
/// What it wrote to standard error goes to standard error.
#[derive(Debug, Args)]
pub(super) struct Logs {
    /// Go on until the container has ended
    #[arg(long, short)]
    follow: bool,
    /// Show the time of each line
    #[arg(long, short)]
    timestamps: bool,
    /// Show what --log-opt tag, labels and env have added to each line
    #[arg(long)]
    details: bool,
    /// Show the last NUMBER lines only, or `all`
    #[arg(long, short = 'n', value_name = "NUMBER", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show what was written since TIME: 2026-11-21T13:45:00Z, a number of seconds since 1970, or how long ago, such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show what was written until TIME
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show what --egress has refused to the container instead
    #[arg(long, conflicts_with = "details")]
    egress: bool,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `logs`.
pub(super) fn run(args: &Logs) -> Result<Status> {
    let Logs { follow, timestamps, details, tail, since, until, egress, container } = args;
    let now = SystemTime::now();
    let time = |text: &Option<String>| -> Result<Option<jiff::Timestamp>> {
        let Some(text) = text else { return Ok(None) };
        let time = parse_time(text, now).and_then(|time| jiff::Timestamp::try_from(time).ok());
        let wrong = || {
            Error::invalid(format!("{text:?} is not a time"))
                .with_hint("a duration (10m), seconds since 1970, or a date")
        };
        time.map(Some).ok_or_else(wrong)
    };
    let options = LogsOptions { since: time(since)?, until: time(until)?, tail: parse_tail(tail)?, follows: *follow };
    let engine = Engine::open(settings::File::default())?;
    let container = engine.find(container)?;
    let stamp = |time: jiff::Timestamp| time.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string();
    if *egress {
        logs::egress(&engine, &container, options, &mut |entry| {
            let time = if *timestamps { stamp(entry.timestamp()) } else { String::new() };
            printer::print(&format!("{time}{entry}\n"))
        })?;
        return Ok(Status::Success);
    }
    logs::logs(&engine, &container, options, &mut |entry| {
        let mut line = Vec::new();
        if *timestamps {
            line.extend_from_slice(stamp(entry.time).as_bytes());
        }
        if *details {
            let pairs: Vec<String> = entry.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            line.extend_from_slice(pairs.join(",").as_bytes());
            line.push(b' ');
        }
        line.extend_from_slice(&entry.bytes);
        match entry.stream {
            Stream::Output => printer::print_bytes(rustix::stdio::stdout(), &line),
            Stream::Errors => printer::print_bytes(rustix::stdio::stderr(), &line),
        }
    })?;
    Ok(Status::Success)
}

/// As docker reads it: what is negative or `all` is all of it.
fn parse_tail(text: &str) -> Result<Option<usize>> {
    match text {
        "all" => Ok(None),
        text if text.starts_with('-') && text.parse::<i64>().is_ok() => Ok(None),
        text => text.parse().map(Some).map_err(|_| Error::invalid(format!("--tail {text}: not a number"))),
    }
}
