//! `husk why CONTAINER`: the cause of a failure or death in words.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::settings;
use crate::engine::why::{self, Certainty, Report};
use crate::error::Result;

/// Say why a container has failed, died, or does not run
///
/// Looks at its records, at the program in its files, at what the kernel has logged where that may be read, and at what the
/// container wrote last. Starts and changes nothing. The exit status is 0 where a cause was looked for, whatever it is.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Print one JSON object
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
}

/// Runs `why`.
pub(super) fn run(args: &Why) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let report = why::why(&engine, &engine.find(&args.container)?)?;
    printer::print(&match args.format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string(&report)?),
        None => in_words(&report),
    })?;
    Ok(Status::Success)
}

fn in_words(report: &Report) -> String {
    let mut text = format!("{}: {}\n", report.name, report.verdict.summary);
    if report.verdict.certainty == Certainty::Unknown {
        text.push_str("No cause was found outside of the program.\n");
    }
    section(&mut text, "Evidence", &report.verdict.evidence);
    section(&mut text, "Last lines of its log", &report.log);
    section(&mut text, "What can be done", &report.verdict.remedies);
    text
}

fn section(text: &mut String, title: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}:");
    for line in lines {
        // Names in them are the image's and the container's.
        let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
        let _ = writeln!(text, "  {line}");
    }
}
