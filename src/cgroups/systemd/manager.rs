//! systemd's manager, of the system or of a user: the calls by which a scope begins, changes and ends
//! (org.freedesktop.systemd1(5)).

use std::path::Path;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::bus::{Address, Bus, Failure};
use super::properties::Properties;
use super::wire::Value;
use crate::error::{Context, Error, Kind, Result};

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const JOBS: &str = "type='signal',sender='org.freedesktop.systemd1',path='/org/freedesktop/systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";

const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";
const SYSTEM_DIRECT: &str = "/run/systemd/private";

/// sd_booted(3): this directory is there if systemd is process 1.
const BOOTED: &str = "/run/systemd/system";

/// It is there if the v2 hierarchy is the only one.
const UNIFIED: &str = "/sys/fs/cgroup/cgroup.controllers";

/// Whose units a manager keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    System,
    User,
}

impl Owner {
    /// Gives the manager whose units we may make: the system's is root's alone.
    ///
    /// In a user namespace whose root is somebody else outside, that somebody's manager is the one.
    pub(in crate::cgroups) fn of_caller() -> Self {
        if rustix::process::geteuid().is_root() && maps_root_to_root() { Self::System } else { Self::User }
    }

    fn addresses(self) -> Vec<Address> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self {
            Self::System => {
                let named = variable("DBUS_SYSTEM_BUS_ADDRESS").map(|text| Address::parse(&text));
                let mut addresses = named.unwrap_or_else(|| vec![Address::bus(SYSTEM_BUS)]);
                // Where no bus runs, systemd itself speaks D-Bus to root.
                addresses.push(Address::direct(SYSTEM_DIRECT));
                addresses
            }
            Self::User => {
                let mut addresses =
                    variable("DBUS_SESSION_BUS_ADDRESS").map(|text| Address::parse(&text)).unwrap_or_default();
                if let Some(directory) = variable("XDG_RUNTIME_DIR") {
                    if addresses.is_empty() {
                        addresses.push(Address::bus(format!("{directory}/bus")));
                    }
                    addresses.push(Address::direct(format!("{directory}/systemd/private")));
                }
                addresses
            }
        }
    }
}

fn maps_root_to_root() -> bool {
    let map = super::super::file::read_value(Path::new("/proc/self/uid_map")).unwrap_or_default();
    let mut fields = map.split_whitespace();
    fields.next() == Some("0") && fields.next() == Some("0")
}

/// Says whether there is a manager that would make a scope for us. On a host without systemd that is one system call.
pub fn is_reachable() -> bool {
    if !Path::new(BOOTED).is_dir() {
        return false;
    }
    let owner = Owner::of_caller();
    // v1 is delegated to no user.
    let may_be_asked = owner == Owner::System || Path::new(UNIFIED).exists();
    may_be_asked && owner.addresses().iter().any(Address::is_near)
}

/// A container's unit, as it is written down to be found again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub name: String,
    pub manager: Owner,
    /// Where its processes are below its own cgroup; empty if they are in that one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subgroup: String,
}

/// A connection to a manager.
pub(in crate::cgroups) struct Manager {
    bus: Bus,
    listens: bool,
}

impl Manager {
    pub(in crate::cgroups) fn connect(owner: Owner) -> Result<Self> {
        let bus = Bus::connect(&owner.addresses()).map_err(|error| {
            let error = error.context(match owner {
                Owner::System => "connect to systemd",
                Owner::User => "connect to the user's systemd",
            });
            error.with_kind(Kind::Unsupported).with_hint(match owner {
                Owner::System => "is this host run by systemd? Without it, leave the cgroups to husk (cgroupfs)",
                Owner::User => {
                    "it needs a login session of this user, with XDG_RUNTIME_DIR set (or `loginctl enable-linger`), and \
                     on Debian the package dbus-user-session"
                }
            })
        })?;
        Ok(Self { bus, listens: false })
    }

    /// Gives the manager's release, and the cgroup that it keeps its units below.
    pub(in crate::cgroups) fn describe(&mut self) -> Result<(u32, String)> {
        let version = self.property("Version").context("ask systemd for its version")?;
        let cgroup = self.property("ControlGroup").context("ask systemd for its cgroup")?;
        Ok((parse_version(&version), cgroup))
    }

