//! The verbs of an OCI runtime, with runc's grammar: the flags before the verb, and the way to the verb that was typed.
//!
//! A verb is a file below: its words, and the printing of its answer. A new one is a line in [`VERBS`].

mod checkpoint;
mod chosen;
mod create;
mod delete;
mod events;
mod exec;
mod features;
pub(super) mod global;
mod json;
mod kill;
mod list;
mod mounts;
mod passed;
mod pause;
pub(super) mod ps;
mod restore;
mod run;
mod spec;
mod start;
mod state;
mod update;
mod usage;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command, CommandFactory, FromArgMatches, Parser};

use self::global::Global;
use super::face::Manners;
use super::printer;
use super::report::Log;
use super::status::Status;
use crate::error::{Error, Kind, Result};
use crate::runtime::container::Runtime;

/// The commit of these sources, which whoever builds a release says in `HUSK_COMMIT`: Cargo does not know it.
pub(super) const COMMIT: &str = match option_env!("HUSK_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// Run containers from OCI bundles.
#[derive(Debug, Parser)]
#[command(name = "runc", disable_version_flag = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
}

/// A verb: its words, from which it is made, and what it does.
trait Verb: Parser {
    /// The exit status when it fails.
    const FAILURE: Status = Status::Failure;

    /// Does it, and prints the answer.
    fn run(self, invocation: &Invocation) -> Result<Status>;
}

/// What the flags before the verb, and the name of the executable, have settled.
struct Invocation {
    runtime: Runtime,
    manners: Manners,
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
    entry::<checkpoint::Checkpoint>("checkpoint"),
    entry::<create::Create>("create"),
    entry::<delete::Delete>("delete"),
    entry::<events::Events>("events"),
    entry::<exec::Exec>("exec"),
    entry::<features::Features>("features"),
    entry::<kill::Kill>("kill"),
    entry::<list::List>("list"),
    entry::<mounts::Mounts>("mounts"),
    entry::<pause::Pause>("pause"),
    entry::<ps::Ps>("ps"),
    entry::<pause::Resume>("resume"),
    entry::<restore::Restore>("restore"),
    entry::<run::Run>("run"),
    entry::<spec::Spec>("spec"),
    entry::<start::Start>("start"),
    entry::<state::State>("state"),
    entry::<update::Update>("update"),
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
pub(super) fn main(args: &[OsString], manners: Manners) -> ExitCode {
    let program = args.first().map(Path::new).and_then(Path::file_name).map(|name| name.to_string_lossy());
    let speaker = Speaker {
        program: match manners {
            Manners::Husk => "husk oci".to_owned(),
            _ => program.unwrap_or_default().into_owned(),
        },
        manners,
    };
    speaker.main(args).into()
}

/// Who answers: under which name, and in whose words.
struct Speaker {
    program: String,
    manners: Manners,
}

impl Speaker {
    fn main(&self, args: &[OsString]) -> Status {
        let parser = Cli::command()
            .allow_external_subcommands(true)
            .external_subcommand_value_parser(clap::value_parser!(OsString))
            .args_override_self(true)
            .disable_help_subcommand(true);
        let words = usage::two_dashes(&parser, args.iter().skip(1).cloned());
        let words = std::iter::once(OsString::from(&self.program)).chain(words);
        let mut matches = match parser.clone().try_get_matches_from(words) {
            Ok(matches) => matches,
            Err(error) => {
                return self.tell_usage(&error, &parser, &Log { manners: self.manners, ..Log::to_stderr() });
            }
        };
        let typed = matches.remove_subcommand();
        let global = match Cli::from_arg_matches_mut(&mut matches) {
            Ok(cli) => cli.global,
            Err(error) => return Self::tell(&error),
        };
        let log = global.log(self.manners);
        let failed = |error: &Error| {
            log.error(error);
            Status::Failure
        };
        match log.check().and_then(|()| global.wants_debug()) {
            Ok(true) => log.enable_debug(),
            Ok(false) => {}
            Err(error) => return failed(&error),
        }
        if global.version {
            return self.version(&global).unwrap_or_else(|error| failed(&error));
        }
        let Some((name, mut words)) = typed else {
            return match self.manners {
                Manners::Crun => failed(&Error::invalid("please specify a command")),
                _ => self.help(&[], &log),
            };
        };
        let words: Vec<OsString> = words.remove_many::<OsString>("").into_iter().flatten().collect();
        if name == "help" {
            return self.help(&words, &log);
        }
        let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else { return self.unknown(&name, &log) };
        let parser = usage::dress((verb.command)(), &self.program, self.manners);
        let words = std::iter::once(OsString::from(name)).chain(usage::two_dashes(&parser, words));
        let matches = match parser.clone().try_get_matches_from(words) {
            Ok(matches) => matches,
            Err(error) => return self.tell_usage(&error, &parser, &log),
        };
        self.run(Typed { verb, matches }, &global, log.clone()).unwrap_or_else(|error| {
            log.error(&error);
            // crun has no statuses of its own for a verb.
            if self.manners == Manners::Crun { Status::Failure } else { verb.failure }
        })
    }

