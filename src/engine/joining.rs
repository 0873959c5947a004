//! Finds the namespaces of other containers that a new one is to be in (`--pid container:NAME` and its kin).
//!
//! They are named by the pid of the other's first process, so they hold as long as that lives: they are looked for at
//! every start, and never recorded.

use std::path::{Path, PathBuf};

use super::config::{Joined, Names};
use super::engine::Engine;
use super::options::namespaces::{IpcMode, NamespaceMode, NamespaceOptions, UserMode};
use super::options::{Network, RunOptions};
use crate::error::{Context, Error, Kind, Result};
use crate::spec::load;

/// Finds them.
pub fn resolve(engine: &Engine, options: &RunOptions) -> Result<Joined> {
    let modes = &options.namespaces;
    let mut joined = Joined::default();
    let mut owners: Vec<PathBuf> = Vec::new();
    if let IpcMode::Container(name) = &modes.ipc {
        require_shareable(engine, name).with_context(|| format!("ipc {}", modes.ipc))?;
    }
    for (kind, mode, place) in [
        ("pid", &modes.pid, &mut joined.pid),
        ("ipc", &modes.ipc.namespace(), &mut joined.ipc),
        ("uts", &modes.uts, &mut joined.uts),
        ("cgroup", &modes.cgroup, &mut joined.cgroup),
        ("net", &options.network.namespace(), &mut joined.network),
    ] {
        *place = match mode {
            NamespaceMode::Private | NamespaceMode::Host => None,
            NamespaceMode::Path(path) => Some(path.clone()),
            NamespaceMode::Container(name) => {
                let proc = proc_of(engine, name).with_context(|| format!("{kind} {mode}"))?;
                let namespace = proc.join("ns").join(kind);
                if !owners.contains(&proc) {
                    owners.push(proc);
                }
                Some(namespace)
            }
        };
    }
    joined.user = match (&modes.user, owners.as_slice()) {
        (UserMode::Path(path), _) => Some(path.clone()),
        (UserMode::Container(name), _) => {
            Some(proc_of(engine, name).with_context(|| format!("userns {}", modes.user))?.join("ns/user"))
        }
        // An ordinary user has rights over another container's namespaces only from inside of the user namespace that
        // they belong to.
        (_, [owner]) if engine.maps.is_some() => Some(owner.join("ns/user")),
        (_, [_, _, ..]) if engine.maps.is_some() => {
            return Err(Error::unsupported("namespaces of several containers, each in a user namespace of its own")
                .with_hint("an ordinary user's container can join those of one"));
        }
        _ => None,
    };
    if let Network::Container(name) = &options.network {
        joined.names = Some(names_of(engine, name).with_context(|| format!("network container:{name}"))?);
    }
    Ok(joined)
}

/// Finds who a container is whose network is joined; of one that joined another's itself, that one.
fn names_of(engine: &Engine, name: &str) -> Result<Names> {
    let containers = engine.containers()?;
    let mut container = containers.find(name)?;
    // Each was there before the one that joined it.
    while let Network::Container(other) = container.record()?.options.network {
        container = containers.find(&other)?;
    }
    let directory = engine.container_directory(container.id());
    let spec = load::load(&directory.join("bundle"))?.value;
    let files = ["hosts", "hostname", "resolv.conf"].map(|name| (name, directory.join(name)));
    Ok(Names {
        hostname: spec.hostname().clone().unwrap_or_else(|| container.id().short().to_owned()),
        files: files.into_iter().filter(|(_, path)| rustix::fs::lstat(path).is_ok()).collect(),
    })
}

/// Puts the ids of containers in the place of their names: a container stays joined to the one that was meant.
pub fn pin(engine: &Engine, options: &mut RunOptions) -> Result<()> {
    let modes = &mut options.namespaces;
    let find = |name: &mut String| -> Result<()> {
        *name = engine.containers()?.find(name)?.id().to_string();
        Ok(())
    };
    for mode in [&mut modes.pid, &mut modes.uts, &mut modes.cgroup] {
        if let NamespaceMode::Container(name) = mode {
            find(name)?;
        }
    }
    if let IpcMode::Container(name) = &mut modes.ipc {
        find(name)?;
    }
    if let UserMode::Container(name) = &mut modes.user {
        find(name)?;
    }
    if let Network::Container(name) = &mut options.network {
        find(name)?;
    }
    Ok(())
}

/// Gives the container whose `/dev/shm` a container has.
pub fn sharer(modes: &NamespaceOptions) -> Option<&str> {
    match &modes.ipc {
        IpcMode::Container(name) => Some(name),
        _ => None,
    }
}

/// Docker's words for who keeps it to itself.
fn require_shareable(engine: &Engine, name: &str) -> Result<()> {
    match engine.containers()?.find(name)?.record()?.options.namespaces.ipc {
        IpcMode::Private | IpcMode::Nothing => {
            Err(Error::invalid("non-shareable IPC").with_hint("use --ipc shareable for the donor container"))
        }
        _ => Ok(()),
    }
}

/// Finds `/proc/PID` of a running container's first process.
fn proc_of(engine: &Engine, name: &str) -> Result<PathBuf> {
    let container = engine.containers()?.find(name)?;
    match engine.runtime(false)?.state(container.id().as_str()) {
        Ok(state) if state.pid > 0 => Ok(Path::new("/proc").join(state.pid.to_string())),
        Ok(_) => Err(not_running(name)),
        Err(error) if error.kind() == Kind::NotFound => Err(not_running(name)),
        Err(error) => Err(error),
    }
}

fn not_running(name: &str) -> Error {
    Error::new(Kind::State, format!("container {name} is not running"))
}
