//! `start`, and the second half of `run`: a container that was made gets a monitor, and runs. Makes and changes none.

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use super::connecting::Connecting;
use super::create::Created;
use super::engine::Engine;
use super::events;
use super::exec::{self, ExecOptions};
use super::joining;
use super::log_attributes;
use super::logs;
use super::mount;
use super::record::{AskedStop, Container, ExitRecord, Record, Start, Status, Supervision, Timestamp, now};
use super::secrets::Secrets;
use crate::error::{Context, Error, Kind, Result};
use crate::monitor::log::Format;
use crate::monitor::{self, Beginning, Client, HealthJob, Input, Job, Lifetime, Outcome, Serving, Wants};
use crate::network::watch::Watch;
use crate::runtime::container::{Networks, Request};
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
            Status::Exited(_) => match container.supervise_soon()? {
                Some(supervision) => supervision,
                None => return Ok(None),
            },
            _ => return Ok(None),
        },
    };
    if let Status::Lost { .. } = container.status_under(&supervision)? {
        drop(supervision);
        engine.look_after(&container)?;
        return take(engine, word);
    }
    mount::refuse_mounted(engine, &container)?;
    let record = container.record()?;
    logs::check(&record.options, true)?;
    let bundle = engine.container_directory(container.id()).join("bundle");
    let spec = configuration(engine, &record, &bundle)?;
    Ok(Some(Created { containers, container, supervision, record, spec, started: None }))
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
    let joined = joining::resolve(engine, &record.options)?;
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
            LinuxNamespaceType::Network => &joined.network,
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
    let started = created.started.unwrap_or_else(now);
    if created.started.is_some() {
        created.container.reserve_exit();
    } else {
        let begun = Start { time: started, restarts: 0, stop: None };
        created.container.note_start(&created.supervision, begun)?;
    }
    let client = supervise(engine, created, lifetime, wants, Beginning::Launch, started, signals)?;
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

/// Gives a container that outlived its monitor another one: one that runs, or is about to be started again.
pub fn take_over(engine: &Engine, container: Container, supervision: Supervision) -> Result<()> {
    let refuse = || Error::new(Kind::State, format!("container {} needs no monitor", container.id().short()));
    if !supervision.is_of(&container)? {
        return Err(refuse());
    }
    let (Status::Lost { .. }, Some(start)) = (container.status_under(&supervision)?, supervision.start()?) else {
        return Err(refuse());
    };
    let record = container.record()?;
    let spec = load::load(&engine.container_directory(container.id()).join("bundle"))?.value;
    let started = Some(start.time);
    let created = Created { containers: engine.containers()?, container, supervision, record, spec, started };
    let since = |time| Duration::from_nanos(now().saturating_sub(time));
    let beginning = match created.container.interrupted_rest()? {
        Some(exit) => Beginning::Restart { restarts: exit.restarts.saturating_add(1) },
        None => Beginning::TakeOver {
            runs_for: since(start.time),
            restarts: start.restarts,
            stop: start.stop.map(|asked| (asked.stop, since(asked.time))),
        },
    };
    let signals = Signals::block_all().context("block signals")?;
    supervise(engine, created, Lifetime::Own, Wants::default(), beginning, start.time, &signals).map(drop)
}

