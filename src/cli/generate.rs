//! `husk generate systemd|boot`: prints units of systemd for containers. Installs nothing.

use clap::{Args, Subcommand};

use super::printer;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::settings;
use crate::engine::systemd_unit::{self, Site};
use crate::error::{Context, Result};

/// `husk generate …`
#[derive(Debug, Subcommand)]
pub(super) enum Generate {
    Systemd(Systemd),
    Boot(Boot),
}

/// Print a unit that runs one container
///
/// Install it as root with `> /etc/systemd/system/NAME.service`, as a user with `> ~/.config/systemd/user/NAME.service`; then
/// `systemctl [--user] enable --now NAME`. A user's units start with the machine after `loginctl enable-linger`.
#[derive(Debug, Args)]
pub(super) struct Systemd {
    /// Call the container by its name in the unit, not by its id
    #[arg(long, short)]
    name: bool,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Print a unit that starts all containers whose restart policy says so
///
/// Without systemd, a line of crontab(5) does the same: `@reboot husk start --boot`.
#[derive(Debug, Args)]
pub(super) struct Boot {}

/// Runs `generate`.
pub(super) fn run(command: &Generate) -> Result<Status> {
    let executable = std::env::current_exe().context("find husk's own executable")?;
    // A service starts with an environment of its own.
    let mut variables: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("HUSK_"))
        .collect();
    variables.sort_unstable();
    let is_root = rustix::process::geteuid().is_root();
    let site = Site { executable: &executable, is_root, variables: &variables };
    printer::print(&match command {
        Generate::Boot(Boot {}) => systemd_unit::of_boot(&site),
        Generate::Systemd(Systemd { name, container }) => {
            let engine = Engine::open(settings::File::default())?;
            let record = engine.containers()?.find(container)?.record()?;
            let reference = if *name { record.name.as_str() } else { record.id.as_str() };
            systemd_unit::of_container(&record, reference, &site)
        }
    })?;
    Ok(Status::Success)
}
