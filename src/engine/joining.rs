//! Finds the namespaces of other containers that a new one is to be in (`--pid container:NAME` and its kin).
//!
//! They are named by the pid of the other's first process, so they hold as long as that lives: they are looked for at
//! every start, and never recorded.

use std::path::{Path, PathBuf};

use super::config::Joined;
use super::engine::Engine;
use super::options::namespaces::{NamespaceMode, NamespaceOptions, UserMode};
use crate::error::{Context, Error, Kind, Result};

/// Finds them.
pub fn resolve(engine: &Engine, modes: &NamespaceOptions) -> Result<Joined> {
    let mut joined = Joined::default();
    let mut owners: Vec<PathBuf> = Vec::new();
    for (kind, mode, place) in [
        ("pid", &modes.pid, &mut joined.pid),
        ("ipc", &modes.ipc, &mut joined.ipc),
        ("uts", &modes.uts, &mut joined.uts),
        ("cgroup", &modes.cgroup, &mut joined.cgroup),
    ] {
        *place = match mode {
            NamespaceMode::Private | NamespaceMode::Host => None,
            NamespaceMode::Path(path) => Some(path.clone()),
            NamespaceMode::Container(name) => {
                let proc = proc_of(engine, name).with_context(|| format!("{kind} {mode}"))?;
                if kind == "ipc" {
                    // Its /dev/shm goes with it, and is a mount of another mount namespace, which none can be made of:
                    // open_tree(2) answers EINVAL.
                    return Err(Error::unsupported("--ipc container:NAME: its /dev/shm cannot be shared yet"));
                }
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
    Ok(joined)
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
