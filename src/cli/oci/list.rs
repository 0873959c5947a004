//! `list`: prints every container below the root, as a table for people or as JSON for programs.

use std::path::Path;

use clap::Parser;
use serde::Serialize;

use super::{Invocation, Manners, Verb, json, print};
use crate::cli::report;
use crate::cli::status::Status;
use crate::cli::table::Table;
use crate::error::{Error, Result};
use crate::runtime::container::StateDocument;

/// List containers
#[derive(Debug, Parser)]
#[command(name = "list")]
pub(super) struct List {
    /// Form of the list: table or json
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for List {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { format, quiet } = self;
        let (list, failures) = invocation.runtime.list()?;
        for failure in failures {
            report::note(&failure.report());
        }
        if quiet {
            return print(&list.iter().flat_map(|document| [document.id.as_str(), "\n"]).collect::<String>());
        }
        match (format.as_str(), invocation.manners) {
            ("json", Manners::Crun) => print(&cruns_json(&list)?),
            // What Go makes of a list that was never begun.
            ("json", _) if list.is_empty() => print("null\n"),
            ("json", _) => print(&format!("{}\n", json::compact(&list)?)),
            ("table", Manners::Crun) => print(&cruns_table(&list)),
            ("table", _) => print(&table(&list)),
            _ => Err(Error::invalid("invalid format option")),
        }
    }
}

fn table(list: &[StateDocument]) -> String {
    let mut table = Table::new(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for document in list {
        table.row([
            document.id.as_str(),
            &document.pid.to_string(),
            &document.status,
            &document.bundle.to_string_lossy(),
            &document.created,
            &document.owner,
        ]);
    }
    table.to_string()
}

/// crun's columns are of fixed widths, but for the first.
fn cruns_table(list: &[StateDocument]) -> String {
    let width = list.iter().map(|document| document.id.len()).max().unwrap_or_default().max(4) + 1;
    let line = |name: &str, pid: &str, status: &str, bundle: &str, created: &str, owner: &str| {
        format!("{name:<width$}{pid:<10}{status:<8} {bundle:<39} {created:<30} {owner}\n")
    };
    let mut text = line("NAME", "PID", "STATUS", "BUNDLE PATH", "CREATED", "OWNER");
    for document in list {
        let (pid, bundle) = (document.pid.to_string(), document.bundle.to_string_lossy());
        text.push_str(&line(&document.id, &pid, &document.status, &bundle, &document.created, &document.owner));
    }
    text
}

/// crun lists fewer fields than runc.
#[derive(Serialize)]
struct OfCrun<'a> {
    id: &'a str,
    pid: i32,
    status: &'a str,
    bundle: &'a Path,
    created: &'a str,
    owner: &'a str,
}

fn cruns_json(list: &[StateDocument]) -> Result<String> {
    if list.is_empty() {
        return Ok("[\n\n]\n".to_owned());
    }
    let rows = list.iter().map(|document| OfCrun {
        id: &document.id,
        pid: document.pid,
        status: &document.status,
        bundle: &document.bundle,
        created: &document.created,
        owner: &document.owner,
    });
    Ok(format!("{}\n", json::indented(&rows.collect::<Vec<_>>(), "  ")?))
}
