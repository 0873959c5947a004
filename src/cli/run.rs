//! `husk run IMAGE [COMMAND…]` and `husk create`.

use clap::Parser;

use super::attach::AttendArgs;
use super::container_options::ContainerArgs;
use super::printer;
use super::status::Status;
use crate::engine::create::{self, Purpose};
use crate::engine::engine::Engine;
use crate::engine::{settings, start};
use crate::error::{Context, Error, Result};
use crate::monitor::{Lifetime, RestartPolicy, Wants};
use crate::sys::signal::Signals;

/// Run a command in a new container
///
/// IMAGE is the name or id of an image, which is pulled where it is not here; or docker://NAME, oci:DIR[:TAG],
/// oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], dir:ROOTFS, or host: for this machine's own root file system under a
/// layer that is thrown away.
///
/// In the foreground the container ends with this command. The exit status is the workload's, or 128 + the signal that ended
/// it; 125 if husk failed, 126 if the command cannot be executed, 127 if it does not exist.
#[derive(Debug, Parser)]
#[command(name = "husk run", disable_help_flag = true, override_usage = "husk run [OPTIONS] IMAGE [COMMAND [ARG…]]")]
pub(super) struct Run {
    /// Leave the container to itself, and print its id
    #[arg(long, short)]
    detach: bool,
    #[command(flatten)]
    attend: AttendArgs,
    #[command(flatten)]
    container: ContainerArgs,
    /// Image to run
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Make a container, and do not start it
///
/// Prints its id. IMAGE is as with `husk run`.
#[derive(Debug, Parser)]
#[command(
    name = "husk create",
    disable_help_flag = true,
    override_usage = "husk create [OPTIONS] IMAGE [COMMAND [ARG…]]"
)]
pub(super) struct Create {
    #[command(flatten)]
    container: ContainerArgs,
    /// Image to make it of
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs `run`.
pub(super) fn run(args: Run, tell: &dyn Fn(&str)) -> Result<Status> {
    let Run { detach, attend, container, image, command } = args;
    if detach {
        super::let_go_of_all_but_passed_sockets()?;
    }
    let engine = Engine::open(settings::File::default())?;
    let bar = container.bar();
    let mut options = container.into_options(&engine, command)?;
    options.detached = detach;
    options.detach_keys.clone_from(&attend.detach_keys);
    if options.remove && options.restart != RestartPolicy::No {
        return Err(Error::invalid("conflicting options: --restart and --rm"));
    }
    if detach && options.terminal && options.interactive {
        // A terminal to come back to, as with docker: there is none to be read now.
        options.console_size = None;
    }
    if detach && !options.attached.is_empty() {
        return Err(Error::invalid("conflicting options: --attach and --detach"));
    }
    let attending = attend.attending_to(&options)?;
    for note in &engine.notes {
        tell(note);
    }
    let created = create::create(&engine, &image, &options, Purpose::Start, tell, &|progress| bar.show(progress))?;
    let id = *created.container.id();
    let signals = Signals::block_all().context("block signals")?;
    let wants = Wants { output: !detach };
    let lifetime = if detach { Lifetime::Own } else { Lifetime::Command };
    let client = start::launch(&engine, created, lifetime, wants, &signals, tell)?;
    if detach {
        printer::print(&format!("{id}\n"))?;
        return Ok(Status::Success);
    }
    Ok(super::attach::finish(client.attend(&attending, &signals, tell)?))
}

/// Runs `create`.
pub(super) fn create(args: Create, tell: &dyn Fn(&str)) -> Result<Status> {
    let Create { container, image, command } = args;
    let engine = Engine::open(settings::File::default())?;
    let bar = container.bar();
    let options = container.into_options(&engine, command)?;
    if options.preserved_fds > 0 {
        return Err(Error::invalid("--preserve-fds: descriptors can be passed on by run alone"));
    }
    if options.remove && options.restart != RestartPolicy::No {
        return Err(Error::invalid("conflicting options: --restart and --rm"));
    }
    for note in &engine.notes {
        tell(note);
    }
    let created = create::create(&engine, &image, &options, Purpose::Keep, tell, &|progress| bar.show(progress))?;
    printer::print(&format!("{}\n", created.container.id()))?;
    Ok(Status::Success)
}
