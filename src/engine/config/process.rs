//! The process: what runs, as whom, with which environment and rights.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::{BoxBuilder, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitBuilder, Process, User};

use super::{Capabilities, ImageConfig, Input, RunOptions, defaults};
use crate::engine::options::environment::{EnvironmentEntry, expand};
use crate::error::{Error, Kind, Result};

pub(super) fn build(input: &Input<'_>, hostname: &str) -> Result<Process> {
    let options = input.options;
    let mut process = Process::default();
    process
        .set_terminal(Some(options.terminal))
        .set_console_size(options.console_size.filter(|_| options.terminal).map(|(rows, columns)| {
            let size = BoxBuilder::default().height(rows).width(columns);
            size.build().expect("both fields are set")
        }))
        .set_args(Some(arguments(input.image, options)?))
        .set_env(Some(environment(input, hostname)?))
        .set_cwd(working_directory(input.image, options)?)
        .set_user(user(input)?)
        .set_capabilities(Some(capability_sets(capabilities(options)?, input.identity.uid)))
        .set_rlimits(rlimits(options)?)
        .set_no_new_privileges(Some(options.security.no_new_privileges))
        .set_apparmor_profile(apparmor(options))
        .set_oom_score_adj(options.oom_score_adj);
    Ok(process)
}

/// `unconfined` is what a container without a profile is; a privileged one says so, as its host may give one to all.
fn apparmor(options: &RunOptions) -> Option<String> {
    let named = options.security.apparmor.clone();
    named.or_else(|| options.privileged.then(|| "unconfined".to_owned())).filter(|profile| profile != "unconfined")
}

/// Gives what is executed: the command, behind an init where that is a program of its own.
fn arguments(image: &ImageConfig, options: &RunOptions) -> Result<Vec<String>> {
    let mut command = command(image, options)?;
    if options.init && options.init_path.is_some() {
        command.splice(..0, [defaults::INIT_PATH.to_owned(), "--".to_owned()]);
    }
    Ok(command)
}

/// Puts entry point and arguments together as docker does: who replaces the entry point drops the image's arguments.
pub fn command(image: &ImageConfig, options: &RunOptions) -> Result<Vec<String>> {
    let entrypoint = options.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let arguments =
        if options.command.is_empty() && options.entrypoint.is_none() { &image.cmd } else { &options.command };
    let command: Vec<String> = entrypoint.iter().chain(arguments).cloned().collect();
    match command.first() {
        None => Err(Error::invalid("no command specified").with_hint("the image names none: give one after the image")),
        Some(first) if first.is_empty() => Err(Error::new(Kind::ExecutableNotFound, "the command's name is empty")),
        Some(_) => Ok(command),
    }
}

/// The variables that tell programs of proxies; podman passes them on, and docker those of its own configuration.
const PROXY_VARIABLES: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
];

/// Gives the environment: the defaults, over them the image's, over them the user's. A name stands once.
fn environment(input: &Input<'_>, hostname: &str) -> Result<Vec<String>> {
    let asked = &input.options.environment;
    let mut environment = Environment(vec![defaults::PATH.to_owned(), format!("HOSTNAME={hostname}")]);
    if input.options.terminal {
        environment.set(defaults::TERM.to_owned());
    }
    for entry in &input.image.env {
        // Without `=`, it would be looked up at the caller's by a later reader. (CVE-2026-57231)
        if entry.split_once('=').is_none_or(|(name, _)| name.is_empty()) || entry.contains('\0') {
            return Err(Error::invalid(format!("image config Env: {entry:?} is not NAME=value")));
        }
        if !asked.unsets_all {
            environment.set(entry.clone());
        }
    }
    asked.unset.iter().for_each(|name| environment.remove(name));
    let of_image = environment.0.clone();
    if !asked.lacks_proxies {
        for name in PROXY_VARIABLES {
            if let Some(value) = (input.variable)(OsStr::new(name)) {
                // A proxy is no reason to fail, however its name is written.
                environment.set(format!("{name}={}", value.to_string_lossy()));
            }
        }
    }
    if asked.takes_callers {
        for (name, value) in (input.variables)() {
            // What is no text cannot stand in the configuration, and was not asked for by name.
            if let (Some(name), Some(value)) = (name.to_str(), value.to_str()) {
                environment.set(format!("{name}={value}"));
            }
        }
    }
    for entry in &asked.entries {
        match entry {
            EnvironmentEntry::Set { name, value } => environment.set(format!("{name}={value}")),
            EnvironmentEntry::Pass { name } => match (input.variable)(OsStr::new(name)) {
                Some(value) => match value.to_str() {
                    Some(value) => environment.set(format!("{name}={value}")),
                    None => return Err(Error::invalid(format!("environment: the value of {name} is not UTF-8"))),
                },
                None => environment.remove(name),
            },
        }
    }
    for entry in &asked.merged {
        let EnvironmentEntry::Set { name, value } = entry else {
            return Err(Error::invalid(format!("env-merge {entry}: not NAME=VALUE")));
        };
        let find = |name: &str| of_image.iter().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='));
        let value = expand(value, |name| find(name).map(str::to_owned));
        environment.set(format!("{name}={value}"));
    }
    for entry in &input.edits.env {
        environment.set(entry.clone());
    }
    if environment.position("HOME").is_none() {
        environment.set(format!("HOME={}", input.identity.home.as_deref().unwrap_or("/")));
    }
    Ok(environment.0)
}

/// Says whether the environment has the `HOME` of the container's user, since nobody gives it another.
pub fn makes_home(image: &ImageConfig, options: &RunOptions) -> bool {
    let asked = &options.environment;
    let is_home = |entry: &EnvironmentEntry| match entry {
        EnvironmentEntry::Set { name, .. } | EnvironmentEntry::Pass { name } => name == "HOME",
    };
    !(asked.takes_callers
        || asked.entries.iter().chain(&asked.merged).any(is_home)
        || image.env.iter().any(|entry| entry.starts_with("HOME=")))
}

