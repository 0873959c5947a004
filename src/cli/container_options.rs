//! The flags that `run` and `create` share: what the container is to be.
//!
//! Words become the plain values of [`RunOptions`] here, and nothing else happens: a flag has its grammar in the type that
//! it is parsed into, its meaning in [`engine::config`](crate::engine::config).

use clap::Args;

use super::progress::Bar;
use crate::engine::engine::Engine;
use crate::engine::options::{EnvironmentEntry, Limits, Network, PullPolicy, RunOptions, SwapLimit};
use crate::engine::settings::DefaultNetwork;
use crate::engine::volume_option::Volume;
use crate::error::{Error, Result};
use crate::support::id::ContainerName;
use crate::support::passwd::UserSpec;
use crate::support::units;

/// What follows `run` and `create` before the image.
#[derive(Debug, Args)]
pub(super) struct ContainerArgs {
    #[command(flatten)]
    general: GeneralArgs,
    #[command(flatten)]
    process: ProcessArgs,
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    network: NetworkArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// What the container is called, and how the command relates to it.
#[derive(Debug, Args)]
struct GeneralArgs {
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<ContainerName>,
    /// Give the container a terminal
    #[arg(long, short)]
    tty: bool,
    /// Keep standard input open
    #[arg(long, short)]
    interactive: bool,
    /// When to fetch the image: missing, always, never or newer
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pull: PullPolicy,
    /// Say nothing of the progress of a pull
    #[arg(long, short)]
    quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What runs in it, and as whom.
#[derive(Debug, Args)]
struct ProcessArgs {
    /// Set a variable; without a value, to the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<EnvironmentEntry>,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// User, and group, by name or id
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Run this instead of the image's entry point; empty for none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
}

/// What it sees of files.
#[derive(Debug, Args)]
struct FileArgs {
    /// Bind a file or directory of the host
    #[arg(long, short, value_name = "SOURCE:DESTINATION[:OPTIONS]")]
    volume: Vec<Volume>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
}

/// Who it is to others.
#[derive(Debug, Args)]
struct NetworkArgs {
    /// Host name of the container
    #[arg(long, short = 'h', value_name = "NAME")]
    hostname: Option<String>,
    /// Network of the container: none or host
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Option<String>,
}

/// What it may use.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Memory limit, with a suffix b, k, m or g
    #[arg(long, short, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Limit of memory and swap together; -1 for none on swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<SwapLimit>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = units::parse_cpus)]
    cpus: Option<u64>,
    /// Relative weight of processor time
    #[arg(long, short = 'c', value_name = "SHARES")]
    cpu_shares: Option<u64>,
    /// Processors to run on, such as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Fail where a limit cannot be set, instead of warning
    #[arg(long)]
    require_limits: bool,
}

impl ContainerArgs {
    /// Gives what shows a pull to the user.
    pub(super) fn bar(&self) -> Bar {
        Bar::new(self.general.quiet)
    }

    /// Gives what was asked for, with `command` for what followed the image.
    pub(super) fn into_options(self, engine: &Engine, command: Vec<String>) -> Result<RunOptions> {
        let Self { general, process, files, network, limits } = self;
        let mut options = RunOptions { command, ..RunOptions::default() };
        general.fill(&mut options)?;
        process.fill(&mut options);
        files.fill(&mut options)?;
        network.fill(&mut options, engine)?;
        limits.fill(&mut options);
        Ok(options)
    }
}

impl GeneralArgs {
    fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self { rm, name, tty, interactive, pull, quiet: _, help: _ } = self;
        let stdin = rustix::stdio::stdin();
        if tty && interactive && !rustix::termios::isatty(stdin) {
            return Err(Error::invalid("the input device is not a TTY").with_hint("leave out -t where no terminal is"));
        }
        let size = rustix::termios::tcgetwinsize(stdin).ok().filter(|_| tty);
        options.remove = rm;
        options.name = name;
        options.terminal = tty;
        options.interactive = interactive;
        options.console_size = size.map(|size| (size.ws_row, size.ws_col));
        options.pull = pull;
        Ok(())
    }
}

impl ProcessArgs {
    fn fill(self, options: &mut RunOptions) {
        let Self { env, workdir, user, entrypoint } = self;
        options.environment = env;
        options.working_directory = workdir;
        options.user = user;
        options.entrypoint =
            entrypoint.map(|entrypoint| if entrypoint.is_empty() { Vec::new() } else { vec![entrypoint] });
    }
}

impl FileArgs {
    fn fill(self, options: &mut RunOptions) -> Result<()> {
        let Self { mut volume, read_only } = self;
        let here = std::env::current_dir()?;
        for volume in &mut volume {
            volume.resolve_source(&here);
            volume.check_source()?;
        }
        options.volumes = volume;
        options.read_only = read_only;
        Ok(())
    }
}

impl NetworkArgs {
    fn fill(self, options: &mut RunOptions, engine: &Engine) -> Result<()> {
        let Self { hostname, network } = self;
        options.hostname = hostname;
        options.network = match network.as_deref() {
            None => match engine.settings.network {
                DefaultNetwork::None => Network::None,
                DefaultNetwork::Host => Network::Host,
            },
            Some("none") => Network::None,
            Some("host") => Network::Host,
            Some(other) => {
                return Err(Error::unsupported(format!("--network {other}: only none and host are supported yet")));
            }
        };
        Ok(())
    }
}

impl LimitArgs {
    fn fill(self, options: &mut RunOptions) {
        let Self { memory, memory_swap, cpus, cpu_shares, cpuset_cpus, pids_limit, require_limits } = self;
        options.limits = Limits {
            memory,
            memory_swap,
            nano_cpus: cpus,
            cpu_shares,
            cpuset_cpus,
            pids: pids_limit,
            ..Limits::default()
        };
        options.require_limits = require_limits;
    }
}
