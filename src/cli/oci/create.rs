//! `create`: makes a container up to the point where only `start` is missing. `run` makes its own the same way.

use std::path::PathBuf;

use clap::{Args, Parser};

use super::passed::{Passed, notify_socket};
use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::{Context, Result};
use crate::runtime::container::{Mode, Request, Running};
use crate::runtime::plan::Choices;
use crate::spec::{load, validate};
use crate::support::root::Root;

/// Create a container, to be started later
#[derive(Debug, Parser)]
#[command(name = "create")]
pub(super) struct Create {
    #[command(flatten)]
    making: Making,
    /// Accepted, without effect: nothing of husk stays behind to look after orphans
    #[arg(long)]
    no_subreaper: bool,
}

// What `create` and `run` have in common; a doc comment would become the help text of both.
#[derive(Debug, Args)]
pub(super) struct Making {
    /// Directory of the bundle
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Configuration to read instead of the bundle's config.json
    #[arg(long, short = 'f', value_name = "FILE")]
    config: Option<PathBuf>,
    /// Unix socket that the terminal's master is sent to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Unix socket that the first process's pidfd is sent to
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// File that the first process's pid is written to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Move the root file system to / instead of pivoting into it
    #[arg(long)]
    no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    no_new_keyring: bool,
    /// Descriptors to pass on, from 3
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) preserve_fds: u32,
    /// Container id
    id: String,
}

impl Verb for Create {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        let Self { making, no_subreaper: _ } = self;
        // Before anything of ours is open.
        let fds = Passed::find(making.preserve_fds)?;
        make(invocation, &making, Mode::Create, fds).map(|_| Status::Success)
    }
}

/// Makes a container up to where `mode` says.
pub(super) fn make(invocation: &Invocation, args: &Making, mode: Mode, fds: Passed) -> Result<Running> {
    // Mount points in the container are for its users, whatever the caller's own files are for.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let bundle = std::path::absolute(&args.bundle).with_context(|| format!("--bundle {}", args.bundle.display()))?;
    Root::open(&bundle)?;
    let document = match &args.config {
        Some(file) => load::load_file(file, &bundle)?,
        None => load::load(&bundle)?,
    };
    let spec = validate::validate(document)?;
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
    let (pid_file, console, pidfd) =
        (absolute(&args.pid_file)?, absolute(&args.console_socket)?, absolute(&args.pidfd_socket)?);
    let running = invocation.runtime.launch(
        &Request {
            id: &args.id,
            bundle: &bundle,
            spec: &spec,
            choices: Choices {
                no_pivot: args.no_pivot,
                no_new_keyring: args.no_new_keyring,
                preserved_fds: fds.count,
                listening_fds: fds.listening,
                listening_names: fds.names,
                ..Choices::default()
            },
            pid_file: pid_file.as_deref(),
            console_socket: console.as_deref(),
            pidfd_socket: pidfd.as_deref(),
            shared_memory: None,
            networks: None,
            manager: notify_socket().as_deref(),
        },
        mode,
    )?;
    invocation.log.warnings(spec.warnings());
    invocation.log.warnings(&running.warnings);
    Ok(running)
}