    /// Starts a scope with a process in it, and waits until it is there.
    ///
    /// Properties that this release turns out not to know are left out if they are among the first `optional` ones.
    pub(in crate::cgroups) fn start(&mut self, name: &str, mut optional: Properties, fixed: &Properties) -> Result<()> {
        self.check_pids()?;
        self.listen()?;
        let mut is_second_try = false;
        let job = loop {
            let body = [
                Value::text(name),
                Value::text("replace"),
                Value::properties(fixed.iter().chain(&optional)),
                Value::Array("(sa(sv))".into(), Vec::new()),
            ];
            match self.call("StartTransientUnit", &body) {
                Ok(answer) => break answer,
                // What an earlier container of that name left behind because it failed.
                Err(Failure::Refused { name: error, .. }) if error.ends_with(".UnitExists") && !is_second_try => {
                    let _ = self.reset_failed(name);
                    is_second_try = true;
                }
                Err(Failure::Refused { name: error, message }) => {
                    let unknown = optional.iter().position(|(property, _)| is_about(&message, property));
                    match unknown {
                        Some(unknown) => drop(optional.remove(unknown)),
                        None => return Err(Failure::Refused { name: error, message }.into()),
                    }
                }
                Err(failure) => return Err(failure.into()),
            }
        };
        let result = self.wait(&job)?;
        if result != "done" {
            let _ = self.reset_failed(name);
            // runc's words.
            return Err(Error::new(Kind::Other, format!("error creating systemd unit `{name}`: got `{result}`")));
        }
        Ok(())
    }

    /// Changes properties until the unit ends.
    pub(in crate::cgroups) fn set(&mut self, name: &str, mut properties: Properties) -> Result<()> {
        while !properties.is_empty() {
            let body = [Value::text(name), Value::Bool(true), Value::properties(&properties)];
            match self.call("SetUnitProperties", &body) {
                Err(Failure::Refused { name: error, message }) => {
                    match properties.iter().position(|(property, _)| is_about(&message, property)) {
                        Some(unknown) => drop(properties.remove(unknown)),
                        None => return Err(Failure::Refused { name: error, message }.into()),
                    }
                }
                answer => return Ok(answer.map(drop)?),
            }
        }
        Ok(())
    }

    /// Stops a unit, waits until it is gone, and forgets that it failed. One that is not there is fine.
    pub(in crate::cgroups) fn stop(&mut self, name: &str) -> Result<()> {
        self.listen()?;
        match self.call("StopUnit", &[Value::text(name), Value::text("replace")]) {
            Ok(job) => {
                self.wait(&job)?;
            }
            Err(Failure::Refused { name: error, .. }) if error.ends_with(".NoSuchUnit") => return Ok(()),
            Err(failure) => return Err(failure.into()),
        }
        // Usually it is gone by now, which is said as an error.
        let _ = self.reset_failed(name);
        Ok(())
    }

    /// Moves a process into a unit, or into a cgroup below it.
    pub(in crate::cgroups) fn attach(&mut self, name: &str, below: &str, pid: Pid) -> Result<()> {
        self.check_pids()?;
        let below = if below.is_empty() { String::new() } else { format!("/{}", below.trim_start_matches('/')) };
        let body = [Value::text(name), Value::Text(below), pids(pid)];
        Ok(self.call("AttachProcessesToUnit", &body).map(drop)?)
    }

    /// Refuses to name a process to a systemd that would take the number for another one's, and move that.
    fn check_pids(&self) -> Result<()> {
        if self.bus.shares_pids()? {
            return Ok(());
        }
        Err(Error::unsupported("systemd is in another PID namespace, where our processes have other numbers")
            .with_hint("leave the cgroups to husk (cgroupfs)"))
    }

    fn reset_failed(&mut self, name: &str) -> Result<(), Failure> {
        self.call("ResetFailedUnit", &[Value::text(name)]).map(drop)
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let body = [Value::text(INTERFACE), Value::text(name)];
        let answer = self.bus.call(SERVICE, OBJECT, "org.freedesktop.DBus.Properties", "Get", &body)?;
        Ok(answer.first().and_then(Value::as_text).unwrap_or_default().to_owned())
    }