    fn run(&self, typed: Typed, global: &Global, log: Log) -> Result<Status> {
        let Typed { verb, matches } = typed;
        (verb.run)(matches, &Invocation { runtime: global.runtime()?, manners: self.manners, log })
    }

    /// Tells what is wrong with the words, or the help that was asked for.
    fn tell_usage(&self, error: &clap::Error, command: &Command, log: &Log) -> Status {
        if error.kind() == clap::error::ErrorKind::DisplayHelp && command.is_allow_external_subcommands_set() {
            return self.help(&[], log);
        }
        match usage::explain(error, command, &self.program, self.manners) {
            Some(error) => {
                log.error(&error);
                Status::Failure
            }
            None => Self::tell(error),
        }
    }

    fn tell(error: &clap::Error) -> Status {
        let _ = error.print();
        if error.use_stderr() { Status::Failure } else { Status::Success }
    }

    /// Prints the help of all, or of one verb.
    fn help(&self, words: &[OsString], log: &Log) -> Status {
        let mut command = match words.first() {
            None => usage::dress_whole(command(), &self.program, self.manners),
            Some(name) => match VERBS.iter().find(|verb| name == verb.name) {
                Some(verb) => usage::dress((verb.command)(), &self.program, self.manners),
                None => return self.unknown(&name.to_string_lossy(), log),
            },
        };
        let text = command.render_long_help().to_string();
        print(&text).unwrap_or(Status::Failure)
    }

    /// In runc's words and with its status (urfave/cli), or in crun's.
    fn unknown(&self, name: &str, log: &Log) -> Status {
        if self.manners == Manners::Crun {
            log.error(&Error::new(Kind::Invalid, format!("unknown command {name}")));
            return Status::Failure;
        }
        log.error(
            &Error::new(Kind::Invalid, format!("No help topic for '{name}'")).with_hint("--help lists the commands"),
        );
        Status::UnknownCommand
    }

    /// go-runc reads `runc version`, `commit:` and `spec:` at the beginning of a line. The compiler and the libraries that
    /// runc names below them are not husk's.
    fn version(&self, global: &Global) -> Result<Status> {
        let own = env!("CARGO_PKG_VERSION");
        let commit = format!("commit: {COMMIT}\n");
        let spec = format!("spec: {}\n", crate::runtime::state::OCI_VERSION);
        print(&match self.manners {
            Manners::Husk => format!("husk version {own}\n{commit}{spec}"),
            // Whoever compares looks at what is before the plus (semver.org, 10).
            Manners::Runc => {
                format!("runc version {}+husk.{own}\n{commit}{spec}", crate::runtime::features::MOST_COMPATIBLE_RUNC)
            }
            Manners::Crun => {
                format!("crun version {own}\n{commit}rundir: {}\n{spec}", global.root()?.path().display())
            }
        })
    }
}

fn print(data: &str) -> Result<Status> {
    printer::print(data)?;
    Ok(Status::Success)
}
