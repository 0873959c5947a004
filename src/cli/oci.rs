//! The verbs of an OCI runtime, with runc's grammar.

mod exec;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use super::printer;
use super::report::{self, Log};
use super::status::Status;
use super::table::Table;
use crate::cgroups::{self, Driver, Tolerance};
use crate::error::{Context, Error, Kind, Result};
use crate::runtime::container::{Mode, Request, Runtime};
use crate::runtime::plan::Choices;
use crate::runtime::state::StateRoot;
use crate::spec::{default::DefaultSpec, load, validate};
use crate::sys::process::is_open;
use crate::sys::signal::{self, Signals};

/// Run containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "runc", disable_version_flag = true, disable_help_subcommand = false)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Args)]
struct Global {
    /// Directory of the containers' states
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// File for errors, beside standard error
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Form of the log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: String,
    /// Least severe messages to log (accepted, only errors are logged)
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Log for debugging (accepted, only errors are logged)
    #[arg(long)]
    debug: bool,
    /// Let systemd make the cgroups
    #[arg(long)]
    systemd_cgroup: bool,
    /// Who makes the cgroups
    #[arg(long, value_name = "MANAGER")]
    cgroup_manager: Option<CgroupManager>,
    /// Whether to pass over limits that the caller may not set: true, false, auto
    #[arg(long, value_name = "VALUE", default_value = "auto")]
    rootless: String,
    /// Ignored, for callers of older versions of runc
    #[arg(long, value_name = "PATH", hide = true)]
    criu: Option<PathBuf>,
    /// Print version information
    #[arg(long, short = 'v', short_alias = 'V')]
    version: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a container, to be started later
    Create(Create),
    /// Create a container and start it
    Run(Run),
    /// Start a process in a container
    Exec(exec::Exec),
    /// Start a created container
    Start(Id),
    /// Print the state of a container
    State(Id),
    /// Send a signal to a container
    Kill(Kill),
    /// Delete a container that has stopped
    Delete(Delete),
    /// List containers
    List(List),
    /// Write a configuration to start from
    Spec(Spec),
}

#[derive(Debug, Args)]
struct Id {
    /// Container id
    id: String,
}

#[derive(Debug, Args)]
struct Create {
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
    preserve_fds: u32,
    /// Container id
    id: String,
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    create: Create,
    /// Return once the container runs
    #[arg(long, short)]
    detach: bool,
    /// Leave the container's state when it has ended
    #[arg(long)]
    keep: bool,
    /// Leave the container's orphans to the system
    #[arg(long)]
    no_subreaper: bool,
}

#[derive(Debug, Args)]
struct Kill {
    /// Signal also the processes that the first one left behind
    #[arg(long, short)]
    all: bool,
    /// Container id
    id: String,
    /// Name or number of the signal
    #[arg(default_value = "TERM")]
    signal: String,
}

#[derive(Debug, Args)]
struct Delete {
    /// Kill the container first if it runs
    #[arg(long, short)]
    force: bool,
    /// Container id
    id: String,
}

