//! `husk logout [REGISTRY]`.

use std::path::PathBuf;

use clap::Parser;

use super::printer;
use super::status::Status;
use crate::error::Result;
use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::credentials::{Credentials, Scope};
use crate::support::caller::Caller;

/// Forget the login for a registry
///
/// It is deleted from every file in which husk would find it, and from their credential helpers.
#[derive(Debug, Parser)]
#[command(name = "husk logout", override_usage = "husk logout [OPTIONS] [REGISTRY]")]
pub(super) struct Logout {
    /// Forget all logins
    #[arg(long, short, conflicts_with = "registry")]
    all: bool,
    /// The one file to delete it from
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Registry to log out of; docker.io if it is left out
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

/// Deletes the login, and says whether there was one.
pub(super) fn run(args: Logout) -> Result<Status> {
    let Logout { all, authfile, registry } = args;
    let credentials = Credentials::load(&Caller::current(), authfile.as_deref());
    if all {
        credentials.remove_all()?;
        printer::print("Removed login credentials for all registries\n")?;
        return Ok(Status::Success);
    }
    let scope = Scope::parse(registry.as_deref().unwrap_or(DEFAULT_REGISTRY))?;
    // Docker's words, and its status: to be logged out is what was wanted.
    let words =
        if credentials.remove(&scope)?.is_empty() { "Not logged in to" } else { "Removing login credentials for" };
    printer::print(&format!("{words} {scope}\n"))?;
    Ok(Status::Success)
}
