//! `restore`: brings a container back from what `checkpoint` saved, by way of CRIU.

use std::path::PathBuf;

use clap::Parser;

use super::checkpoint::{Common, warn_if_rootless};
use super::{Invocation, Verb};
use crate::cli::status::Status;
use crate::error::{Context, Result};
use crate::runtime::container::{self, Mode, Running};
use crate::runtime::plan::Choices;
use crate::runtime::restore::Request;
use crate::spec::{load, validate};
use crate::support::root::Root;
use crate::sys::signal::Signals;

/// restore a container from a previous checkpoint
#[derive(Debug, Parser)]
#[command(name = "restore")]
pub(super) struct Restore {
    #[command(flatten)]
    common: Common,
    /// Unix socket that the terminal's master is sent to
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// Directory of the bundle
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// Return once the container runs
    #[arg(long, short)]
    detach: bool,
    /// File that the first process's pid is written to
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Leave the container's orphans to the system
    #[arg(long)]
    no_subreaper: bool,
    /// Accepted, without effect: it is CRIU that changes the root
    #[arg(long)]
    no_pivot: bool,
    /// Security profile other than the one that was saved
    #[arg(long, value_name = "TYPE:NAME")]
    lsm_profile: Option<String>,
    /// Security context of mounts other than the one that was saved
    #[arg(long, value_name = "CONTEXT")]
    lsm_mount_context: Option<String>,
    /// Bring TCP connections back closed
    #[arg(long)]
    tcp_close: bool,
    /// Container id
    id: String,
}

impl Verb for Restore {
    fn run(self, invocation: &Invocation) -> Result<Status> {
        warn_if_rootless();
        if self.detach {
            self.restore(invocation, Mode::Detached)?;
            return Ok(Status::Success);
        }
        if !self.no_subreaper {
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("become a subreaper")?;
        }
        let signals = Signals::block_all().context("block signals")?;
        let mut running = self.restore(invocation, Mode::Foreground)?;
        let exit = running.attend(&signals)?;
        running.remove()?;
        Ok(Status::Workload(exit.status()))
    }
}

impl Restore {
    fn restore(self, invocation: &Invocation, mode: Mode) -> Result<Running> {
        let Self {
            common,
            console_socket,
            bundle,
            detach: _,
            pid_file,
            no_subreaper: _,
            no_pivot,
            lsm_profile,
            lsm_mount_context,
            tcp_close,
            id,
        } = self;
        let options = common.options()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        let bundle = std::path::absolute(&bundle).with_context(|| format!("--bundle {}", bundle.display()))?;
        Root::open(&bundle)?;
        let spec = validate::validate(load::load(&bundle)?)?;
        let absolute = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
        let (pid_file, console_socket) = (absolute(pid_file)?, absolute(console_socket)?);
        let request = Request {
            container: container::Request {
                id: &id,
                bundle: &bundle,
                spec: &spec,
                choices: Choices { no_pivot, ..Choices::default() },
                pid_file: pid_file.as_deref(),
                console_socket: console_socket.as_deref(),
                pidfd_socket: None,
                shared_memory: None,
                networks: None,
                manager: None,
            },
            options,
            lsm_profile,
            lsm_mount_context,
            tcp_close,
        };
        let running = invocation.runtime.restore(&request, mode)?;
        invocation.log.warnings(&running.warnings);
        Ok(running)
    }
}
