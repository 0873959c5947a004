//! `inspect`: what is known of a container, in the shape of docker's `ContainerInspectResponse`. Changes nothing.
//!
//! | part | is taken from |
//! |---|---|
//! | `State` | the supervisor's lock, `exit.json`, and the runtime, which proves the pid by its start time |
//! | `Config` | the OCI configuration, the record, and what the image says, as long as it is here |
//! | `HostConfig` | what was asked for, and the OCI configuration for what followed from it |
//! | `Mounts` | the OCI configuration |
//! | `NetworkSettings` | the record, and the leases of its networks |

mod host_config;
mod network_settings;

use std::path::Path;
use std::time::Duration;

use oci_spec::runtime::{Mount, Process, Spec};
use serde_json::{Map, Value, json};

use super::engine::Engine;
use super::list;
use super::networks::Networks;
use super::options::Stream;
use super::record::{Container, Record, Status, Timestamp};
use super::volume_option::VolumeSource;
use crate::error::{Error, Kind, Result};
use crate::image::digest::Digest;
use crate::image::limits;
use crate::monitor::health::Health;
use crate::monitor::log;
use crate::spec::load;
use crate::spec::load::parse_json;

/// What docker gives for a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Docker's word for the storage.
const DRIVER: &str = "overlay";

/// Everything that is known of one container.
struct Known<'a> {
    folder: &'a Path,
    record: &'a Record,
    spec: &'a Spec,
    /// The `config` of its image's configuration; empty where the image is not here.
    image: Map<String, Value>,
}

/// Describes a container, with its sizes if they are asked for.
pub fn inspect(engine: &Engine, container: &Container, with_size: bool) -> Result<Value> {
    let mut status = container.status()?;
    if let Status::Lost { .. } = status {
        engine.look_after(container)?;
        status = container.status()?;
    }
    let record = container.record()?;
    let folder = engine.container_directory(container.id());
    let spec = load::load(&folder.join("bundle"))?.value;
    let live = match status {
        Status::Running { .. } => Live::ask(engine, container)?,
        _ => Live::default(),
    };
    let known = Known { folder: &folder, record: &record, spec: &spec, image: image_config(engine, &record)? };
    let mut described = known.describe(&status, &live);
    described["NetworkSettings"] = network_settings::describe(&Networks::of(engine), &record, live.pid)?;
    if let Some(health) = Health::read(container.directory())? {
        described["State"]["Health"] = json!(health);
    }
    if with_size {
        let records = [record];
        let size = list::sizes(engine, &records)?.remove(container.id()).unwrap_or_default();
        described["SizeRw"] = json!(size.written);
        described["SizeRootFs"] = json!(size.whole);
    }
    Ok(described)
}

/// What the kernel knows of a container that runs.
#[derive(Default)]
struct Live {
    pid: i32,
    is_paused: bool,
}

