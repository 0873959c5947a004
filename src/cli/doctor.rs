//! `husk doctor`: what this host allows, one line a finding.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use super::printer;
use super::status::Status;
use crate::engine::doctor::{self, Finding, Standing};
use crate::engine::settings;
use crate::error::Result;

/// Say what this host allows, what each lack costs, and what mends it
///
/// Tries what a container's start does, as the user who asks. The exit status is 0 where containers run, 1 where they cannot.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print one JSON object
    #[arg(long, value_enum)]
    format: Option<Format>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Json,
}

/// Runs `doctor`.
pub(super) fn run(args: &Doctor) -> Result<Status> {
    let findings = doctor::examine(settings::File::default())?;
    let runs = doctor::runs_containers(&findings);
    printer::print(&match args.format {
        Some(Format::Json) => format!("{}\n", serde_json::json!({ "runs": runs, "findings": findings })),
        None => in_words(&findings, runs),
    })?;
    Ok(if runs { Status::Success } else { Status::Failure })
}

fn in_words(findings: &[Finding], runs: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let standing = match finding.standing {
            Standing::Ok => "ok",
            Standing::Limited => "limited",
            Standing::Missing => "missing",
        };
        let _ = writeln!(text, "{standing:<8} {}: {}", finding.topic, finding.found);
        for (word, line) in [("costs", finding.cost), ("mend", finding.remedy.as_deref())] {
            if let Some(line) = line {
                let _ = writeln!(text, "         {word}: {line}");
            }
        }
    }
    text.push_str(if runs { "\nContainers run here.\n" } else { "\nContainers cannot run here.\n" });
    text
}
