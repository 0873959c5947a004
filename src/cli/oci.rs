//! The verbs of an OCI runtime, with runc's grammar: the flags before the verb, and the way to the verb that was typed.
//!
//! A verb is a file below: its words, and the printing of its answer. A new one is a line in [`VERBS`].

mod checkpoint;
mod create;
mod delete;
mod exec;
mod kill;
mod list;
mod passed;
mod restore;
mod run;
mod spec;
mod start;
mod state;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};

use super::printer;
use super::report::Log;
use super::status::Status;
use crate::cgroups::{Driver, Tolerance};
use crate::error::{Context, Error, Result};
use crate::namespaces::rootless::is_initial_user_namespace;
use crate::runtime::container::Runtime;
use crate::runtime::state::StateRoot;

/// Run containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "runc", disable_version_flag = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
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

/// A verb: its words, from which it is made, and what it does.
trait Verb: Parser {
    /// The exit status when it fails.
    const FAILURE: Status = Status::Failure;

    /// Does it, and prints the answer.
    fn run(self, invocation: &Invocation) -> Result<Status>;
}

/// What the flags before the verb have settled.
struct Invocation {
    runtime: Runtime,
    log: Log,
}

/// A verb as the dispatch knows it.
struct Entry {
    name: &'static str,
    command: fn() -> Command,
    run: fn(ArgMatches, &Invocation) -> Result<Status>,
    failure: Status,
}

/// A verb and the words after it.
struct Typed {
    verb: &'static Entry,
    matches: ArgMatches,
}

const fn entry<V: Verb>(name: &'static str) -> Entry {
    Entry { name, command: V::command, run: parse_and_run::<V>, failure: V::FAILURE }
}

/// Every verb, in the order of the help text.
const VERBS: &[Entry] = &[
    entry::<create::Create>("create"),
    entry::<run::Run>("run"),
    entry::<exec::Exec>("exec"),
    entry::<start::Start>("start"),
    entry::<state::State>("state"),
    entry::<kill::Kill>("kill"),
    entry::<delete::Delete>("delete"),
    entry::<list::List>("list"),
    entry::<spec::Spec>("spec"),
    entry::<checkpoint::Checkpoint>("checkpoint"),
    entry::<restore::Restore>("restore"),
];

fn parse_and_run<V: Verb>(mut matches: ArgMatches, invocation: &Invocation) -> Result<Status> {
    // The matches are of the command that `V` describes, so nothing can be missing.
    V::from_arg_matches_mut(&mut matches).map_err(|error| Error::invalid(error.to_string()))?.run(invocation)
}

/// Gives the verbs' command tree, for help, manuals and completions.
pub(super) fn command() -> Command {
    Cli::command().subcommands(VERBS.iter().map(|verb| (verb.command)()))
}

/// Parses the arguments, runs the verb, and gives the exit status.
pub(super) fn main(args: &[OsString]) -> ExitCode {
    let (global, typed) = match parse(args) {
        Ok(parsed) => parsed,
        Err(error) => {
            let is_help = !error.use_stderr();
            let _ = error.print();
            return if is_help { Status::Success } else { Status::Failure }.into();
        }
    };
    let log = Log { file: global.log.clone(), is_json: global.log_format == "json" };
    // crun has no statuses of its own for a verb.
    let is_crun = args.first().map(Path::new).and_then(Path::file_name).is_some_and(|name| name == "crun");
    let failure = typed.as_ref().filter(|_| !is_crun).map_or(Status::Failure, |typed| typed.verb.failure);
    match dispatch(&global, typed, log.clone()) {
        Ok(status) => status.into(),
        Err(error) => {
            log.error(&error);
            failure.into()
        }
    }
}

/// Parses the flags before the verb, then the verb's own words with its own parser: building all of them takes longer than
/// some verbs run.
fn parse(args: &[OsString]) -> Result<(Global, Option<Typed>), clap::Error> {
    let parser = Cli::command()
        .allow_external_subcommands(true)
        .external_subcommand_value_parser(clap::value_parser!(OsString))
        .disable_help_subcommand(true);
    let whole = || command().try_get_matches_from(args).err();
    let mut matches = match parser.try_get_matches_from(args) {
        // The help lists the verbs.
        Err(error) => return Err(whole().unwrap_or(error)),
        Ok(matches) => matches,
    };
    let typed = matches.remove_subcommand();
    let global = Cli::from_arg_matches_mut(&mut matches)?.global;
    let Some((name, mut words)) = typed else { return Ok((global, None)) };
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        // `help`, or a verb that there is not.
        return Err(whole().unwrap_or_else(|| clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)));
    };
    let words = words.remove_many::<OsString>("").into_iter().flatten();
    let matches = (verb.command)()
        .bin_name(format!("runc {name}"))
        .try_get_matches_from(std::iter::once(OsString::from(name)).chain(words))?;
    Ok((global, Some(Typed { verb, matches })))
}

fn dispatch(global: &Global, typed: Option<Typed>, log: Log) -> Result<Status> {
    if !matches!(global.log_format.as_str(), "text" | "json") {
        return Err(Error::invalid(format!("invalid log-format: {}", global.log_format)));
    }
    if global.version {
        return version();
    }
    let Some(Typed { verb, matches }) = typed else {
        return Err(Error::invalid("no command given").with_hint("--help lists them"));
    };
    (verb.run)(matches, &Invocation { runtime: runtime(global)?, log })
}

fn runtime(global: &Global) -> Result<Runtime> {
    // User 0 of a user namespace is no more than a user, as `podman unshare` and rootlesskit know.
    let is_root = rustix::process::geteuid().is_root() && is_initial_user_namespace();
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

fn version() -> Result<Status> {
    let version = env!("CARGO_PKG_VERSION");
    print(&format!("runc version {version}\nspec: {}\n", crate::runtime::state::OCI_VERSION))
}

fn print(data: &str) -> Result<Status> {
    printer::print(data)?;
    Ok(Status::Success)
}
