//! `husk run IMAGE [COMMAND…]`.

use clap::{Args, Parser};

use super::progress::Bar;
use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::options::{EnvironmentEntry, Limits, Network, PullPolicy, RunOptions, SwapLimit};
use crate::engine::volume_option::Volume;
use crate::engine::{run, settings};
use crate::error::{Error, Result};
use crate::support::id::ContainerName;
use crate::support::passwd::UserSpec;
use crate::support::units;

/// Run a command in a new container
///
/// IMAGE is the name or id of an image, which is pulled where it is not here; or docker://NAME, oci:DIR[:TAG],
/// oci-archive:FILE[:TAG], docker-archive:FILE[:NAME], dir:ROOTFS, or host: for this machine's own root file system under a
/// layer that is thrown away.
///
/// The exit status is the command's, or 128 + the signal that ended it; 125 if husk failed, 126 if the command cannot be
/// executed, 127 if it does not exist.
#[derive(Debug, Parser)]
#[command(name = "husk run", override_usage = "husk run [OPTIONS] IMAGE [COMMAND [ARG…]]")]
pub(super) struct Run {
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<ContainerName>,
    /// Set a variable; without a value, to the caller's
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<EnvironmentEntry>,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// User, and group, by name or id
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<UserSpec>,
    /// Bind a file or directory of the host
    #[arg(long, short, value_name = "SOURCE:DESTINATION[:OPTIONS]")]
    volume: Vec<Volume>,
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
    /// Run this instead of the image's entry point; empty for none
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Host name of the container
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Network of the container: none or host
    #[arg(long, alias = "net", value_name = "NETWORK")]
    network: Option<String>,
    #[command(flatten)]
    limits: LimitArgs,
    /// Image to run
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// What a container may use.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Memory limit, with a suffix b, k, m or g
    #[arg(long, short, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// Limit of memory and swap together; -1 for none on swap
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<SwapLimit>,
    /// Number of processors, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = parse_cpus)]
    cpus: Option<u64>,
    /// Relative weight of processor time
    #[arg(long, value_name = "SHARES")]
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

/// Runs the command.
pub(super) fn run(args: Run, tell: &dyn Fn(&str)) -> Result<Status> {
    let Run {
        rm,
        name,
        env,
        workdir,
        user,
        volume,
        tty,
        interactive,
        pull,
        quiet,
        entrypoint,
        read_only,
        hostname,
        network,
        limits,
        image,
        command,
    } = args;
    // Directories of containers are for the containers' users, whatever the caller's own files are for.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let LimitArgs { memory, memory_swap, cpus, cpu_shares, cpuset_cpus, pids_limit, require_limits } = limits;
    let limits =
        Limits { memory, memory_swap, nano_cpus: cpus, cpu_shares, cpuset_cpus, pids: pids_limit, ..Limits::default() };
    rustix::process::umask(super::FILE_MODE_MASK);
    let engine = Engine::open(settings::File::default())?;
    let mut volumes = volume;
    let here = std::env::current_dir()?;
    for volume in &mut volumes {
        volume.resolve_source(&here);
        volume.check_source()?;
    }
    let stdin = rustix::stdio::stdin();
    if tty && interactive && !rustix::termios::isatty(stdin) {
        return Err(Error::invalid("the input device is not a TTY").with_hint("leave out -t where no terminal is"));
    }
    let size = rustix::termios::tcgetwinsize(stdin).ok().filter(|_| tty);
    let options = RunOptions {
        name,
        remove: rm,
        interactive,
        terminal: tty,
        console_size: size.map(|size| (size.ws_row, size.ws_col)),
        environment: env,
        working_directory: workdir,
        user,
        pull,
        entrypoint: entrypoint.map(|entrypoint| if entrypoint.is_empty() { Vec::new() } else { vec![entrypoint] }),
        command,
        volumes,
        hostname,
        network: parse_network(network.as_deref(), &engine)?,
        read_only,
        limits,
        ..RunOptions::default()
    };
    for note in &engine.notes {
        tell(note);
    }
    let bar = Bar::new(quiet);
    let exit = run::run(&engine, &image, &options, require_limits, tell, &|progress| bar.show(progress))?;
    Ok(Status::Workload(exit.status()))
}

fn parse_network(word: Option<&str>, engine: &Engine) -> Result<Network> {
    match word {
        None => Ok(match engine.settings.network {
            settings::DefaultNetwork::None => Network::None,
            settings::DefaultNetwork::Host => Network::Host,
        }),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => Err(Error::unsupported(format!("--network {other}: only none and host are supported yet"))),
    }
}

/// Reads a number of processors with a fraction, in billionths.
fn parse_cpus(text: &str) -> Result<u64> {
    let wrong = || Error::invalid("not a positive number of processors, such as 1.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || fraction.len() > 9 || !is_number(whole) || !is_number(fraction) {
        return Err(wrong());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let fraction: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let billionths = whole.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(fraction));
    billionths.filter(|billionths| *billionths > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_have_nine_places() {
        for (text, expected) in [
            ("1", Some(1_000_000_000)),
            ("1.5", Some(1_500_000_000)),
            (".5", Some(500_000_000)),
            ("0.000000001", Some(1)),
        ] {
            assert_eq!(parse_cpus(text).ok(), expected, "{text}");
        }
        for text in ["", ".", "0", "-1", "1e3", "1.0000000001", "99999999999999999999", "1,5"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }
}