struct Environment(Vec<String>);

impl Environment {
    fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|entry| entry.split('=').next() == Some(name))
    }

    fn set(&mut self, entry: String) {
        match self.position(entry.split('=').next().unwrap_or_default()) {
            Some(position) => self.0[position] = entry,
            None => self.0.push(entry),
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(position) = self.position(name) {
            self.0.remove(position);
        }
    }
}

/// Takes the working directory from `-w`, else the image. It is resolved inside the container, by the runtime, which
/// makes it where it is missing and refuses one that leads outside. (CVE-2024-21626)
fn working_directory(image: &ImageConfig, options: &RunOptions) -> Result<PathBuf> {
    let asked = options.working_directory.as_deref().filter(|path| !path.is_empty());
    if let Some(path) = asked {
        if !path.starts_with('/') {
            return Err(Error::invalid(format!("working directory {path:?} is not an absolute path")));
        }
        return Ok(path.into());
    }
    match image.working_dir.as_str() {
        "" => Ok(defaults::WORKING_DIRECTORY.into()),
        // Docker's builder makes it absolute, others forget to.
        path if !path.starts_with('/') => Ok(format!("/{path}").into()),
        path => Ok(path.into()),
    }
}

fn user(input: &Input<'_>) -> Result<User> {
    let identity = input.identity;
    let mut groups = identity.groups.clone();
    groups.extend(input.edits.groups.iter().filter(|group| !identity.groups.contains(group)));
    if let Some(namespace) = input.user_namespace {
        for (what, id, is_mapped) in [
            ("user", identity.uid, namespace.maps.uid_outside(identity.uid).is_some()),
            ("group", identity.gid, namespace.maps.gid_outside(identity.gid).is_some()),
        ] {
            if !is_mapped {
                let message = format!("{what} {id} does not exist in the container's user namespace");
                return Err(Error::invalid(message)
                    .with_hint("give this user a range of ids in /etc/subuid and /etc/subgid, or run as user 0"));
            }
        }
        // What is not mapped cannot be joined; an image's root is in a dozen groups, and needs none of them.
        groups.retain(|group| namespace.allows_setgroups && namespace.maps.gid_outside(*group).is_some());
    }
    let mut user = User::default();
    user.set_uid(identity.uid)
        .set_gid(identity.gid)
        .set_umask(Some(input.options.umask.unwrap_or(defaults::UMASK)))
        .set_additional_gids((!groups.is_empty()).then_some(groups));
    Ok(user)
}

/// Gives the bounding set: the defaults, without what is dropped, with what is added; `ALL` stands for all, and so does
/// `--privileged`.
pub fn capabilities(options: &RunOptions) -> Result<Capabilities> {
    if options.privileged && options.dropped_capabilities.is_empty() {
        parse_capabilities("cap-add", &options.added_capabilities)?;
        return Ok(defaults::ALL_CAPABILITIES.iter().copied().collect());
    }
    let added = match parse_capabilities("cap-add", &options.added_capabilities)? {
        _ if options.privileged => Asked::All,
        added => added,
    };
    let dropped = parse_capabilities("cap-drop", &options.dropped_capabilities)?;
    // As docker: one that is both dropped and added by name is there; after ALL, what is dropped by name is not.
    Ok(match (added, dropped) {
        (Asked::All, Asked::All) => Capabilities::new(),
        (Asked::All, Asked::Some(dropped)) => {
            defaults::ALL_CAPABILITIES.iter().filter(|one| !dropped.contains(one)).copied().collect()
        }
        (Asked::Some(added), Asked::All) => added,
        (Asked::Some(added), Asked::Some(dropped)) => {
            let kept = defaults::CAPABILITIES.iter().filter(|one| !dropped.contains(one));
            kept.copied().chain(added).collect()
        }
    })
}

enum Asked {
    All,
    Some(Capabilities),
}

fn parse_capabilities(flag: &str, names: &[String]) -> Result<Asked> {
    let mut set = Capabilities::new();
    let mut has_all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if bare == "ALL" {
            has_all = true;
            continue;
        }
        match Capability::from_str(bare) {
            Ok(capability) => set.insert(capability),
            Err(_) => return Err(Error::invalid(format!("{flag} {name:?}: unknown capability"))),
        };
    }
    Ok(if has_all { Asked::All } else { Asked::Some(set) })
}

/// Nothing is inheritable or ambient (CVE-2022-24769); who is not user 0 has none in force, and may still gain them by a
/// set-id program.
pub fn capability_sets(bounding: Capabilities, uid: u32) -> LinuxCapabilities {
    let in_force = if uid == 0 { bounding.clone() } else { Capabilities::new() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding))
        .set_effective(Some(in_force.clone()))
        .set_permitted(Some(in_force))
        .set_inheritable(Some(Capabilities::new()))
        .set_ambient(Some(Capabilities::new()));
    sets
}

fn rlimits(options: &RunOptions) -> Result<Option<Vec<PosixRlimit>>> {
    let mut limits: Vec<PosixRlimit> = Vec::with_capacity(options.ulimits.len());
    for ulimit in &options.ulimits {
        if limits.iter().any(|limit| limit.typ() == ulimit.kind) {
            return Err(Error::invalid(format!("ulimit {} is given twice", ulimit.kind)));
        }
        let limit = PosixRlimitBuilder::default().typ(ulimit.kind).soft(ulimit.soft).hard(ulimit.hard);
        limits.push(limit.build().expect("all fields are set"));
    }
    Ok((!limits.is_empty()).then_some(limits))
}