#[derive(Debug, Args)]
struct List {
    /// Form of the list: table or json
    #[arg(long, short, default_value = "table")]
    format: String,
    /// Print ids only
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct Spec {
    /// Directory to write to
    #[arg(long, short, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Write a configuration for an ordinary user
    #[arg(long)]
    rootless: bool,
}

/// Gives the verbs' command tree, for help, manuals and completions.
pub(super) fn command() -> clap::Command {
    Cli::command()
}

/// Parses the arguments, runs the verb, and gives the exit status.
pub(super) fn main(args: &[OsString]) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = !error.use_stderr();
            let _ = error.print();
            return if is_help { Status::Success } else { Status::Failure }.into();
        }
    };
    let failure = match &cli.verb {
        Some(Verb::Exec(_)) => exec::failure(args),
        _ => Status::Failure,
    };
    let log = Log { file: cli.global.log.clone(), is_json: cli.global.log_format == "json" };
    match dispatch(cli) {
        Ok(status) => status.into(),
        Err(error) => {
            log.error(&error);
            failure.into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<Status> {
    let Cli { global, verb } = cli;
    if !matches!(global.log_format.as_str(), "text" | "json") {
        return Err(Error::invalid(format!("invalid log-format: {}", global.log_format)));
    }
    if global.version {
        return version();
    }
    let Some(verb) = verb else { return Err(Error::invalid("no command given").with_hint("--help lists them")) };
    // Before anything of ours is open.
    let fds = match &verb {
        Verb::Create(args) | Verb::Run(Run { create: args, .. }) => Passed::find(args.preserve_fds)?,
        Verb::Exec(args) => Passed::find_preserved(args.preserve_fds)?,
        _ => Passed::default(),
    };
    let runtime = runtime(&global)?;
    match verb {
        Verb::Create(args) => create(&runtime, &args, Mode::Create, fds).map(|_| Status::Success),
        Verb::Run(args) => run(&runtime, &args, fds),
        Verb::Exec(args) => exec::run(&runtime, &args, fds),
        Verb::Start(args) => runtime.start(&args.id).map(|()| Status::Success),
        Verb::State(args) => {
            let document = runtime.state(&args.id)?;
            print(&serde_json::to_string_pretty(&document)?)
        }
        Verb::Kill(args) => {
            let number = signal::parse(&args.signal)
                .ok_or_else(|| Error::invalid(format!("unknown signal {:?}", args.signal)))?;
            runtime.kill(&args.id, number, args.all).map(|()| Status::Success)
        }
        Verb::Delete(args) => runtime.delete(&args.id, args.force).map(|()| Status::Success),
        Verb::List(args) => list(&runtime, &args),
        Verb::Spec(args) => spec(&args),
    }
}

fn runtime(global: &Global) -> Result<Runtime> {
    let is_root = rustix::process::geteuid().is_root();
    let root = match &global.root {
        Some(root) => std::path::absolute(root).with_context(|| format!("--root {}", root.display()))?,
        None => default_root(is_root),
    };
    if root == Path::new("/") {
        return Err(Error::invalid("--root: / is not for states"));
    }
    let driver = match global.cgroup_manager {
        Some(CgroupManager::Systemd) => Driver::Systemd,
        Some(CgroupManager::Disabled) => Driver::Disabled,
        None if global.systemd_cgroup => Driver::Systemd,
        _ => Driver::Cgroupfs,
    };
    let tolerates = match global.rootless.as_str() {
        "true" => true,
        "false" => false,
        "auto" => !is_root,
        other => return Err(Error::invalid(format!("--rootless: {other} is not one of true, false, auto"))),
    };
    let tolerance = if tolerates { Tolerance::WarnWhenDenied } else { Tolerance::Require };
    Ok(Runtime { root: StateRoot::new(root), driver, tolerance })
}

fn default_root(is_root: bool) -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if !is_root && !directory.is_empty() => Path::new(&directory).join("husk/oci"),
        _ => PathBuf::from("/run/husk/oci"),
    }
}

/// Descriptors of the caller's that the workload gets.
#[derive(Clone, Copy, Default)]
struct Passed {
    /// All of them, from 3 on.
    count: u32,
    /// Those that a socket-activating manager gave.
    listening: u32,
}

impl Passed {
    /// Counts them, and refuses a number that is not open: by then it would be one of ours, and a way out of the
    /// container (CVE-2024-21626).
    fn find(preserved: u32) -> Result<Self> {
        Self::count(preserved, listen_fds())
    }

    /// Does so for a process that no socket-activating manager knows of: it is not the first of its container.
    fn find_preserved(preserved: u32) -> Result<Self> {
        Self::count(preserved, 0)
    }

    fn count(preserved: u32, listening: u32) -> Result<Self> {
        let too_many = || Error::invalid(format!("--preserve-fds {preserved}: too many"));
        let count = preserved.checked_add(listening).ok_or_else(too_many)?;
        for number in (3..).take(count as usize) {
            if !is_open(number) {
                return Err(Error::invalid(format!("descriptor {number} of {count} to pass on from 3 is not open")));
            }
        }
        Ok(Self { count, listening })
    }
}

