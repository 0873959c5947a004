//! The commands that change where containers are in their lives: `start stop restart kill pause unpause wait rm rename`.
//!
//! As with docker, each prints the containers that it was told, as they were named, and goes on after a failure; the status is
//! 1 where there was one.

use clap::Args;

use super::attach::AttendArgs;
use super::status::Status;
use super::{attach, printer, report};
use crate::engine::containers::Containers;
use crate::engine::engine::Engine;
use crate::engine::events;
use crate::engine::membership;
use crate::engine::record::Container;
use crate::engine::remove::{self, Force};
use crate::engine::stop::{self, Patience, StopOptions, Then};
use crate::engine::{boot, settings, start, wait};
use crate::error::{Context, Error, Result};
use crate::monitor::{Lifetime, Wants};
use crate::support::id::ContainerName;
use crate::sys::signal::{self, Signals};

/// Start containers that were made, or have ended
#[derive(Debug, Args)]
pub(super) struct Start {
    /// Attach this terminal, or these streams; the exit status is the container's
    #[arg(long, short)]
    attach: bool,
    /// Pass standard input on; attaches
    #[arg(long, short)]
    interactive: bool,
    /// Start all whose restart policy says so: what a machine does that has just come up
    #[arg(long, conflicts_with_all = ["attach", "interactive", "containers"])]
    boot: bool,
    #[command(flatten)]
    attend: AttendArgs,
    /// Names or ids of the containers
    #[arg(required_unless_present = "boot", value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stop containers: their stop signal, and SIGKILL if that does not end them
#[derive(Debug, Args)]
pub(super) struct Stop {
    #[command(flatten)]
    how: StopArgs,
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Stop containers and start them again
#[derive(Debug, Args)]
pub(super) struct Restart {
    #[command(flatten)]
    how: StopArgs,
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// How containers are stopped.
#[derive(Debug, Args)]
struct StopArgs {
    /// Signal to send instead of the container's own
    #[arg(long, short, value_name = "SIGNAL", value_parser = parse_signal)]
    signal: Option<i32>,
    /// Seconds before SIGKILL; -1 for never
    #[arg(long, short, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true, value_parser = parse_patience)]
    time: Option<Patience>,
}

/// Send a signal to containers
#[derive(Debug, Args)]
pub(super) struct Kill {
    /// Signal, by name or number
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL", value_parser = parse_signal)]
    signal: i32,
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Freeze the processes of containers
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Let paused containers go on
#[derive(Debug, Args)]
pub(super) struct Unpause {
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Wait until containers have ended, and print their exit statuses
#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Remove containers, with their anonymous volumes
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// Kill those that run; one that is not there is no error
    #[arg(long, short)]
    force: bool,
    /// Accepted: anonymous volumes are always removed
    #[arg(long, short)]
    volumes: bool,
    /// Names or ids of the containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Give a container another name
#[derive(Debug, Args)]
pub(super) struct Rename {
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: ContainerName,
}

fn parse_signal(text: &str) -> Result<i32> {
    signal::parse(text).filter(|number| *number > 0).ok_or_else(|| Error::invalid(format!("invalid signal: {text}")))
}

fn parse_patience(text: &str) -> Result<Patience> {
    if text.starts_with('-') {
        return text
            .parse::<i64>()
            .map(|_| Patience::Endless)
            .map_err(|_| Error::invalid(format!("{text:?} is not a number of seconds")));
    }
    text.parse().map(Patience::Seconds).map_err(|_| Error::invalid(format!("{text:?} is not a number of seconds")))
}

impl StopArgs {
    fn options(&self) -> StopOptions {
        let Self { signal, time } = self;
        StopOptions { signal: *signal, patience: *time }
    }
}

/// Acts on each container that is named, goes on after a failure, and prints what it is given.
fn each(
    words: &[String],
    act: impl Fn(&Engine, &Containers, &Container, &str) -> Result<Option<String>>,
) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let containers = engine.containers()?;
    let mut status = Status::Success;
    for word in words {
        match engine.find(word).and_then(|container| act(&engine, &containers, &container, word)) {
            Ok(None) => {}
            Ok(Some(line)) => printer::print(&(line + "\n"))?,
            Err(error) => {
                report::engine_error(&error);
                status = Status::Failure;
            }
        }
    }
    Ok(status)
}

/// Runs `start`.
pub(super) fn start(args: &Start, tell: &dyn Fn(&str)) -> Result<Status> {
    let Start { attach, interactive, boot, attend, containers } = args;
    super::let_go_of_all_but_passed_sockets()?;
    if *boot {
        return start_all(tell);
    }
    if !(*attach || *interactive) {
        return each(containers, |engine, _, _, word| {
            start_detached(engine, word, tell)?;
            Ok(Some(word.to_owned()))
        });
    }
    let [word] = containers.as_slice() else {
        return Err(Error::invalid("you cannot start and attach multiple containers at once"));
    };
    let engine = Engine::open(settings::File::default())?;
    let mut attending = attend.attending(*interactive)?;
    let Some(created) = start::take(&engine, word)? else {
        return attach::attach(&engine, word, &attending, tell);
    };
    attending.shows = attach::shown(&created.record.options);
    let signals = Signals::block_all().context("block signals")?;
    // As with docker, the container does not end with a command that only started it again.
    let client = start::launch(&engine, created, Lifetime::Own, Wants { output: true }, &signals, tell)?;
    Ok(attach::finish(client.attend(&attending, &signals, tell)?))
}

/// Starts what comes back with the machine; one that fails keeps none of the others.
fn start_all(tell: &dyn Fn(&str)) -> Result<Status> {
    let engine = Engine::open(settings::File::default())?;
    let found = boot::containers(&engine)?;
    let mut status = Status::Success;
    let mut fail = |error: &Error| {
        report::engine_error(error);
        status = Status::Failure;
    };
    found.failures.iter().for_each(&mut fail);
    for record in found.containers {
        match start_detached(&engine, record.id.as_str(), tell) {
            Ok(()) => printer::print(&format!("{}\n", record.name))?,
            Err(error) => fail(&error.context(format!("container {}", record.name))),
        }
    }
    Ok(status)
}

fn start_detached(engine: &Engine, word: &str, tell: &dyn Fn(&str)) -> Result<()> {
    // One that runs is left as it is, as with docker and podman.
    if let Some(created) = start::take(engine, word)? {
        let signals = Signals::block_all().context("block signals")?;
        let started = start::launch(engine, created, Lifetime::Own, Wants::default(), &signals, tell).map(drop);
        signals.restore_mask().context("unblock signals")?;
        started?;
    }
    Ok(())
}

/// Runs `stop`.
pub(super) fn stop(args: &Stop) -> Result<Status> {
    let Stop { how, containers } = args;
    each(containers, |engine, _, container, word| {
        stop::stop(engine, container, how.options(), Then::Ends).map(|()| Some(word.to_owned()))
    })
}

/// Runs `restart`.
pub(super) fn restart(args: &Restart, tell: &dyn Fn(&str)) -> Result<Status> {
    let Restart { how, containers } = args;
    super::let_go_of_all_but_passed_sockets()?;
    each(containers, |engine, _, container, word| {
        stop::stop(engine, container, how.options(), Then::Starts)?;
        start_detached(engine, container.id().as_str(), tell)?;
        events::container(engine, &container.record()?, "restart", &[]);
        Ok(Some(word.to_owned()))
    })
}

/// Runs `kill`.
pub(super) fn kill(args: &Kill) -> Result<Status> {
    let Kill { signal, containers } = args;
    each(containers, |engine, _, container, word| {
        stop::kill(engine, container, *signal).map(|()| Some(word.to_owned()))
    })
}

/// Runs `pause`.
pub(super) fn pause(args: &Pause) -> Result<Status> {
    each(&args.containers, |engine, _, container, word| stop::pause(engine, container).map(|()| Some(word.to_owned())))
}

/// Runs `unpause`.
pub(super) fn unpause(args: &Unpause) -> Result<Status> {
    each(&args.containers, |engine, _, container, word| {
        stop::unpause(engine, container).map(|()| Some(word.to_owned()))
    })
}

/// Runs `wait`.
pub(super) fn wait(args: &Wait) -> Result<Status> {
    each(&args.containers, |engine, _, container, _| {
        wait::wait(engine, container).map(|status| Some(status.to_string()))
    })
}

/// Runs `rm`.
pub(super) fn remove(args: &Remove) -> Result<Status> {
    let Remove { force, volumes: _, containers: words } = args;
    let engine = Engine::open(settings::File::default())?;
    let containers = engine.containers()?;
    let mut status = Status::Success;
    for word in words {
        let force = if *force { Force::Yes } else { Force::No };
        let removed = match engine.find(word) {
            Err(error) if force == Force::Yes && error.kind() == crate::error::Kind::NotFound => continue,
            found => found.and_then(|container| remove::remove(&engine, &containers, &container, force)),
        };
        match removed {
            Ok(()) => printer::print(&format!("{word}\n"))?,
            Err(error) => {
                report::engine_error(&error);
                status = Status::Failure;
            }
        }
    }
    Ok(status)
}

/// Runs `rename`.
pub(super) fn rename(args: Rename) -> Result<Status> {
    let Rename { container, name } = args;
    each(&[container], |engine, containers, container, _| {
        let old = container.record()?.name;
        containers.rename(container, name.clone())?;
        membership::rename(engine, &container.record()?)?;
        events::container(engine, &container.record()?, "rename", &[("oldName", format!("/{old}"))]);
        Ok(None)
    })
}
