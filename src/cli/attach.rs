//! `husk attach CONTAINER`, and the flags of all commands that attend to a container.

use clap::Args;

use super::status::Status;
use crate::engine::engine::Engine;
use crate::engine::events;
use crate::engine::options::{RunOptions, Stream};
use crate::engine::{settings, start};
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::{Attending, Ended, Keys, Wants};
use crate::sys::signal::Signals;

/// How a command attends to a container.
#[derive(Debug, Args)]
pub(super) struct AttendArgs {
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    sig_proxy: bool,
    /// Keys that leave the container's terminal, such as ctrl-p,ctrl-q; empty for none
    #[arg(long, value_name = "KEYS")]
    pub(super) detach_keys: Option<String>,
}

impl AttendArgs {
    pub(super) fn attending(&self, input: bool) -> Result<Attending> {
        let Self { sig_proxy, detach_keys } = self;
        let keys = detach_keys.as_deref().map(str::parse::<Keys>).transpose()?.unwrap_or_default();
        Ok(Attending { input, shows: [true; 2], proxies_signals: *sig_proxy, keys })
    }

    /// The same for a container of which only these streams were asked for (`-a`); none is all of them.
    pub(super) fn attending_to(&self, options: &RunOptions) -> Result<Attending> {
        let mut attending = self.attending(options.interactive && asks_for(options, Stream::Stdin))?;
        attending.shows = shown(options);
        Ok(attending)
    }
}

/// Says which of output and errors a container was made to show.
pub(super) fn shown(options: &RunOptions) -> [bool; 2] {
    [Stream::Stdout, Stream::Stderr].map(|stream| asks_for(options, stream))
}

fn asks_for(options: &RunOptions, stream: Stream) -> bool {
    options.attached.is_empty() || options.attached.contains(&stream)
}

/// Attach this terminal, or these streams, to a container that runs
///
/// What the container writes from now on is shown; what it wrote before is in `husk logs`. The exit status is the container's,
/// or 0 after the detach keys.
#[derive(Debug, Args)]
pub(super) struct Attach {
    #[command(flatten)]
    attend: AttendArgs,
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Name or id of the container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Runs `attach`.
pub(super) fn run(args: &Attach, tell: &dyn Fn(&str)) -> Result<Status> {
    let Attach { attend, no_stdin, container } = args;
    let engine = Engine::open(settings::File::default())?;
    let record = engine.find(container)?.record()?;
    attach(&engine, container, &attend.attending(record.interactive && !no_stdin)?, tell)
}

/// Attends to a container that runs.
pub(super) fn attach(engine: &Engine, word: &str, attending: &Attending, tell: &dyn Fn(&str)) -> Result<Status> {
    let container = engine.find(word)?;
    let signals = Signals::block_all().context("block signals")?;
    let client = start::connect(&container, Wants { output: true })?;
    let client = client.ok_or_else(|| {
        Error::new(Kind::State, format!("container {word} is not running")).with_hint("start it with `husk start -a`")
    })?;
    if let Ok(record) = container.record() {
        events::container(engine, &record, "attach", &[]);
    }
    Ok(finish(client.attend(attending, &signals, tell)?))
}

/// What the end of an attending means for the command.
pub(super) fn finish(ended: Ended) -> Status {
    match ended {
        Ended::Exit(exit) => Status::Workload(exit.status()),
        Ended::Detached => Status::Success,
    }
}