impl Live {
    fn ask(engine: &Engine, container: &Container) -> Result<Self> {
        match engine.runtime(false)?.state(container.id().as_str()) {
            Ok(state) => Ok(Self { pid: state.pid, is_paused: state.status == "paused" }),
            // It is being made, or has just ended.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::State) => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

fn image_config(engine: &Engine, record: &Record) -> Result<Map<String, Value>> {
    let Some(id) = record.image_id.as_ref().and_then(|id| id.parse::<Digest>().ok()) else { return Ok(Map::new()) };
    let stores = engine.stores()?;
    let Some(store) = stores.with_image(&id)? else { return Ok(Map::new()) };
    let document: Value = match store.read_document(&id, limits::CONFIG_BYTES) {
        Ok(bytes) => parse_json(&bytes)?,
        Err(error) if error.kind() == Kind::NotFound => Value::Null,
        Err(error) => return Err(error),
    };
    Ok(document.get("config").and_then(Value::as_object).cloned().unwrap_or_default())
}

impl Known<'_> {
    fn describe(&self, status: &Status, live: &Live) -> Value {
        let Self { record, .. } = self;
        let (path, args) = record.command.split_first().map_or(("", &[][..]), |(path, args)| (path, args));
        let restarts = match status {
            Status::Exited(exit) | Status::Restarting(exit) => exit.restarts,
            Status::Running { restarts, .. } => *restarts,
            _ => 0,
        };
        let is_logged = record.options.log.format.keeps_files();
        json!({
            "Id": record.id,
            "Created": time(record.created),
            "Path": path,
            "Args": args,
            "State": state(status, live),
            "Image": record.image_id.as_deref().unwrap_or_default(),
            "ResolvConfPath": self.source_of("/etc/resolv.conf"),
            "HostnamePath": self.source_of("/etc/hostname"),
            "HostsPath": self.source_of("/etc/hosts"),
            "LogPath": if is_logged { self.folder.join(log::FILE).display().to_string() } else { String::new() },
            "Name": format!("/{}", record.name),
            "RestartCount": restarts,
            "Driver": DRIVER,
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": record.options.security.apparmor.as_deref().unwrap_or_default(),
            "ExecIDs": null,
            "HostConfig": host_config::describe(record, self.spec),
            "GraphDriver": { "Name": DRIVER, "Data": self.layers() },
            "Mounts": self.mounts(),
            "Config": self.config(),
        })
    }

    fn spec_mounts(&self) -> &[Mount] {
        self.spec.mounts().as_deref().unwrap_or_default()
    }

    /// Where the file is that is bound there.
    fn source_of(&self, destination: &str) -> String {
        let mount = self.spec_mounts().iter().find(|mount| mount.destination() == Path::new(destination));
        mount.and_then(|mount| mount.source().as_ref()).map_or_else(String::new, |path| path.display().to_string())
    }

    /// The directories of the overlay that is the root file system; nothing where it is a copy.
    fn layers(&self) -> Value {
        let Some(first) = self.spec_mounts().first() else { return Value::Null };
        if first.typ().as_deref() != Some("overlay") || first.destination() != Path::new("/") {
            return Value::Null;
        }
        let option = |name: &str| {
            let options = first.options().as_deref().unwrap_or_default();
            options.iter().find_map(|option| option.strip_prefix(name)).unwrap_or_default()
        };
        let merged = self.spec.root().as_ref().map(|root| root.path().display().to_string());
        json!({
            "LowerDir": option("lowerdir="),
            "UpperDir": option("upperdir="),
            "WorkDir": option("workdir="),
            "MergedDir": merged,
        })
    }

    /// What was asked for, and what the image wanted; not what every container has.
    fn mounts(&self) -> Vec<Value> {
        let own = self.folder.join("volumes");
        let describe = |mount: &Mount| -> Option<Value> {
            let destination = mount.destination().to_str()?;
            let source = mount.source().as_deref()?;
            let asked = self.record.options.volumes.iter().find(|volume| volume.destination == destination);
            let is_bind = asked.is_some_and(|volume| matches!(volume.source, VolumeSource::Host(_)));
            let is_read_only = asked.is_some_and(|volume| volume.is_read_only);
            if is_bind {
                return Some(json!({
                    "Type": "bind",
                    "Source": source,
                    "Destination": destination,
                    "Mode": if is_read_only { "ro" } else { "" },
                    "RW": !is_read_only,
                    "Propagation": asked.map(|volume| volume.propagation.as_str()),
                }));
            }
            let name = match asked.map(|volume| &volume.source) {
                Some(VolumeSource::Named(name)) => name.clone(),
                _ => format!("{}/{}", self.record.id.short(), source.strip_prefix(&own).ok()?.display()),
            };
            Some(json!({
                "Type": "volume",
                "Name": name,
                "Source": source,
                "Destination": destination,
                "Driver": "local",
                "Mode": "",
                "RW": !is_read_only,
                "Propagation": "",
            }))
        };
        self.spec_mounts().iter().filter_map(describe).collect()
    }

    fn config(&self) -> Value {
        let Self { record, spec, image, .. } = self;
        let process = spec.process().as_ref();
        let from_image = |name: &str| image.get(name).cloned().unwrap_or_default();
        let user = match &record.options.user {
            Some(user) => json!(user.to_string()),
            None => json!(image.get("User").and_then(Value::as_str).unwrap_or_default()),
        };
        let (entrypoint, command) = self.split_command();
        let is_attached = !record.detached;
        let attached = &record.options.attached;
        let attaches = |stream| is_attached && (attached.is_empty() || attached.contains(&stream));
        let mut volumes = image.get("Volumes").and_then(Value::as_object).cloned().unwrap_or_default();
        let anonymous = record.options.volumes.iter().filter(|volume| volume.source == VolumeSource::Anonymous);
        volumes.extend(anonymous.map(|volume| (volume.destination.clone(), json!({}))));
        let mut config = json!({
            "Hostname": spec.hostname(),
            "Domainname": spec.domainname().as_deref().unwrap_or_default(),
            "User": user,
            "AttachStdin": attaches(Stream::Stdin) && record.interactive,
            "AttachStdout": attaches(Stream::Stdout),
            "AttachStderr": attaches(Stream::Stderr),
            "Tty": record.terminal,
            "OpenStdin": record.interactive,
            "StdinOnce": is_attached && record.interactive,
            "Env": process.and_then(|process| process.env().as_ref()),
            "Cmd": command,
            "Image": record.image,
            "Volumes": if volumes.is_empty() { Value::Null } else { Value::Object(volumes) },
            "WorkingDir": process.map(Process::cwd),
            "Entrypoint": entrypoint,
            "OnBuild": from_image("OnBuild"),
            "Labels": record.labels,
        });
        let further = [
            ("ExposedPorts", exposed(record)),
            ("Healthcheck", healthcheck(record)),
            ("StopSignal", json!(record.stop_signal)),
            ("StopTimeout", json!(record.stop_timeout_seconds)),
            ("Shell", from_image("Shell")),
        ];
        for (name, value) in further.into_iter().filter(|(_, value)| !value.is_null()) {
            config[name] = value;
        }
        config
    }

    /// Parts the command line into entry point and command, of which the record has the sum.
    fn split_command(&self) -> (Value, Value) {
        let whole = &self.record.command;
        let options = &self.record.options;
        let list = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
        let of_image = || -> Vec<String> {
            let entrypoint = self.image.get("Entrypoint").cloned().unwrap_or_default();
            serde_json::from_value(entrypoint).unwrap_or_default()
        };
        let length = match &options.entrypoint {
            Some(entrypoint) => entrypoint.len(),
            None if !options.command.is_empty() => whole.len().saturating_sub(options.command.len()),
            None => of_image().len(),
        };
        let (entrypoint, command) = whole.split_at(length.min(whole.len()));
        (list(entrypoint), list(command))
    }
}

/// The check as it is made, whoever asked for it.
fn healthcheck(record: &Record) -> Value {
    let Some(check) = &record.health else { return Value::Null };
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let test: Vec<&str> = ["CMD"].into_iter().chain(check.command.iter().map(String::as_str)).collect();
    json!({
        "Test": test,
        "Interval": nanoseconds(check.interval),
        "Timeout": nanoseconds(check.timeout),
        "StartPeriod": nanoseconds(check.start_period),
        "StartInterval": nanoseconds(check.start_interval),
        "Retries": check.retries,
    })
}

fn state(status: &Status, live: &Live) -> Value {
    let word = status.word(live.is_paused);
    let runs = matches!(status, Status::Running { .. } | Status::Restarting(_));
    let mut state = json!({
        "Status": word,
        "Running": runs,
        "Paused": live.is_paused,
        "Restarting": matches!(status, Status::Restarting(_)),
        "OOMKilled": false,
        "Dead": false,
        "Pid": live.pid,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": NEVER,
        "FinishedAt": NEVER,
        "Health": null,
    });
    match status {
        Status::Created => {}
        Status::Running { started, .. } => state["StartedAt"] = json!(started.map_or_else(|| NEVER.to_owned(), time)),
        Status::Lost { started } => {
            state["StartedAt"] = json!(time(*started));
            state["ExitCode"] = json!(super::record::ExitRecord::UNKNOWN);
        }
        Status::Exited(exit) | Status::Restarting(exit) => {
            state["StartedAt"] = json!(exit.started.map_or_else(|| NEVER.to_owned(), time));
            state["FinishedAt"] = json!(time(exit.finished));
            state["ExitCode"] = json!(exit.code);
            state["OOMKilled"] = json!(exit.out_of_memory);
            state["Error"] = json!(exit.error.as_deref().unwrap_or_default());
        }
    }
    state
}

/// Docker's set of ports.
fn exposed(record: &Record) -> Value {
    let ports: Map<String, Value> = record.exposed.iter().map(|port| (port.to_string(), json!({}))).collect();
    if ports.is_empty() { Value::Null } else { Value::Object(ports) }
}

/// A time as docker writes it.
pub fn time(timestamp: Timestamp) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(timestamp));
    time.map_or_else(|_: jiff::Error| NEVER.to_owned(), |time| time.to_string())
}

/// Says that nothing is called so, in docker's words.
pub fn unknown(word: &str) -> Error {
    Error::new(Kind::NotFound, format!("no such object: {word}"))
}
