//! `husk why CONTAINER`: the cause of a failure or death in words.

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::status::Status;
use super::{printer, report};
use crate::engine::engine::Engine;
use crate::engine::settings;
use crate::engine::why::rerun::{self, Refused, Rerun};
use crate::engine::why::{self, Certainty, Report};
use crate::error::Result;

/// Say why a container has failed, died, or does not run
///
/// Looks at its records, at the program in its files, at what the kernel has logged where that may be read, and at what the
/// container wrote last. Starts and changes nothing, but with --rerun. The exit status is 0 where a cause was looked for,
/// whatever it is.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// Print one JSON object
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Run a throw-away copy, and list the system calls that its seccomp filter refuses; it works on the same volumes
    #[arg(long)]
    rerun: bool,
    /// With --rerun: end the copy after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "rerun")]
    time: u32,
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
    if args.rerun {
        return run_again(args, &engine);
    }
    let report = why::why(&engine, &engine.find(&args.container)?)?;
    printer::print(&match args.format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string(&report)?),
        None => in_words(&report),
    })?;
    Ok(Status::Success)
}

fn run_again(args: &Why, engine: &Engine) -> Result<Status> {
    let container = engine.find(&args.container)?;
    let limit = Duration::from_secs(args.time.into());
    let rerun = rerun::rerun(engine, &container, limit, &|line| report::note(line))?;
    printer::print(&match args.format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string(&rerun)?),
        None => refusals_in_words(&rerun),
    })?;
    Ok(Status::Success)
}

fn refusals_in_words(rerun: &Rerun) -> String {
    let end = match rerun.status {
        Some(status) => format!("which ended with status {status}"),
        None => "which was ended when its time was over".to_owned(),
    };
    let mut text = match rerun.refused.len() {
        0 => format!("{}: its filter refused no system call in a second run, {end}.\n", rerun.name),
        1 => format!("{}: its filter refused a system call in a second run, {end}.\n", rerun.name),
        count => format!("{}: its filter refused {count} system calls in a second run, {end}.\n", rerun.name),
    };
    for Refused { call, answer, count, arguments, remedies } in &rerun.refused {
        let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
        let _ = writeln!(text, "\n{call}: {answer}, {times}");
        for arguments in arguments {
            let arguments: Vec<String> = arguments.iter().map(|value| format!("{value:#x}")).collect();
            let _ = writeln!(text, "  {call}({})", arguments.join(", "));
        }
        for remedy in remedies {
            let _ = writeln!(text, "  allowed by: {remedy}");
        }
    }
    text
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
