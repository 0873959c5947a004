//! `husk exec CONTAINER COMMAND…`.

use clap::Args;

use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::exec::{self, ExecOptions};
use crate::engine::options::EnvironmentEntry;
use crate::engine::settings;
use crate::error::{Context, Error, Result};
use crate::support::passwd::UserSpec;
use crate::sys::signal::Signals;

/// Run a command in a container that runs
///
/// The exit status is the command's, or 128 + the signal that ended it; 125 if husk failed, 126 if the command cannot be
/// executed, 127 if it does not exist.
#[derive(Debug, Args)]
#[command(override_usage = "husk exec [OPTIONS] CONTAINER COMMAND [ARG…]")]
pub(super) struct Exec {
    /// Do not wait for the command
    #[arg(long, short)]
    detach: bool,
    /// Set a variable; without a value, to the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<EnvironmentEntry>,
    /// Keep standard input open
    #[arg(long, short)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(long, short)]
    tty: bool,
    /// Give the command all capabilities
    #[arg(long)]
    privileged: bool,
    /// User, and group, by name or id
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Command and its arguments
    #[arg(required = true, value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs `exec`.
pub(super) fn run(args: Exec, tell: &dyn Fn(&str)) -> Result<Status> {
    let Exec { detach, env, interactive, tty, privileged, user, workdir, container, command } = args;
    if tty && interactive && !rustix::termios::isatty(rustix::stdio::stdin()) {
        return Err(Error::invalid("the input device is not a TTY").with_hint("leave out -t where no terminal is"));
    }
    let engine = Engine::open(settings::File::default())?;
    let container = engine.find(&container)?;
    let options = ExecOptions {
        command,
        environment: env,
        working_directory: workdir,
        user,
        terminal: tty,
        is_privileged: privileged,
        is_detached: detach,
        ..ExecOptions::default()
    };
    if detach || !(interactive || tty) {
        let null = super::take_no_input()?;
        if detach {
            rustix::stdio::dup2_stdout(&null)?;
        }
    }
    let signals = Signals::block_all().context("block signals")?;
    let mut execution = exec::exec(&engine, &container, &options, &|name| std::env::var_os(name))?;
    for warning in &execution.warnings {
        tell(warning);
    }
    exec::tell(&engine, &container, "exec_create", &options.command, &[]);
    exec::tell(&engine, &container, "exec_start", &options.command, &[]);
    if detach {
        return Ok(Status::Success);
    }
    let status = execution.attend(&signals)?.status();
    exec::tell(&engine, &container, "exec_die", &[], &[("exitCode", status.to_string())]);
    Ok(Status::Workload(status))
}
