//! `spec`: writes a configuration to start from.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Parser;

use super::{Invocation, Verb};
use crate::cgroups;
use crate::cli::status::Status;
use crate::error::{Context, Error, Kind, Result};
use crate::spec::{default::DefaultSpec, load};

/// Write a configuration to start from
#[derive(Debug, Parser)]
#[command(name = "spec")]
pub(super) struct Spec {
    /// Directory to write to
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Name of the file; relative to the bundle
    #[arg(long, short, value_name = "FILE", default_value = load::CONFIG_FILE)]
    file: PathBuf,
    /// Write a configuration for an ordinary user
    #[arg(long)]
    rootless: bool,
}

impl Verb for Spec {
    fn run(self, _: &Invocation) -> Result<Status> {
        let Self { bundle, file, rootless } = self;
        let directory = bundle.unwrap_or_else(|| PathBuf::from("."));
        let path = directory.join(&file);
        let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let document = DefaultSpec {
            rootless: rootless.then_some(ids),
            has_unified_cgroups: cgroups::Layout::probe()?.mode() == cgroups::Mode::Unified,
        };
        let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let text = format!("File {} exists. Remove it first", file.display());
                return Err(Error::new(Kind::Exists, text));
            }
            answer => answer.with_context(|| format!("make {}", path.display()))?,
        };
        file.write_all(document.to_json().as_bytes()).with_context(|| format!("write {}", path.display()))?;
        Ok(Status::Success)
    }
}