fn create(runtime: &Runtime, args: &Create, mode: Mode, fds: Passed) -> Result<crate::runtime::container::Running> {
    // Mount points in the container are for its users, whatever the caller's own files are for.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let bundle = std::path::absolute(&args.bundle).with_context(|| format!("--bundle {}", args.bundle.display()))?;
    crate::support::root::Root::open(&bundle)?;
    let document = match &args.config {
        Some(file) => load::load_file(file)?,
        None => load::load(&bundle)?,
    };
    let spec = validate::validate(document)?;
    for warning in spec.warnings() {
        report::note(&format!("warning: {warning}"));
    }
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(std::path::absolute).transpose();
    let (pid_file, console, pidfd) =
        (absolute(&args.pid_file)?, absolute(&args.console_socket)?, absolute(&args.pidfd_socket)?);
    let running = runtime.launch(
        &Request {
            id: &args.id,
            bundle: &bundle,
            spec: &spec,
            choices: Choices {
                no_pivot: args.no_pivot,
                no_new_keyring: args.no_new_keyring,
                preserved_fds: fds.count,
                listening_fds: fds.listening,
                dies_with_parent: false,
            },
            pid_file: pid_file.as_deref(),
            console_socket: console.as_deref(),
            pidfd_socket: pidfd.as_deref(),
        },
        mode,
    )?;
    for warning in &running.warnings {
        report::note(&format!("warning: {warning}"));
    }
    Ok(running)
}

/// The number of descriptors that a socket-activating manager passes to this process (sd_listen_fds(3)).
fn listen_fds() -> u32 {
    let read = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    match read("LISTEN_PID") {
        Some(pid) if pid == std::process::id() => read("LISTEN_FDS").unwrap_or(0),
        _ => 0,
    }
}

fn run(runtime: &Runtime, args: &Run, fds: Passed) -> Result<Status> {
    if args.detach {
        create(runtime, &args.create, Mode::Detached, fds)?;
        return Ok(Status::Success);
    }
    if !args.no_subreaper {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("become a subreaper")?;
    }
    let signals = Signals::block_all().context("block signals")?;
    let mut running = create(runtime, &args.create, Mode::Foreground, fds)?;
    let exit = running.attend(&signals)?;
    if !args.keep {
        running.remove()?;
    }
    Ok(Status::Workload(exit.status()))
}

fn list(runtime: &Runtime, args: &List) -> Result<Status> {
    let list = runtime.list()?;
    if args.quiet {
        let ids: Vec<&str> = list.iter().map(|(document, _)| document.id.as_str()).collect();
        return print(&ids.iter().flat_map(|id| [*id, "\n"]).collect::<String>());
    }
    match args.format.as_str() {
        "json" if list.is_empty() => print("null"),
        "json" => print(&serde_json::to_string(&list.into_iter().map(|(document, _)| document).collect::<Vec<_>>())?),
        "table" => {
            let mut table = Table::new(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
            for (document, owner) in list {
                table.row([
                    document.id.as_str(),
                    &document.pid.to_string(),
                    &document.status,
                    &document.bundle.to_string_lossy(),
                    &document.created,
                    &format!("#{owner}"),
                ]);
            }
            print(&table.to_string())
        }
        _ => Err(Error::invalid("invalid format option")),
    }
}

fn spec(args: &Spec) -> Result<Status> {
    let directory = args.bundle.clone().unwrap_or_else(|| PathBuf::from("."));
    let path = directory.join(load::CONFIG_FILE);
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let document = DefaultSpec {
        rootless: args.rootless.then_some(ids),
        has_unified_cgroups: cgroups::Layout::probe()?.mode() == cgroups::Mode::Unified,
    };
    let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::new(Kind::Exists, "File config.json exists. Remove it first"));
        }
        answer => answer.with_context(|| format!("make {}", path.display()))?,
    };
    file.write_all(document.to_json().as_bytes()).with_context(|| format!("write {}", path.display()))?;
    Ok(Status::Success)
}

fn version() -> Result<Status> {
    let version = env!("CARGO_PKG_VERSION");
    print(&format!("runc version {version}\nspec: {}\n", crate::runtime::state::OCI_VERSION))
}

fn print(data: &str) -> Result<Status> {
    printer::print(data)?;
    Ok(Status::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_that_are_not_open_are_not_passed_on() {
        assert_eq!(Passed::find(0).unwrap().count, 0);
        assert!(Passed::find(100_000).is_err());
        assert!(Passed::find(u32::MAX).is_err());
    }
}
