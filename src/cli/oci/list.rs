//! `list`: prints every container below the root, as a table for people or as JSON for programs.

use clap::Parser;

use super::{Invocation, Verb, print};
use crate::cli::status::Status;
use crate::cli::table::Table;
use crate::error::{Error, Result};

/// List containers
#[derive(Debug, Parser)]
#[command(name = "list")]
pub(super) struct List {
    /// Form of the list: table or json
    #[arg(long, short, default_value = "table")]
    format: String,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for List {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let list = invocation.runtime.list()?;
        if self.quiet {
            let ids: Vec<&str> = list.iter().map(|(document, _)| document.id.as_str()).collect();
            return print(&ids.iter().flat_map(|id| [*id, "\n"]).collect::<String>());
        }
        match self.format.as_str() {
            "json" if list.is_empty() => print("null"),
            "json" => {
                print(&serde_json::to_string(&list.into_iter().map(|(document, _)| document).collect::<Vec<_>>())?)
            }
            "table" => {
                let mut table = Table::new(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
                for (document, owner) in list {
                    table.row([
                        document.id.as_str(),
                        &document.pid.to_string(),
                        &document.status,
                        &document.bundle.to_string_lossy(),
                        &document.created,
                        &format!("#{owner}"),
                    ]);
                }
                print(&table.to_string())
            }
            _ => Err(Error::invalid("invalid format option")),
        }
    }
}
