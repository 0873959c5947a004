//! The engine's commands: finds the one that was typed and runs it.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use super::container::Container;
use super::report;
use super::status::Status;
use super::{
    attach, commit, complete, cp, diff, dns, docs, doctor, events, exec, export, generate, history, image_list, images,
    import, info, inspect, lifecycle, load, login, logout, logs, manifest, monitor, mount, network, network_process,
    oci, ps, referrers, run, save, search, secret, stats, switches, system, thaw, top, tree, unshare, update, usage,
    volume, why,
};
use crate::engine::images::remote;
use crate::engine::settings::{self, Settings};
use crate::error::{Kind, Result};

/// Callers of runtimes ask for it bare, and look for the word `version` and for the line of the specification.
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// Run containers without a daemon
#[derive(Debug, Parser)]
#[command(name = "husk", version = VERSION, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Login(login::Login),
    Logout(logout::Logout),
    Run(Box<run::Run>),
    Create(Box<run::Create>),
    Start(lifecycle::Start),
    Stop(lifecycle::Stop),
    Restart(lifecycle::Restart),
    Kill(lifecycle::Kill),
    Rm(lifecycle::Remove),
    Ps(ps::Ps),
    Logs(logs::Logs),
    Attach(attach::Attach),
    Exec(Box<exec::Exec>),
    Wait(lifecycle::Wait),
    Pause(lifecycle::Pause),
    Unpause(lifecycle::Unpause),
    Rename(lifecycle::Rename),
    Update(update::Update),
    Top(top::Top),
    Port(top::Port),
    Stats(stats::Stats),
    Events(events::Events),
    Info(info::Info),
    Version(info::Version),
    Mount(mount::MountContainer),
    #[command(visible_alias = "umount")]
    Unmount(mount::UnmountContainer),
    Why(why::Why),
    Doctor(doctor::Doctor),
    /// Print units of systemd that run containers
    #[command(subcommand)]
    Generate(generate::Generate),
    Pull(images::Pull),
    Push(images::Push),
    Search(search::Search),
    Tag(images::Tag),
    Untag(images::Untag),
    Load(load::Load),
    Save(save::Save),
    Images(image_list::List),
    Inspect(inspect::Inspect),
    History(history::History),
    Rmi(images::Remove),
    Export(export::Args),
    Import(import::Import),
    Commit(commit::Commit),
    Cp(cp::Cp),
    Diff(diff::Diff),
    /// Make and push indexes of images for several platforms
    #[command(subcommand)]
    Manifest(manifest::Manifest),
    /// Manage containers
    #[command(subcommand)]
    Container(Container),
    /// Manage images
    #[command(subcommand)]
    Image(images::Image),
    /// Manage volumes
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Network),
    /// Manage secrets of containers
    #[command(subcommand)]
    Secret(secret::Command),
    /// Look after the data root
    #[command(subcommand)]
    System(system::System),
    Unshare(unshare::Unshare),
    Completion(complete::Completion),
    /// What the build, and husk itself, need of the executable
    #[command(subcommand, hide = true)]
    Internal(Internal),
}

#[derive(Debug, Subcommand)]
enum Internal {
    Docs(docs::Docs),
    Dns(dns::Dns),
    Monitor(monitor::Monitor),
    Network(network_process::NetworkProcess),
    Thaw(thaw::Thaw),
    Complete(complete::Complete),
}

/// Gives the whole command tree, the runtime's verbs below `oci`: for help, manuals and completions.
pub(super) fn command() -> clap::Command {
    Cli::command().subcommand(oci::command().name("oci").about("Run a verb of the OCI runtime, with runc's grammar"))
}

