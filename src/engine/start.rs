//! `start`, and the second half of `run`: a container that was made gets a monitor, and runs. Makes and changes none.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::create::Created;
use super::engine::Engine;
use super::events;
use super::exec::{self, ExecOptions};
use super::joining;
use super::mount;
use super::record::{ExitRecord, Record, Status, Timestamp, now};
use super::secrets::Secrets;
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::log::Format;
use crate::monitor::{self, Client, HealthJob, Job, Lifetime, Outcome, Serving, Wants};
use crate::runtime::container::Request;
use crate::runtime::foreground::Exit;
use crate::runtime::plan::Choices;
use crate::runtime::secrets::Secrets as Delivered;
use crate::spec::load::{self, Document};
use crate::spec::validate::{self, Validated};
use crate::sys::signal::Signals;

/// Takes a container that does not run, to be started; `None` where it runs already.
pub fn take(engine: &Engine, word: &str) -> Result<Option<Created>> {
    let containers = engine.containers()?;
    let container = containers.find(word)?;
    let supervision = match container.supervise()? {
        Some(supervision) => supervision,
        None => match container.status()? {
            // Its monitor has told all, and is about to go.
            Status::Exited(_) => container.supervise_soon()?,
            _ => return Ok(None),
        },
    };
    if let Status::Lost { .. } = container.status_under(&supervision)? {
        drop(supervision);
        drop(engine.clear_remains()?);
        return take(engine, word);
    }
    mount::refuse_mounted(engine, &container)?;
    let record = container.record()?;
    let bundle = engine.container_directory(container.id()).join("bundle");
    let spec = configuration(engine, &record, &bundle)?;
    Ok(Some(Created { containers, container, supervision, record, spec }))
}

/// Reads the OCI configuration that a start is by.
fn configuration(engine: &Engine, record: &Record, bundle: &Path) -> Result<Spec> {
    let mut spec = load::load(bundle)?.value;
    rejoin(engine, record, &mut spec)?;
    Ok(spec)
}

/// Finds the namespaces of other containers anew: what the configuration names is of a process that may have ended since, and
/// its pid another's.
fn rejoin(engine: &Engine, record: &Record, spec: &mut Spec) -> Result<()> {
    let joined = joining::resolve(engine, &record.options.namespaces)?;
    let Some(namespaces) = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut()) else {
        return Ok(());
    };
    for namespace in namespaces {
        let path = match namespace.typ() {
            LinuxNamespaceType::Pid => &joined.pid,
            LinuxNamespaceType::Ipc => &joined.ipc,
            LinuxNamespaceType::Uts => &joined.uts,
            LinuxNamespaceType::Cgroup => &joined.cgroup,
            LinuxNamespaceType::User => &joined.user,
            _ => &None,
        };
        if path.is_some() {
            namespace.set_path(path.clone());
        }
    }
    Ok(())
}

/// Starts a container under a monitor, and gives the conversation with that. From before this call on, signals are blocked.
///
/// With [`Lifetime::Command`] the container ends with the calling process, unless that says otherwise.
pub fn launch(
    engine: &Engine,
    created: Created,
    lifetime: Lifetime,
    wants: Wants,
    signals: &Signals,
    tell: &dyn Fn(&str),
) -> Result<Client> {
    let Created { containers, container, supervision, record, spec } = created;
    let started = Cell::new(now());
    // A run ends once, whatever else is recorded of the container afterwards.
    let has_run = Cell::new(false);
    let clear = |outcome: &Outcome| {
        let is_over = !matches!(outcome, Outcome::Ended { restarts_now: true, .. });
        if has_run.take() {
            tell_end(engine, &record, outcome, started.get());
        }
        if record.remove && is_over {
            engine.with_file_rights(|| containers.remove(&container, &supervision))?;
            events::container(engine, &record, "destroy", &[]);
            return Ok(());
        }
        container.record_exit(&supervision, &exit_record(outcome, started.get()))
    };
    let not_started = |error: Error| {
        let _ = clear(&Outcome::not_started(&error, 0));
        error
    };
    container.note_start(&supervision, started.get())?;
    let spec = validated(spec).map_err(not_started)?;
    let runtime = engine.runtime(record.options.require_limits).map_err(not_started)?;
    let bundle = engine.container_directory(container.id()).join("bundle");
    // They stay in the monitor's memory: a restart by policy does not depend on the store.
    let secrets = Secrets::of(engine).deliver(&record.options.secrets).map_err(not_started)?;
    let start_check = || exec::exec_in(&runtime, &container, spec.spec(), &check_options(&record, &secrets));
    let health = record.health.as_ref().map(|check| HealthJob { check, start: &start_check });
    let job = Job {
        runtime: &runtime,
        request: request(&record, &bundle, &spec, &secrets),
        folder: container.directory(),
        serving: serving(&record, lifetime),
        wants,
        log: record.options.log,
        lifetime,
        restart: record.options.restart,
        time_limit: record.options.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        health,
        renew: &|| {
            started.set(now());
            container.note_start(&supervision, started.get())?;
            validated(configuration(engine, &record, &bundle)?)
        },
        note_running: &|| {
            has_run.set(true);
            events::container(engine, &record, "start", &[]);
        },
        clear: &clear,
    };
    let client = monitor::start(&job, signals)?;
    for warning in &client.warnings {
        tell(warning);
    }
    // While the container runs: what others have left is no business of the way to the start.
    match engine.clear_remains() {
        Ok(failures) => failures.iter().for_each(|failure| tell(&failure.report())),
        Err(error) => tell(&error.report()),
    }
    Ok(client)
}

