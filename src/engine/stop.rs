//! `stop`, `kill`, `pause` and `unpause`. What is asked of a monitor goes on when the command that asked is gone.

use super::engine::Engine;
use super::events;
use super::record::{Container, Record, Status};
use super::start::connect;
use crate::error::{Error, Kind, Result};
use crate::monitor::{Stop, Wants};
use crate::runtime::container::KillScope;
use crate::sys::signal;

/// How long a container may take to end before it is killed, as docker and podman have it.
pub const STOP_TIMEOUT_SECONDS: u32 = 10;

/// How a container is asked to stop; what is left out is as the container has it, else as docker has it.
#[derive(Clone, Copy, Debug, Default)]
pub struct StopOptions {
    pub signal: Option<i32>,
    pub patience: Option<Patience>,
}

/// How long to wait before SIGKILL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Seconds(u32),
    /// `--time -1`
    Endless,
}

/// What is to become of a container that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It may go with its end.
    Ends,
    /// It is started again.
    Starts,
}

/// Ends a container and waits for its end; one that does not run is left as it is.
pub fn stop(engine: &Engine, container: &Container, options: StopOptions, then: Then) -> Result<()> {
    let record = match container.record() {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        answer => answer?,
    };
    let patience = options.patience.unwrap_or(match record.stop_timeout_seconds {
        // `--stop-timeout -1`
        Some(u32::MAX) => Patience::Endless,
        Some(seconds) => Patience::Seconds(seconds),
        None => Patience::Seconds(STOP_TIMEOUT_SECONDS),
    });
    let stop = Stop {
        signal: options.signal.unwrap_or_else(|| stop_signal(&record)),
        patience_seconds: match patience {
            Patience::Seconds(seconds) => Some(seconds),
            Patience::Endless => None,
        },
        is_kept: then == Then::Starts,
    };
    if end(engine, container, &record, stop)? {
        events::container(engine, &record, "stop", &[]);
    }
    Ok(())
}

/// The signal that asks a container to end: its own, or SIGTERM. It was judged at the container's creation; one of an
/// older record that is none is no reason not to end it.
fn stop_signal(record: &Record) -> i32 {
    let own = record.stop_signal.as_deref().and_then(signal::parse);
    own.filter(|number| *number > 0).unwrap_or(signal::TERMINATE)
}

/// Kills a container at once and waits for its end.
pub(super) fn end_now(engine: &Engine, container: &Container) -> Result<()> {
    let record = match container.record() {
        Err(error) if error.kind() == Kind::NotFound => return Ok(()),
        answer => answer?,
    };
    end(engine, container, &record, Stop { signal: signal::KILL, patience_seconds: None, is_kept: false }).map(drop)
}

/// Says whether there was something to end.
fn end(engine: &Engine, container: &Container, record: &Record, stop: Stop) -> Result<bool> {
    let mut did_run = false;
    loop {
        let Some(client) = connect(container, Wants::default())? else {
            match container.status() {
                Ok(Status::Lost { .. }) => engine.look_after(container)?,
                _ => break,
            }
            if let Ok(Status::Lost { .. }) = container.status() {
                return Err(Error::new(Kind::State, format!("container {} has no monitor", record.name)));
            }
            continue;
        };
        if !did_run {
            tell_kill(engine, record, stop.signal);
        }
        did_run = true;
        client.stop(stop);
        let has_ended = client.wait()?.is_some();
        // It has told all and only ends; nobody should find it still there. Gone is gone as well.
        match container.wait_for_supervisor() {
            Err(error) if error.errno() == Some(rustix::io::Errno::NOENT) => {}
            answer => answer?,
        }
        if has_ended {
            break;
        }
        // Killed before it was done: the next one is asked again.
        engine.look_after(container)?;
    }
    Ok(did_run)
}

fn tell_kill(engine: &Engine, record: &Record, number: i32) {
    events::container(engine, record, "kill", &[("signal", number.to_string())]);
}

/// Sends a signal to a container that runs. With one that means its end, its restart policy does not bring it back.
pub fn kill(engine: &Engine, container: &Container, number: i32) -> Result<()> {
    let record = container.record()?;
    let not_running = || Error::new(Kind::State, format!("container {} is not running", record.name));
    if !matches!(container.status()?, Status::Running { .. }) {
        return Err(not_running());
    }
    if number == signal::KILL || stop_signal(&record) == number {
        let stop = Stop { signal: number, patience_seconds: None, is_kept: false };
        loop {
            let Some(client) = connect(container, Wants::default())? else { return Err(not_running()) };
            tell_kill(engine, &record, number);
            if client.begin_stop(stop)? {
                return Ok(());
            }
            // Killed before it heard: the next one is asked.
            engine.look_after(container)?;
        }
    }
    match engine.runtime(false)?.kill(container.id().as_str(), number, KillScope::Init) {
        Err(error) if matches!(error.kind(), Kind::State | Kind::NotFound) => Err(not_running()),
        answer => {
            answer?;
            tell_kill(engine, &record, number);
            Ok(())
        }
    }
}

/// Freezes a container's processes, or lets them go on.
pub fn pause(engine: &Engine, container: &Container) -> Result<()> {
    let runtime = engine.runtime(false)?;
    let id = container.id().as_str();
    let answer = runtime.pause(id);
    let is_paused = answer.is_err() && runtime.is_paused(id);
    explain(answer, container, if is_paused { "is already paused" } else { "is not running" })?;
    events::container(engine, &container.record()?, "pause", &[]);
    Ok(())
}

/// Lets a paused container go on.
pub fn unpause(engine: &Engine, container: &Container) -> Result<()> {
    let answer = engine.runtime(false)?.resume(container.id().as_str());
    explain(answer, container, "is not paused")?;
    events::container(engine, &container.record()?, "unpause", &[]);
    Ok(())
}

fn explain(answer: Result<()>, container: &Container, cause: &str) -> Result<()> {
    match answer {
        Err(error) if matches!(error.kind(), Kind::State | Kind::NotFound) => {
            Err(Error::new(Kind::State, format!("container {} {cause}", container.record()?.name)))
        }
        answer => answer,
    }
}