/// Parses the arguments, runs the command, and gives the exit status.
pub(super) fn main(args: &[OsString]) -> ExitCode {
    let second = args.get(2).and_then(|word| word.to_str());
    let parsed = match args.get(1).and_then(|word| word.to_str()) {
        // Only the parser of the command that was typed: the whole tree costs more than a container's start.
        Some("run") => parse::<run::Run>(args).map(|args| Command::Run(Box::new(args))),
        Some("create") => parse::<run::Create>(args).map(|args| Command::Create(Box::new(args))),
        Some("unshare") => parse::<unshare::Unshare>(args).map(Command::Unshare),
        // These two stay, and what the tree leaves of the heap would stay with them: 300 KiB.
        Some("internal") if second == Some("dns") => parse(&args[1..]).map(Internal::Dns).map(Command::Internal),
        Some("internal") if second == Some("monitor") => {
            parse(&args[1..]).map(Internal::Monitor).map(Command::Internal)
        }
        _ => command()
            .try_get_matches_from(args)
            .and_then(|matches| Cli::from_arg_matches(&matches))
            .map(|cli| cli.command),
    };
    let command = match parsed {
        Ok(command) => command,
        Err(error) => {
            let is_help = !error.use_stderr();
            match usage::explain(&error) {
                Some(error) => report::engine_error(&error),
                None => drop(error.print()),
            }
            return if is_help { Status::Success } else { Status::Engine }.into();
        }
    };
    match dispatch(command) {
        Ok(status) => status.into(),
        Err(error) => {
            report::engine_error(&error);
            Status::of_engine(&error).into()
        }
    }
}

fn parse<C: Parser + FromArgMatches>(args: &[OsString]) -> Result<C, clap::Error> {
    // `husk run …` is parsed as the command `husk run` with what follows.
    let command = switches::accept_values(C::command());
    C::from_arg_matches(&command.try_get_matches_from(std::iter::once(&args[0]).chain(&args[2..]))?)
}

/// Docker's status for a failure with a thing that was named: 1, where `run` has 125 to tell it from the workload's.
fn or_failure(answer: Result<Status>) -> Result<Status> {
    match answer {
        Err(error) if !matches!(error.kind(), Kind::NotExecutable | Kind::ExecutableNotFound) => {
            report::engine_error(&error);
            Ok(Status::Failure)
        }
        answer => answer,
    }
}

