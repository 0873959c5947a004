//! `husk run IMAGE [COMMAND…]`.

use clap::Parser;

use super::container_options::ContainerArgs;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::{run, settings};
use crate::error::{Error, Result};

/// Run a command in a new container
///
/// IMAGE is the name or id of an image, which is pulled where it is not here; or docker://NAME, oci:DIR[:TAG],
/// oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], dir:ROOTFS, or host: for this machine's own root file system under a
/// layer that is thrown away.
///
/// The exit status is the command's, or 128 + the signal that ended it; 125 if husk failed, 126 if the command cannot be
/// executed, 127 if it does not exist.
#[derive(Debug, Parser)]
#[command(name = "husk run", disable_help_flag = true, override_usage = "husk run [OPTIONS] IMAGE [COMMAND [ARG…]]")]
pub(super) struct Run {
    /// Leave the container to itself, and print its id
    #[arg(long, short)]
    detach: bool,
    #[command(flatten)]
    container: ContainerArgs,
    /// Image to run
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: Run, tell: &dyn Fn(&str)) -> Result<Status> {
    let Run { detach, container, image, command } = args;
    if detach {
        return Err(Error::unsupported("--detach is not supported yet"));
    }
    let engine = Engine::open(settings::File::default())?;
    let bar = container.bar();
    let options = container.into_options(&engine, command)?;
    for note in &engine.notes {
        tell(note);
    }
    let exit = run::run(&engine, &image, &options, options.require_limits, tell, &|progress| bar.show(progress))?;
    Ok(Status::Workload(exit.status()))
}