/// Tells of the end of a run.
fn tell_end(engine: &Engine, record: &Record, outcome: &Outcome, started: Timestamp) {
    let Outcome::Ended { exit, out_of_memory, .. } = outcome else { return };
    if out_of_memory.is_some() {
        events::container(engine, record, "oom", &[]);
    }
    let seconds = now().saturating_sub(started) / 1_000_000_000;
    let attributes = [("exitCode", exit.status().to_string()), ("execDuration", seconds.to_string())];
    events::container(engine, record, "die", &attributes);
}

/// A health check is a command in the container, as the container's user, that nobody gives input to.
fn check_options(record: &Record, secrets: &Delivered) -> ExecOptions {
    let command = record.health.as_ref().map(|check| check.command.clone()).unwrap_or_default();
    ExecOptions { command, secret_variables: secrets.variables.clone(), ..ExecOptions::default() }
}

fn validated(spec: Spec) -> Result<Validated> {
    validate::validate(Document { value: spec, warnings: Vec::new() })
}

fn request<'a>(record: &'a Record, bundle: &'a Path, spec: &'a Validated, secrets: &Delivered) -> Request<'a> {
    Request {
        id: record.id.as_str(),
        bundle,
        spec,
        choices: Choices {
            dies_with_parent: true,
            preserved_fds: record.options.preserved_fds,
            has_init: record.options.init && record.options.init_path.is_none(),
            secrets: secrets.clone(),
            ..Choices::default()
        },
        pid_file: record.options.pid_file.as_deref(),
        console_socket: None,
        pidfd_socket: None,
        shared_memory: joining::sharer(&record.options.namespaces),
        manager: None,
    }
}

/// Without a log, what a command in the foreground runs may as well have its streams.
fn serving(record: &Record, lifetime: Lifetime) -> Serving {
    let has_input = record.interactive;
    if record.terminal {
        Serving::Terminal
    } else if record.options.log.format == Format::None
        && lifetime == Lifetime::Command
        && record.options.attached.is_empty()
    {
        Serving::Inherited { has_input }
    } else {
        Serving::Pipes { has_input }
    }
}

fn exit_record(outcome: &Outcome, started: Timestamp) -> ExitRecord {
    let record = ExitRecord { started: Some(started), finished: now(), ..ExitRecord::default() };
    match outcome {
        Outcome::Ended { exit, out_of_memory, ending, restarts, restarts_now, was_stopped } => ExitRecord {
            code: exit.status(),
            signal: match exit {
                Exit::Signal(signal) => Some(i32::from(*signal)),
                Exit::Code(_) => None,
            },
            out_of_memory: out_of_memory.is_some(),
            memory: out_of_memory.clone(),
            ending: *ending,
            restarts: *restarts,
            is_restarting: *restarts_now,
            was_stopped: *was_stopped,
            ..record
        },
        Outcome::NotStarted { reason, status, restarts } => {
            ExitRecord { code: *status, error: Some(reason.clone()), restarts: *restarts, ..record }
        }
    }
}

/// Connects to a container's monitor; `None` where the container does not run.
pub fn connect(container: &super::record::Container, wants: Wants) -> Result<Option<Client>> {
    for _ in 0..CONNECT_TRIES {
        if let Some(client) = monitor::connect(container.directory().as_fd(), wants)? {
            return Ok(Some(client));
        }
        if !matches!(container.status()?, Status::Running { .. } | Status::Restarting(_)) {
            return Ok(None);
        }
        // Between its birth and its first word.
        std::thread::sleep(CONNECT_PAUSE);
    }
    Err(Error::new(Kind::State, format!("container {} does not answer", container.id().short())))
        .context("connect to its monitor")
}

const CONNECT_TRIES: u32 = 400;
const CONNECT_PAUSE: Duration = Duration::from_millis(5);