/// Starts a monitor, which has begun once this returns.
fn supervise(
    engine: &Engine,
    created: Created,
    lifetime: Lifetime,
    wants: Wants,
    beginning: Beginning,
    started: Timestamp,
    signals: &Signals,
) -> Result<Client> {
    let Created { containers, container, supervision, record, spec, started: _ } = created;
    let started = Cell::new(started);
    // A run ends once, whatever else is recorded of the container afterwards.
    let was_left = matches!(beginning, Beginning::TakeOver { .. });
    let has_run = Cell::new(was_left);
    let serving = serving(&record, lifetime, wants);
    let hostname = spec.hostname().clone().unwrap_or_default();
    let (relay, lifeline, names) = (RefCell::default(), Watch::of_way_out(), Watch::of_names());
    let connecting = Connecting::of(engine, &record, &hostname, &relay, &lifeline, &names);
    // One whose monitor could not take it over lives on, with all that it has.
    let is_over = Cell::new(false);
    let clear = |outcome: &Outcome| {
        // Whoever hears of the end finds the ports free.
        connecting.iter().for_each(Connecting::close);
        let ends = !matches!(outcome, Outcome::Ended { restarts_now: true, .. });
        is_over.set(ends);
        if has_run.take() {
            tell_end(engine, &record, outcome, started.get());
        }
        connecting.iter().for_each(Connecting::tell_parted);
        let is_kept = matches!(outcome, Outcome::Ended { is_kept: true, .. });
        if record.remove && ends && !is_kept {
            engine.remove(&containers, &container, &supervision)?;
            events::container(engine, &record, "destroy", &[]);
            return Ok(());
        }
        let exit = ExitRecord {
            outlives_monitor: matches!(serving, Serving::Fifos { .. }),
            ..exit_record(outcome, started.get())
        };
        container.record_exit(&supervision, &exit)
    };
    let not_started = |error: Error| {
        // One that outlived its monitor lives, whatever keeps it from another.
        if !was_left {
            let _ = clear(&Outcome::not_started(&error, 0));
        }
        error
    };
    connecting.as_ref().map_or(Ok(()), Connecting::prepare).map_err(not_started)?;
    let checked = |spec: Spec| {
        connecting.as_ref().map_or(Ok(()), |connecting| connecting.check(&spec))?;
        validated(spec)
    };
    let spec = checked(spec).map_err(not_started)?;
    let runtime = engine.runtime(record.options.require_limits).map_err(not_started)?;
    let bundle = engine.container_directory(container.id()).join("bundle");
    // They stay in the monitor's memory: a restart by policy does not depend on the store.
    let secrets = match Secrets::of(engine).deliver(&record.options.secrets) {
        // It has them.
        Err(_) if was_left => Delivered::default(),
        answer => answer.map_err(not_started)?,
    };
    let start_check = || exec::exec_in(&runtime, &container, spec.spec(), &check_options(&record, &secrets));
    let health = record.health.as_ref().map(|check| HealthJob { check, start: &start_check });
    let process = spec.spec().process().as_ref();
    let environment = process.and_then(|process| process.env().as_deref()).unwrap_or_default();
    let log_attributes = log_attributes::of(&record, &hostname, environment);
    let job = Job {
        runtime: &runtime,
        request: Request {
            networks: connecting.as_ref().map(|connecting| connecting as &dyn Networks),
            ..request(&record, &bundle, &spec, serving, &secrets)
        },
        beginning,
        folder: container.directory(),
        serving,
        wants,
        log: record.options.log,
        log_attributes: &log_attributes,
        lifetime,
        restart: record.options.restart,
        time_limit: record.options.timeout_seconds.map(|seconds| Duration::from_secs(seconds.into())),
        health,
        renew: &|restarts| {
            started.set(now());
            container.note_start(&supervision, Start { time: started.get(), restarts, stop: None })?;
            checked(configuration(engine, &record, &bundle)?)
        },
        note_running: &|| {
            // Where that cannot be said, the way out ends with the last monitor.
            let _ = connecting.as_ref().map(Connecting::keep);
            // Not of one that ran before its monitor came.
            if !has_run.replace(true) {
                events::container(engine, &record, "start", &[]);
            }
        },
        note_stop: &|stop| {
            // What cannot be written down is done all the same.
            let _ = supervision.note_stop(AskedStop { stop, time: now() });
        },
        clear: &clear,
        release: &|| supervision.release(),
        resume: &|| {
            // What it was called by goes on; what could not be opened again is this host's own way to it alone.
            let _ = connecting.as_ref().map(Connecting::resume);
        },
        change_networks: &|| connecting.as_ref().map_or(Ok(()), Connecting::change),
        names: &names,
        find_names: &|| connecting.as_ref().map_or(Ok(()), Connecting::find_names),
        relay: &relay,
        lifeline: &lifeline,
        reconnect: &|| connecting.as_ref().map_or(Ok(()), Connecting::reconnect),
        farewell: &|| {
            // What cannot be given back now is found by the next command.
            if is_over.get() {
                connecting.iter().for_each(Connecting::leave_alone);
            }
        },
    };
    monitor::start(&job, signals)
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

fn request<'a>(
    record: &'a Record,
    bundle: &'a Path,
    spec: &'a Validated,
    serving: Serving,
    secrets: &Delivered,
) -> Request<'a> {
    let outlives = matches!(serving, Serving::Fifos { .. });
    Request {
        id: record.id.as_str(),
        bundle,
        spec,
        choices: Choices {
            dies_with_parent: !outlives,
            owns_fifos: outlives,
            preserved_fds: record.options.preserved_fds,
            has_init: record.options.init && record.options.init_path.is_none(),
            secrets: secrets.clone(),
            ..Choices::default()
        },
        pid_file: record.options.pid_file.as_deref(),
        console_socket: None,
        pidfd_socket: None,
        shared_memory: joining::sharer(&record.options.namespaces),
        networks: None,
        manager: None,
    }
}

/// A container with a terminal ends with its monitor, which has the other side of that. Without a log, what a command in the
/// foreground runs may as well have its streams.
fn serving(record: &Record, lifetime: Lifetime, wants: Wants) -> Serving {
    let has_input = record.interactive;
    let format = record.options.log.format;
    if format == Format::Passthrough {
        Serving::Inherited { has_input }
    } else if record.terminal {
        Serving::Terminal
    } else if lifetime == Lifetime::Own {
        // The command that starts it has an end of input to pass on where it attends to it.
        let input = match (has_input, wants.output) {
            (false, _) => Input::None,
            (true, true) => Input::Ends,
            (true, false) => Input::Endless,
        };
        Serving::Fifos { input }
    } else if format == Format::None && record.options.attached.is_empty() {
        Serving::Inherited { has_input }
    } else {
        Serving::Pipes { has_input }
    }
}

fn exit_record(outcome: &Outcome, started: Timestamp) -> ExitRecord {
    let record = ExitRecord { started: Some(started), finished: now(), ..ExitRecord::default() };
    match outcome {
        Outcome::Ended { exit, out_of_memory, ending, restarts, restarts_now, was_stopped, is_kept: _, is_unseen } => {
            ExitRecord {
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
                error: is_unseen.then(|| ExitRecord::UNSEEN.to_owned()),
                ..record
            }
        }
        Outcome::NotStarted { reason, status, restarts } => {
            ExitRecord { code: *status, error: Some(reason.clone()), restarts: *restarts, ..record }
        }
    }
}

/// Connects to a container's monitor; `None` where the container does not run.
pub fn connect(container: &Container, wants: Wants) -> Result<Option<Client>> {
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
