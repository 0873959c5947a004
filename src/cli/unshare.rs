//! `husk unshare [COMMAND…]`.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use clap::Parser;

use super::status::Status;
use crate::engine::engine::{Engine, SINGLE_ID, UNSHARED};
use crate::engine::{settings, userns};
use crate::error::{Context, Error, Kind, Result};
use crate::network::rootless;
use crate::sys::process::{CStringArray, execve};

/// Run a command in the user namespace of your containers
///
/// Inside, you are root over the files that your containers have made, whatever their owners are. Without a command, a
/// shell is started.
///
/// With --rootless-netns the command is also in the network namespace that your networks are in, and has the way out that
/// containers have.
#[derive(Debug, Parser)]
#[command(name = "husk unshare", override_usage = "husk unshare [--rootless-netns] [COMMAND [ARG…]]")]
pub(super) struct Unshare {
    /// Join the network namespace of your networks
    #[arg(long)]
    rootless_netns: bool,
    /// Command and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Runs the command.
pub(super) fn run(args: Unshare, tell: &dyn Fn(&str)) -> Result<Status> {
    let Unshare { rootless_netns, command } = args;
    let engine = Engine::open(settings::File::default())?;
    let Some(maps) = &engine.maps else {
        return Err(Error::invalid("unshare is for ordinary users: root's containers have no user namespace"));
    };
    for note in &engine.notes {
        tell(note);
    }
    let command = if command.is_empty() {
        vec![std::env::var("SHELL").unwrap_or_else(|_| "/bin/sh".to_owned())]
    } else {
        command
    };
    // User 0 inside is the user: what it calls finds the user's store and not the machine's.
    let (data_root, run_root) = (&engine.settings.data_root, &engine.settings.run_root);
    let variables: [(&str, &OsStr); 3] = [
        ("HUSK_DATA_ROOT", data_root.as_os_str()),
        ("HUSK_RUN_ROOT", run_root.as_os_str()),
        (UNSHARED, OsStr::new(if maps.is_single() { SINGLE_ID } else { "range" })),
    ];
    let exit = if rootless_netns {
        let folder = engine.settings.run_root.join(rootless::FOLDER);
        let networks = rootless::ensure(&rootless::Config {
            folder: &folder,
            maps,
            reaches_host: false,
            home: engine.helpers_home(),
        })?;
        networks.hold()?;
        networks.run(|| exec(&command, &variables))?
    } else {
        userns::run_program(maps, || exec(&command, &variables))?
    };
    Ok(Status::Workload(exit.status()))
}

fn exec(command: &[String], variables: &[(&str, &OsStr)]) -> Result<Infallible> {
    let strings = command.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>()?;
    let inherited = std::env::vars_os().filter(|(name, _)| variables.iter().all(|(other, _)| name != other));
    let own = variables.iter().map(|(name, value)| (OsStr::new(name).to_owned(), (*value).to_owned()));
    let environment = inherited
        .chain(own)
        .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok());
    let envp = CStringArray::new(environment.collect());
    let name = command.first().map(String::as_str).unwrap_or_default();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<&OsStr> = if name.contains('/') {
        vec![OsStr::new("")]
    } else {
        path.as_bytes().split(|&byte| byte == b':').map(OsStr::from_bytes).collect()
    };
    let argv = CStringArray::new(strings);
    crate::sys::signal::reset_dispositions();
    let mut failure = None;
    for directory in directories {
        let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        let candidate = CString::new([directory.as_bytes(), slash, name.as_bytes()].concat())?;
        let Err(errno) = execve(&candidate, &argv, &envp);
        if errno != rustix::io::Errno::NOENT {
            return Err(errno).context(format!("exec {name}")).map_err(|error| error.with_kind(Kind::NotExecutable));
        }
        failure = Some(errno);
    }
    let errno = failure.unwrap_or(rustix::io::Errno::NOENT);
    Err(Error::from(errno).context(format!("exec {name}")).with_kind(Kind::ExecutableNotFound))
}