fn dispatch(command: Command) -> Result<Status> {
    let tell = |line: &str| report::note(line);
    match command {
        Command::Login(args) => {
            let options = args.remote.options()?;
            let settings = Settings::load(settings::File::default(), &settings::Caller::current())?;
            login::run(args, &|registry, login| remote::check_login(&settings, registry, login, &options))
        }
        Command::Manifest(command) => manifest::run(command),
        Command::Logout(args) => logout::run(args),
        Command::Run(args) => run::run(*args, &tell),
        Command::Create(args) => run::create(*args, &tell),
        Command::Start(args) => or_failure(lifecycle::start(&args, &tell)),
        Command::Stop(args) => lifecycle::stop(&args),
        Command::Restart(args) => lifecycle::restart(&args, &tell),
        Command::Kill(args) => lifecycle::kill(&args),
        Command::Rm(args) => lifecycle::remove(&args),
        Command::Ps(args) => or_failure(ps::run(&args)),
        Command::Logs(args) => or_failure(logs::run(&args)),
        Command::Attach(args) => or_failure(attach::run(&args, &tell)),
        Command::Exec(args) => or_failure(exec::run(*args, &tell)),
        Command::Wait(args) => lifecycle::wait(&args),
        Command::Pause(args) => lifecycle::pause(&args),
        Command::Unpause(args) => lifecycle::unpause(&args),
        Command::Update(args) => or_failure(update::run(&args)),
        Command::Top(args) => or_failure(top::top(&args)),
        Command::Port(args) => or_failure(top::port(&args)),
        Command::Stats(args) => or_failure(stats::run(&args)),
        Command::Events(args) => or_failure(events::run(&args)),
        Command::Info(args) => info::info(&args),
        Command::Version(args) => info::version(&args),
        Command::Rename(args) => lifecycle::rename(args),
        Command::Mount(args) => or_failure(mount::mount_container(&args)),
        Command::Unmount(args) => or_failure(mount::unmount_container(&args)),
        Command::Why(args) => or_failure(why::run(&args)),
        Command::Doctor(args) => doctor::run(&args),
        Command::Generate(command) => or_failure(generate::run(&command)),
        Command::Pull(args) | Command::Image(images::Image::Pull(args)) => images::pull(&args),
        Command::Push(args) | Command::Image(images::Image::Push(args)) => images::push(&args),
        Command::Search(args) | Command::Image(images::Image::Search(args)) => search::run(&args),
        Command::Image(images::Image::Referrers(args)) => referrers::run(&args),
        Command::Tag(args) | Command::Image(images::Image::Tag(args)) => images::tag(&args),
        Command::Untag(args) | Command::Image(images::Image::Untag(args)) => images::untag(&args),
        Command::Load(args) | Command::Image(images::Image::Load(args)) => load::run(&args),
        Command::Save(args) | Command::Image(images::Image::Save(args)) => save::run(&args),
        Command::Images(args) | Command::Image(images::Image::Ls(args)) => image_list::run(&args),
        Command::Inspect(args) => or_failure(inspect::run(&args)),
        Command::Image(images::Image::Inspect(args)) => or_failure(inspect::run_image(&args)),
        Command::History(args) | Command::Image(images::Image::History(args)) => history::run(&args),
        Command::Image(images::Image::Exists(args)) => inspect::exists(&args),
        Command::Export(args) => or_failure(export::run(&args)),
        Command::Import(args) | Command::Image(images::Image::Import(args)) => import::run(&args),
        Command::Cp(args) => or_failure(cp::run(&args)),
        Command::Commit(args) => or_failure(commit::run(&args)),
        Command::Diff(args) | Command::Image(images::Image::Diff(args)) => or_failure(diff::run(&args)),
        Command::Image(images::Image::Mount(args)) => mount::run(&args),
        Command::Image(images::Image::Unmount(args)) => mount::unmount(&args),
        Command::Image(images::Image::Tree(args)) => tree::run(&args),
        Command::Rmi(args) | Command::Image(images::Image::Rm(args)) => or_failure(images::remove(&args)),
        Command::Image(images::Image::Prune(args)) => system::prune_images(&args),
        Command::Container(command) => container(command),
        Command::Volume(command) => or_failure(volume::run(&command)),
        Command::Network(command) => or_failure(network::run(&command)),
        Command::Secret(command) => or_failure(secret::run(&command)),
        Command::System(command) => system::run(command),
        Command::Unshare(args) => unshare::run(args, &tell),
        Command::Internal(Internal::Monitor(args)) => monitor::run(&args),
        Command::Internal(Internal::Network(args)) => network_process::run(&args),
        Command::Internal(Internal::Dns(args)) => dns::run(&args),
        Command::Internal(Internal::Thaw(args)) => thaw::run(&args),
        Command::Completion(args) => complete::completion(&args),
        Command::Internal(Internal::Complete(args)) => complete::run(&args, &self::command()),
        Command::Internal(Internal::Docs(args)) => docs::run(args, self::command()),
    }
}

/// Runs `container …`: what is not its own is the command of that name.
fn container(command: Container) -> Result<Status> {
    let twin = match command {
        Container::Inspect(args) => return or_failure(inspect::run_container(&args)),
        Container::Exists(args) => return or_failure(inspect::container_exists(&args)),
        Container::Prune(args) => return or_failure(system::prune_containers(&args)),
        Container::Ls(args) => Command::Ps(args),
        Container::Attach(args) => Command::Attach(args),
        Container::Commit(args) => Command::Commit(args),
        Container::Create(args) => Command::Create(args),
        Container::Diff(args) => Command::Diff(args),
        Container::Exec(args) => Command::Exec(args),
        Container::Export(args) => Command::Export(args),
        Container::Kill(args) => Command::Kill(args),
        Container::Logs(args) => Command::Logs(args),
        Container::Pause(args) => Command::Pause(args),
        Container::Rename(args) => Command::Rename(args),
        Container::Restart(args) => Command::Restart(args),
        Container::Rm(args) => Command::Rm(args),
        Container::Run(args) => Command::Run(args),
        Container::Start(args) => Command::Start(args),
        Container::Stop(args) => Command::Stop(args),
        Container::Unpause(args) => Command::Unpause(args),
        Container::Wait(args) => Command::Wait(args),
        Container::Port(args) => Command::Port(args),
        Container::Cp(args) => Command::Cp(args),
        Container::Mount(args) => Command::Mount(args),
        Container::Unmount(args) => Command::Unmount(args),
        Container::Why(args) => Command::Why(args),
        Container::Stats(args) => Command::Stats(args),
        Container::Top(args) => Command::Top(args),
        Container::Update(args) => Command::Update(args),
    };
    dispatch(twin)
}