    fn call(&mut self, member: &str, body: &[Value]) -> Result<Vec<Value>, Failure> {
        self.bus.call(SERVICE, OBJECT, INTERFACE, member, body)
    }

    fn listen(&mut self) -> Result<()> {
        if !self.listens {
            self.bus.listen(JOBS)?;
            self.listens = true;
        }
        Ok(())
    }

    /// Waits for the end of a job, and gives its result.
    fn wait(&mut self, job: &[Value]) -> Result<String> {
        let Some(Value::Path(job)) = job.first() else {
            return Err(Error::new(Kind::Other, "systemd named no job"));
        };
        self.bus
            .wait_for(|signal| match &signal.body[..] {
                [_, Value::Path(path), _, Value::Text(result)] if signal.member == "JobRemoved" && path == job => {
                    Some(result.clone())
                }
                _ => None,
            })
            .context("wait for systemd")
    }
}

/// A list of one process.
///
/// By number, not by pidfd (`PIDFDs`, since 257): it is a child of ours that nobody has reaped, so that its number is
/// nobody else's.
pub(super) fn pids(pid: Pid) -> Value {
    Value::Array("u".into(), vec![Value::Uint32(pid.as_raw_nonzero().get().cast_unsigned())])
}

/// What every scope of a container has.
pub(in crate::cgroups) fn scope_properties(container_id: &str, slice: &str, pid: Pid) -> Properties {
    let yes = |name: &str| (name.to_owned(), Value::Bool(true));
    vec![
        ("Description".into(), Value::text(format!("husk container {container_id}"))),
        ("Slice".into(), Value::text(slice)),
        yes("Delegate"),
        ("PIDs".into(), pids(pid)),
        // Figures are wanted of containers without limits too.
        yes("MemoryAccounting"),
        yes("CPUAccounting"),
        yes("IOAccounting"),
        yes("TasksAccounting"),
        ("DefaultDependencies".into(), Value::Bool(false)),
    ]
}

/// What the scope of a process has that is no container's. A user's are with what the session runs (systemd.special(7)).
pub(in crate::cgroups) fn helper_properties(owner: Owner, pid: Pid) -> Properties {
    let slice = match owner {
        Owner::System => "system.slice",
        Owner::User => "app.slice",
    };
    vec![
        ("Description".into(), Value::text("networks of husk's containers")),
        ("Slice".into(), Value::text(slice)),
        ("PIDs".into(), pids(pid)),
        ("DefaultDependencies".into(), Value::Bool(false)),
    ]
}

/// Says whether an error is about a property that this release does not know.
fn is_about(message: &str, property: &str) -> bool {
    message
        .strip_prefix("Cannot set property ")
        .and_then(|rest| rest.strip_prefix(property))
        .is_some_and(|rest| rest.starts_with(", or unknown property"))
}

/// Reads `252.39-1~deb12u2`, `v245.4-1.fc32` or `255`; an unreadable one counts as very old.
fn parse_version(text: &str) -> u32 {
    let text = text.trim_start_matches(['"', 'v']);
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (text, version) in
            [("252.39-1~deb12u2", 252), ("v245.4-1.fc32", 245), ("255", 255), ("\"v230\"", 230), ("", 0), ("x", 0)]
        {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }

    #[test]
    fn only_an_unknown_property_is_left_out() {
        assert!(is_about("Cannot set property MemoryZSwapMax, or unknown property.", "MemoryZSwapMax"));
        assert!(!is_about("Cannot set property MemoryZSwapMax, or unknown property.", "Memory"));
        assert!(!is_about("Cannot set property MemoryMax, it is bad.", "MemoryMax"));
    }

    #[test]
    fn a_record_is_read_again() {
        let scope = Scope { name: "x.scope".into(), manager: Owner::User, subgroup: String::new() };
        let text = serde_json::to_string(&scope).unwrap();
        assert_eq!(text, r#"{"name":"x.scope","manager":"user"}"#);
        assert_eq!(serde_json::from_str::<Scope>(&text).unwrap(), scope);
    }
}
