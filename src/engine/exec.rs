//! `exec`: another process in a container that runs. Keeps nothing of it.

use std::ffi::OsString;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec, User};

use super::config;
use super::engine::Engine;
use super::events;
use super::options::EnvironmentEntry;
use super::record::{Container, Status};
use super::secrets::Secrets;
use crate::error::{Error, Kind, Result};
use crate::runtime::container::{Mode, Runtime};
use crate::runtime::exec::{Command, ExecRequest, Execution};
use crate::spec::load;
use crate::support::passwd::{Identity, UserDatabase, UserSpec};

/// What is to be executed, and how.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    pub command: Vec<String>,
    /// On top of what the container's own process got.
    pub environment: Vec<EnvironmentEntry>,
    pub working_directory: Option<String>,
    /// Else the container's.
    pub user: Option<UserSpec>,
    pub terminal: bool,
    /// With all capabilities, whatever the container has.
    pub is_privileged: bool,
    /// Nobody waits for it.
    pub is_detached: bool,
    /// The container's secrets, `NAME=value` each; what is asked for wins.
    pub secret_variables: Vec<String>,
    /// With another user, `HOME` is that one's.
    pub takes_home: bool,
    /// Descriptors from 3 on that it keeps.
    pub preserved_fds: u32,
}

/// Starts a process in a container. `variable` gives the caller's variables, for `-e NAME`.
pub fn exec(
    engine: &Engine,
    container: &Container,
    options: &ExecOptions,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Execution> {
    let runtime = engine.runtime(false)?;
    let bundle = engine.container_directory(container.id()).join("bundle");
    if !is_running(container) {
        return Err(not_running(container));
    }
    let spec = load::load(&bundle)?.value;
    let id = container.id().as_str();
    let mut options = options.clone();
    let record = container.record()?;
    options.takes_home = record.home_is_made;
    // A secret that is gone since the start is none of a command's business.
    let secrets = Secrets::of(engine);
    for request in record.options.secrets {
        let delivered = secrets.deliver(std::slice::from_ref(&request));
        options.secret_variables.extend(delivered.into_iter().flat_map(|delivered| delivered.variables));
    }
    let options = &options;
    let process = process(&spec, options, &|user| identity(&runtime, id, user), variable)?;
    match start(&runtime, id, &process, options, None) {
        // It ended meanwhile.
        Err(error) if error.kind() == Kind::NotFound => Err(not_running(container)),
        Err(error) if error.kind() == Kind::State && !is_running(container) => Err(not_running(container)),
        Err(error) if error.kind() == Kind::State && runtime.is_paused(id) => {
            let name = container.record()?.name;
            Err(Error::new(Kind::State, format!("container {name} is paused"))
                .with_hint(format!("husk unpause {name}")))
        }
        answer => answer,
    }
}

/// The same for a container's own monitor, which knows that it runs, and of what configuration.
pub(super) fn exec_in(
    runtime: &Runtime,
    container: &Container,
    spec: &Spec,
    options: &ExecOptions,
) -> Result<Execution> {
    let id = container.id().as_str();
    let process = process(spec, options, &|user| identity(runtime, id, user), &|_| None)?;
    start(runtime, id, &process, options, Some(&|| runtime.is_paused(id)))
}

fn start(
    runtime: &Runtime,
    id: &str,
    process: &Process,
    options: &ExecOptions,
    gives_up: Option<&dyn Fn() -> bool>,
) -> Result<Execution> {
    runtime.exec(&ExecRequest {
        id,
        command: Command::Whole(process),
        mode: if options.is_detached { Mode::Detached } else { Mode::Foreground },
        enters_paused: false,
        preserved_fds: options.preserved_fds,
        subgroups: &[],
        pid_file: None,
        console_socket: None,
        pidfd_socket: None,
        gives_up,
    })
}

/// Tells what became of an exec that somebody asked for. `action` is followed by the command, as docker has it.
pub fn tell(engine: &Engine, container: &Container, action: &str, command: &[String], more: &[events::Attribute<'_>]) {
    let Ok(record) = container.record() else { return };
    let colon = if command.is_empty() { "" } else { ": " };
    events::container(engine, &record, &format!("{action}{colon}{}", command.join(" ")), more);
}

fn is_running(container: &Container) -> bool {
    matches!(container.status(), Ok(Status::Running { .. }))
}

fn not_running(container: &Container) -> Error {
    match container.record() {
        Ok(record) => Error::new(Kind::State, format!("container {} is not running", record.name)),
        Err(error) => error,
    }
}

/// Looks a user up in the files that the container has now.
fn identity(runtime: &Runtime, id: &str, user: &UserSpec) -> Result<Identity> {
    UserDatabase::read(&runtime.open_root(id)?)?.resolve(user, &[])
}

/// Makes the process: the container's own, with what was asked for in its place.
fn process(
    spec: &Spec,
    options: &ExecOptions,
    identity: &dyn Fn(&UserSpec) -> Result<Identity>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Process> {
    let mut process = spec.process().clone().ok_or_else(|| Error::invalid("config.json: process is missing"))?;
    let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone()).unwrap_or_default();
    let bounding =
        if options.is_privileged { super::defaults::ALL_CAPABILITIES.iter().copied().collect() } else { bounding };
    let mut environment = process.env().clone().unwrap_or_default();
    if let Some(user) = &options.user {
        let identity = identity(user)?;
        if options.takes_home {
            environment.retain(|entry| !entry.starts_with("HOME="));
            environment.push(format!("HOME={}", identity.home.as_deref().unwrap_or("/")));
        }
        let mut user = User::default();
        user.set_uid(identity.uid).set_gid(identity.gid);
        let gids = identity.groups;
        user.set_additional_gids((!gids.is_empty()).then_some(gids)).set_umask(process.user().umask());
        process.set_user(user);
    }
    // As at the container's start: in force for root alone.
    let sets = config::capability_sets(bounding, process.user().uid());
    if options.terminal && !environment.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push("TERM=xterm".to_owned());
    }
    for entry in &options.secret_variables {
        if let Some((name, value)) = entry.split_once('=') {
            let entry = EnvironmentEntry::Set { name: name.to_owned(), value: value.to_owned() };
            merge(&mut environment, &entry, variable)?;
        }
    }
    for entry in &options.environment {
        merge(&mut environment, entry, variable)?;
    }
    if let Some(directory) = &options.working_directory {
        if !directory.starts_with('/') {
            return Err(Error::invalid(format!("working directory {directory:?}: not an absolute path")));
        }
        process.set_cwd(PathBuf::from(directory));
    }
    process
        .set_capabilities(Some(sets))
        .set_env(Some(environment))
        .set_args(Some(options.command.clone()))
        .set_terminal(Some(options.terminal))
        .set_console_size(None);
    Ok(process)
}

/// Sets a variable in an environment in which each stands once.
fn merge(
    environment: &mut Vec<String>,
    entry: &EnvironmentEntry,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<()> {
    let (name, value) = match entry {
        EnvironmentEntry::Set { name, value } => (name, value.clone()),
        EnvironmentEntry::Pass { name } => match variable(name) {
            Some(value) => match value.into_string() {
                Ok(value) => (name, value),
                Err(_) => return Err(Error::invalid(format!("environment: the value of {name} is not UTF-8"))),
            },
            None => return Ok(()),
        },
    };
    environment.retain(|other| other.split_once('=').is_none_or(|(other, _)| other != name));
    environment.push(format!("{name}={value}"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> Spec {
        serde_json::from_str(
            r#"{"ociVersion": "1.2.0", "process": {"cwd": "/w", "args": ["sleep"], "env": ["A=1", "B=2"],
                "user": {"uid": 0, "gid": 0},
                "capabilities": {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}}}"#,
        )
        .unwrap()
    }

    fn options() -> ExecOptions {
        ExecOptions { command: vec!["true".to_owned()], ..ExecOptions::default() }
    }

    #[test]
    fn it_is_the_containers_process_with_changes() {
        let nobody = |_: &UserSpec| -> Result<Identity> { panic!("no user was asked for") };
        let options = ExecOptions {
            environment: vec!["B=3".parse().unwrap(), "C".parse().unwrap(), "D".parse().unwrap()],
            terminal: true,
            ..options()
        };
        let variable = |name: &str| (name == "C").then(|| OsString::from("4"));
        let process = process(&container(), &options, &nobody, &variable).unwrap();
        assert_eq!(process.env().clone().unwrap(), ["A=1", "TERM=xterm", "B=3", "C=4"]);
        assert_eq!((process.cwd().to_str(), process.terminal()), (Some("/w"), Some(true)));
        assert_eq!(process.args().clone().unwrap(), ["true"]);
    }

    #[test]
    fn another_user_has_no_capability_in_force() {
        let user = ExecOptions { user: Some("7:8".parse().unwrap()), ..options() };
        let find = |_: &UserSpec| Ok(Identity { uid: 7, gid: 8, groups: vec![8, 9], home: None });
        let process = process(&container(), &user, &find, &|_| None).unwrap();
        let sets = process.capabilities().clone().unwrap();
        assert_eq!(sets.bounding().clone().unwrap().len(), 1);
        assert!(sets.effective().clone().unwrap().is_empty());
        assert_eq!((process.user().uid(), process.user().gid()), (7, 8));
        assert_eq!(process.user().additional_gids().clone().unwrap(), [8, 9]);
        let homes = |takes_home| {
            let process = super::process(&container(), &ExecOptions { takes_home, ..user.clone() }, &find, &|_| None);
            let env = process.unwrap().env().clone().unwrap();
            env.into_iter().filter(|entry| entry.starts_with("HOME=")).collect::<Vec<_>>()
        };
        assert_eq!((homes(true), homes(false)), (vec!["HOME=/".to_owned()], vec![]));
    }
}
